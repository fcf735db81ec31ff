//! Ids, which are permanent, and names, which move. Two types, so that no call takes one for the other.

use std::fmt;
use std::str::FromStr;

use crate::error::{ValueError, shown};

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ValueError;

            /// Returns [`ValueError::Id`] if `text` is no id.
            fn from_str(text: &str) -> Result<Self, ValueError> {
                check_id(text).map(|()| $name(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = ValueError;

            /// Returns [`ValueError::Id`] if `text` is no id.
            fn try_from(text: String) -> Result<Self, ValueError> {
                check_id(&text).map(|()| $name(text.into()))
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

id_type! {
    /// The permanent id of a layer: 1 to 128 letters, digits, `_`, `.` and `-`, the first a letter or digit.
    LayerId
}
id_type! {
    /// The permanent id of an image, in the form of a [`LayerId`].
    ImageId
}
id_type! {
    /// The permanent id of a container, in the form of a [`LayerId`].
    ContainerId
}

id_type! {
    /// The id of a lease, in the form of a [`LayerId`].
    LeaseId
}

/// A movable alias, unique among the layers, the images, or the containers of a store: 1 to 1024 bytes
/// without control characters or space at either end.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<str>);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = ValueError;

    /// Returns [`ValueError::Name`] if `text` is no name.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        check_name(text).map(|()| Name(text.into()))
    }
}

impl TryFrom<String> for Name {
    type Error = ValueError;

    /// Returns [`ValueError::Name`] if `text` is no name.
    fn try_from(text: String) -> Result<Self, ValueError> {
        check_name(&text).map(|()| Name(text.into()))
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.0)
    }
}

fn check_name(text: &str) -> Result<(), ValueError> {
    let good = (1..=1024).contains(&text.len()) && text.trim() == text && !text.chars().any(char::is_control);
    if good { Ok(()) } else { Err(ValueError::Name(shown(text))) }
}

/// Returns [`ValueError::Id`] if `text` is no id of any kind.
pub(crate) fn check_id(text: &str) -> Result<(), ValueError> {
    let is_plain = |byte: u8| PLAIN.get(usize::from(byte)) == Some(&true);
    let good = (1..=128).contains(&text.len())
        // To the end in any case: without a way out the loop is a few instructions for each byte.
        && text.bytes().fold(true, |good, byte| good & is_plain(byte))
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    if good { Ok(()) } else { Err(ValueError::Id(shown(text))) }
}

/// Which bytes an id may have: a list of many things checks every byte of every id.
#[expect(clippy::indexing_slicing, reason = "a constant whose making panics does not compile")]
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = u8::MIN;
    while byte < u8::MAX {
        plain[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        byte += 1;
    }
    plain
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_cannot_leave_a_directory() {
        for bad in ["", ".", "..", "../x", "/", "a/b", "a\0b", "-x", ".x", "\u{e4}", &"a".repeat(129)] {
            assert!(bad.parse::<LayerId>().is_err(), "{bad}");
            assert!(LayerId::try_from(bad.to_owned()).is_err(), "{bad}");
        }
        for good in ["a", "web-1", "0f", &"a".repeat(128)] {
            assert_eq!(good.parse::<ContainerId>().unwrap().as_str(), good);
            assert_eq!(ContainerId::try_from(good.to_owned()).unwrap().as_str(), good);
        }
    }

    #[test]
    fn ids_are_of_plain_bytes() {
        for byte in 0..=127u8 {
            let plain = byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
            let id = format!("a{}", char::from(byte));
            assert_eq!(id.parse::<LayerId>().is_ok(), plain, "{id:?}");
        }
    }

    #[test]
    fn names_are_free_text_in_bounds() {
        for bad in ["", " a", "a ", "a\nb", "a\0", &"n".repeat(1025)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
            assert!(Name::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
        for good in ["docker.io/library/debian:12", "..", "my web", "name@sha256:00"] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
            assert_eq!(Name::try_from(good.to_owned()).unwrap().as_str(), good);
        }
    }
}
