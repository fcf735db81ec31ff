//! Streams of blocks that readers disagree on.

use super::*;
use crate::support::compressed::packed;
use crate::support::oci::Compression;
use crate::support::tar::{Checksum, Sparse, archive, archive_without_end};

/// A member hidden in what another one has, where a reader that believes another size finds it.
fn smuggled() -> Vec<u8> {
    Member::symlink("smuggled", "../../../victim").to_bytes()
}

#[test]
fn two_readers_see_one_archive() {
    let place = Place::new();
    let hidden = smuggled();
    let next = || Member::file("next", b"n");
    let empty = || Member::file("data", b"");
    let size = |size: usize| Member::file("data", &hidden).pax("size", size.to_string());
    // PAX wins, for reading and for skipping; what does not add up is refused.
    let right = |name: String, member: Member, content: &[u8]| {
        case(name, [member, next()], Harmless)
            .shows("data", Seen::Content(content.to_vec()))
            .shows("next", Seen::File(b"n"))
            .shows("smuggled", Seen::Absent)
    };
    place.all([0, 1, 512, 1 << 30].map(|stated| {
        right(format!("PAX beside {stated}"), size(hidden.len()).declared_size(stated), &hidden)
    }));
    place.all([right(
        "PAX smaller".to_owned(),
        Member::file("data", b"1").pax("size", "1").declared_size(512),
        b"1",
    )]);
    let split = Member::file("data", &hidden).pax("comment", "a\nb").pax("size", hidden.len().to_string());
    let nul = |header: &mut tar::Header| header.as_old_mut().size = *b"\x000000001000\0";
    let twice = Member::file("data", b"1").pax("path", "one").pax("path", "two");
    let line = Member::file("data", b"1").pax("comment", "a\n12 path=etc\n");
    let with_body = |member: Member| [member.declared_size(hidden.len() as u64), Member::raw(hidden.clone())];
    place.all([
        case("PAX empty", [empty().pax("size", "")], Refused("size is empty")),
        case("PAX after a newline", [split.declared_size(0)], Refused("\"data\"")),
        case("a size after a NUL", [Member::file("data", &hidden).header(nul)], Refused("\"data\"")),
        case("PAX larger", [size(hidden.len() * 100)], Refused("\"data\"")),
        case("PAX zero", [size(0), Member::file("smuggled/x", b"x")], Refused("smuggled/x")),
        case("no number", [empty().pax("size", "12a")], Refused("\"data\"")),
        case("an overflow", [empty().pax("size", "18446744073709551617")], Refused("\"data\"")),
        case("8 EiB", [empty().pax("size", "9223372036854775807")], Refused("\"data\"")),
        case("a key twice", [twice], Refused("contradict each other")),
        case("a record in a value", [line], Refused("reads like a record")),
        case("a link with a body", with_body(Member::symlink("link", "x")), Refused("\"link\"")),
        case("a directory with a body", with_body(Member::directory("dir")), Refused("\"dir\"")),
        case("a fifo with a body", with_body(Member::fifo("pipe")), Refused("\"pipe\"")),
    ]);
}

