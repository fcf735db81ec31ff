//! All kinds of damage.

use std::fs::{File, FileTimes};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use layerstore::ContainerOptions;
use layerstore_schema::header::{HEADER_KEY, Header};
use layerstore_schema::record::{
    Action, BlobRecord, ContainerRecord, DiffRecord, ImageRecord, JournalRecord, KeptBlobRecord,
    LayerContent, LayerRecord, LeaseRecord, Record, Time,
};
use layerstore_schema::table::{self, Owner, usage};
use redb::ReadableTable;

use super::Needs::{Blobs, Force, Nothing, Somebody, Source};
use super::{Case, Fixture, load, overwrite, quietly};
use crate::support::oci::{Image, Layer};
use crate::support::tar::Member;

const fn case(
    name: &'static str,
    needs: super::Needs,
    codes: &'static [&'static str],
    make: fn(&Fixture),
) -> Case {
    Case { name, make, codes, needs }
}

// The key is made before the transaction is: a second one would wait for ever. `match` keeps what it borrows.

/// Leaves one byte of what stands in a row.
macro_rules! cut {
    ($fixture:expr, $table:expr, $key:expr) => {
        match $key {
            key => $fixture.edit(|txn| {
                let mut rows = txn.open_table($table).unwrap();
                let value = rows.get(key).unwrap().unwrap().value().to_owned();
                rows.insert(key, &value[..1]).unwrap();
            }),
        }
    };
}

macro_rules! remove {
    ($fixture:expr, $table:expr, $key:expr) => {
        match $key {
            key => {
                $fixture.edit(|txn| assert!(txn.open_table($table).unwrap().remove(key).unwrap().is_some()))
            }
        }
    };
}

macro_rules! insert {
    ($fixture:expr, $table:expr, $key:expr, $value:expr) => {
        match ($key, $value) {
            (key, value) => {
                $fixture.edit(|txn| drop(txn.open_table($table).unwrap().insert(key, value).unwrap()))
            }
        }
    };
}

/// An image with the large file of the base in it, without its blob.
fn load_equal_file(fixture: &Fixture) {
    let other = Image::new([Layer::new([Member::file("copy", vec![7; 600_000])])]);
    load(&fixture.dir, &fixture.store, &other, "other");
    fixture.store.drop_blobs(None).unwrap();
}

fn in_base(fixture: &Fixture, path: &str, change: impl FnOnce(&Path)) {
    quietly(&fixture.base().join(path), change);
}

fn damaged_item(fixture: &Fixture) -> String {
    let id = fixture.container.id.to_string();
    fixture.store.write(|txn| txn.put_item(&fixture.container, "spec", b"{\"a\": \"spec\"}")).unwrap();
    id
}

fn image_id(fixture: &Fixture) -> String {
    fixture.image.id.to_string()
}

fn config_key(fixture: &Fixture) -> String {
    format!("sha256:{}", fixture.image.id)
}

fn a_digest(fixture: &Fixture) -> String {
    fixture.image.digests[0].to_string()
}

fn writable(fixture: &Fixture) -> std::path::PathBuf {
    let LayerContent::Writable(number) = fixture.layer_record(fixture.container.layer.as_str()).content
    else {
        panic!()
    };
    fixture.dir.root().join("diffs").join(number.to_string())
}

fn diff_id(fixture: &Fixture) -> String {
    fixture.layer_record(&fixture.base_layer()).diff_id.unwrap()
}

fn split(fixture: &Fixture) -> [u8; 32] {
    fixture.layer_record(&fixture.base_layer()).split.unwrap()
}

fn kept(fixture: &Fixture) -> String {
    fixture.layer_record(&fixture.base_layer()).blobs[0].digest.clone()
}

fn kept_file(fixture: &Fixture) -> std::path::PathBuf {
    let mut number = 0;
    fixture
        .edit_record(table::KEPT_BLOBS, &kept(fixture), |record: &mut KeptBlobRecord| number = record.number);
    fixture.dir.root().join("blobs").join(number.to_string())
}

