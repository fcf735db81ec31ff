//! Blobs: compression that readers read otherwise, bombs, and bytes that are not what the manifest says.

use super::*;
use crate::support::compressed::packed;
use crate::support::oci::{Compression, Fault};
use crate::support::tar::archive;

/// Streams that decompressors read as one, or not at all.
#[test]
fn unusual_compression() {
    use layerstore::Compression::{Bzip2, Gzip, Xz, Zstd};
    let place = Place::new();
    let content = archive(&[Member::file("file", b"x"), Member::file("next", [5; 3000])]);
    let (front, back) = content.split_at(1000);
    let with = |blob: Vec<u8>| [Layer::from_tar(content.clone()).packed(blob)];
    let whole = |name: String, blob: Vec<u8>| {
        of_layers(name, with(blob), Harmless)
            .shows("file", Seen::File(b"x"))
            .shows("next", Seen::Content(vec![5; 3000]))
    };
    // What each decompressor calls an end in the middle, and what is no stream.
    for (compression, cut, junk_told) in [
        (
            Gzip,
            ["incomplete deflate stream", "unexpected end of file"],
            "the gzip stream has ended, and what stands behind it",
        ),
        (Zstd, ["incomplete frame"; 2], "the zstd stream has ended, and what stands behind it"),
        (Bzip2, ["but EOF reached"; 2], "bz2 header missing"),
        (Xz, ["premature eof"; 2], "lzma data error"),
    ] {
        let one = packed(compression, &content);
        let parts = [packed(compression, front), packed(compression, back)].concat();
        let name = compression.name();
        place.all([whole(format!("{name}: one after the other"), parts)]);
        place.attack(
            &format!("{name}: the first alone"),
            with(packed(compression, front)),
            Refused("was expected"),
        );
        for (end, cut) in [one.len() / 2, one.len() - 1].into_iter().zip(cut) {
            place.attack(&format!("{name}: cut at {end}"), with(one[..end].to_vec()), Refused(cut));
        }
        let junk = [one.as_slice(), b"what nobody asked for"].concat();
        place.attack(&format!("{name}: junk behind"), with(junk), Refused(junk_told));
    }
    let mut fields = flate2::GzBuilder::new()
        .extra([b"ab\x04\0".as_slice(), b"data"].concat())
        .filename("../../victim/hello")
        .comment("made by hand")
        .write(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut fields, &content).unwrap();
    place.all([whole("gzip: extra fields".to_owned(), fields.finish().unwrap())]);
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &packed(Zstd, &content)].concat();
    let frames = [skippable.as_slice(), &skippable[..11]].concat();
    place.all([whole("zstd: a skippable frame".to_owned(), frames)]);
    let endless = [&skippable[..], &[0x5f, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff, 0]].concat();
    place.attack("zstd: a skippable frame of 4 GiB", with(endless), Refused("incomplete frame"));
    place.attack(
        "zstd: skippable frames alone",
        with(skippable[..11].to_vec()),
        Refused("the archive is empty"),
    );
    // A dictionary of a gigabyte, which only the header says.
    let mut dictionary = packed(Xz, &content);
    dictionary[12 + 4] = 36;
    let header: Vec<u8> = dictionary[12..20].to_vec();
    dictionary[20..24].copy_from_slice(&crc32(&header).to_le_bytes());
    place.attack("xz: a large dictionary", with(dictionary), Refused("window_bytes"));
}

/// Seven megabytes of bzip2 members without content, for each of which a decoder is made.
#[test]
fn members_without_content() {
    let place = Place::new();
    let content = archive(&[Member::file("file", b"x")]);
    let empty = packed(layerstore::Compression::Bzip2, b"");
    let blob = [packed(layerstore::Compression::Bzip2, &content), empty.repeat(500_000)].concat();
    place.all([of_layers(
        "bzip2: 500,000 empty members",
        [Layer::from_tar(content).packed(blob)],
        Refused("more than 1000 members of less than 64 KiB"),
    )
    .within(Duration::from_secs(10))]);
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut hasher = flate2::Crc::new();
    hasher.update(bytes);
    hasher.sum()
}

const BOMB: usize = 320 << 20;

/// To decompress and hash so much without optimization takes a part of it.
const BOMB_CPU: Duration = Duration::from_secs(60);

