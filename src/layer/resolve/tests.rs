use std::sync::Arc;

use layerstore_schema::manifest::Manifest;

use super::*;

const DIRECTORY: Kind = Kind::Directory { opaque: false };
const OPAQUE: Kind = Kind::Directory { opaque: true };

fn below(entries: &[(&str, Kind)]) -> Stack {
    let entry = |(path, kind): &(&str, Kind)| Entry {
        path: path.as_bytes().to_vec(),
        kind: kind.clone(),
        metadata: Metadata::default(),
    };
    let root = [("", DIRECTORY)];
    Stack::new(vec![Arc::new(Manifest::new(entries.iter().chain(&root).map(entry).collect()).unwrap())])
}

fn file(byte: u8) -> Kind {
    Kind::File { size: byte.into(), content: ContentHash([byte; 32]) }
}

fn tree(redirect: &str) -> Option<LeftBelow> {
    Some(LeftBelow::Tree { redirect: redirect.as_bytes().to_vec() })
}

fn content(redirect: Option<&str>) -> Option<LeftBelow> {
    Some(LeftBelow::Content { redirect: redirect.map(|path| path.as_bytes().to_vec()) })
}

/// The layer's files have handles, by their paths.
fn handle(path: &str) -> Handle {
    Handle { kind: 1, bytes: path.as_bytes().to_vec() }
}

/// The changeset as lines; after the colon, where the bytes of a file are.
fn resolved(left: &[(&str, Kind, Option<LeftBelow>)], below: &Stack) -> Result<Vec<String>, ScanError> {
    let mut entries: Vec<_> = left
        .iter()
        .map(|(path, kind, left_below)| ScannedEntry {
            path: path.as_bytes().to_vec(),
            kind: match kind {
                Kind::File { size, .. } => ScannedKind::File { size: *size },
                kind => ScannedKind::Other(kind.clone()),
            },
            metadata: Metadata::default(),
            id: FileId::default(),
            allocated: 0,
            left_below: left_below.clone(),
            linked_below: None,
        })
        .collect();
    entries.sort_by(|a, b| path_order(&a.path, &b.path));
    lines(entries, Vec::new(), below)
}

fn lines(entries: Vec<ScannedEntry>, kept: Vec<KeptFile>, below: &Stack) -> Result<Vec<String>, ScanError> {
    let handle = |_, path: &[u8]| Some(handle(std::str::from_utf8(path).unwrap()));
    let Resolved { entries, elsewhere, .. } = resolve(entries, kept, below, |_| {}, handle)?;
    Ok(entries
        .iter()
        .map(|entry| {
            let path = String::from_utf8_lossy(&entry.path);
            let place = elsewhere.get(&entry.path).map(|place| String::from_utf8_lossy(&place.path));
            match (&entry.kind, place) {
                (ScannedKind::File { .. }, Some(place)) => format!("f {path}: {place}"),
                (ScannedKind::File { .. }, None) => format!("f {path}"),
                (ScannedKind::Other(Kind::Directory { opaque: true }), None) => format!("o {path}"),
                (ScannedKind::Other(Kind::Directory { .. }), None) => format!("d {path}"),
                (ScannedKind::Other(Kind::HardLink { target }), None) => {
                    format!("h {path}: {}", String::from_utf8_lossy(target))
                }
                (ScannedKind::Other(Kind::Whiteout), None) => format!("w {path}"),
                other => panic!("{other:?}"),
            }
        })
        .collect())
}

fn base() -> Stack {
    below(&[
        ("d", DIRECTORY),
        ("d/a", file(1)),
        ("d/b", file(2)),
        ("d/link", Kind::HardLink { target: b"d/a".to_vec() }),
        ("d/sub", DIRECTORY),
        ("d/sub/deep", DIRECTORY),
        ("d/sub/deep/x", file(3)),
        ("d.x", file(4)),
        ("other", DIRECTORY),
        ("other/y", file(5)),
    ])
}

#[test]
fn a_renamed_directory_has_all_that_it_shows() {
    let lines = resolved(
        &[
            ("", DIRECTORY, None),
            ("d", Kind::Whiteout, None),
            ("e", DIRECTORY, tree("d")),
            ("e/a", Kind::Whiteout, None),
            ("e/new", file(9), None),
            ("e/sub", DIRECTORY, None),
            ("e/sub/z", file(9), None),
        ],
        &base(),
    );
    assert_eq!(
        lines.unwrap(),
        [
            "d ",
            "w d",
            "o e",
            "f e/b: d/b",
            "f e/link: d/a",
            "f e/new",
            "d e/sub",
            "d e/sub/deep",
            "f e/sub/deep/x: d/sub/deep/x",
            "f e/sub/z",
        ]
    );
}

#[test]
fn renames_within_renames_are_followed() {
    let lines = resolved(
        &[
            ("", DIRECTORY, None),
            ("d", OPAQUE, None),
            ("d/deep", DIRECTORY, tree("/d/sub/deep")),
            ("e", DIRECTORY, tree("d")),
            ("e/o", DIRECTORY, tree("/other")),
            ("e/sub", DIRECTORY, None),
            ("e/sub/deep", Kind::Whiteout, None),
            ("other", Kind::Whiteout, None),
        ],
        &base(),
    );
    assert_eq!(
        lines.unwrap(),
        [
            "d ",
            "o d",
            "d d/deep",
            "f d/deep/x: d/sub/deep/x",
            "o e",
            "f e/a: d/a",
            "f e/b: d/b",
            "h e/link: e/a",
            "d e/o",
            "f e/o/y: other/y",
            "d e/sub",
            "w other",
        ]
    );
}

