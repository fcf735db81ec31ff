//! PAX extended headers: records of the form `length key=value\n`.

use super::base64;
use super::number::{self, Reason};

/// What the records of one extended header say, as far as it matters here. Numbers and times stay text until
/// they are needed; an empty value takes back what a global header said.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Records {
    pub path: Option<Vec<u8>>,
    pub linkpath: Option<Vec<u8>>,
    pub size: Option<Vec<u8>>,
    pub uid: Option<Vec<u8>>,
    pub gid: Option<Vec<u8>>,
    pub mtime: Option<Vec<u8>>,
    pub atime: Option<Vec<u8>>,
    pub ctime: Option<Vec<u8>>,
    /// In byte order of their names, each name once.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: SparseRecords,
    /// Whether a record before the size has a newline in it. Some readers end the record there and then do not find the size.
    pub size_after_newline: bool,
}

/// The `GNU.sparse.` records.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct SparseRecords {
    pub major: Option<Vec<u8>>,
    pub minor: Option<Vec<u8>>,
    pub name: Option<Vec<u8>>,
    /// The length of the file, in form 1.0.
    pub realsize: Option<Vec<u8>>,
    /// The length of the file, in forms 0.0 and 0.1.
    pub size: Option<Vec<u8>>,
    pub numblocks: Option<Vec<u8>>,
    /// Offsets and lengths in turn, separated by commas, in form 0.1.
    pub map: Option<Vec<u8>>,
    /// Offsets and lengths in turn, in form 0.0.
    pub pairs: Vec<u64>,
}

/// The longest name and the largest value of an xattr that Linux knows.
const XATTR_NAME_MAX: usize = 255;
const XATTR_VALUE_MAX: usize = 65536;

impl Records {
    /// Reads the body of an extended header.
    ///
    /// Keys that say nothing about a layer's content are ignored. Of a key that is given twice some readers take
    /// the first value and others the last, so both have to be the same.
    pub(super) fn parse(mut body: &[u8]) -> Result<Self, Reason> {
        let mut records = Records::default();
        let mut has_newline = false;
        while !body.is_empty() {
            let record = take_record(&mut body)?;
            let (key, value) = key_and_value(record)?;
            records.put(key, value)?;
            records.size_after_newline |= has_newline && key == b"size";
            has_newline |= record.contains(&b'\n');
            if hides_record(record) {
                return Err("a line inside a record reads like a record of its own");
            }
        }
        records.xattrs.sort_unstable();
        records.xattrs.dedup();
        if !records.xattrs.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(CONTRADICTION);
        }
        Ok(records)
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Reason> {
        let slot = match key {
            b"path" => &mut self.path,
            b"linkpath" => &mut self.linkpath,
            b"size" => &mut self.size,
            b"uid" => &mut self.uid,
            b"gid" => &mut self.gid,
            b"mtime" => &mut self.mtime,
            // No layer keeps these, so no archive is refused for what it says of them.
            b"atime" => {
                self.atime = Some(value.to_vec());
                return Ok(());
            }
            b"ctime" => {
                self.ctime = Some(value.to_vec());
                return Ok(());
            }
            _ => {
                if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    return self.sparse.put(key, value);
                }
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    return self.put_xattr(name.to_vec(), value.to_vec());
                }
                if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    return self.put_xattr(percent_decoded(name)?, base64::decoded(value)?);
                }
                // Star's length of a sparse file, whose map stands where only star looks.
                if key == b"SCHILY.realsize" {
                    return Err("a sparse record that is not known");
                }
                return Ok(());
            }
        };
        // No global header may set these, so there is nothing to take back, and some readers believe the empty value.
        if value.is_empty() && matches!(key, b"path" | b"linkpath" | b"size") {
            return Err("a path, link or size is empty");
        }
        put_once(slot, value)
    }

    fn put_xattr(&mut self, name: Vec<u8>, value: Vec<u8>) -> Result<(), Reason> {
        if name.is_empty() || name.len() > XATTR_NAME_MAX || name.contains(&0) {
            return Err("the name of an xattr is empty, longer than 255 bytes, or has a NUL byte");
        }
        if value.len() > XATTR_VALUE_MAX {
            return Err("the value of an xattr is longer than 64 KiB");
        }
        self.xattrs.push((name, value));
        Ok(())
    }

    /// Takes over what a further global header says.
    ///
    /// Paths, sizes and sparse maps of many members at once make no sense, and only some readers would believe
    /// them. Xattrs would make each small member as large as the header.
    pub(super) fn merge_global(&mut self, newer: Records) -> Result<(), Reason> {
        let per_member = newer.path.is_some()
            || newer.linkpath.is_some()
            || newer.size.is_some()
            || !newer.xattrs.is_empty()
            || newer.sparse != SparseRecords::default();
        if per_member {
            return Err("a global header sets a path, link, size, xattr or sparse map");
        }
        for (slot, value) in
            [(&mut self.uid, newer.uid), (&mut self.gid, newer.gid), (&mut self.mtime, newer.mtime)]
        {
            if value.is_some() {
                *slot = value;
            }
        }
        Ok(())
    }
}

