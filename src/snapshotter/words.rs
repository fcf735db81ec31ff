//! Which options of overlay mounts can be asked for.

use crate::error::SnapshotError;

const ON_OFF: &[&str] = &["on", "off"];

/// Options of overlayfs with a value, and those that it may have.
const CHOICES: [(&str, &[&str]); 6] = [
    ("index", ON_OFF),
    ("metacopy", ON_OFF),
    ("nfs_export", ON_OFF),
    ("redirect_dir", &["on", "follow", "nofollow", "off"]),
    ("uuid", &["on", "off", "null", "auto"]),
    ("xino", &["on", "off", "auto"]),
];

/// Options of overlayfs without a value.
const SWITCHES: [&str; 2] = ["volatile", "userxattr"];

/// Attributes of the mount that containerd knows.
const ATTRIBUTES: [&str; 7] =
    ["nodev", "noexec", "nosuid", "noatime", "nodiratime", "relatime", "strictatime"];

/// The options that say where directories are.
const DIRECTORIES: [&str; 5] = ["lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir"];

/// Refuses options that are none, that say what only the snapshotter can, or that the kernel would not take together.
pub(super) fn check(words: &[String]) -> Result<(), SnapshotError> {
    for (at, word) in words.iter().enumerate() {
        check_one(word).map_err(|reason| invalid(word, reason))?;
        if words.iter().take(at).any(|before| key(before) == key(word)) {
            return Err(invalid(word, format!("{} is given twice", key(word))));
        }
    }
    let has = |wanted: &str| words.iter().any(|word| word == wanted);
    // What is not said is given as off, and the kernel refuses both together.
    for (word, needed) in [("metacopy=on", "redirect_dir=on"), ("nfs_export=on", "index=on")] {
        if has(word) && !has(needed) {
            return Err(invalid(word, format!("the kernel wants {needed} with it; give that, too")));
        }
    }
    if has("nfs_export=on") && has("metacopy=on") {
        let reason = "the kernel does not take it together with metacopy=on; leave one out".to_owned();
        return Err(invalid("nfs_export=on", reason));
    }
    Ok(())
}

/// Refuses options that do not fit the attributes that the layers of a store use.
pub(super) fn check_class(words: &[String], user_attributes: bool) -> Result<(), SnapshotError> {
    let (unfit, reason): (&[&str], _) = match user_attributes {
        false => (
            &["userxattr"],
            "the store was made by root, and its layers use trusted attributes, which would not be seen; leave it out",
        ),
        true => (
            &["redirect_dir=on", "metacopy=on"],
            "the store was not made by the machine's root, and the kernel does not take it with user attributes; leave it out",
        ),
    };
    match words.iter().find(|word| unfit.contains(&word.as_str())) {
        Some(word) => Err(invalid(word, reason.to_owned())),
        None => Ok(()),
    }
}

/// Whether an option is an attribute of the mount: the kernel gets it as a flag.
pub(super) fn is_attribute(word: &str) -> bool {
    ATTRIBUTES.contains(&word)
}

fn check_one(word: &str) -> Result<(), String> {
    let (key, value) = word.split_once('=').map_or((word, None), |(key, value)| (key, Some(value)));
    if DIRECTORIES.contains(&key) {
        return Err(
            "the directories of a snapshot are the store's, and cannot be given; leave it out".to_owned()
        );
    }
    if word.contains(',') {
        return Err("a comma ends an option; give each by itself".to_owned());
    }
    if let Some((_, values)) = CHOICES.iter().find(|(known, _)| *known == key) {
        return match value {
            Some(value) if values.contains(&value) => Ok(()),
            _ => Err(format!("{key} is one of {}", values.join(", "))),
        };
    }
    let is_flag = SWITCHES.contains(&key) || is_attribute(key);
    match (key, value) {
        _ if is_flag && value.is_none() => Ok(()),
        _ if is_flag => Err(format!("{key} has no value")),
        ("uidmap" | "gidmap", _) => {
            Err("ids are mapped as labels of a snapshot say, with remap_ids".to_owned())
        }
        ("ro" | "rw", None) => Err("whether a snapshot is written to is said by who asks for it".to_owned()),
        _ => {
            let keys = CHOICES.iter().map(|(known, _)| *known);
            let known: Vec<_> = keys.chain(SWITCHES).chain(ATTRIBUTES).collect();
            Err(format!("there is no such option here; there are {}", known.join(", ")))
        }
    }
}

fn key(word: &str) -> &str {
    word.split('=').next().unwrap_or(word)
}

fn invalid(word: &str, reason: String) -> SnapshotError {
    SnapshotError::InvalidArgument { what: "the mount option", value: word.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        check(&words).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn what_overlayfs_has_for_all_snapshots_can_be_given() {
        for words in [
            &["index=on", "volatile", "nodev"][..],
            &["redirect_dir=on", "metacopy=on", "xino=auto", "uuid=null"],
            &["index=on", "nfs_export=on"],
            &["userxattr", "noatime"],
            &["metacopy=off"],
            &[],
        ] {
            assert_eq!(reason(words), "", "{words:?}");
        }
    }

    #[test]
    fn what_means_nothing_or_is_the_stores_is_refused() {
        for (words, told) in [
            (&["lowerdir=/etc"][..], "cannot be given"),
            (&["upperdir="], "cannot be given"),
            (&["workdir=/w,index=on"], "cannot be given"),
            (&["lowerdir+=/etc"], "cannot be given"),
            (&["index=on,lowerdir=/etc"], "by itself"),
            (&["index"], "one of on, off"),
            (&["index=maybe"], "one of on, off"),
            (&["volatile=on"], "has no value"),
            (&["uidmap=0:1:2"], "remap_ids"),
            (&["ro"], "who asks for it"),
            (&["frobnicate"], "there are index, "),
            (&[""], "there are index, "),
            (&["index=on", "index=off"], "given twice"),
            (&["metacopy=on"], "redirect_dir=on"),
            (&["nfs_export=on"], "index=on"),
            (&["nfs_export=on", "index=on", "metacopy=on", "redirect_dir=on"], "leave one out"),
        ] {
            assert!(reason(words).contains(told), "{words:?}: {}", reason(words));
        }
    }

    #[test]
    fn attributes_that_the_store_does_not_have_are_refused() {
        let check = |word: &str, user| check_class(&[word.to_owned()], user).is_ok();
        assert!(!check("userxattr", false) && check("userxattr", true));
        assert!(!check("metacopy=on", true) && check("metacopy=on", false));
    }
}
