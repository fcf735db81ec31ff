//! Everything that the schema encodes and decodes.

use std::fmt::Debug;

use layerstore_schema::header::{Access, FORMAT, HEADER_KEY, Header};
use layerstore_schema::manifest::{ContentHash, Entry, Kind, Manifest, Metadata, Timestamp};
use layerstore_schema::record::{
    Action, BlobRecord, ContainerRecord, DiffRecord, IdRange, ImageRecord, ItemRecord, JournalRecord,
    KeptBlobRecord, LayerBlob, LayerContent, LayerRecord, LeaseRecord, MountRecord, Record,
};
use layerstore_schema::table;
use redb::{ReadableDatabase, ReadableTable};

use super::fields::Fields;

/// Reads bytes as a record, a header or a manifest, by the first byte; and takes them for the fields of one.
///
/// - No bytes make a decoder panic, or take memory without end.
/// - A value that was decoded, or made of any fields, is encoded and decoded to the same value, and that gives
///   the same bytes again.
/// - A manifest and a header have one encoding: bytes that decode are what the value encodes to.
/// - A manifest's entries, in any order, make the same manifest.
/// - A header says by the rules of its flags what may be done with the store, and one of an older format is that of a
///   store which a migration makes current: with every table, the header but for its format, and the records as they were.
///
/// # Panics
///
/// If one of these does not hold.
pub fn fuzz_record(bytes: &[u8]) {
    let Some((&which, bytes)) = bytes.split_first() else { return };
    match which % 13 {
        0 => check(bytes, layer),
        1 => check(bytes, image),
        2 => check(bytes, container),
        3 => check(bytes, diff),
        4 => check(bytes, item),
        5 => check(bytes, blob),
        6 => check(bytes, |fields| KeptBlobRecord { number: fields.number(), size: fields.number() }),
        7 => check(bytes, journal),
        8 => check(bytes, mount),
        9 => check_header(bytes),
        10 => check_manifest_bytes(bytes),
        11 => check(bytes, lease),
        _ => check_manifest_entries(&mut Fields(bytes)),
    }
}

fn check<T: Record + PartialEq + Debug>(bytes: &[u8], make: impl Fn(&mut Fields<'_>) -> T) {
    if let Ok(record) = T::decode(bytes) {
        round_trip(&record);
    }
    round_trip(&make(&mut Fields(bytes)));
}

fn round_trip<T: Record + PartialEq + Debug>(record: &T) {
    let encoded = record.encode().unwrap_or_default();
    let decoded = T::decode(&encoded);
    assert!(decoded.as_ref() == Ok(record), "{record:?} came back as {decoded:?}");
    assert!(decoded.and_then(|again| again.encode()) == Ok(encoded), "another encoding of {record:?}");
}

fn check_header(bytes: &[u8]) {
    let Ok(header) = Header::decode(bytes) else { return };
    assert!(header.encode() == bytes, "another encoding of {header:?}");
    let access = header.access();
    // An unknown flag forbids what it forbids, whatever else the header has.
    let unknown = Header { incompatible: header.incompatible | 1 << 63, ..header }.access();
    assert!(unknown.is_err(), "{header:?} with an unknown flag: {unknown:?}");
    let only_read = Header { read_only_compatible: header.read_only_compatible | 1 << 63, ..header }.access();
    assert!(only_read != Ok(Access::ReadWrite), "{header:?} for reading only: {only_read:?}");
    let more = Header { compatible: !header.compatible, ..header }.access();
    assert!(more == access, "{header:?} with other flags that may be ignored: {more:?}");
    if let Ok(Access::Migrate(from)) = access {
        assert!(from < FORMAT);
        let migrated = migrate(header, bytes);
        assert!(migrated.is_ok(), "no migration of {header:?}: {:?}", migrated.err());
    }
}

/// A store of an older format with a record in it, made current.
fn migrate(header: Header, bytes: &[u8]) -> Result<(), redb::Error> {
    let database = redb::Database::builder().create_with_backend(redb::backends::InMemoryBackend::new())?;
    let record = item(&mut Fields(bytes));
    let encoded = record.encode().unwrap_or_default();
    let key = (1, "owner", "key");
    let txn = database.begin_write()?;
    txn.open_table(table::META)?.insert(HEADER_KEY, header.encode().as_slice())?;
    txn.open_table(table::ITEMS)?.insert(key, encoded.as_slice())?;
    let current = layerstore_schema::migration::migrate(&txn, header)?;
    txn.commit()?;

    assert!(current == Header { format: FORMAT, ..header }, "{header:?} became {current:?}");
    assert!(matches!(current.access(), Ok(Access::ReadWrite | Access::ReadOnly)), "{current:?}");
    let txn = database.begin_read()?;
    table::visit_all(&mut Tables(&txn))?;
    let stored = txn.open_table(table::META)?.get(HEADER_KEY)?.map(|row| Header::decode(row.value()));
    assert!(stored == Some(Ok(current)), "the header is {stored:?}");
    let kept = txn.open_table(table::ITEMS)?.get(key)?.map(|row| ItemRecord::decode(row.value()));
    assert!(kept == Some(Ok(record)), "a record became {kept:?}");
    Ok(())
}

/// Opens every table.
struct Tables<'a>(&'a redb::ReadTransaction);

