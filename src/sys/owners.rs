//! Whether the owners of files are seen here as those that they are.
//!
//! What a mount has written has no owners on record: they are those of the files. A user namespace shows one number for all owners that it
//! has no id for, and an ordinary user outside of one sees the ids of the machine that it maps its own to. Where that number, 65534 as a
//! rule, is an id of the namespace, the two are not told apart: it is one if the user has a range of 65534 ids or more.

use std::io;

use nix::unistd::{Gid, getegid, getgroups};

use super::privileges::{Privileges, effective_user};
use super::userns;

/// Which numbers of owners in a store of this user are right.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Owners {
    /// All.
    Any,
    /// Others than these, which stand for ids that are not mapped.
    Not {
        /// For users, unless it is an id of its own here.
        uid: Option<u32>,
        /// For groups.
        gid: Option<u32>,
    },
    /// The ids of an ordinary user, who could make no other files without a namespace.
    Own {
        /// The user.
        uid: u32,
        /// The user's groups, and the one that the store's directory may give to all in it.
        gids: Vec<u32>,
    },
}

impl Owners {
    /// As seen by this process in a store whose directory belongs to these.
    pub(crate) fn in_store_of((owner, group): (u32, u32)) -> io::Result<Self> {
        if userns::in_user_namespace() {
            let maps = userns::own_maps()?;
            let (uid, gid) = userns::shown_for_unmapped();
            let uid = userns::to_host(&maps.uids, uid).is_none().then_some(uid);
            let gid = userns::to_host(&maps.gids, gid).is_none().then_some(gid);
            if (uid, gid) != (None, None) {
                return Ok(Owners::Not { uid, gid });
            }
        }
        let user = effective_user();
        // Another's store has its owners from another, who may be root.
        if user == 0 || owner != user || Privileges::of_this_process()?.change_owner {
            return Ok(Owners::Any);
        }
        let own = std::iter::once(getegid()).chain(getgroups()?).map(Gid::as_raw);
        Ok(Owners::Own { uid: user, gids: own.chain([group]).collect() })
    }

    /// Whether a file can belong to these.
    pub(crate) fn has(&self, (uid, gid): (u32, u32)) -> bool {
        match self {
            Owners::Any => true,
            Owners::Not { uid: no_user, gid: no_group } => *no_user != Some(uid) && *no_group != Some(gid),
            Owners::Own { uid: user, gids } => *user == uid && gids.contains(&gid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_that_cannot_be_are_told_from_others() {
        let one = Owners::Not { uid: Some(65_534), gid: None };
        assert!(one.has((0, 65_534)) && !one.has((65_534, 0)));
        let own = Owners::Own { uid: 1000, gids: vec![1000, 27] };
        assert!(own.has((1000, 27)) && !own.has((1000, 33)) && !own.has((0, 1000)));
        assert!(Owners::Any.has((65_534, 65_534)));
    }

    #[test]
    fn every_owner_of_anothers_store_may_be_right() {
        let another = effective_user().wrapping_add(1);
        if !userns::in_user_namespace() {
            assert_eq!(Owners::in_store_of((another, 0)).unwrap(), Owners::Any);
        }
    }
}