#[test]
fn bombs_take_no_memory() {
    let place = Place::new();
    let mut content = Member::file("zeros", b"").declared_size(BOMB as u64).to_bytes();
    content.resize(content.len() + BOMB + 1024, 0);
    for compression in [Compression::Gzip, Compression::Zstd] {
        let bomb = Layer::from_tar(content.clone()).compression(compression);
        place.all([of_layers(format!("content, {compression:?}"), [bomb], Harmless)
            .shows("zeros", Seen::Size(BOMB as u64))
            .within(BOMB_CPU)]);
    }
    drop(content);
    let mut padding = archive(&[Member::file("small", b"x")]);
    padding.resize(padding.len() + BOMB, 0);
    // Neither is a wrong digest found out only when memory is gone.
    let wrong = Layer::from_tar(padding.clone()).fault(Fault::DiffId);
    place.all([
        of_layers("padding", [Layer::from_tar(padding)], Harmless)
            .shows("small", Seen::File(b"x"))
            .within(BOMB_CPU),
        of_layers("padding, with another diffID", [wrong], Refused("has the diffID")).within(BOMB_CPU),
    ]);
}

/// Zeros cost nothing in a blob, so they may cost nothing on a disk.
#[test]
fn zeros_fill_no_disk() {
    let dir = Dir::new("hostile-zeros");
    let store = crate::support::store::open(&dir);
    let mut tar = Member::file("zeros", b"").declared_size(BOMB as u64).to_bytes();
    tar.resize(tar.len() + BOMB + 1024, 0);
    let blob = packed(layerstore::Compression::Zstd, &tar);
    let layer = store.put_layer(None, &layerstore::LayerOptions::default(), &blob[..]).unwrap();
    let usage = store.usage(&layer.id).unwrap();
    assert!(usage.total < 1 << 20, "{usage:?}");
    assert!(crate::support::store::exported(&store, &layer) == tar, "another archive comes out");
    crate::support::store::assert_whole(&store);
}

/// A manifest of some kilobytes names one layer as often as an image may have layers. What is unpacked and copied again for each would
/// be a thousand times the layout.
#[test]
fn a_layer_named_again_and_again_is_unpacked_once() {
    let place = Place::new();
    let content: Vec<u8> =
        (0..500_000u32).flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    // Nobody describes its directories: those are like below each time.
    let layer = Layer::new([Member::file("a/b/c/file", &content)]).compression(Compression::Zstd);
    place.all([of_layers("500 layers", vec![layer.clone(); 500], Harmless)
        .shows("a/b/c/file", Seen::Content(content))
        .within(BOMB_CPU)]);
    place.attack("one more", vec![layer; 501], Refused("beyond the limit layers"));
}

/// A frame whose window is 2 GiB: a decoder that believes it allocates that.
#[test]
fn a_window_beyond_the_limit_is_refused() {
    let place = Place::new();
    let content = archive(&[Member::file("file", b"x")]);
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3];
    let header = (u32::try_from(content.len()).unwrap() << 3) | 1;
    frame.extend_from_slice(&header.to_le_bytes()[..3]);
    frame.extend_from_slice(&content);
    let layer = || Layer::from_tar(content.clone()).compression(Compression::Zstd);
    place.attack("window", [layer().packed(frame.clone())], Refused("window_bytes"));
    // The same with one that is granted.
    frame[5] = 17 << 3;
    place.all([of_layers("a window within the limit", [layer().packed(frame)], Harmless)
        .shows("file", Seen::File(b"x"))]);
}

#[test]
fn damaged_blobs_are_refused() {
    let place = Place::new();
    let noise: Vec<u8> = (0..40_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    for (fault, told) in [
        (Fault::DiffId, "has the diffID"),
        (Fault::BlobDigest, "has the digest"),
        (Fault::Size, "but its descriptor says"),
        (Fault::Truncated, "but its descriptor says"),
        (Fault::Missing, "does not hold the blob"),
        (Fault::Flipped, "has the digest"),
    ] {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let layer = || Layer::new([Member::file("noise", &noise)]).compression(compression);
            let name = format!("{fault:?}, {compression:?}");
            place.attack(&name, [layer().fault(fault)], Refused(told));
            place.attack(&name, [place.base(), layer().fault(fault)], Refused(told));
            // The damaged one below a good one.
            place.attack(&name, [layer().fault(fault), place.base()], Refused(told));
        }
    }
}
