//! What this process may do.

use std::io;
use std::path::Path;

use rustix::thread::{CapabilitySet, capabilities};

use super::call::{Call, call};

/// The map of the initial namespace: every id is mapped to itself.
const INITIAL_MAP: &str = "0 0 4294967295";

/// The privileges that decide how a store stores things.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Privileges {
    /// Whether this is a user namespace, where ids are mapped and devices and `trusted.*` are out of reach.
    pub(crate) user_namespace: bool,
    /// Whether the process has `CAP_SYS_ADMIN` over its user namespace: it may mount.
    pub(crate) administrator: bool,
    /// Whether the process may give files away (`CAP_CHOWN`), to the ids that are mapped.
    pub(crate) change_owner: bool,
    /// How many user ids are mapped here.
    pub(crate) mapped_ids: u64,
}

impl Privileges {
    /// The privileges of the calling thread.
    pub(crate) fn of_this_process() -> io::Result<Self> {
        let map = match super::userns::is_first() {
            true => INITIAL_MAP.to_owned(),
            false => super::path::read_to_string(Path::new("/proc/self/uid_map"))
                .map_err(super::path::without_proc)?,
        };
        let effective = call(Call::Namespace, || capabilities(None))?.effective;
        Ok(Privileges {
            user_namespace: !is_initial_map(&map),
            administrator: effective.contains(CapabilitySet::SYS_ADMIN),
            change_owner: effective.contains(CapabilitySet::CHOWN),
            mapped_ids: mapped_ids(&map),
        })
    }

    /// Whether only one user id exists here, so that every file belongs to it.
    pub(crate) fn has_one_id(&self) -> bool {
        self.mapped_ids <= 1 || !self.change_owner
    }

    /// Whether this is root of the machine, for whom nothing need be left out.
    pub(crate) fn is_machine_root(&self) -> bool {
        self.administrator && !self.user_namespace
    }
}

/// The id of the user whose rights this process has.
pub(crate) fn effective_user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// The id that the user whose rights this process has is known by outside of its user namespace; inside of none, the same. One
/// that is not mapped is told as it is.
pub(crate) fn user_outside() -> u32 {
    let own = effective_user();
    let map = super::path::read_to_string(Path::new("/proc/self/uid_map")).unwrap_or_default();
    id_outside(&map, own).unwrap_or(own)
}

fn id_outside(map: &str, id: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let (Some(Ok(inside)), Some(Ok(outside)), Some(Ok(count)), None) =
            (numbers.next(), numbers.next(), numbers.next(), numbers.next())
        else {
            return None;
        };
        let offset = id.checked_sub(inside).filter(|offset| *offset < count)?;
        outside.checked_add(offset)
    })
}

/// Whether this process can give its files to these ids, as far as is known.
pub(crate) fn may_give_to(uid: u32, gid: u32) -> bool {
    let is_own = uid == effective_user() && gid == nix::unistd::getegid().as_raw();
    let may = || Privileges::of_this_process().map_or(true, |own| own.change_owner);
    // Ids that are not mapped in a namespace are nobody's there.
    let is_mapped = |file: &str, id: u32| {
        let Ok(map) = super::path::read_to_string(Path::new(file)) else { return true };
        map.lines().any(|line| {
            let mut numbers = line.split_whitespace().map(|word| word.parse::<u64>().unwrap_or_default());
            let first = numbers.next().unwrap_or_default();
            let count = numbers.nth(1).unwrap_or_default();
            (first..first.saturating_add(count)).contains(&u64::from(id))
        })
    };
    is_own || may() && is_mapped("/proc/self/uid_map", uid) && is_mapped("/proc/self/gid_map", gid)
}

fn is_initial_map(map: &str) -> bool {
    map.split_whitespace().eq(INITIAL_MAP.split(' '))
}

fn mapped_ids(map: &str) -> u64 {
    map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_namespace_has_the_map_of_it() {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
        assert!(!super::super::userns::is_first() || is_initial_map(&map), "{map}");
        assert_eq!(Privileges::of_this_process().unwrap().mapped_ids, mapped_ids(&map));
    }

    #[test]
    fn without_proc_it_is_told_what_to_mount() {
        let empty = tempfile::tempdir().unwrap();
        let said = crate::sys::userns::tests::in_child(|| match nix::unistd::chroot(empty.path()) {
            Ok(()) => Privileges::of_this_process().unwrap_err().to_string(),
            Err(_) => String::new(),
        });
        match said.is_empty() {
            true => eprintln!("skipped: this process may not change its root"),
            false => assert!(said.contains("mount -t proc"), "{said}"),
        }
    }

    #[test]
    fn maps_are_told_apart() {
        assert!(is_initial_map("         0          0 4294967295\n"));
        assert!(!is_initial_map("         0       1000          1\n"));
        let map = "0 1000 1\n1 100000 65536\n";
        assert_eq!(mapped_ids(map), 65537);
        assert_eq!(
            [0, 1, 65536, 65537].map(|id| id_outside(map, id)),
            [Some(1000), Some(100_000), Some(165_535), None]
        );
        assert_eq!(id_outside("0 0 4294967295", 7), Some(7));
    }
}
