//! The marker file: what makes a directory a store.
//!
//! ```text
//! layerstore 1
//! uuid 0b7c8a52-5a0e-4d0c-9a55-0f8d1f0a9d11
//! xattrs trusted
//! ```
//!
//! Nothing is ever removed from a directory that has none, so it is read strictly, and written whole or not at
//! all.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use layerstore_schema::header::{Header, incompatible};

use super::overlay_form::XattrNamespace;
use crate::sys::file::File;
use crate::sys::{beneath, node, random, sync};

/// The store format of this release.
pub(super) const FORMAT: u32 = 1;
/// Its name in the root.
pub(crate) const NAME: &str = "LAYERSTORE";
/// Beginning of the name under which a marker is written before it gets its own.
pub(super) const DRAFT: &str = "LAYERSTORE.new-";
/// No release writes a marker longer than this.
pub(super) const LIMIT: usize = 4096;

/// Writes the marker so that it is there whole or not at all. EEXIST if someone else was faster.
pub(super) fn write(root: BorrowedFd<'_>, text: &str) -> io::Result<()> {
    let draft = format!("{DRAFT}{:016x}", u64::from_le_bytes(random::bytes()?));
    let file = beneath::create_private_file(root, draft.as_bytes())?;
    let mut file = File::from(file);
    let linked = file
        .write_all(text.as_bytes())
        .and_then(|()| sync::file(file.as_fd()))
        .and_then(|()| node::make_hard_link(root, draft.as_bytes(), root, NAME.as_bytes()));
    node::remove_file(root, draft.as_bytes())?;
    linked?;
    sync::file(root)
}

/// The marker of a store with this UUID.
pub(super) fn text(uuid: &str, xattrs: XattrNamespace) -> String {
    let class = match xattrs {
        XattrNamespace::Trusted => "trusted",
        XattrNamespace::User => "user",
    };
    format!("layerstore {FORMAT}\nuuid {uuid}\nxattrs {class}\n")
}

/// Why bytes are no marker of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MarkerProblem {
    /// A later release wrote it.
    Newer(u32),
    /// No release wrote it.
    Damaged(&'static str),
}

/// Reads a marker.
pub(super) fn parse(bytes: &[u8]) -> Result<(String, XattrNamespace), MarkerProblem> {
    use MarkerProblem::{Damaged, Newer};
    let text = std::str::from_utf8(bytes).map_err(|_| Damaged("it is no text"))?;
    let (first, rest) = text.split_once('\n').ok_or(Damaged("it has no whole line"))?;
    let format = first.strip_prefix("layerstore ").and_then(plain_number);
    match format.ok_or(Damaged("its first line is not 'layerstore <format>'"))? {
        0 => return Err(Damaged("there is no format 0")),
        FORMAT => {}
        // Nothing of a later format can be taken for known, not even the lines that follow.
        newer => return Err(Newer(newer)),
    }
    let (second, rest) = rest.split_once('\n').ok_or(Damaged("it has no UUID line"))?;
    let uuid =
        second.strip_prefix("uuid ").filter(|uuid| is_uuid(uuid)).ok_or(Damaged("its UUID is none"))?;
    let xattrs = match rest {
        "xattrs trusted\n" => XattrNamespace::Trusted,
        "xattrs user\n" => XattrNamespace::User,
        _ => return Err(Damaged("it does not end with 'xattrs trusted' or 'xattrs user'")),
    };
    Ok((uuid.to_owned(), xattrs))
}

fn plain_number(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}

/// A random UUID (RFC 9562, version 4).
pub(super) fn random_uuid() -> io::Result<String> {
    let random = u128::from_le_bytes(random::bytes()?);
    Ok(uuid_text(random & !(0xf << 76) & !(0b11 << 62) | (4 << 76) | (0b10 << 62)))
}

fn uuid_text(bits: u128) -> String {
    let hex = format!("{bits:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

/// The marker of the store whose database has this header.
pub(crate) fn of_header(header: &Header) -> String {
    let xattrs = match header.incompatible & incompatible::USER_XATTRS {
        0 => XattrNamespace::Trusted,
        _ => XattrNamespace::User,
    };
    text(&uuid_text(u128::from_le_bytes(header.uuid).swap_bytes()), xattrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_read_strictly() {
        let good = text(&random_uuid().unwrap(), XattrNamespace::Trusted);
        assert!(parse(good.as_bytes()).is_ok());
        for length in 0..good.len() {
            assert!(parse(&good.as_bytes()[..length]).is_err(), "{length}");
        }
        assert_eq!(parse(b"layerstore 2\nwhatever"), Err(MarkerProblem::Newer(2)));
        let damaged = ["layerstore 01\n", "layerstore +1\n", "layerstore 0\n", "layerstore\n", "\0"];
        for bad in damaged.map(str::to_owned).into_iter().chain([format!("{good}x"), good.to_uppercase()]) {
            assert!(matches!(parse(bad.as_bytes()), Err(MarkerProblem::Damaged(_))), "{bad}");
        }
    }
}
