//! What is no archive, given as a layer to each command that takes one.

use layerstore::Compression;

use super::{CommandLine, Compat, Own, Scripted};
use crate::support::Dir;
use crate::support::compressed::{self, packed};
use crate::support::oci::{self, Image, Layer};
use crate::support::tar::{Member, archive};

const INVALID: &str = "archive/tar: invalid tar header";
const CUT: &str = "unexpected EOF";

/// Bytes that are no layer.
struct Junk {
    name: &'static str,
    bytes: Vec<u8>,
    /// What is wrong, in the words of the reference; `None` if those are nobody's.
    reason: Option<&'static str>,
}

fn noise(length: u32) -> Vec<u8> {
    (0..length).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn good() -> Vec<u8> {
    archive(&[Member::directory("d"), Member::file("d/noise", noise(3000)), Member::file("last", "last")])
}

/// What is wrong whatever it is compressed with.
fn archives() -> Vec<Junk> {
    let good = good();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let page = format!("<!doctype html><title>404 Not Found</title>{}", "<p>Not found.</p>".repeat(60));
    let junk = |name, bytes, reason| Junk { name, bytes, reason: Some(reason) };
    vec![
        junk("noise", noise(2000), INVALID),
        junk("one byte", b"x".to_vec(), CUT),
        junk("a few bytes", b"no archive at all".to_vec(), CUT),
        junk("a web page", page.into_bytes(), INVALID),
        junk("a cut header", good[..512 + 100].to_vec(), CUT),
        junk("a cut file", good[..2000].to_vec(), CUT),
        junk("a wrong checksum at once", with(150, b'x'), INVALID),
        junk("a wrong checksum later", with(512 + 150, b'x'), INVALID),
        junk("zeros between members", [vec![0; 512], good.clone()].concat(), INVALID),
        junk("a number that is none", wrong_number(), INVALID),
    ]
}

/// A header whose checksum is right, and whose size is not.
fn wrong_number() -> Vec<u8> {
    archive(&[
        Member::file("file", "").header(|header| header.as_old_mut().size.copy_from_slice(b"zz9999999999"))
    ])
}

/// What is wrong with the compressed stream.
fn streams(compression: Compression) -> Vec<Junk> {
    if compression == Compression::None {
        return Vec::new();
    }
    let good = packed(compression, &good());
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 0x10;
    let trailing = [&good[..], b"trailing bytes"].concat();
    vec![
        Junk { name: "half a stream", bytes: good[..good.len() / 2].to_vec(), reason: Some(CUT) },
        Junk { name: "a stream without its end", bytes: good[..good.len() - 2].to_vec(), reason: Some(CUT) },
        Junk { name: "a flipped bit", bytes: flipped, reason: None },
        Junk { name: "a stream with something behind it", bytes: trailing, reason: None },
    ]
}

/// Everything that is wrong, as it is compressed.
fn all(compression: Compression) -> impl Iterator<Item = Junk> {
    let compressed =
        archives().into_iter().map(move |junk| Junk { bytes: packed(compression, &junk.bytes), ..junk });
    compressed.chain(streams(compression))
}

/// Each command that makes or fills a layer refuses junk, says why, and leaves the store as it was.
fn is_refused(line: CommandLine) {
    let store = Scripted::new(line, "junk");
    store.put_layer("base", None, &good());
    store.put_layer("target", Some("base"), &good());
    store.create_layer("empty", Some("base"));
    for compression in compressed::ALL {
        for junk in all(compression) {
            let what = format!("{}, compressed with {compression:?}", junk.name);
            let new = store.put_layer_command("new", Some("base"));
            for command in [new, store.apply_command("target"), store.apply_command("empty")] {
                let output = command.stdin(junk.bytes.clone()).output();
                let told = String::from_utf8(output.stderr).unwrap();
                assert_eq!(output.status.code(), Some(1), "{what}: {told}");
                assert_eq!(output.stdout, b"", "{what}");
                match (line, junk.reason) {
                    (Own, _) => assert!(told.starts_with("error: ") && !told.contains('{'), "{what}: {told}"),
                    (_, Some(reason)) => assert_eq!(told, words(reason), "{what}"),
                    (_, None) => assert!(told.starts_with(&words("")[..WORDS_BEFORE]), "{what}: {told}"),
                }
            }
        }
        assert_eq!(store.layers(), ["base", "empty", "target"]);
        assert!(store.diff("target") == good(), "{compression:?}: a layer that was there is another");
        assert_eq!(store.command(&["changes", "empty"]).stdout(), "");
        store.assert_whole();
    }
}

/// What the other command line says.
fn words(reason: &str) -> String {
    format!(
        "unpacking failed (error: exit status 1; output: {reason})\nexhausting input failed (error: {reason})\n"
    )
}
const WORDS_BEFORE: usize = "unpacking failed (error: exit status 1; output: ".len();

#[test]
fn junk_is_refused() {
    is_refused(Own);
}

#[test]
fn junk_is_refused_by_the_other_command_line() {
    is_refused(Compat);
}

#[test]
fn nothing_is_an_empty_layer_for_the_other_command_line_alone() {
    for line in [Own, Compat] {
        let store = Scripted::new(line, "nothing");
        store.put_layer("base", None, &good());
        store.create_layer("filled", Some("base"));
        for compression in compressed::ALL {
            let nothing = packed(compression, b"");
            let made = format!("{compression:?}").to_lowercase();
            if let Own = line {
                for command in [store.apply_command("filled"), store.put_layer_command(&made, Some("base"))] {
                    let error = command.stdin(&*nothing).assert_exit(1);
                    assert!(error.contains("the archive is empty"), "{compression:?}: {error}");
                }
                continue;
            }
            store.apply("filled", &nothing);
            store.put_layer(&made, Some("base"), &nothing);
            for id in ["filled", &made] {
                assert_eq!(store.command(&["changes", id]).stdout(), "");
                assert_eq!(store.diff(id), b"", "{id}, {compression:?}");
            }
        }
        store.assert_whole();
    }
}

#[test]
fn images_of_junk_are_refused() {
    let dir = Dir::new("junk-image");
    dir.layerstore(["create-layer", "--id", "other"]).assert_success();
    for compression in [oci::Compression::None, oci::Compression::Gzip, oci::Compression::Zstd] {
        for junk in archives() {
            let layers = [Layer::from_tar(good()), Layer::from_tar(junk.bytes)];
            let image = Image::new(layers.map(|layer| layer.compression(compression)));
            let layout = dir.join(format!("{} {compression:?}", junk.name).replace(' ', "-"));
            let written = image.write(&layout, "1");
            let error = dir.layerstore(["load", &written.reference(), "--name", "junk"]).assert_exit(1);
            let digest = oci::ReadImage::open(&layout, "1").manifest["layers"][1]["digest"].to_string();
            assert!(error.contains(digest.trim_matches('"')), "{}, {compression:?}: {error}", junk.name);
        }
        assert_eq!(dir.layerstore(["images", "-q"]).stdout(), "");
        assert_eq!(dir.layerstore(["layers", "-q"]).stdout(), "other\n");
        dir.layerstore(["check", "--deep"]).assert_success();
        assert_eq!(dir.layerstore(["gc", "--dry-run", "--json"]).json()["removed"], serde_json::json!([]));
    }
}
