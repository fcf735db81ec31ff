//! The same bytes through this reader, the `tar` crate and GNU tar: the same list, or a refusal by this one. What the crate does not
//! find behind a newline in a record is the one exception ([`records_behind_newlines_are_read`]).
//!
//! The other two may refuse what is read here: who is told "this is no good archive" was not deceived. What the `tar` crate
//! gave its caller before it refused has to be the same all the same.

use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::process::Command;

use super::super::made::{Checksum, Member};
use super::super::testing::{Blocks, read};
use super::super::{Entry, EntryKind};

/// Type as `ls` shows it, size, path and what is linked to.
type Line = (u8, u64, Vec<u8>, Vec<u8>);

/// The list as this reader sees it; `None` if it refuses.
fn ours(archive: &[u8]) -> Option<Vec<(Line, Entry)>> {
    let entries = read(archive).ok()?;
    let line = |entry: Entry| {
        let kind = match entry.kind {
            EntryKind::File => b'-',
            EntryKind::Directory => b'd',
            EntryKind::Symlink => b'l',
            EntryKind::HardLink => b'h',
            EntryKind::CharDevice { .. } => b'c',
            EntryKind::BlockDevice { .. } => b'b',
            EntryKind::Fifo => b'p',
        };
        ((kind, entry.size, entry.path.clone(), entry.link.clone()), entry)
    };
    Some(entries.into_iter().map(|(entry, _)| line(entry)).collect())
}

/// The path of a directory ends with any number of slashes, or none.
fn without_slashes(path: &[u8]) -> Vec<u8> {
    let end = path.iter().rposition(|&byte| byte != b'/').map_or(1, |last| last + 1);
    path[..end.min(path.len())].to_vec()
}

/// The list as the `tar` crate sees it, as far as it comes, and whether that is to the end.
fn of_the_crate(archive: &[u8]) -> (Vec<Line>, bool) {
    let mut list = Vec::new();
    let is_whole = list_by_the_crate(archive, &mut list).is_ok();
    (list, is_whole)
}

fn list_by_the_crate(archive: &[u8], list: &mut Vec<Line>) -> io::Result<()> {
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_pax_global_extensions() {
            continue;
        }
        io::copy(&mut entry.by_ref(), &mut io::sink())?;
        let path = entry.path_bytes().into_owned();
        let [typeflag] = entry.header().as_old().linkflag;
        let kind = match typeflag {
            0 if path.ends_with(b"/") => b'd',
            b'1' => b'h',
            b'2' => b'l',
            b'3' => b'c',
            b'4' => b'b',
            b'5' => b'd',
            b'6' => b'p',
            0 | b'0' | b'7' | b'S' => b'-',
            other => other,
        };
        let link = if matches!(kind, b'h' | b'l') { entry.link_name_bytes() } else { None };
        // Each of the crate's long names ends before one NUL, GNU's before the first.
        let cut = |bytes: &[u8]| bytes.split(|&byte| byte == 0).next().unwrap_or_default().to_vec();
        let link = link.map(|link| cut(&link)).unwrap_or_default();
        let path = cut(&path);
        list.push((kind, entry.size(), if kind == b'd' { without_slashes(&path) } else { path }, link));
    }
    Ok(())
}

/// The lines that GNU tar shows; `None` if it refuses or is not there.
fn of_gnu_tar(archive: &[u8], directory: &tempfile::TempDir) -> Option<Vec<String>> {
    let file = directory.path().join("a.tar");
    std::fs::write(&file, archive).unwrap();
    let output = Command::new("tar")
        .args(["--list", "--verbose", "--full-time", "--numeric-owner", "--quoting-style=escape"])
        .args(["--absolute-names", "--file"])
        .arg(&file)
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).unwrap();
    output.status.success().then(|| text.lines().map(plain).collect())
}

/// A line of GNU tar's without mode, owner and time; the device numbers for a size.
fn plain(line: &str) -> String {
    // A contiguous file is one like any other.
    let kind = line[..1].replace('C', "-");
    let mut rest = line;
    let mut fields = Vec::new();
    for _ in 0..5 {
        let (field, after) = rest.trim_start().split_once(' ').unwrap_or((rest.trim_start(), ""));
        fields.push(field);
        rest = after;
    }
    format!("{kind} {} {}", fields[2], rest.trim())
}

