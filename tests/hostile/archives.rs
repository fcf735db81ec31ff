//! Streams that readers disagree on, and bombs.

use super::*;
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
    place.attack_twice("zero in the header", &[size(hidden.len()).declared_size(0)], Harmless);
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
    place.attack_twice("a key twice", &[twice], Either);
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
        place.attack_twice("a global header", &[global, file()], Either);
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
        ("nothing", Vec::new()),
        ("a zip", b"PK\x03\x04 is what a zip begins with".to_vec()),
        ("noise", (0..4096u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()),
    ] {
        place.attack(name, [Layer::from_tar(bytes.clone())], Refused(""));
        place.attack(name, [place.base(), Layer::from_tar(bytes)], Refused(""));
    }
}

#[test]
fn cut_archives_are_refused_and_unpadded_ones_are_not() {
    let place = Place::new();
    let members = [Member::directory("d"), Member::file("d/file", [7; 700])];
    let whole = archive_without_end(&members);
    for end in [100, 600, 1000, 1100, 1536, 1700] {
        place.attack("cut", [Layer::from_tar(whole[..end].to_vec())], Refused(""));
    }
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
    let layer = Layer::from_tar(frame).compression(Compression::None);
    place.attack("window", [layer], Refused(""));
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
