//! Streams that readers disagree on, and bombs.

use super::*;
use crate::support::compressed::packed;
use crate::support::oci::Compression;
use crate::support::tar::{archive, archive_without_end};

fn tar(members: &[Member]) -> Vec<u8> {
    archive(members)
}

/// A second archive, hidden where a reader that believes another size finds it.
fn smuggled() -> Vec<u8> {
    Member::symlink("etc", "../../../victim").to_bytes()
}

#[test]
fn two_readers_see_one_archive() {
    let place = Place::new();
    let hidden = smuggled();
    let size = |size: usize| Member::file("data", &hidden).pax("size", size.to_string());
    // PAX wins, for reading and for skipping; what does not add up is refused.
    for stated in [0, 1, 512, 1 << 30] {
        let declared = size(hidden.len()).declared_size(stated);
        place.attack_twice(&format!("PAX beside {stated}"), &[declared, Member::file("next", b"")], Harmless);
    }
    let smaller = Member::file("data", b"1").pax("size", "1").declared_size(512);
    place.attack_twice("PAX smaller", &[smaller, Member::file("next", b"")], Harmless);
    place.attack_twice("PAX empty", &[Member::file("data", b"").pax("size", "")], Refused("empty"));
    let split = Member::file("data", &hidden).pax("comment", "a\nb").pax("size", hidden.len().to_string());
    place.attack_twice("PAX after a newline", &[split.declared_size(0)], Refused("data"));
    let nul = |header: &mut tar::Header| header.as_old_mut().size = *b"\x000000001000\0";
    let body = Member::file("data", &hidden).header(nul);
    place.attack_twice("a size after a NUL", &[body], Refused("data"));
    place.attack_twice("PAX larger", &[size(hidden.len() * 100)], Refused("data"));
    place.attack_twice("PAX zero", &[size(0), Member::file("etc/x", b"x")], Refused("etc/x"));
    place.attack_twice("no number", &[Member::file("data", b"").pax("size", "12a")], Refused("data"));
    place.attack_twice(
        "an overflow",
        &[Member::file("data", b"").pax("size", "18446744073709551617")],
        Refused("data"),
    );
    place.attack_twice(
        "8 EiB",
        &[Member::file("data", b"").pax("size", "9223372036854775807")],
        Refused("data"),
    );
    let twice = Member::file("data", b"1").pax("path", "one").pax("path", "two");
    place.attack_twice("a key twice", &[twice], Refused("contradict"));
    let line = Member::file("data", b"1").pax("comment", "a\n12 path=etc\n");
    place.attack_twice("a record in a value", &[line], Refused("reads like a record"));
    let body = Member::symlink("link", "x").declared_size(hidden.len() as u64);
    place.attack_twice("a link with a body", &[body, Member::raw(hidden.clone())], Refused("link"));
    let directory = Member::directory("dir").declared_size(hidden.len() as u64);
    place.attack_twice("a directory with a body", &[directory, Member::raw(hidden)], Refused("dir"));
}

#[test]
fn extension_headers_out_of_place() {
    let place = Place::new();
    let long = |name: &str| Member::file("././@LongLink", format!("{name}\0")).entry_type(b'L');
    let file = || Member::file("short", b"x");
    place.attack_twice("long name", &[long("long"), file()], Harmless);
    place.attack_twice("two long names", &[long("one"), long("two"), file()], Refused("LongLink"));
    place.attack_twice("a long name at the end", &[file(), long("long")], Refused("short"));
    place.attack_twice("before an unknown type", &[long("long"), file().entry_type(b'Q')], Refused("long"));
    place.attack_twice("a long name that leaves", &[long("../../../victim/x"), file()], Refused(".."));
    let size = Member::file("pax", b"10 size=1\n").entry_type(b'x');
    place.attack_twice("size, long name, file", &[size.clone(), long("long"), file()], Harmless);
    place.attack_twice("PAX twice", &[size.clone(), size.clone(), file()], Refused("pax"));
    for records in [&b"11 size=1\n"[..], b"10 size=1", b"x", b"99999999999999999999 a=b\n", b"10 size:1\n"] {
        let bad = Member::file("pax", records).entry_type(b'x');
        place.attack_twice(&format!("{}", records.escape_ascii()), &[bad, file()], Refused("pax"));
    }
    for records in [&b"14 path=hello\n"[..], b"10 size=9\n"] {
        let global = Member::file("global", records).entry_type(b'g');
        place.attack_twice("a global header", &[global, file()], Refused("global"));
    }
    let old = |header: &mut tar::Header| header.as_mut_bytes()[257..265].fill(0);
    for typeflag in [b'x', b'g', b'L', b'K'] {
        let extension = Member::file("old", b"11 path=ab\n").entry_type(typeflag).header(old);
        place.attack_twice("of the seventh edition", &[extension, file()], Refused("old"));
    }
    let huge = Member::file("pax", b"").entry_type(b'x').declared_size(1 << 40);
    place.attack_twice("a huge extension", &[huge, file()], Refused("pax"));
}