impl SparseRecords {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Reason> {
        let slot = match key {
            b"major" => &mut self.major,
            b"minor" => &mut self.minor,
            b"name" => &mut self.name,
            b"realsize" => &mut self.realsize,
            b"size" => &mut self.size,
            b"numblocks" => &mut self.numblocks,
            b"map" => &mut self.map,
            b"offset" | b"numbytes" => {
                if (key == b"offset") != self.pairs.len().is_multiple_of(2) {
                    return Err("sparse offsets and lengths do not take turns");
                }
                self.pairs.push(number::decimal(value)?);
                return Ok(());
            }
            _ => return Err("a sparse record that is not known"),
        };
        put_once(slot, value)
    }
}

const CONTRADICTION: Reason = "two records for the same key contradict each other";
const MALFORMED: Reason = "a record is malformed";

fn put_once(slot: &mut Option<Vec<u8>>, value: &[u8]) -> Result<(), Reason> {
    match slot {
        Some(known) if known != value => Err(CONTRADICTION),
        _ => {
            *slot = Some(value.to_vec());
            Ok(())
        }
    }
}

/// Takes one record off the front of `body`; what is between its length and its newline. The length counts the whole
/// record, the length itself included.
fn take_record<'a>(body: &mut &'a [u8]) -> Result<&'a [u8], Reason> {
    // Twenty digits and a space: what is longer is no length, and is not searched to its end.
    let space = body.iter().take(21).position(|&byte| byte == b' ').ok_or(MALFORMED)?;
    let (digits, _) = body.split_at_checked(space).ok_or(MALFORMED)?;
    let length = usize::try_from(number::decimal(digits)?).map_err(|_| MALFORMED)?;
    let (record, rest) = body.split_at_checked(length).ok_or("a record goes beyond its header")?;
    *body = rest;
    record.get(space.saturating_add(1)..).and_then(|text| text.strip_suffix(b"\n")).ok_or(MALFORMED)
}

fn key_and_value(record: &[u8]) -> Result<(&[u8], &[u8]), Reason> {
    let equals = record.iter().position(|&byte| byte == b'=').ok_or(MALFORMED)?;
    match record.split_at_checked(equals) {
        Some((key @ [_, ..], [_, value @ ..])) => Ok((key, value)),
        _ => Err(MALFORMED),
    }
}

/// Whether a line of the record, other than the first, is a record to those who split a header at newlines.
fn hides_record(record: &[u8]) -> bool {
    record.split(|&byte| byte == b'\n').skip(1).any(|line| {
        let mut halves = line.splitn(2, |&byte| byte == b' ');
        let length = halves.next().unwrap_or_default();
        // The `tar` crate reads a length as Rust reads a number, which may have a plus.
        let length = number::decimal(length.strip_prefix(b"+").unwrap_or(length));
        // The length counts the newline, too.
        length == Ok((line.len() as u64).saturating_add(1))
            && halves.next().is_some_and(|text| text.contains(&b'='))
    })
}

/// Appends a record to the body of an extended header.
pub(super) fn put_record(body: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len().saturating_add(value.len()).saturating_add(3);
    // The length counts its own digits, so that one more digit may need one more.
    let with_digits = |length: usize| rest.saturating_add(length.to_string().len());
    let mut length = rest.saturating_add(1);
    while length != with_digits(length) {
        length = with_digits(length);
    }
    body.extend_from_slice(length.to_string().as_bytes());
    body.push(b' ');
    body.extend_from_slice(key);
    body.push(b'=');
    body.extend_from_slice(value);
    body.push(b'\n');
}

/// Appends the record of an xattr. A name with `=` cannot stand in a key, but its encoded form can; so can a name or a value of
/// which some readers would take a line for a record.
pub(super) fn put_xattr_record(body: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    if name.contains(&b'=') || hides_record(&[name, b"=", value].concat()) {
        let key = [b"LIBARCHIVE.xattr.", percent_encoded(name).as_slice()].concat();
        put_record(body, &key, &base64::encoded_bare(value));
    } else {
        put_record(body, &[b"SCHILY.xattr.", name].concat(), value);
    }
}

fn percent_encoded(name: &[u8]) -> Vec<u8> {
    name.iter()
        .flat_map(|&byte| match byte {
            b'!'..=b'~' if byte != b'%' && byte != b'=' => vec![byte],
            _ => format!("%{byte:02X}").into_bytes(),
        })
        .collect()
}

fn percent_decoded(mut text: &[u8]) -> Result<Vec<u8>, Reason> {
    let mut out = Vec::with_capacity(text.len());
    while let Some((&byte, rest)) = text.split_first() {
        text = rest;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let (digits, rest) = text.split_first_chunk::<2>().ok_or(MALFORMED)?;
        text = rest;
        let [high, low] =
            digits.map(|digit| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok()));
        out.push(high.ok_or(MALFORMED)? << 4 | low.ok_or(MALFORMED)?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