/// The line that GNU tar shows of a member.
fn as_gnu_tar_has_it((kind, size, path, link): &Line, entry: &Entry) -> String {
    let size = match entry.kind {
        EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
            format!("{major},{minor}")
        }
        _ => size.to_string(),
    };
    let slash = if *kind == b'd' { "/" } else { "" };
    let arrow = match kind {
        b'l' => " -> ",
        b'h' => " link to ",
        _ => "",
    };
    let name = format!("{}{slash}{arrow}{}", escaped(path), escaped(link));
    format!("{} {size} {}", char::from(*kind), name.trim())
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for &byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            7 => text.push_str("\\a"),
            8 => text.push_str("\\b"),
            9 => text.push_str("\\t"),
            10 => text.push_str("\\n"),
            11 => text.push_str("\\v"),
            12 => text.push_str("\\f"),
            13 => text.push_str("\\r"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => write!(text, "\\{byte:03o}").unwrap(),
        }
    }
    text
}

/// How many archives of a run each reader took.
#[derive(Default, Debug)]
struct Taken {
    ours: usize,
    by_the_crate: usize,
    /// Those of which the crate gave a member at least, and refused the rest.
    begun_by_the_crate: usize,
    by_gnu_tar: usize,
}

impl Taken {
    /// Compares; what differs is returned as text.
    fn compare(&mut self, archive: &[u8], directory: &tempfile::TempDir) -> Result<(), String> {
        let Some(list) = ours(archive) else { return Ok(()) };
        self.ours += 1;
        let lines: Vec<_> = list.iter().map(|(line, _)| line.clone()).collect();
        // The crate knows no sparse files of PAX, and ends a record of PAX at a newline in its value.
        let is_known = |entry: &Entry| {
            entry.sparse.is_none() && !entry.path.contains(&b'\n') && !entry.link.contains(&b'\n')
        };
        let known = list.iter().take_while(|(_, entry)| is_known(entry)).count();
        let (peer, is_whole) = of_the_crate(archive);
        // Who acts on each member as it comes has acted on those before an error.
        let same = peer.iter().zip(&lines).take(known).all(|(peer, ours)| peer == ours);
        let ends = match (known == lines.len(), is_whole) {
            (true, true) => peer.len() == lines.len(),
            (true, false) => peer.len() <= lines.len(),
            (false, _) => true,
        };
        if !(same && ends) {
            return Err(format!("ours {lines:?}\nthe tar crate's {peer:?}, to the end: {is_whole}"));
        }
        self.by_the_crate += usize::from(is_whole && known == lines.len());
        self.begun_by_the_crate += usize::from(!is_whole && known.min(peer.len()) > 0);
        if let Some(peer) = of_gnu_tar(archive, directory) {
            self.by_gnu_tar += 1;
            let lines: Vec<_> = list.iter().map(|(line, entry)| as_gnu_tar_has_it(line, entry)).collect();
            // A directory keeps the slashes it has, and gets none if its name came from an extension header.
            let bare = |lines: &[String]| -> Vec<String> {
                lines.iter().map(|line| line.trim_end_matches(['/', ' ']).to_owned()).collect()
            };
            let same = bare(&peer) == bare(&lines);
            if !same {
                return Err(format!("ours {lines:#?}\nGNU tar's {peer:#?}"));
            }
        }
        Ok(())
    }
}

fn has_gnu_tar() -> bool {
    let found = Command::new("tar").arg("--version").output();
    found.is_ok_and(|output| output.stdout.starts_with(b"tar (GNU tar)"))
}

/// A header whose classic fields are changed.
fn changed(typeflag: u8, name: &str, size: u64, change: impl FnOnce(&mut [u8; 512])) -> Blocks {
    let mut header = Blocks::header(typeflag, name, size);
    change(header.as_mut_bytes());
    Blocks::new().put(header)
}

/// The second half of every case: a member that another reader takes for content, or finds in content.
fn hidden() -> Vec<u8> {
    Blocks::new().link(b'2', "etc", "../victim").0
}