#[test]
fn damaged_headers_are_refused() {
    let place = Place::new();
    let good = Member::file("good", b"x").to_bytes();
    let mut bad = Member::file("bad", b"x").to_bytes();
    bad[0] ^= 1;
    place.attack_twice("checksum", &[Member::raw(good.clone()), Member::raw(bad.clone())], Refused("good"));
    place.attack_twice("checksum of the first", &[Member::raw(bad)], Refused("tar"));
    for typeflag in [b'D', b'M', b'V', b'N', b'Q', 0x80] {
        place.attack_twice("type", &[Member::file("odd", b"").entry_type(typeflag)], Refused("odd"));
    }
    place.attack_twice("contiguous", &[Member::file("old", b"x").entry_type(b'7')], Harmless);
    let data = [good.clone(), vec![0; 1024], smuggled()].concat();
    place.attack("data after the end", [Layer::from_tar(data)], Harmless);
    let lone = [good.clone(), vec![0; 512], smuggled()].concat();
    place.attack("one end block, then data", [Layer::from_tar(lone)], Refused("good"));
    for (name, bytes) in [
        ("a short zip", b"PK\x03\x04 is what a zip begins with".to_vec()),
        ("a zip", [b"PK\x03\x04".as_slice(), &[7; 4096]].concat()),
        ("noise", (0..4096u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()),
    ] {
        place.attack(name, [Layer::from_tar(bytes.clone())], Refused("not a tar"));
        place.attack(name, [place.base(), Layer::from_tar(bytes)], Refused("not a tar"));
    }
    for layers in [vec![Layer::from_tar(Vec::new())], vec![place.base(), Layer::from_tar(Vec::new())]] {
        place.attack("nothing", layers, Refused("empty"));
    }
}

#[test]
fn cut_archives_are_refused_and_unpadded_ones_are_not() {
    let place = Place::new();
    let members = [Member::directory("d"), Member::file("d/file", [7; 700])];
    let whole = archive_without_end(&members);
    for end in [100, 600, 1000, 1100, 1536, 1700] {
        let expected = if end < 512 { "not a tar" } else { "cut off" };
        place.attack(&format!("cut at {end}"), [Layer::from_tar(whole[..end].to_vec())], Refused(expected));
    }
    // Every block: only a cut between two members goes unnoticed here, and the diffID tells that.
    let members = [
        Member::file("a", [1; 600]).pax("mtime", "1.5"),
        Member::file("././@LongLink", b"long\0").entry_type(b'L'),
        Member::file("short", b"x"),
        Member::directory("d"),
    ];
    let blocks = archive(&members);
    let between = [5, 9, 10, 11, 12];
    for block in 1..blocks.len() / 512 {
        let expected = if between.contains(&block) { Harmless } else { Refused("cut off") };
        place.attack(
            &format!("cut at block {block}"),
            [Layer::from_tar(blocks[..block * 512].to_vec())],
            expected,
        );
    }
    let cut =
        Layer::from_tar(blocks.clone()).packed(packed(layerstore::Compression::None, &blocks[..5 * 512]));
    place.attack("cut between two members", [cut], Refused("sha256:"));
    // As `umoci insert` writes them.
    for end in [1024 + 700, 1800, whole.len(), whole.len() - 1] {
        place.attack("no padding", [Layer::from_tar(whole[..end].to_vec())], Harmless);
        let above = Layer::from_tar(whole[..end].to_vec()).compression(Compression::None);
        place.attack("no padding, second layer", [place.base(), above], Harmless);
    }
}

#[test]
fn sparse_files_with_bad_maps_are_refused() {
    let place = Place::new();
    let sparse = |map: &str, size: &str| {
        Member::file("sparse", b"data")
            .pax("GNU.sparse.major", "0")
            .pax("GNU.sparse.minor", "1")
            .pax("GNU.sparse.name", "sparse")
            .pax("GNU.sparse.size", size)
            .pax("GNU.sparse.map", map)
    };
    place.attack_twice("right", &[sparse("100,4", "1000")], Harmless);
    for map in ["100,5", "100,2,50,2", "100,2,101,2", "18446744073709551615,4", "x", "1"] {
        place.attack_twice(map, &[sparse(map, "1000")], Refused("sparse"));
    }
    place.attack_twice("8 EiB", &[sparse("0,4", "9223372036854775807")], Refused("sparse"));
    place.attack_twice("beyond its end", &[sparse("2000,4", "1000")], Refused("sparse"));
    let many: String = (0..200_000).map(|at| format!("{},0,", at * 2)).collect();
    place.attack(
        "many regions",
        [Layer::new([sparse(many.trim_end_matches(','), "1000000")])],
        Refused("extension header"),
    );
    let both = sparse("0,4", "1000").pax("GNU.sparse.realsize", "999");
    place.attack_twice("two lengths", &[both], Refused("sparse"));
    let neither = Member::file("sparse", b"").pax("GNU.sparse.name", "etc").pax("GNU.sparse.size", "9");
    place.attack_twice("neither version nor map", &[neither], Refused("etc"));
}

/// The map of form 1.0 stands at the front of the content, and may be as long as that.
#[test]
fn sparse_maps_in_the_content() {
    let place = Place::new();
    let sparse = |map: &str, size: &str, stored: &[u8]| {
        let mut body = map.as_bytes().to_vec();
        body.resize(body.len().next_multiple_of(512), 0);
        Member::file("sparse", [&body, stored].concat())
            .pax("GNU.sparse.major", "1")
            .pax("GNU.sparse.minor", "0")
            .pax("GNU.sparse.name", "sparse")
            .pax("GNU.sparse.realsize", size)
    };
    place.attack_twice("right", &[sparse("1\n100\n4\n", "1000", b"data")], Harmless);
    for (name, map) in [
        ("overlapping", "2\n0\n2\n1\n2\n"),
        ("beyond the end", "1\n999\n4\n"),
        ("longer than the content", "1\n0\n5\n"),
        ("no end", "9\n0\n"),
        ("no number", "x\n"),
        ("overflow", "99999999999999999999\n"),
    ] {
        place.attack_twice(name, &[sparse(map, "1000", b"data")], Refused("sparse"));
    }
    place.attack_twice("8 EiB", &[sparse("1\n0\n4\n", "9223372036854775807", b"data")], Refused("sparse"));
    let million = format!("1000000\n{}", "0\n0\n".repeat(1_000_000));
    place.attack("a million regions", [Layer::new([sparse(&million, "1000", b"")])], Refused("sparse"));
    let old = Member::file("sparse", b"data").entry_type(b'S');
    place.attack_twice("an old map without GNU's header", &[old], Refused("sparse"));
}

/// Streams that decompressors read as one, or not at all.
#[test]
fn unusual_compression() {
    use layerstore::Compression::{Bzip2, Gzip, Xz, Zstd};
    let place = Place::new();
    let content = tar(&[Member::file("file", b"x"), Member::file("next", [5; 3000])]);
    let (front, back) = content.split_at(1000);
    let with = |blob: Vec<u8>| [Layer::from_tar(content.clone()).packed(blob)];
    for compression in [Gzip, Zstd, Bzip2, Xz] {
        let one = packed(compression, &content);
        let parts = [packed(compression, front), packed(compression, back)].concat();
        let name = compression.name();
        place.attack(&format!("{name}: one after the other"), with(parts.clone()), Harmless);
        place.attack(&format!("{name}: the first alone"), with(packed(compression, front)), Refused(""));
        for end in [one.len() / 2, one.len() - 1] {
            place.attack(&format!("{name}: cut at {end}"), with(one[..end].to_vec()), Refused(""));
        }
        let junk = [one.as_slice(), b"what nobody asked for"].concat();
        place.attack(&format!("{name}: junk behind"), with(junk), Refused(""));
    }
    let mut fields = flate2::GzBuilder::new()
        .extra([b"ab\x04\0".as_slice(), b"data"].concat())
        .filename("../../victim/hello")
        .comment("made by hand")
        .write(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut fields, &content).unwrap();
    place.attack("gzip: extra fields", with(fields.finish().unwrap()), Harmless);
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &packed(Zstd, &content)].concat();
    place.attack(
        "zstd: a skippable frame",
        with([skippable.as_slice(), &skippable[..11]].concat()),
        Harmless,
    );
    let endless = [&skippable[..], &[0x5f, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff, 0]].concat();
    place.attack("zstd: a skippable frame of 4 GiB", with(endless), Refused(""));
    place.attack("zstd: skippable frames alone", with(skippable[..11].to_vec()), Refused("empty"));
    // A dictionary of a gigabyte, which only the header says.
    let mut dictionary = packed(Xz, &content);
    dictionary[12 + 4] = 36;
    let header: Vec<u8> = dictionary[12..20].to_vec();
    dictionary[20..24].copy_from_slice(&crc32(&header).to_le_bytes());
    place.attack("xz: a large dictionary", with(dictionary), Refused("memory"));
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut hasher = flate2::Crc::new();
    hasher.update(bytes);
    hasher.sum()
}