impl table::TableVisitor for Tables<'_> {
    type Error = redb::Error;

    fn visit<K: redb::Key + 'static, V: redb::Value + 'static>(
        &mut self,
        table: redb::TableDefinition<'static, K, V>,
    ) -> Result<(), redb::Error> {
        self.0.open_table(table)?;
        Ok(())
    }
}

fn check_manifest_bytes(bytes: &[u8]) {
    let Ok(manifest) = Manifest::decode(bytes) else { return };
    assert!(manifest.encode() == bytes, "a manifest with two encodings");
    check_manifest(manifest);
}

fn check_manifest_entries(fields: &mut Fields<'_>) {
    let root =
        Entry { path: Vec::new(), kind: Kind::Directory { opaque: false }, metadata: metadata(fields) };
    let mut entries = vec![root];
    while !fields.0.is_empty() && entries.len() < 64 {
        entries.push(entry(fields));
    }
    if let Ok(manifest) = Manifest::new(entries) {
        check_manifest(manifest);
    }
}

fn check_manifest(manifest: Manifest) {
    let encoded = manifest.encode();
    assert!(Manifest::decode(&encoded).as_ref() == Ok(&manifest), "a manifest that does not come back");
    // A sum of sizes that nobody vouches for.
    let size = |entry: &Entry| if let Kind::File { size, .. } = entry.kind { size } else { 0 };
    assert!(manifest.entries().iter().all(|entry| manifest.content_bytes() >= size(entry)));
    for entry in manifest.entries() {
        assert!(manifest.get(&entry.path) == Some(entry));
    }
    let mut entries = manifest.clone().into_entries();
    entries.reverse();
    assert!(Manifest::new(entries) == Ok(manifest));
}

fn entry(fields: &mut Fields<'_>) -> Entry {
    let path = fields.bytes();
    let kind = match fields.byte() % 10 {
        0 => Kind::Directory { opaque: fields.byte() % 2 == 1 },
        1 => Kind::Symlink { target: fields.bytes() },
        2 => Kind::HardLink { target: fields.bytes() },
        3 => Kind::CharDevice { major: fields.half(), minor: fields.half() },
        4 => Kind::BlockDevice { major: fields.half(), minor: fields.half() },
        5 => Kind::Fifo,
        6 => Kind::Socket,
        7 => Kind::Whiteout,
        _ => Kind::File { size: fields.number(), content: ContentHash(fields.hash()) },
    };
    let bare = matches!(kind, Kind::HardLink { .. } | Kind::Whiteout);
    let metadata = if bare { Metadata::default() } else { metadata(fields) };
    Entry { path, kind, metadata }
}

fn metadata(fields: &mut Fields<'_>) -> Metadata {
    let low = |number: u32| u16::try_from(number % 0o10000).unwrap_or_default();
    let mut xattrs = fields.list(|fields| (fields.bytes(), fields.bytes()));
    xattrs.sort();
    Metadata {
        mode: low(fields.half()),
        uid: fields.half(),
        gid: fields.half(),
        mtime: Timestamp {
            seconds: fields.number().cast_signed(),
            nanoseconds: fields.half() % 1_000_000_000,
        },
        xattrs,
    }
}