/// Every kind of damage, each as small as it can be.
pub const CASES: &[Case] = &[
    // Rows that follow from others.
    case("a name without its row", Nothing, &["index-row-missing"], |f| {
        remove!(f, table::NAMES, (Owner::Image.code(), "demo"));
    }),
    case("a row for a name that nothing has", Nothing, &["index-row-extra"], |f| {
        insert!(f, table::NAMES, (Owner::Image.code(), "nobody"), image_id(f).as_str());
    }),
    case("a name of an unknown kind", Nothing, &["index-row-extra"], |f| {
        insert!(f, table::NAMES, (9, "nobody"), "nothing");
    }),
    case("a child without its row", Nothing, &["index-row-missing"], |f| {
        remove!(f, table::CHILDREN, (f.base_layer().as_str(), f.top_layer().as_str()));
    }),
    case("a child of nobody", Nothing, &["index-row-extra"], |f| {
        insert!(f, table::CHILDREN, ("nobody", "nothing"), ());
    }),
    case("a layer not found by its diffID", Nothing, &["index-row-missing"], |f| {
        remove!(f, table::LAYERS_BY_DIGEST, (2, diff_id(f).as_str(), f.base_layer().as_str()));
    }),
    case("a layer found by another diffID", Nothing, &["index-row-extra"], |f| {
        insert!(f, table::LAYERS_BY_DIGEST, (2, "sha256:00", f.base_layer().as_str()), ());
    }),
    case("a layer found by an unknown kind of digest", Nothing, &["index-row-extra"], |f| {
        insert!(f, table::LAYERS_BY_DIGEST, (3, "sha256:00", f.base_layer().as_str()), ());
    }),
    case("an image not found by its digest", Nothing, &["index-row-missing"], |f| {
        remove!(f, table::IMAGES_BY_DIGEST, (a_digest(f).as_str(), image_id(f).as_str()));
    }),
    case("an image not found by its layer", Nothing, &["index-row-missing"], |f| {
        remove!(f, table::IMAGES_BY_LAYER, (f.top_layer().as_str(), image_id(f).as_str()));
    }),
    case("a container not found by its image", Nothing, &["index-row-missing"], |f| {
        remove!(f, table::CONTAINERS_BY_IMAGE, (image_id(f).as_str(), f.container.id.as_str()));
    }),
    case("a container not found by its layer", Nothing, &["index-row-missing"], |f| {
        remove!(f, table::CONTAINERS_BY_LAYER, f.container.layer.as_str());
    }),
    case("a wrong sum", Nothing, &["usage-wrong"], |f| insert!(f, table::USAGE, usage::DIFF_INODES, 7)),
    case("a missing sum", Nothing, &["usage-wrong"], |f| remove!(f, table::USAGE, usage::KEPT_BLOB_BYTES)),
    case("an unknown sum", Nothing, &["usage-wrong"], |f| insert!(f, table::USAGE, "sins", 7)),
    case("a wrong count of users", Nothing, &["blob-users-wrong"], |f| {
        f.edit_blob(&f.manifest_hash(), |blob| blob.users += 1);
    }),
    case("bytes that nothing uses", Nothing, &["blob-users-wrong", "usage-wrong"], |f| {
        let record = BlobRecord { number: 1 << 40, size: 1, stored: 1, compressed: false, users: 1 };
        insert!(f, table::BLOBS, blake3::hash(b"x").as_bytes(), record.encode().unwrap().as_slice());
        insert!(f, table::BLOB_CHUNKS, (1 << 40, 0), b"x".as_slice());
    }),
    case("chunks of no bytes", Nothing, &["blob-chunks-wrong"], |f| {
        insert!(f, table::BLOB_CHUNKS, (1 << 40, 0), b"x".as_slice());
    }),
    case(
        "a directory's row that no layer has",
        Nothing,
        &["blob-users-wrong", "directory-missing", "tree-unused", "usage-wrong"],
        |f| {
            let record = DiffRecord {
                number: 77,
                content_bytes: 1,
                disk_bytes: 1,
                inodes: 1,
                manifest: f.manifest_hash(),
            };
            insert!(f, table::DIFFS, &[7; 32], record.encode().unwrap().as_slice());
        },
    ),
    case(
        "a kept blob that no layer came from",
        Nothing,
        &["kept-blob-missing", "kept-blob-unused", "usage-wrong"],
        |f| {
            let record = KeptBlobRecord { number: 77, size: 1 };
            insert!(f, table::KEPT_BLOBS, "sha256:00", record.encode().unwrap().as_slice());
        },
    ),
    case("a data item of nothing", Nothing, &["item-unowned"], |f| {
        let id = damaged_item(f);
        f.edit(|txn| {
            let mut items = txn.open_table(table::ITEMS).unwrap();
            let key = (Owner::Container.code(), id.as_str(), "spec");
            let row = items.remove(key).unwrap().unwrap().value().to_owned();
            items.insert((Owner::Container.code(), "gone", "spec"), row.as_slice()).unwrap();
        });
    }),
    case("a lease on nothing", Nothing, &["lease-dangling"], |f| {
        let record = LeaseRecord {
            id: "lease".to_owned(),
            things: vec![(Owner::Image.code(), "gone".to_owned())],
            created: Time::default(),
            expires: Time::default(),
        };
        insert!(f, table::LEASES, "lease", record.encode().unwrap().as_slice());
    }),
    case("the record of a lease", Nothing, &["record-damaged"], |f| {
        insert!(f, table::LEASES, "lease", b"x".as_slice());
    }),
    case("a row of the journal", Nothing, &["journal-damaged"], |f| {
        insert!(f, table::JOURNAL, 1, b"x".as_slice());
    }),
    case("another UUID in the header", Nothing, &["header-wrong"], |f| {
        f.edit(|txn| {
            let mut meta = txn.open_table(table::META).unwrap();
            let header = Header::decode(meta.get(HEADER_KEY).unwrap().unwrap().value()).unwrap();
            let header = Header { uuid: [7; 16], ..header };
            meta.insert(HEADER_KEY, header.encode().as_slice()).unwrap();
        });
    }),
    case("a note that nothing is not synced", Nothing, &["unsynced-unused"], |f| {
        insert!(f, table::UNSYNCED, 7, "11111111-1111-4111-8111-111111111111");
    }),
    case("an image of a layer that is none", Nothing, &["composefs-changed"], |f| {
        let layer = f.base();
        std::fs::create_dir_all(f.dir.root().join("composefs").join(layer.file_name().unwrap())).unwrap();
    }),
    case("the record of a mount", Nothing, &["mount-record-damaged"], |f| {
        // Opens the run root.
        drop(f.store.status().unwrap());
        let files = std::fs::read_dir(f.dir.run_root()).unwrap().map(|entry| entry.unwrap().path());
        let run = files.into_iter().find(|path| path.extension().is_some_and(|end| end == "redb")).unwrap();
        let file =
            redb::Builder::new().set_concurrency_mode(redb::ConcurrencyMode::MultiWriter).open(run).unwrap();
        let txn = file.begin_write().unwrap();
        txn.open_table(table::MOUNTS).unwrap().insert(("layer", 7), b"x".as_slice()).unwrap();
        txn.commit().unwrap();
    }),
    case("a name that two containers have", Nothing, &["name-shared"], |f| {
        let other = f.store.create_container(None, &ContainerOptions::default()).unwrap();
        f.edit_record(table::CONTAINERS, other.id.as_str(), |container: &mut ContainerRecord| {
            container.names.push("web".to_owned());
        });
    }),
    // Records.
    case("the record of the lower layer", Blobs, &["record-damaged"], |f| {
        cut!(f, table::LAYERS, f.base_layer().as_str());
    }),
    case("the record of the upper layer", Blobs, &["record-damaged"], |f| {
        cut!(f, table::LAYERS, f.top_layer().as_str());
    }),
    case("the record of another layer", Blobs, &["record-damaged"], |f| {
        let base = f.base_layer();
        f.edit_record(table::LAYERS, &f.top_layer(), |layer: &mut LayerRecord| layer.id = base);
    }),
    case("a row of the journal about a path", Nothing, &["journal-damaged"], |f| {
        let (time, action, owner) = (Time::default(), Action::Removed, Owner::Layer.code());
        let record =
            JournalRecord { time, action, owner, id: "../x".to_owned(), names: Vec::new(), aspects: 0 };
        insert!(f, table::JOURNAL, 1, record.encode().unwrap().as_slice());
    }),
    case(
        "no record of either layer",
        Blobs,
        &[
            "blob-users-wrong",
            "image-layer-missing",
            "index-row-extra",
            "kept-blob-unused",
            "parent-missing",
            "tree-unused",
        ],
        |f| {
            remove!(f, table::LAYERS, f.base_layer().as_str());
            remove!(f, table::LAYERS, f.top_layer().as_str());
        },
    ),
    case("a wrong parent", Blobs, &["index-row-extra", "index-row-missing", "parent-missing"], |f| {
        f.edit_record(table::LAYERS, &f.top_layer(), |layer: &mut LayerRecord| {
            layer.parent = Some("gone".to_owned());
        });
    }),
    case("a circle of parents", Blobs, &["index-row-missing", "parent-cycle"], |f| {
        f.edit_record(table::LAYERS, &f.base_layer(), |layer: &mut LayerRecord| {
            layer.parent = Some(f.top_layer());
        });
    }),
    case("the record of a container's layer", Force, &["record-damaged"], |f| {
        cut!(f, table::LAYERS, f.container.layer.as_str());
    }),
    case("the record of an image", Nothing, &["record-damaged"], |f| {
        cut!(f, table::IMAGES, image_id(f).as_str());
    }),
    case(
        "no record of an image",
        Nothing,
        &["container-image-missing", "index-row-extra", "item-unowned"],
        |f| remove!(f, table::IMAGES, image_id(f).as_str()),
    ),
    case(
        "a wrong top layer",
        Nothing,
        &["image-layer-missing", "index-row-extra", "index-row-missing"],
        |f| {
            f.edit_record(table::IMAGES, image_id(f).as_str(), |image: &mut ImageRecord| {
                image.top_layer = Some("gone".to_owned());
            });
        },
    ),
    case("the record of a container", Nothing, &["record-damaged"], |f| {
        cut!(f, table::CONTAINERS, f.container.id.as_str());
    }),
    case(
        "a container of no image",
        Nothing,
        &["container-image-missing", "index-row-extra", "index-row-missing"],
        |f| {
            f.edit_record(table::CONTAINERS, f.container.id.as_str(), |container: &mut ContainerRecord| {
                container.image = Some("gone".to_owned());
            });
        },
    ),
    case(
        "a container of no layer",
        Nothing,
        &["container-layer-missing", "index-row-extra", "index-row-missing"],
        |f| {
            f.edit_record(table::CONTAINERS, f.container.id.as_str(), |container: &mut ContainerRecord| {
                container.layer = "gone".to_owned();
            });
        },
    ),
    case("two containers of one layer", Nothing, &["container-layer-shared", "index-row-extra"], |f| {
        let other = f.store.create_container(None, &ContainerOptions::default()).unwrap();
        f.edit_record(table::CONTAINERS, other.id.as_str(), |container: &mut ContainerRecord| {
            container.layer = f.container.layer.to_string();
        });
    }),
    case("two containers of one layer, whatever else they had", Force, &["container-layer-shared"], |f| {
        let other = f.store.create_container(None, &ContainerOptions::named("other")).unwrap();
        let own = other.layer.to_string();
        f.edit_record(table::CONTAINERS, other.id.as_str(), |container: &mut ContainerRecord| {
            container.layer = f.container.layer.to_string();
        });
        remove!(f, table::CONTAINERS_BY_LAYER, own.as_str());
    }),
    case("the row of a directory", Nothing, &["record-damaged"], |f| {
        let LayerContent::Sealed(tree) = f.layer_record(&f.base_layer()).content else { panic!() };
        cut!(f, table::DIFFS, &tree);
    }),
    case(
        "no row of a directory",
        Nothing,
        &["blob-users-wrong", "tree-missing", "unsynced-unused", "usage-wrong"],
        |f| {
            let LayerContent::Sealed(tree) = f.layer_record(&f.base_layer()).content else { panic!() };
            remove!(f, table::DIFFS, &tree);
        },
    ),
    case("the record of a kept blob", Nothing, &["record-damaged"], |f| {
        cut!(f, table::KEPT_BLOBS, kept(f).as_str());
    }),
    case("the record of an image's manifest", Nothing, &["record-damaged"], |f| {
        cut!(f, table::ITEMS, (Owner::Image.code(), image_id(f).as_str(), "manifest"));
    }),
    case("no record of an image's config", Source, &["blob-users-wrong", "document-missing"], |f| {
        remove!(f, table::ITEMS, (Owner::Image.code(), image_id(f).as_str(), config_key(f).as_str()));
    }),
    case("the record of a container's item", Force, &["record-damaged"], |f| {
        cut!(f, table::ITEMS, (Owner::Container.code(), damaged_item(f).as_str(), "spec"));
    }),
    case("the record of a manifest's bytes", Nothing, &["manifest-damaged", "record-damaged"], |f| {
        cut!(f, table::BLOBS, &f.manifest_hash());
    }),
    // Bytes in the database.
    case("the bytes of an image's config", Source, &["blob-damaged"], |f| {
        f.flip(&f.item_hash(Owner::Image, &image_id(f), &config_key(f)));
    }),
    case("the bytes of a container's item", Force, &["blob-damaged"], |f| {
        let id = damaged_item(f);
        f.flip(&f.item_hash(Owner::Container, &id, "spec"));
    }),
    case("the bytes of a manifest", Nothing, &["blob-damaged", "manifest-damaged"], |f| {
        f.flip(&f.manifest_hash());
    }),
    case(
        "a manifest that is said to be longer than any",
        Nothing,
        &["blob-damaged", "manifest-damaged"],
        |f| {
            f.edit_blob(&f.manifest_hash(), |blob| blob.size = u64::MAX);
        },
    ),
    case("no bytes of a manifest", Nothing, &["blob-chunks-wrong", "blob-missing", "usage-wrong"], |f| {
        remove!(f, table::BLOBS, &f.manifest_hash());
    }),
    case("the bytes of a tar-split", Blobs, &["blob-damaged", "split-damaged"], |f| f.flip(&split(f))),
    case("no chunk of a tar-split", Blobs, &["blob-chunks-wrong", "blob-damaged", "split-damaged"], |f| {
        let mut number = 0;
        f.edit_blob(&split(f), |blob| number = blob.number);
        remove!(f, table::BLOB_CHUNKS, (number, 0));
    }),
    case("another layer's tar-split", Blobs, &["blob-users-wrong", "split-damaged"], |f| {
        let other = split(f);
        f.edit_record(table::LAYERS, &f.top_layer(), |layer: &mut LayerRecord| layer.split = Some(other));
    }),
    case("a wrong diffID", Blobs, &["diff-id-wrong", "index-row-extra", "index-row-missing"], |f| {
        f.edit_record(table::LAYERS, &f.top_layer(), |layer: &mut LayerRecord| {
            layer.diff_id = Some(format!("sha256:{}", "0".repeat(64)));
        });
    }),
    case("a wrong size of an item", Nothing, &["item-damaged"], |f| {
        let id = damaged_item(f);
        f.edit_item(Owner::Container, &id, "spec", |item| item.size += 1);
    }),
    case("a wrong digest of an item", Nothing, &["item-damaged"], |f| {
        let id = damaged_item(f);
        f.edit_item(Owner::Container, &id, "spec", |item| item.digest = format!("sha256:{}", "0".repeat(64)));
    }),
    // Files of kept blobs.
    case("a kept blob", Nothing, &["kept-blob-damaged"], |f| {
        let mut bytes = std::fs::read(kept_file(f)).unwrap();
        bytes[20] ^= 1;
        std::fs::write(kept_file(f), bytes).unwrap();
    }),
    case("a wrong size of a kept blob", Nothing, &["kept-blob-damaged", "usage-wrong"], |f| {
        f.edit_record(table::KEPT_BLOBS, &kept(f), |record: &mut KeptBlobRecord| record.size += 1);
    }),
    case("the end of a kept blob", Nothing, &["kept-blob-damaged"], |f| {
        let bytes = std::fs::read(kept_file(f)).unwrap();
        std::fs::write(kept_file(f), &bytes[1..]).unwrap();
    }),
    case("no kept blob", Nothing, &["kept-blob-missing"], |f| std::fs::remove_file(kept_file(f)).unwrap()),
    // Directories.
    case("no directory", Blobs, &["directory-missing"], |f| std::fs::remove_dir_all(f.base()).unwrap()),
    case("a file in place of a directory", Blobs, &["directory-unreadable"], |f| {
        let base = f.base();
        std::fs::remove_dir_all(&base).unwrap();
        std::fs::write(base, "a file").unwrap();
    }),
    case("no directory of a container", Force, &["directory-missing"], |f| {
        std::fs::remove_dir(writable(f)).unwrap();
    }),
    case(
        "one directory for two layers",
        Nothing,
        &["directory-shared", "path-changed", "path-extra", "path-missing", "unsynced-unused"],
        |f| {
            let mut number = 0;
            let LayerContent::Sealed(tree) = f.layer_record(&f.top_layer()).content else { panic!() };
            f.edit(|txn| {
                let rows = txn.open_table(table::DIFFS).unwrap();
                number = DiffRecord::decode(rows.get(&tree).unwrap().unwrap().value()).unwrap().number;
            });
            f.edit_diff(|diff| diff.number = number);
        },
    ),
    case("a layer of another program that is gone", Somebody, &["additional-missing"], |f| {
        let content = LayerContent::Additional(b"/no/such/store/layer".to_vec());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let now = Time { seconds: now.as_secs().cast_signed(), nanoseconds: 0 };
        let record = LayerRecord::new("served", now, content);
        insert!(f, table::LAYERS, "served", record.encode().unwrap().as_slice());
    }),
    case("a root that others can enter", Nothing, &["root-open"], |f| {
        std::fs::set_permissions(f.dir.root(), PermissionsExt::from_mode(0o755)).unwrap();
    }),
    case("a run root that others can enter", Nothing, &["root-open"], |f| {
        std::fs::set_permissions(f.dir.run_root(), PermissionsExt::from_mode(0o711)).unwrap();
    }),
    case("something that is not the store's", Somebody, &["stray"], |f| {
        f.dir.write("root/diffs/notes.txt", "not ours");
    }),
    case("something that is not the store's, in its root", Somebody, &["stray"], |f| {
        f.dir.write("root/xyz", "not ours");
    }),
    case("a store of containers-storage in the same root", Somebody, &["neighbour"], |f| {
        f.dir.write("root/overlay-layers/layers.json", "[]");
    }),
    // Paths.
    case("a file's content and time", Blobs, &["content-changed", "path-changed"], |f| {
        overwrite(&f.base().join("large"));
    }),
    case("a file's content", Blobs, &["content-changed"], |f| {
        in_base(f, "etc/passwd", |path| std::fs::write(path, "ROOT:x:0:0\n").unwrap());
    }),
    case("a content that another layer has too", Nothing, &["content-changed"], |f| {
        load_equal_file(f);
        in_base(f, "large", |path| std::fs::write(path, vec![8; 600_000]).unwrap());
    }),
    case("a file's size", Blobs, &["path-changed"], |f| {
        in_base(f, "etc/passwd", |path| std::fs::write(path, "x").unwrap());
    }),
    case("a file's mode", Nothing, &["path-changed"], |f| {
        in_base(f, "etc/passwd", |path| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
        });
    }),
    case("a file's time", Nothing, &["path-changed"], |f| {
        let file = File::open(f.base().join("etc/passwd")).unwrap();
        file.set_times(FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH)).unwrap();
    }),
    case("a file's attributes", Nothing, &["path-changed"], |f| {
        rustix::fs::setxattr(f.base().join("etc/shadow"), "user.note", b"x", rustix::fs::XattrFlags::empty())
            .unwrap();
    }),
    case("a file's kind", Blobs, &["path-changed"], |f| {
        in_base(f, "etc/passwd", |path| {
            std::fs::remove_file(path).unwrap();
            symlink("shadow", path).unwrap();
        });
    }),
    case("a link's target", Nothing, &["path-changed"], |f| {
        in_base(f, "etc/link", |path| {
            std::fs::remove_file(path).unwrap();
            symlink("shadow", path).unwrap();
        });
    }),
    case("a hard link that is none", Nothing, &["path-changed"], |f| {
        in_base(f, "etc/twin", |path| {
            std::fs::remove_file(path).unwrap();
            std::fs::write(path, "secret\n").unwrap();
        });
    }),
    case("no pipe", Nothing, &["path-missing"], |f| {
        in_base(f, "pipe", |path| std::fs::remove_file(path).unwrap());
    }),
    case("no file", Blobs, &["path-missing"], |f| {
        in_base(f, "large", |path| std::fs::remove_file(path).unwrap());
    }),
    case("no directory for the caller", Nothing, &["data-missing"], |f| {
        f.store.image_directory(&f.image.id).unwrap();
        std::fs::remove_dir(f.store.container_directory(&f.container.id).unwrap()).unwrap();
    }),
    case("a path too many", Nothing, &["path-extra"], |f| {
        in_base(f, "etc/new", |path| std::fs::write(path, "x").unwrap());
    }),
    case("many paths too many", Nothing, &["more-paths", "path-changed", "path-extra"], |f| {
        for number in 0..150 {
            std::fs::write(f.base().join(format!("new-{number}")), "x").unwrap();
        }
    }),
    case("no whiteout", Nothing, &["path-missing"], |f| {
        let tool = "lib/deep/tool";
        let top = f.below("diffs").into_iter().find(|path| path.join(tool).exists()).unwrap();
        quietly(&top.join("etc/link"), |path| std::fs::remove_file(path).unwrap());
    }),
];