/// A directory with `above`, and a file which the index says is the file with the names `d/a` and `d/link` below: `e` in
/// the directory, or in the index alone.
fn linked(above: &[(&str, Kind)], is_kept: bool) -> Vec<String> {
    let entry = |(path, kind): &(&str, Kind)| ScannedEntry {
        path: path.as_bytes().to_vec(),
        kind: ScannedKind::Other(kind.clone()),
        metadata: Metadata::default(),
        id: FileId::default(),
        allocated: 0,
        left_below: None,
        linked_below: None,
    };
    let mut entries: Vec<_> = [("", DIRECTORY)].iter().chain(above).map(entry).collect();
    let file = ScannedEntry {
        kind: ScannedKind::File { size: 9 },
        linked_below: Some(handle("d/a")),
        ..entry(&("e", DIRECTORY))
    };
    let mut kept = Vec::new();
    match is_kept {
        true => kept.push(KeptFile { file, origin: handle("d/a") }),
        false => entries.push(file),
    }
    lines(entries, kept, &base()).unwrap()
}

#[test]
fn names_below_are_names_of_a_file_as_far_as_they_are_shown() {
    assert_eq!(linked(&[], false), ["d ", "d d", "f d/a: e", "h d/link: d/a", "h e: d/a"]);
    let gone = linked(&[("d", DIRECTORY), ("d/a", Kind::Whiteout)], false);
    assert_eq!(gone, ["d ", "d d", "w d/a", "f d/link: e", "h e: d/link"]);
    assert_eq!(linked(&[("d", OPAQUE)], false), ["d ", "o d", "f e: e"]);
    assert_eq!(linked(&[("d", Kind::Whiteout)], false), ["d ", "w d", "f e: e"]);
}

#[test]
fn a_file_that_only_the_index_has_is_under_the_names_that_are_shown() {
    assert_eq!(linked(&[], true), ["d ", "d d", "f d/a: e", "h d/link: d/a"]);
    let gone = linked(&[("d", DIRECTORY), ("d/a", Kind::Whiteout)], true);
    assert_eq!(gone, ["d ", "d d", "w d/a", "f d/link: e"]);
    assert_eq!(linked(&[("d", OPAQUE)], true), ["d ", "o d"]);
    assert_eq!(linked(&[("d", Kind::Whiteout)], true), ["d ", "w d"]);
}

#[test]
fn what_came_back_into_another_directory_has_all_that_it_shows() {
    let left = [("", DIRECTORY, None), ("d", OPAQUE, None), ("d/sub", DIRECTORY, tree("/d/sub"))];
    let lines = resolved(&left, &base()).unwrap();
    assert_eq!(lines, ["d ", "o d", "d d/sub", "d d/sub/deep", "f d/sub/deep/x: d/sub/deep/x"]);
}

#[test]
fn a_directory_that_came_back_is_merged_as_ever() {
    let lines = resolved(&[("", DIRECTORY, None), ("d", DIRECTORY, tree("d"))], &base());
    assert_eq!(lines.unwrap(), ["d ", "d d"]);
    let lines = resolved(&[("", DIRECTORY, None), ("e", DIRECTORY, tree("gone"))], &base());
    assert_eq!(lines.unwrap(), ["d ", "o e"]);
}

#[test]
fn bytes_are_found_by_name_and_by_path() {
    let lines = resolved(
        &[
            ("", DIRECTORY, None),
            ("d.x", file(0), content(None)),
            ("e", DIRECTORY, tree("d")),
            ("e/b", file(0), content(None)),
            ("e/c", file(0), content(Some("a"))),
            ("e/sub", OPAQUE, None),
            ("e/sub/y", file(0), content(Some("/other/y"))),
        ],
        &base(),
    );
    assert_eq!(
        lines.unwrap(),
        [
            "d ",
            "f d.x: d.x",
            "o e",
            "f e/a: d/a",
            "f e/b: d/b",
            "f e/c: d/a",
            "h e/link: e/a",
            "o e/sub",
            "f e/sub/y: other/y"
        ]
    );
}

#[test]
fn what_is_not_below_is_an_error() {
    let root = ("", DIRECTORY, None);
    for (path, kind, left) in [
        ("f", file(0), content(None)),
        ("f", file(0), content(Some("/d"))),
        ("f", file(0), content(Some("/d/../d/a"))),
        ("d", DIRECTORY, tree("/d/..")),
        ("e", DIRECTORY, tree("d/sub")),
        ("e", DIRECTORY, tree("")),
    ] {
        let error = resolved(&[root.clone(), (path, kind, left)], &base()).unwrap_err();
        assert!(matches!(error, ScanError::LeftBelow { .. }), "{error}");
    }
    let twice = [root, ("e", DIRECTORY, tree("/d")), ("f", DIRECTORY, tree("/d"))];
    assert!(resolved(&twice, &base()).is_err(), "a directory is renamed to one place");
}
