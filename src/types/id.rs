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
        let good =
            (1..=1024).contains(&text.len()) && text.trim() == text && !text.chars().any(char::is_control);
        if good { Ok(Name(text.into())) } else { Err(ValueError::Name(shown(text))) }
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

/// Returns [`ValueError::Id`] if `text` is no id of any kind.
pub(crate) fn check_id(text: &str) -> Result<(), ValueError> {
    let is_plain = |byte: u8| PLAIN.checked_shr(u32::from(byte)).is_some_and(|bits| bits & 1 == 1);
    let good = (1..=128).contains(&text.len())
        && text.bytes().all(is_plain)
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    if good { Ok(()) } else { Err(ValueError::Id(shown(text))) }
}

/// Which bytes an id may have, a bit for each of ASCII: a list of many things checks every byte of every id.
const PLAIN: u128 = {
    let (digits, upper, lower) = (0x3ff_u128 << b'0', 0x3ff_ffff_u128 << b'A', 0x3ff_ffff_u128 << b'a');
    digits | upper | lower | (1 << b'_') | (1 << b'.') | (1 << b'-')
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_cannot_leave_a_directory() {
        for bad in ["", ".", "..", "../x", "/", "a/b", "a\0b", "-x", ".x", "\u{e4}", &"a".repeat(129)] {
            assert!(bad.parse::<LayerId>().is_err(), "{bad}");
        }
        for good in ["a", "web-1", "0f", &"a".repeat(128)] {
            assert_eq!(good.parse::<ContainerId>().unwrap().as_str(), good);
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
        }
        for good in ["docker.io/library/debian:12", "..", "my web", "name@sha256:00"] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
    }
}
