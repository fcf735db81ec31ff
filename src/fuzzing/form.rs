//! How a member is written down: in the usual way, in another that means the same, or in one that no reader takes.

use layerstore_schema::manifest::Timestamp;

use super::fields::Fields;
use super::model::{Member, What};
use crate::archive::made::{self, Checksum, Field, Format};

/// The form of one member.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Form {
    /// A POSIX header with octal numbers, and PAX records for what it has no room for.
    #[default]
    Plain,
    /// Numbers in base 256, times before 1970 too.
    Base256,
    /// The checksum of signed characters.
    SignedChecksum,
    /// GNU's header.
    Gnu,
    /// A header without magic, which has no place for a device's numbers.
    Old,
    /// GNU long names between the PAX header and the member.
    LongNames,
    /// GNU long names before the PAX header.
    LongNamesFirst,
    /// A PAX size, and another one in the header: PAX wins.
    PaxSize,
    /// The same, with a long name between the PAX header and the member.
    PaxSizeBeforeLongName,
    /// A global header that says nothing of importance.
    Global,

    /// One more than the right checksum.
    WrongChecksum,
    /// More content than there is.
    SizeBeyond,
    /// A size below zero.
    NegativeSize,
    /// A PAX size that is no number.
    SizeIsNoNumber,
    /// An owner that no file has.
    OwnerBeyond,
    /// Two PAX headers.
    PaxTwice,
    /// A path for every member to come.
    GlobalPath,
}

/// Those that mean what the plain form means.
const SAME: [Form; 9] = [
    Form::Base256,
    Form::SignedChecksum,
    Form::Gnu,
    Form::Old,
    Form::LongNames,
    Form::LongNamesFirst,
    Form::PaxSize,
    Form::PaxSizeBeforeLongName,
    Form::Global,
];

const REFUSED: [Form; 7] = [
    Form::WrongChecksum,
    Form::SizeBeyond,
    Form::NegativeSize,
    Form::SizeIsNoNumber,
    Form::OwnerBeyond,
    Form::PaxTwice,
    Form::GlobalPath,
];

impl Form {
    /// From a number below 16. The last one takes a byte more, of which few values spoil the layer: else most of them would be refused for
    /// the form of a member, and say nothing of how members meet.
    pub(super) fn of(number: u8, fields: &mut Fields<'_>) -> Self {
        match usize::from(number) {
            0 => Form::Plain,
            15 => REFUSED.get(usize::from(fields.byte())).copied().unwrap_or_default(),
            number => SAME.get(number - 1).copied().unwrap_or_default(),
        }
    }

    /// Whether no reader takes it.
    pub(super) fn is_refused(self) -> bool {
        REFUSED.contains(&self)
    }

    /// A member in this form, with what stands before it.
    pub(super) fn write(self, member: &Member) -> Vec<made::Member> {
        let plain = plain(member);
        let length = plain.content_length();
        let comment = |typeflag| made::Member::extension(typeflag, &[("comment", "of nothing")]);
        let long_names = || {
            let link = match &member.what {
                What::Symlink(target) | What::HardLink(target) => target.as_slice(),
                _ => b"",
            };
            // Nothing is no name.
            let names = [(b'L', member.path.as_slice()), (b'K', link)];
            names
                .into_iter()
                .filter(|(_, name)| !name.is_empty())
                .map(|(typeflag, name)| (typeflag, [name, b"\0"].concat()))
        };
        let with_long_names = |plain| {
            long_names().fold(plain, |plain: made::Member, (typeflag, name)| plain.long(typeflag, name))
        };
        let with_size = |plain: made::Member| match member.what {
            What::File(_) => plain.declared_size(1 << 30).pax("size", length.to_string()),
            _ => plain.pax("size", "0"),
        };
        let one = match self {
            Form::Plain => plain,
            Form::Base256 => in_base256(plain, member, length),
            Form::SignedChecksum => plain.checksum(Checksum::Signed),
            Form::Gnu => plain.format(Format::Gnu),
            Form::Old if matches!(member.what, What::CharDevice(..) | What::BlockDevice(..)) => plain,
            Form::Old => plain.format(Format::Old),
            Form::LongNames => with_long_names(plain),
            Form::LongNamesFirst => {
                let names = long_names().map(|(typeflag, name)| made::Member::long_name(typeflag, name));
                return names.chain([plain]).collect();
            }
            Form::PaxSize => with_size(plain),
            Form::PaxSizeBeforeLongName => with_long_names(with_size(plain)),
            Form::Global => return vec![comment(b'g'), plain],
            Form::WrongChecksum => plain.checksum(Checksum::Wrong),
            Form::SizeBeyond => plain.declared_size(1 << 40),
            Form::NegativeSize => plain.base256(Field::Size, -1),
            Form::SizeIsNoNumber => plain.pax("size", "1x"),
            Form::OwnerBeyond => plain.base256(Field::Uid, 1 << 32),
            Form::PaxTwice => return vec![comment(b'x'), comment(b'x'), plain],
            Form::GlobalPath => return vec![made::Member::extension(b'g', &[("path", "a")]), plain],
        };
        vec![one]
    }
}

fn plain(member: &Member) -> made::Member {
    let Member { path, what, metadata, .. } = member;
    let plain = match what {
        What::File(content) => made::Member::file(path, content),
        What::Directory => made::Member::directory(path),
        What::Symlink(target) => made::Member::symlink(path, target),
        What::HardLink(target) => made::Member::hard_link(path, target),
        What::CharDevice(major, minor) => made::Member::char_device(path, *major, *minor),
        What::BlockDevice(major, minor) => made::Member::block_device(path, *major, *minor),
        What::Fifo => made::Member::fifo(path),
    };
    let Timestamp { seconds, nanoseconds } = metadata.mtime;
    let plain = plain
        .mode(metadata.mode.into())
        .owner(metadata.uid.into(), metadata.gid.into())
        .mtime(seconds, nanoseconds);
    metadata
        .xattrs
        .iter()
        .fold(plain, |plain, (name, value)| plain.pax([b"SCHILY.xattr.", name.as_slice()].concat(), value))
}

fn in_base256(plain: made::Member, member: &Member, length: usize) -> made::Member {
    let metadata = &member.metadata;
    let mut numbers = vec![
        (Field::Mode, i128::from(metadata.mode)),
        (Field::Uid, metadata.uid.into()),
        (Field::Gid, metadata.gid.into()),
        (Field::Size, i128::try_from(length).unwrap_or_default()),
    ];
    if let What::CharDevice(major, minor) | What::BlockDevice(major, minor) = member.what {
        numbers.extend([(Field::Major, major.into()), (Field::Minor, minor.into())]);
    }
    let Timestamp { seconds, nanoseconds } = metadata.mtime;
    let plain = match nanoseconds {
        0 => {
            numbers.push((Field::Mtime, seconds.into()));
            // So that no record says it.
            plain.mtime(0, 0)
        }
        _ => plain,
    };
    numbers.into_iter().fold(plain, |plain, (field, number)| plain.base256(field, number))
}
