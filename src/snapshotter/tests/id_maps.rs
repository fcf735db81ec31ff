//! Mounts with id maps, made as containerd makes them since 2.0: each lower directory is shown by an id-mapped mount, and the overlay stands
//! on those.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use nix::mount::MsFlags;

use super::{CommitOptions, Snapshotter, SnapshotterOptions, open};
use crate::store::MountEntry;
use crate::sys::mount::{self, Refusal};
use crate::sys::userns::{self, IdExtent, IdMaps};

const UIDS: &str = "0:100000:65536";
const GIDS: &str = "0:200000:1000,1000:300000:1000";

/// The value of an option.
fn value<'e>(entry: &'e MountEntry, key: &str) -> Option<&'e str> {
    entry.options.iter().find_map(|word| word.to_str()?.strip_prefix(key)?.strip_prefix('='))
}

fn extents(text: &str) -> Vec<IdExtent> {
    let extent = |text: &str| {
        let mut numbers = text.split(':').map(|number| number.parse().unwrap());
        let mut next = || numbers.next().unwrap();
        IdExtent { inside: next(), outside: next(), count: next() }
    };
    text.split(',').map(extent).collect()
}

/// Mounts an overlay with id maps; `shown` gets the mounts of the lower directories.
fn mount(entry: &MountEntry, target: &Path, shown: &Path) -> Result<(), Refusal> {
    let failed = |step: &str| {
        let step = step.to_owned();
        move |error| Refusal::new(step, error)
    };
    let map = |key| extents(value(entry, key).unwrap());
    let namespace = userns::namespace_with(&IdMaps { uids: map("uidmap"), gids: map("gidmap") });
    let namespace = namespace.map_err(failed("make a user namespace"))?;
    let mut lowers = Vec::new();
    for (at, lower) in value(entry, "lowerdir").unwrap().split(':').enumerate() {
        let place = shown.join(at.to_string());
        fs::create_dir(&place).unwrap();
        let tree = mount::clone_tree(Path::new(lower)).map_err(failed("clone"))?;
        mount::set_id_map(tree.as_fd(), namespace.as_fd()).map_err(failed("map ids"))?;
        let open = mount::open_target(&place).map_err(failed("open"))?;
        mount::attach(tree.as_fd(), open.as_fd()).map_err(failed("attach"))?;
        lowers.push(place.into_os_string());
    }
    let ours = |word: &&OsString| {
        let key = word.to_str().unwrap().split('=').next().unwrap();
        !["uidmap", "gidmap", "lowerdir"].contains(&key)
    };
    let mut words: Vec<OsString> = entry.options.iter().filter(ours).cloned().collect();
    let mut lower = OsString::from("lowerdir=");
    lower.push(lowers.join(OsStr::new(":")));
    words.push(lower);
    let options = words.join(OsStr::new(","));
    mount::mount_call("overlay", target, &entry.kind, MsFlags::empty(), &options).map_err(failed("mount"))
}

#[test]
fn mounts_with_id_maps_show_files_of_the_mapped_ids() {
    if !userns::is_privileged() || userns::in_user_namespace() {
        return eprintln!("skipped: mounts with other ids need the machine's root");
    }
    let dir = tempfile::tempdir().unwrap();
    let plain = open(dir.path());
    let write = |key: &str, file: &str, parent: Option<&str>, owner: (u32, u32)| {
        let mounts = plain.prepare(key, parent, &BTreeMap::new()).unwrap();
        let upper = value(&mounts[0], "upperdir").map_or(Path::new(&mounts[0].source), Path::new);
        fs::write(upper.join(file), file).unwrap();
        chown(upper.join(file), Some(owner.0), Some(owner.1)).unwrap();
        plain.commit(file, key, &CommitOptions::default()).unwrap();
    };
    write("1", "base", None, (0, 0));
    write("2", "next", Some("base"), (5, 1006));

    let options = SnapshotterOptions { remap_ids: true, ..SnapshotterOptions::default() };
    let mapped = Snapshotter::new(plain.store.clone(), options).unwrap();
    let label = |kind: &str, map: &str| (format!("containerd.io/snapshot/{kind}mapping"), map.to_owned());
    let labels = BTreeMap::from([label("uid", UIDS), label("gid", GIDS)]);
    let mounts = mapped.prepare("active", Some("next"), &labels).unwrap();
    let upper = Path::new(value(&mounts[0], "upperdir").unwrap());
    let [target, shown] = ["target", "shown"].map(|name| dir.path().join(name));
    for path in [&target, &shown] {
        fs::create_dir(path).unwrap();
    }

    let owner = |path: &Path| fs::metadata(path).map(|found| (found.uid(), found.gid())).unwrap();
    let seen = mount::with_own_mounts(dir.path(), || {
        mount(&mounts[0], &target, &shown)?;
        let seen = ["", "base", "next"].map(|name| owner(&target.join(name)));
        // Copied up with the owners that it is shown with.
        fs::write(target.join("next"), "changed").unwrap();
        Ok(seen)
    });
    let seen = match seen {
        Err(refusal) if refusal.text().contains("map ids") => {
            return eprintln!("skipped: no id-mapped mounts here: {}", refusal.text());
        }
        seen => seen.unwrap_or_else(|refusal| panic!("{}: {mounts:?}", refusal.text())),
    };
    assert_eq!(seen, [(100_000, 200_000), (100_000, 200_000), (100_005, 300_006)]);
    assert_eq!(owner(&upper.join("next")), (100_005, 300_006));
    assert_eq!(fs::read_to_string(upper.join("next")).unwrap(), "changed");
    // What is below has the owners that it came with.
    mapped.view("view", Some("next"), &BTreeMap::new()).unwrap();
    let places = plain.store.layer_places(&plain.store.layer("snapshot:next").unwrap().id).unwrap();
    assert_eq!(owner(&places.upper.join("next")), (5, 1006));
}