fn layer(fields: &mut Fields<'_>) -> LayerRecord {
    LayerRecord {
        id: fields.text(),
        parent: fields.option(Fields::text),
        names: fields.list(Fields::text),
        metadata: fields.text(),
        created: fields.time(),
        content: match fields.byte() % 3 {
            0 => LayerContent::Sealed(fields.hash()),
            1 => LayerContent::Additional(fields.text().into_bytes()),
            _ => LayerContent::Writable(fields.number()),
        },
        diff_id: fields.option(Fields::text),
        diff_size: fields.option(Fields::number),
        blobs: fields.list(|fields| LayerBlob {
            digest: fields.text(),
            size: fields.number(),
            media_type: fields.text(),
        }),
        split: fields.option(Fields::hash),
        self_contained: fields.byte() % 2 == 1,
        flags: fields.list(Fields::pair),
        labels: fields.list(Fields::pair),
        compression: fields.option(Fields::text),
        toc_digest: fields.option(Fields::text),
        uids: fields.list(Fields::half),
        gids: fields.list(Fields::half),
        mount_label: fields.option(Fields::text),
        volatile: fields.byte() % 2 == 1,
        read_only: fields.byte() % 2 == 1,
        uid_map: fields.list(id_range),
        gid_map: fields.list(id_range),
    }
}

fn image(fields: &mut Fields<'_>) -> ImageRecord {
    ImageRecord {
        id: fields.text(),
        names: fields.list(Fields::text),
        names_history: fields.list(Fields::text),
        metadata: fields.text(),
        created: fields.time(),
        top_layer: fields.option(Fields::text),
        mapped_top_layers: fields.list(Fields::text),
        digests: fields.list(Fields::text),
        given_digests: fields.list(Fields::text),
        manifests: fields.list(Fields::pair),
        flags: fields.list(Fields::pair),
        labels: fields.list(Fields::pair),
        directory: fields.option(Fields::number),
    }
}

fn id_range(fields: &mut Fields<'_>) -> IdRange {
    IdRange { container: fields.half(), host: fields.half(), length: fields.half() }
}

fn container(fields: &mut Fields<'_>) -> ContainerRecord {
    ContainerRecord {
        id: fields.text(),
        names: fields.list(Fields::text),
        image: fields.option(Fields::text),
        layer: fields.text(),
        metadata: fields.text(),
        created: fields.time(),
        flags: fields.list(Fields::pair),
        labels: fields.list(Fields::pair),
        mount_options: fields.list(Fields::text),
        mount_label: fields.option(Fields::text),
        process_label: fields.option(Fields::text),
        volatile: fields.byte() % 2 == 1,
        uid_map: fields.list(id_range),
        gid_map: fields.list(id_range),
        directory: fields.option(Fields::number),
    }
}

fn diff(fields: &mut Fields<'_>) -> DiffRecord {
    DiffRecord {
        number: fields.number(),
        content_bytes: fields.number(),
        disk_bytes: fields.number(),
        inodes: fields.number(),
        manifest: fields.hash(),
    }
}

fn item(fields: &mut Fields<'_>) -> ItemRecord {
    ItemRecord { size: fields.number(), digest: fields.text(), blob: fields.hash() }
}

fn blob(fields: &mut Fields<'_>) -> BlobRecord {
    BlobRecord {
        number: fields.number(),
        size: fields.number(),
        stored: fields.number(),
        compressed: fields.byte() % 2 == 1,
        users: fields.number(),
    }
}

fn journal(fields: &mut Fields<'_>) -> JournalRecord {
    JournalRecord {
        time: fields.time(),
        action: match fields.byte() % 3 {
            0 => Action::Created,
            1 => Action::Changed,
            _ => Action::Removed,
        },
        owner: fields.byte(),
        id: fields.text(),
        names: fields.list(Fields::text),
        aspects: fields.half(),
    }
}

fn lease(fields: &mut Fields<'_>) -> LeaseRecord {
    LeaseRecord {
        id: fields.text(),
        things: fields.list(|fields| (fields.byte(), fields.text())),
        created: fields.time(),
        expires: fields.time(),
    }
}

fn mount(fields: &mut Fields<'_>) -> MountRecord {
    MountRecord { count: fields.number(), target: fields.text(), read_only: fields.byte() % 2 == 1 }
}
