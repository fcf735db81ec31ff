//! What containers-storage (podman, buildah, skopeo) makes, to tell its store from one of ours: two programs must not have
//! theirs in one directory.

/// What containers-storage, and what works with it, makes in its graph root.
const CONTAINERS_STORAGE: [&str; 15] = [
    "storage.lock",
    "userns.lock",
    "defaultNetworkBackend",
    "db.sql",
    "bolt_state.db",
    "libpod",
    "networks",
    "volumes",
    "secrets",
    "mounts",
    "cache",
    "tmp",
    "artifacts",
    "overlay",
    "vfs",
];

/// Whether containers-storage makes what has this name in its graph root.
pub(crate) fn is_of_containers_storage(name: &[u8]) -> bool {
    // Each driver has directories of its own for records: `overlay-layers`, `vfs-images`, ...
    let of_driver = [b"-layers".as_slice(), b"-images", b"-containers", b"-locks"];
    CONTAINERS_STORAGE.iter().any(|known| known.as_bytes() == name)
        || [b"overlay".as_slice(), b"vfs", b"btrfs", b"zfs"]
            .iter()
            .any(|driver| name.strip_prefix(*driver).is_some_and(|rest| of_driver.contains(&rest)))
}

/// What no other program makes: where it is, a store of containers-storage is.
pub(super) fn is_of_containers_storage_alone(name: &[u8]) -> bool {
    name == b"storage.lock" || is_of_containers_storage(name) && name.ends_with(b"-layers")
}