const BOMB: usize = 320 << 20;

#[test]
fn bombs_take_no_memory() {
    let place = Place::new();
    let mut content = Member::file("zeros", b"").declared_size(BOMB as u64).to_bytes();
    content.resize(content.len() + BOMB + 1024, 0);
    for compression in [Compression::Gzip, Compression::Zstd] {
        let bomb = Layer::from_tar(content.clone()).compression(compression);
        place.attack(&format!("content, {compression:?}"), [bomb], Harmless);
    }
    drop(content);
    let mut padding = tar(&[Member::file("small", b"x")]);
    padding.resize(padding.len() + BOMB, 0);
    place.attack("padding", [Layer::from_tar(padding.clone())], Harmless);
    // Neither is a wrong digest found out only when memory is gone.
    let wrong = Layer::from_tar(padding).fault(crate::support::oci::Fault::DiffId);
    place.attack("padding, with another diffID", [wrong], Refused("sha256:"));
}

/// A frame whose window is 2 GiB: a decoder that believes it allocates that.
#[test]
fn a_window_beyond_the_limit_is_refused() {
    let place = Place::new();
    let content = tar(&[Member::file("file", b"x")]);
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3];
    let header = (u32::try_from(content.len()).unwrap() << 3) | 1;
    frame.extend_from_slice(&header.to_le_bytes()[..3]);
    frame.extend_from_slice(&content);
    let layer = || Layer::from_tar(content.clone()).compression(Compression::Zstd);
    place.attack("window", [layer().packed(frame.clone())], Refused("window_bytes"));
    // The same with one that is granted.
    frame[5] = 17 << 3;
    place.attack("a window within the limit", [layer().packed(frame)], Harmless);
}

#[test]
fn damaged_blobs_are_refused() {
    use crate::support::oci::Fault;
    let place = Place::new();
    let noise: Vec<u8> = (0..40_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    for fault in
        [Fault::DiffId, Fault::BlobDigest, Fault::Size, Fault::Truncated, Fault::Missing, Fault::Flipped]
    {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let layer = || Layer::new([Member::file("noise", &noise)]).compression(compression);
            let name = format!("{fault:?}, {compression:?}");
            place.attack(&name, [layer().fault(fault)], Refused("sha256:"));
            place.attack(&name, [place.base(), layer().fault(fault)], Refused("sha256:"));
            // The damaged one below a good one.
            place.attack(&name, [layer().fault(fault), place.base()], Refused("sha256:"));
        }
    }
}