#[test]
fn extension_headers_out_of_place() {
    let place = Place::new();
    let hidden = smuggled();
    let long = |name: &str| Member::file("././@LongLink", format!("{name}\0")).entry_type(b'L');
    let file = || Member::file("short", b"x");
    let size = Member::file("pax", b"10 size=1\n").entry_type(b'x');
    let of_hidden = Member::file("pax", b"12 size=512\n").entry_type(b'x');
    let lying = Member::file("short", &hidden).declared_size(0);
    assert_eq!(hidden.len(), 512);
    let longer = |name: &str, members: &[Member], content: &[u8]| {
        case(name, members, Harmless)
            .shows("long", Seen::Content(content.to_vec()))
            .shows("short", Seen::Absent)
            .shows("l", Seen::Absent)
            .shows("smuggled", Seen::Absent)
    };
    let huge = Member::file("pax", b"").entry_type(b'x').declared_size(1 << 40);
    place.all([
        longer("long name", &[long("long"), file()], b"x"),
        // The size is the file's, not that of the name in between.
        longer("size, long name, file", &[size.clone(), long("long"), file()], b"x"),
        longer("size, long name, file without one", &[of_hidden, long("long"), lying], &hidden),
        case("two long names", [long("one"), long("two"), file()], Refused("LongLink")),
        case("a long name at the end", [file(), long("long")], Refused("\"short\"")),
        case("before an unknown type", [long("long"), file().entry_type(b'Q')], Refused("\"long\"")),
        case(
            "a long name that leaves",
            [long("../../../victim/x"), file()],
            Refused(r#""../../../victim/x""#),
        ),
        case("PAX twice", [size.clone(), size, file()], Refused("\"pax\"")),
        case("a huge extension", [huge, file()], Refused("pax_bytes")),
    ]);
    for records in [&b"11 size=1\n"[..], b"10 size=1", b"x", b"99999999999999999999 a=b\n", b"10 size:1\n"] {
        let bad = Member::file("pax", records).entry_type(b'x');
        place.attack_twice(&format!("{}", records.escape_ascii()), &[bad, file()], Refused("\"pax\""));
    }
    for records in [&b"14 path=hello\n"[..], b"10 size=9\n"] {
        let global = Member::file("global", records).entry_type(b'g');
        place.attack_twice("a global header", &[global, file()], Refused("\"global\""));
    }
    let old = |header: &mut tar::Header| header.as_mut_bytes()[257..265].fill(0);
    for typeflag in [b'x', b'g', b'L', b'K'] {
        let extension = Member::file("old", b"11 path=ab\n").entry_type(typeflag).header(old);
        place.attack_twice("of the seventh edition", &[extension, file()], Refused("\"old\""));
    }
}

#[test]
fn damaged_headers_are_refused() {
    let place = Place::new();
    let good = Member::file("good", b"x").to_bytes();
    let mut bad = Member::file("bad", b"x").to_bytes();
    bad[0] ^= 1;
    place.attack_twice(
        "checksum",
        &[Member::raw(good.clone()), Member::raw(bad.clone())],
        Refused("\"good\""),
    );
    place.attack_twice("checksum of the first", &[Member::raw(bad)], Refused("not a tar archive"));
    for typeflag in [b'D', b'M', b'V', b'N', b'Q', 0x80] {
        place.attack_twice("type", &[Member::file("odd", b"").entry_type(typeflag)], Refused("\"odd\""));
    }
    let high = |checksum| [Member::file(b"\xff\xfe", b"x").checksum(checksum)];
    let data = [good.clone(), vec![0; 1024], smuggled()].concat();
    let lone = [good.clone(), vec![0; 512], smuggled()].concat();
    let junk = [archive(&[Member::file("good", b"x")]), b"what nobody asked for".to_vec()].concat();
    place.all([
        case("contiguous", [Member::file("old", b"x").entry_type(b'7')], Harmless)
            .shows("old", Seen::File(b"x")),
        // As programs count whose characters are signed; with high bytes it is another number.
        case("a signed checksum", high(Checksum::Signed), Harmless).shows("\\xff\\xfe", Seen::File(b"x")),
        case("a wrong checksum of high bytes", high(Checksum::Wrong), Refused("not a tar archive")),
        of_layers("data after the end", [Layer::from_tar(data)], Harmless)
            .shows("good", Seen::File(b"x"))
            .shows("smuggled", Seen::Absent),
        of_layers("junk after the end", [Layer::from_tar(junk)], Harmless).shows("good", Seen::File(b"x")),
        of_layers("one end block, then data", [Layer::from_tar(lone)], Refused("\"good\"")),
        of_layers("one end block", [Layer::from_tar([good.clone(), vec![0; 512]].concat())], Harmless)
            .shows("good", Seen::File(b"x")),
    ]);
    for (name, bytes) in [
        ("a short zip", b"PK\x03\x04 is what a zip begins with".to_vec()),
        ("a zip", [b"PK\x03\x04".as_slice(), &[7; 4096]].concat()),
        ("noise", (0..4096u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()),
    ] {
        place.attack(name, [Layer::from_tar(bytes.clone())], Refused("not a tar"));
        place.attack(name, [place.base(), Layer::from_tar(bytes)], Refused("not a tar"));
    }
    for layers in [vec![Layer::from_tar(Vec::new())], vec![place.base(), Layer::from_tar(Vec::new())]] {
        place.attack("nothing", layers, Refused("the archive is empty"));
    }
}

#[test]
fn cut_archives_are_refused_and_unpadded_ones_are_not() {
    let place = Place::new();
    let whole = |end: &[u8]| of_layers("", [Layer::from_tar(end.to_vec())], Harmless);
    // At each block, and at odd bytes of it. By its end, what each member has before its padding, and whether one has to follow.
    let members = [
        (Member::file("a", [1; 600]).pax("mtime", "1.5"), 600, true),
        (Member::file("././@LongLink", b"long\0").entry_type(b'L'), 5, false),
        (Member::file("short", b"x"), 1, true),
        (Member::directory("d"), 0, true),
    ];
    let mut fine = Vec::new();
    let mut blocks: Vec<u8> = Vec::new();
    for (member, content, is_whole) in members {
        blocks.extend(member.to_bytes());
        let padding = usize::next_multiple_of(content, 512) - content;
        if is_whole {
            fine.push(blocks.len() - padding..=blocks.len());
        }
    }
    let end = blocks.len();
    blocks.resize(end + 1024, 0);
    for at in (0..blocks.len()).filter(|at| [0, 1, 89, 511].contains(&(at % 512))).skip(1) {
        let is_fine =
            fine.iter().any(|range| range.contains(&at)) || (at > end && at % 512 == 0) || at > end + 512;
        let expected = match at {
            _ if is_fine => Harmless,
            ..512 => Refused("not a tar"),
            _ => Refused("cut off"),
        };
        let name = format!("cut at {at}");
        let Case { layers, wanted, .. } = whole(&blocks[..at]);
        let cut = Case { name, layers, above_base: false, wanted: Wanted { expected, ..wanted } };
        place.all([cut.shows("a", Seen::Content(vec![1; 600]))]);
    }
    let cut =
        Layer::from_tar(blocks.clone()).packed(packed(layerstore::Compression::None, &blocks[..5 * 512]));
    place.attack("cut between two members", [cut], Refused("has the diffID"));
    // As `umoci insert` writes them.
    let members = [Member::directory("d"), Member::file("d/file", [7; 700])];
    let whole = archive_without_end(&members);
    for end in [1024 + 700, 1800, whole.len(), whole.len() - 1] {
        let unpadded = || Layer::from_tar(whole[..end].to_vec());
        place.all(
            [
                of_layers("no padding", [unpadded()], Harmless),
                of_layers(
                    "no padding, second layer",
                    [place.base(), unpadded().compression(Compression::None)],
                    Harmless,
                ),
            ]
            .map(|case| case.shows("d/file", Seen::Content(vec![7; 700]))),
        );
    }
}

/// A sparse archive cut inside of its map, and at each block of it.
#[test]
fn cut_sparse_files_are_refused() {
    let place = Place::new();
    let map: Vec<(u64, u64)> = (0..30).map(|at| (at * 1024, 512)).collect();
    for sparse in Sparse::every_form(&map, 40 << 10) {
        let bytes = Member::file("sparse", [9; 30 * 512]).sparse(sparse.clone()).to_bytes();
        for at in (512..bytes.len() - 511).step_by(512) {
            let name = format!("{} of {sparse:?}", at);
            place.attack(&name, [Layer::from_tar(bytes[..at].to_vec())], Refused("cut off"));
        }
    }
}
