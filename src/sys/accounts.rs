//! The user database.
//!
//! In a program that is linked statically to glibc it is `/etc/passwd` alone. Whatever else `nsswitch.conf` names, such as LDAP, comes from shared
//! libraries, which glibc would load there too, and which have to be of the very version that the program was linked with.

use std::path::PathBuf;

/// A user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Account {
    /// The login name.
    pub(crate) name: String,
    /// The number.
    pub(crate) uid: u32,
    /// The home directory.
    pub(crate) home: PathBuf,
}

#[cfg(not(all(target_env = "gnu", target_feature = "crt-static")))]
mod database {
    use nix::unistd::{Uid, User};

    use super::Account;

    pub(crate) fn with_id(uid: u32) -> Option<Account> {
        User::from_uid(Uid::from_raw(uid)).ok().flatten().map(account)
    }

    pub(crate) fn with_name(name: &str) -> Option<Account> {
        User::from_name(name).ok().flatten().map(account)
    }

    fn account(user: User) -> Account {
        Account { name: user.name, uid: user.uid.as_raw(), home: user.dir }
    }
}

#[cfg(any(test, all(target_env = "gnu", target_feature = "crt-static")))]
mod file {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use super::Account;
    use crate::sys::path;

    pub(crate) fn with_id(uid: u32) -> Option<Account> {
        find(|account| account.uid == uid)
    }

    pub(crate) fn with_name(name: &str) -> Option<Account> {
        find(|account| account.name == name)
    }

    fn find(is_it: impl Fn(&Account) -> bool) -> Option<Account> {
        let text = path::read(Path::new("/etc/passwd")).ok()?;
        text.split(|byte| *byte == b'\n').filter_map(parse).find(is_it)
    }

    /// Reads a line such as `ann:x:1000:1000:Ann,,,:/home/ann:/bin/sh`.
    pub(super) fn parse(line: &[u8]) -> Option<Account> {
        let mut fields = line.split(|byte| *byte == b':');
        // The full name and the home may be in any encoding.
        let text = |field| std::str::from_utf8(field).ok();
        let (name, _, uid) = (text(fields.next()?)?, fields.next()?, text(fields.next()?)?.parse().ok()?);
        let home = OsStr::from_bytes(fields.nth(2)?).into();
        // What begins with one of these says for others where to look.
        let is_account = !name.is_empty() && !name.starts_with(['+', '-', '#']);
        is_account.then(|| Account { name: name.to_owned(), uid, home })
    }
}

#[cfg(not(all(target_env = "gnu", target_feature = "crt-static")))]
pub(crate) use database::{with_id, with_name};
#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
pub(crate) use file::{with_id, with_name};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_no_accounts_are_passed_over() {
        let ann = Account { name: "ann".to_owned(), uid: 1000, home: "/home/ann".into() };
        assert_eq!(file::parse(b"ann:x:1000:1000:Ann \xe9,,,:/home/ann:/bin/sh"), Some(ann.clone()));
        assert_eq!(file::parse(b"ann:x:1000:1000::/home/ann"), Some(ann));
        for line in [
            "",
            "# x:x:1:1::/:",
            "+::::::",
            "-bob:x:1:1::/:",
            ":x:1:1::/:",
            "ann:x:1000:1000:",
            "ann:x:one:1::/:",
        ] {
            assert_eq!(file::parse(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn root_is_found_in_either_way() {
        let root = with_id(0).unwrap();
        assert_eq!(with_name(&root.name).as_ref(), Some(&root));
        assert_eq!(
            (file::with_id(0).as_ref(), file::with_name(&root.name).as_ref()),
            (Some(&root), Some(&root))
        );
        let nobody = "no such user";
        assert_eq!((with_name(nobody), file::with_name(nobody)), (None, None));
    }
}