/// Archives that some reader is or was deceived by, each with a name.
fn cases() -> Vec<(&'static str, Vec<u8>)> {
    let inner = hidden();
    let length = inner.len().to_string();
    let file = |blocks: Blocks| blocks.file("a", b"abc").file("z", b"").end();
    let field = |at: usize, bytes: &'static [u8]| {
        let inner = inner.clone();
        move || {
            changed(b'0', "a", inner.len() as u64, |block| {
                block[at..at + bytes.len()].copy_from_slice(bytes);
            })
            .bytes(&inner)
            .end()
        }
    };
    let size = |bytes: &'static [u8; 12]| field(124, bytes)();
    let gnu = |change: fn(&mut [u8; 512])| {
        let as_gnu = |block: &mut [u8; 512]| {
            block[257..265].copy_from_slice(b"ustar  \0");
            change(block);
        };
        changed(b'0', "a", 0, as_gnu).end()
    };
    let magic = |magic: &'static [u8; 8], typeflag: u8, body: &[u8]| {
        let header = |block: &mut [u8; 512]| block[257..265].copy_from_slice(magic);
        let extension = changed(typeflag, "ext", body.len() as u64, header).body(body);
        file(extension)
    };
    let pax = |records: &[(&str, &str)]| Blocks::new().pax(records);
    let stated = |size: u64| Blocks::header(b'0', "a", size);
    let signed = Member::file(b"\xff\xfe", b"x").checksum(Checksum::Signed);
    vec![
        ("PAX size larger", pax(&[("size", &length)]).put(stated(0)).bytes(&inner).file("z", b"").end()),
        ("PAX size smaller", pax(&[("size", "0")]).put(stated(512)).bytes(&inner).file("z", b"").end()),
        (
            "PAX size, long name, file",
            pax(&[("size", &length)]).long(b'L', "long").put(stated(0)).bytes(&inner).file("z", b"").end(),
        ),
        (
            "long name, PAX size, file",
            Blocks::new().long(b'L', "long").pax(&[("size", &length)]).put(stated(0)).bytes(&inner).end(),
        ),
        ("PAX after PAX", file(pax(&[("size", "3")]).pax(&[("path", "b")]))),
        ("PAX size twice", file(pax(&[("size", "3"), ("size", "0")]))),
        ("PAX path twice", file(pax(&[("path", "b"), ("path", "c")]))),
        ("PAX path taken back", file(pax(&[("path", "")]))),
        ("PAX size taken back", file(pax(&[("size", "")]))),
        ("PAX size with a plus", file(pax(&[("size", "+3")]))),
        ("PAX size with a space", file(pax(&[("size", " 3")]))),
        ("PAX size with leading zeros", file(pax(&[("size", "0003")]))),
        ("global path", file(Blocks::new().global(&[("path", "b")]))),
        ("global size", file(Blocks::new().global(&[("size", "0")]))),
        ("global comment", file(Blocks::new().global(&[("comment", "x")]))),
        ("global taken back", file(Blocks::new().global(&[("mtime", "5")]).pax(&[("mtime", "")]))),
        ("long name twice", file(Blocks::new().long(b'L', "b").long(b'L', "c"))),
        ("long name and PAX path", file(Blocks::new().long(b'L', "b").pax(&[("path", "c")]))),
        ("long name, then the end", Blocks::new().file("a", b"").long(b'L', "b").end()),
        ("long name, then an unknown type", file(Blocks::new().long(b'L', "b").member(b'Q', "q", b""))),
        ("long name that goes on", file(changed(b'L', "L", 2, |_| ()).body(b"d/long/"))),
        ("long name that fills its blocks", file(Blocks::new().member(b'L', "L", &[b'n'; 512]))),
        ("long name without NUL", file(Blocks::new().member(b'L', "L", b"long"))),
        ("long name with NULs", file(Blocks::new().member(b'L', "L", b"long\0\0\0"))),
        ("long name with a NUL inside", file(Blocks::new().member(b'L', "L", b"lo\0ng\0"))),
        ("long link on a file", file(Blocks::new().long(b'K', "b"))),
        // A reader that splits records at newlines finds one of its own in a value, or loses those after it.
        ("a record in a value", file(pax(&[("comment", "x\n10 path=b\n")]))),
        ("a record in a value, with a plus", file(pax(&[("comment", "x\n+11 path=b\n")]))),
        ("a record that begins in a key", file(pax(&[("SCHILY.xattr.user.a\n9 path", "b")]))),
        ("a size in a value", file(pax(&[("comment", "x\n10 size=0\n")]))),
        (
            "a size after a newline",
            pax(&[("comment", "x\ny"), ("size", &length)]).put(stated(0)).bytes(&inner).file("z", b"").end(),
        ),
        ("a newline without harm", file(pax(&[("comment", "x\ny"), ("size", "3")]))),
        // Extension headers of an archive too old to have them: some readers show them as files.
        ("long name of the seventh edition", magic(&[0; 8], b'L', b"long\0")),
        ("PAX of the seventh edition", magic(&[0; 8], b'x', b"10 path=b\n")),
        ("PAX of another version", magic(b"ustar\0\0\0", b'x', b"10 path=b\n")),
        ("PAX of GNU", magic(b"ustar  \0", b'x', b"10 path=b\n")),
        // GNU skips a NUL before a number, Go all of them, and others end there.
        ("size after a NUL", size(b"\x000000001000\0")),
        ("size after two NULs", size(b"\0\x00000001000\0")),
        ("size after a space and a NUL", size(b" \x00000001000\0")),
        ("base-256 size after a NUL", size(b"\0\x80\0\0\0\0\0\0\0\0\x02\0")),
        ("base-256 size after a space", size(b" \x80\0\0\0\0\0\0\0\0\x02\0")),
        ("size with a tab", size(b"0000001000\t\0")),
        ("size before junk", size(b"1000\0junk\0\0\0")),
        ("size of two numbers", size(b"1000 7777 \0\0")),
        ("size in hexadecimal", size(b"0x200\0\0\0\0\0\0\0")),
        ("blank size", size(b"            ")),
        ("no size", size(&[0; 12])),
        ("base-256 size", size(b"\x80\0\0\0\0\0\0\0\0\0\x02\0")),
        ("base-256 size beyond 64 bits", size(b"\x80\0\0\x01\0\0\0\0\0\0\x02\0")),
        ("negative size", size(&[0xff; 12])),
        // Where the prefix is, there is something else in GNU's and star's headers.
        ("prefix", field(345, b"dir")()),
        (
            "prefix of the seventh edition",
            changed(b'0', "a", 0, |block| {
                block[257..265].fill(0);
                block[345..348].copy_from_slice(b"dir");
            })
            .end(),
        ),
        ("GNU header with a prefix", gnu(|block| block[345..350].copy_from_slice(b"dir/x"))),
        (
            "GNU header with times",
            gnu(|block| {
                block[345..357].copy_from_slice(b"14000000000\0");
                block[357..369].copy_from_slice(b"14000000000\0");
            }),
        ),
        (
            "star header with a long prefix",
            changed(b'0', "a", 0, |block| {
                block[345..490].fill(b'p');
                block[508..].copy_from_slice(b"tar\0");
            })
            .end(),
        ),
        ("a directory with a body", Blocks::new().put(Blocks::header(b'5', "d/", 512)).bytes(&inner).end()),
        ("a device with a body", Blocks::new().put(Blocks::header(b'3', "c", 512)).bytes(&inner).end()),
        ("a fifo with a body", Blocks::new().put(Blocks::header(b'6', "p", 512)).bytes(&inner).end()),
        ("a hard link with a body", changed(b'1', "h", 512, |block| block[157] = b'x').bytes(&inner).end()),
        ("a symlink with a body", changed(b'2', "l", 512, |block| block[157] = b'x').bytes(&inner).end()),
        ("a file with a slash", Blocks::new().file("d/", b"abc").end()),
        ("an old file with a slash", Blocks::new().member(0, "d/", b"").file("z", b"").end()),
        ("an old file with a slash and a body", Blocks::new().member(0, "d/", &inner).end()),
        ("an unknown type", file(Blocks::new().member(b'Q', "q", &inner))),
        ("a label", file(Blocks::new().member(b'V', "label", b""))),
        ("a part of another volume", file(Blocks::new().member(b'M', "part", b"abc"))),
        ("Solaris's PAX", file(Blocks::new().member(b'X', "x", b"10 path=b\n"))),
        ("every type", every_type()),
        ("one end block, then data", Blocks::new().file("a", b"").bytes(&[0; 512]).bytes(&inner).end()),
        ("two end blocks, then data", Blocks::new().file("a", b"").bytes(&[0; 1024]).bytes(&inner).end()),
        ("no end blocks", Blocks::new().file("a", b"abc").0),
        ("end blocks alone", vec![0; 1024]),
        ("nothing", Vec::new()),
        // The crate knows no checksums of characters with a sign, and stops there.
        (
            "a signed checksum in the middle",
            Blocks::new().file("a", b"abc").push(&signed).file("z", b"").end(),
        ),
        ("sparse 0.1 without a map", file(pax(&[("GNU.sparse.size", "3"), ("GNU.sparse.name", "b")]))),
        (
            "sparse of two sizes",
            file(pax(&[
                ("GNU.sparse.size", "9"),
                ("GNU.sparse.realsize", "8"),
                ("GNU.sparse.major", "0"),
                ("GNU.sparse.minor", "1"),
                ("GNU.sparse.numblocks", "1"),
                ("GNU.sparse.map", "0,3"),
            ])),
        ),
        ("sparse of an unknown version", file(pax(&[("GNU.sparse.major", "7"), ("GNU.sparse.minor", "0")]))),
        ("sparse of star", file(pax(&[("SCHILY.realsize", "9000")]))),
    ]
}

