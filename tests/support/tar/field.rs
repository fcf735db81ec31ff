//! The fields of a header block, and what can be put there.

use std::ops::Range;

use tar::Header;

/// A field of a header. GNU and POSIX agree on all but the prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Field {
    Name,
    Mode,
    Uid,
    Gid,
    Size,
    Mtime,
    Typeflag,
    Link,
    /// Magic and version: eight bytes.
    Magic,
    UserName,
    GroupName,
    Major,
    Minor,
    Prefix,
}

impl Field {
    /// All but the magic, whose change makes another header of it.
    pub const ALL: [Field; 13] = [
        Field::Name,
        Field::Mode,
        Field::Uid,
        Field::Gid,
        Field::Size,
        Field::Mtime,
        Field::Typeflag,
        Field::Link,
        Field::UserName,
        Field::GroupName,
        Field::Major,
        Field::Minor,
        Field::Prefix,
    ];

    /// Where it is in the block.
    pub fn range(self) -> Range<usize> {
        match self {
            Field::Name => 0..100,
            Field::Mode => 100..108,
            Field::Uid => 108..116,
            Field::Gid => 116..124,
            Field::Size => 124..136,
            Field::Mtime => 136..148,
            Field::Typeflag => 156..157,
            Field::Link => 157..257,
            Field::Magic => 257..265,
            Field::UserName => 265..297,
            Field::GroupName => 297..329,
            Field::Major => 329..337,
            Field::Minor => 337..345,
            Field::Prefix => 345..500,
        }
    }
}

const CHECKSUM: Range<usize> = 148..156;

/// Whose header it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// POSIX.1-1988 and later: `ustar`, `00`.
    Ustar,
    /// GNU tar's own: `ustar`, two blanks.
    Gnu,
    /// The seventh edition's, without magic.
    Old,
}

impl Format {
    pub(super) fn header(self) -> Header {
        match self {
            Format::Ustar => Header::new_ustar(),
            Format::Gnu => Header::new_gnu(),
            Format::Old => Header::new_old(),
        }
    }
}

/// How the checksum of a header is made.
#[derive(Clone, Debug)]
pub enum Checksum {
    /// The sum of the bytes, as POSIX wants it.
    Unsigned,
    /// The sum of the bytes as signed characters, as some old programs made it.
    Signed,
    /// One more than the right sum.
    Wrong,
    /// These bytes.
    Bytes([u8; 8]),
}

impl Checksum {
    pub(super) fn put(&self, header: &mut Header) {
        let block = header.as_mut_bytes();
        block[CHECKSUM].fill(b' ');
        let unsigned: i64 = block.iter().map(|byte| i64::from(*byte)).sum();
        let signed: i64 = block.iter().map(|byte| i64::from(byte.cast_signed())).sum();
        let sum = match self {
            Checksum::Unsigned => unsigned,
            Checksum::Signed => signed,
            Checksum::Wrong => unsigned + 1,
            Checksum::Bytes(bytes) => return block[CHECKSUM].copy_from_slice(bytes),
        };
        // With enough high bytes a signed sum is negative, and octal digits cannot say that.
        let digits = match u64::try_from(sum) {
            Ok(sum) => format!("{sum:06o}\0 ").into_bytes(),
            Err(_) => base256(CHECKSUM.len(), i128::from(sum)),
        };
        block[CHECKSUM].copy_from_slice(&digits);
    }
}

/// Puts bytes into a field: the rest of it becomes NULs, and what does not fit is left out.
pub(super) fn put(header: &mut Header, field: Field, bytes: &[u8]) {
    let field = &mut header.as_mut_bytes()[field.range()];
    field.fill(0);
    let length = bytes.len().min(field.len());
    field[..length].copy_from_slice(&bytes[..length]);
}

/// Octal digits with a NUL behind, as many as fill a field of `width` bytes. More digits make it longer.
pub fn octal(width: usize, value: u64) -> Vec<u8> {
    format!("{value:0digits$o}\0", digits = width - 1).into_bytes()
}

/// A number in base 256 for a field of up to 16 bytes, marked by the highest bit; negative ones in two's complement.
pub fn base256(width: usize, value: i128) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..width).rev().map(|at| (value >> (8 * at)) as u8).collect();
    bytes[0] |= 0x80;
    bytes
}

/// Octal if it fits, else base 256.
pub(super) fn number(width: usize, value: u64) -> Vec<u8> {
    let digits = octal(width, value);
    if digits.len() <= width { digits } else { base256(width, i128::from(value)) }
}
