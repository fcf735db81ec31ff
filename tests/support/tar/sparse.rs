//! Files with holes, in each of the four forms that GNU tar has had.

use tar::Header;

use super::BLOCK_BYTES;
use super::field::{self, Field};
use super::pax::pax_record;

/// Where a file has bytes, and how the archive says so. Nothing has to fit together.
#[derive(Clone, Debug)]
pub struct Sparse {
    form: Form,
    map: Vec<(u64, u64)>,
    size: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Gnu,
    Pax00,
    Pax01,
    Pax10,
}

/// Where the map, its mark of more blocks, and the file's size are in a GNU header, and in the blocks behind.
const MAP: usize = 386;
const IN_HEADER: usize = 4;
const MORE: usize = 482;
const REAL_SIZE: usize = 483;
const IN_BLOCK: usize = 21;
const MORE_IN_BLOCK: usize = 504;

impl Sparse {
    /// The map in the header and in blocks behind it: type `S`. `size` is the file's, holes included.
    pub fn gnu(map: impl Into<Vec<(u64, u64)>>, size: u64) -> Self {
        Self { form: Form::Gnu, map: map.into(), size }
    }

    /// A PAX record for each number.
    pub fn pax00(map: impl Into<Vec<(u64, u64)>>, size: u64) -> Self {
        Self { form: Form::Pax00, map: map.into(), size }
    }

    /// One PAX record with the whole map.
    pub fn pax01(map: impl Into<Vec<(u64, u64)>>, size: u64) -> Self {
        Self { form: Form::Pax01, map: map.into(), size }
    }

    /// The map as text in front of the content.
    pub fn pax10(map: impl Into<Vec<(u64, u64)>>, size: u64) -> Self {
        Self { form: Form::Pax10, map: map.into(), size }
    }

    /// All four forms of the same map.
    pub fn every_form(map: &[(u64, u64)], size: u64) -> [Self; 4] {
        [Self::gnu(map, size), Self::pax00(map, size), Self::pax01(map, size), Self::pax10(map, size)]
    }

    pub(super) fn fill(&self, header: &mut Header) {
        if self.form != Form::Gnu {
            return;
        }
        field::put(header, Field::Typeflag, b"S");
        field::put(header, Field::Magic, b"ustar  \0");
        let block = header.as_mut_bytes();
        put_map(&mut block[MAP..MORE], self.map.iter().take(IN_HEADER));
        block[MORE] = u8::from(self.map.len() > IN_HEADER);
        block[REAL_SIZE..REAL_SIZE + 12].copy_from_slice(&field::number(12, self.size));
    }

    pub(super) fn blocks_after_header(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.form != Form::Gnu {
            return bytes;
        }
        let mut rest = self.map.get(IN_HEADER..).unwrap_or_default();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(IN_BLOCK));
            let mut block = [0; BLOCK_BYTES];
            put_map(&mut block, now.iter());
            block[MORE_IN_BLOCK] = u8::from(!later.is_empty());
            bytes.extend_from_slice(&block);
            rest = later;
        }
        bytes
    }

    pub(super) fn records(&self, path: &[u8], records: &mut Vec<u8>) {
        let size = self.size.to_string();
        let mut put = |key: &str, value: &[u8]| pax_record(records, key.as_bytes(), value);
        match self.form {
            Form::Gnu => {}
            Form::Pax00 => {
                put("GNU.sparse.size", size.as_bytes());
                put("GNU.sparse.numblocks", self.map.len().to_string().as_bytes());
                for (offset, length) in &self.map {
                    put("GNU.sparse.offset", offset.to_string().as_bytes());
                    put("GNU.sparse.numbytes", length.to_string().as_bytes());
                }
            }
            Form::Pax01 => {
                let numbers: Vec<_> = self
                    .map
                    .iter()
                    .flat_map(|(offset, length)| [offset.to_string(), length.to_string()])
                    .collect();
                put("GNU.sparse.size", size.as_bytes());
                put("GNU.sparse.numblocks", self.map.len().to_string().as_bytes());
                put("GNU.sparse.name", path);
                put("GNU.sparse.map", numbers.join(",").as_bytes());
            }
            Form::Pax10 => {
                put("GNU.sparse.major", b"1");
                put("GNU.sparse.minor", b"0");
                put("GNU.sparse.name", path);
                put("GNU.sparse.realsize", size.as_bytes());
            }
        }
    }

    pub(super) fn front_of_body(&self) -> Vec<u8> {
        if self.form != Form::Pax10 {
            return Vec::new();
        }
        let mut text = format!("{}\n", self.map.len());
        for (offset, length) in &self.map {
            text += &format!("{offset}\n{length}\n");
        }
        let mut bytes = text.into_bytes();
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        bytes
    }
}

fn put_map<'a>(place: &mut [u8], map: impl Iterator<Item = &'a (u64, u64)>) {
    for (slot, (offset, length)) in place.chunks_exact_mut(24).zip(map) {
        slot[..12].copy_from_slice(&field::number(12, *offset));
        slot[12..].copy_from_slice(&field::number(12, *length));
    }
}