fn every_type() -> Vec<u8> {
    let device = |typeflag: u8| {
        let mut header = Blocks::header(typeflag, "device", 0);
        header.set_device_major(8).unwrap();
        header.set_device_minor(1).unwrap();
        header
    };
    Blocks::new()
        .member(b'5', "dir/", b"")
        .file("dir/file", b"content")
        .member(b'7', "contiguous", b"x")
        .link(b'1', "hard", "dir/file")
        .link(b'2', "soft", "../victim")
        .put(device(b'3'))
        .put(device(b'4'))
        .member(b'6', "fifo", b"")
        .pax(&[("path", "p\u{e4}x"), ("size", "4"), ("mtime", "5.25")])
        .put(Blocks::header(b'0', "short", 0))
        .body(b"four")
        .long(b'L', &"long/".repeat(30))
        .member(b'5', "short", b"")
        .long(b'K', &"target/".repeat(30))
        .link(b'2', "far", "short")
        .end()
}

#[test]
fn other_readers_see_the_same_list_or_this_one_refuses() {
    let directory = tempfile::tempdir().unwrap();
    let (mut taken, mut problems) = (Taken::default(), Vec::new());
    for (name, archive) in cases() {
        if let Err(difference) = taken.compare(&archive, &directory) {
            problems.push(format!("{name}: {difference}"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n\n"));
    // That nothing was refused out of hand, and nothing skipped.
    assert!(taken.ours >= 20 && taken.by_the_crate >= 15 && taken.begun_by_the_crate >= 1, "{taken:?}");
    assert!(taken.by_gnu_tar >= 15 || !has_gnu_tar(), "{taken:?}");
}

/// The crate stops at an empty line, and has the header's names; its search for an owner ends at the first line that is no record. But
/// archives of Go's have the xattrs first, and what they hold is anything.
#[test]
fn records_behind_newlines_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let record = |value, key, far| Blocks::new().pax(&[("SCHILY.xattr.user.a", value), (key, far)]);
    for (key, far, archive, of_the_header) in [
        ("path", "long", record("x\n", "path", "long").file("lo", b"").end(), "lo"),
        ("linkpath", "long", record("x\n", "linkpath", "long").link(b'2', "a", "lo").end(), "lo"),
        ("uid", "3000000000", record("x\ny", "uid", "3000000000").file("a", b"").end(), "0"),
    ] {
        let (line, entry) = ours(&archive).unwrap().remove(0);
        let mut peer = tar::Archive::new(archive.as_slice());
        let peer = peer.entries().unwrap().next().unwrap().unwrap();
        let (ours, of_the_crate) = match key {
            "path" => (entry.path.clone(), peer.path_bytes().into_owned()),
            "linkpath" => (entry.link.clone(), peer.link_name_bytes().unwrap().into_owned()),
            _ => (entry.uid.to_string().into(), peer.header().uid().unwrap().to_string().into()),
        };
        assert_eq!((ours, of_the_crate), (far.into(), of_the_header.into()), "{key}");
        if has_gnu_tar() {
            assert_eq!(of_gnu_tar(&archive, &directory).unwrap(), [as_gnu_tar_has_it(&line, &entry)]);
        }
    }
}

/// Numbers that are the same in every run (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    fn one_of<'a, V: ?Sized>(&mut self, of: &[&'a V]) -> &'a V {
        of[self.below(of.len())]
    }
}

/// Where the fields of a header begin, of every form.
const FIELDS: [usize; 15] = [0, 1, 99, 124, 125, 134, 135, 136, 156, 157, 257, 263, 345, 476, 508];

/// What a field is changed to: numbers, names and magics of every form, and what stands between them.
const BYTES: [&[u8]; 22] = [
    b"\0",
    b" ",
    b"/",
    b"0",
    b"5",
    b"7",
    b"x",
    b"g",
    b"L",
    b"K",
    b"S",
    b"1",
    b"\x80",
    b"\xff",
    b"\0\0\0\0\0\0\0\0",
    b"0000000001000",
    b" 1000 ",
    b"\x80\0\0\0\0\0\0\0\0\0\x02\0",
    b"ustar\x0000",
    b"ustar  \0",
    b"tar\0",
    b"../x",
];

/// Records that an extension header is given.
const RECORDS: [(&str, &str); 14] = [
    ("size", "0"),
    ("size", "512"),
    ("size", "3"),
    ("size", ""),
    ("path", "other"),
    ("path", ""),
    ("path", "d/"),
    ("linkpath", "there"),
    ("mtime", "1.5"),
    ("comment", "a\nb"),
    ("comment", "a\n10 size=3"),
    ("GNU.sparse.name", "n"),
    ("GNU.sparse.map", "0,3"),
    ("GNU.sparse.size", "9"),
];

/// An archive out of a few members, of which some bytes are changed; most checksums are right again afterwards.
fn any_archive(numbers: &mut Numbers) -> Vec<u8> {
    let mut blocks = Blocks::new();
    for _ in 0..=numbers.below(4) {
        blocks = match numbers.below(9) {
            0 => blocks.long(b'L', numbers.one_of(&["long", "d/long/", "other"])),
            1 => blocks.long(b'K', numbers.one_of(&["there", "far/away"])),
            2 | 3 => {
                let records = [RECORDS[numbers.below(RECORDS.len())], RECORDS[numbers.below(RECORDS.len())]];
                blocks.pax(&records[..=numbers.below(2)])
            }
            4 => blocks.global(&[RECORDS[numbers.below(RECORDS.len())]]),
            5 => blocks.link(*numbers.one_of(&[b"1", b"2"]).first().unwrap(), "link", "target"),
            6 => blocks.member(b'5', "d/", b""),
            _ => {
                let content = hidden();
                let name = numbers.one_of(&["file", "d/file"]);
                blocks.file(name, &content[..*numbers.one_of(&[&[0], &[3], &[512]]).first().unwrap()])
            }
        };
    }
    let mut archive = blocks.file("last", b"abc").end();
    for _ in 0..numbers.below(4) {
        let start = numbers.below(archive.len() / 512) * 512;
        match numbers.below(12) {
            0 => archive.truncate(start),
            1 => {
                let block = archive[start..start + 512].to_vec();
                archive.splice(start..start, block);
            }
            2 => drop(archive.drain(start..start + 512)),
            _ => {
                let (at, bytes) = (FIELDS[numbers.below(FIELDS.len())], numbers.one_of(&BYTES));
                let end = (at + bytes.len()).min(512);
                archive[start + at..start + end].copy_from_slice(&bytes[..end - at]);
            }
        }
        if archive.len() < 512 {
            break;
        }
    }
    for block in archive.chunks_exact_mut(512) {
        // What had a checksum, right or wrong, has a right one.
        if block[148..154].iter().all(|byte| (b'0'..=b'7').contains(byte)) && numbers.below(20) > 0 {
            let mut header = tar::Header::from_byte_slice(block).clone();
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
    archive
}

#[test]
fn other_readers_see_the_same_list_in_changed_archives() {
    let directory = tempfile::tempdir().unwrap();
    let seeds = std::env::var("LAYERSTORE_PEER_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(600);
    let mut taken = Taken::default();
    let mut problems = Vec::new();
    for seed in 0..seeds {
        let archive = any_archive(&mut Numbers(seed));
        if let Err(difference) = taken.compare(&archive, &directory) {
            problems.push(format!("seed {seed}: {difference}"));
        }
    }
    assert!(problems.is_empty(), "{}: {}", problems.len(), problems.join("\n\n"));
    let tenth = usize::try_from(seeds).unwrap() / 10;
    assert!(taken.ours >= tenth && taken.by_the_crate >= tenth, "{taken:?}");
    assert!(taken.by_gnu_tar >= tenth || !has_gnu_tar(), "{taken:?}");
}
