//! Images and the layers that go with them.

use crate::support::Dir;
use crate::support::oci::{Image, Layer};
use crate::support::tar::Member;
use crate::support::transcript::Session;

#[test]
fn images_are_made_of_layers() {
    let dir = Dir::new("compat-create-image");
    let digest = format!("sha256:{}", "1".repeat(64));
    Session::layerstore(&dir).expect(
        &format!(
            r#"
$ create-layer -i top
top
$ create-image -i img -n localhost/img:1 -m meta top
img
	localhost/img:1
$ set-image-data img item < hello
$ set-image-data img manifest < m1
$ images
img
	name: localhost/img:1
	digest: sha256:4b8d7d65f3f2de3ce0bca2c2ef5b8a4ab87b8fde2c3e0d0a0e0c4ef7ba4f8f0e
	data: item
	data: manifest
$ createimage -j -d {digest}
{{"id":"ID1","digest":"{digest}","created":"TIME"}}
$ images-by-digest -q {digest}
ID1
$ create-image -i img
! an image with ID "img" already exists: that ID is already in use
= 1
$ create-image -n localhost/img:1
! image name "localhost/img:1" is already associated with image "img": that name is already in use
= 1
$ create-image nope
! layer not known
= 1
$ create-image -d junk
! validating digests for new image: validating image digest "junk": invalid checksum digest format
= 1
$ create-container -i ctr img
ctr
$ container ctr
ID: ctr
Image: img
Image name: localhost/img:1
Size: 0
Layer: ID2
$ delete-layer top
! top: used by layer ID2: layer has children
= 1
$ delete-container ctr
$ delete-layer top
! top: layer top used by image img: layer is in use by an image
= 1
$ set-names -n other img
$ delete-image img
! img: top
"#
        )
        .replace(
            "4b8d7d65f3f2de3ce0bca2c2ef5b8a4ab87b8fde2c3e0d0a0e0c4ef7ba4f8f0e",
            layerstore::Digest::sha256(b"m1").hex(),
        ),
    );
}

#[test]
fn delete_asks_nobody_and_wipe_leaves_nothing() {
    let dir = Dir::new("compat-delete");
    let mut session = Session::layerstore(&dir);
    session.expect(
        r#"
$ create-layer -i top
top
$ create-image -i img top
img
$ create-container -i ctr img
ctr
$ delete img nope
! nope: layer not known
= 1
$ container ctr
ID: ctr
Image: img
Size: 0
Layer: ID1
$ delete -j ctr
{"ctr":""}
$ layers -q
top
$ delete top
$ layers -q
$ wipe
$ wipe -j
""
$ create-layer -i base
base
$ create-image -i img base
img
$ create-container -i ctr img
ctr
"#,
    );
    if super::can_mount() {
        session.expect("$ mount ctr\nMOUNT\n");
    }
    session.expect("$ wipe\n$ layers -j\nnull\n$ images -j\nnull\n$ containers -j\n[]\n$ shutdown\n");
    assert!(dir.mounts().is_empty());
}

#[test]
fn directories_are_there_and_go_with_their_owner() {
    let dir = Dir::new("compat-directories");
    let mut session = Session::layerstore(&dir);
    session.run("create-image -i img\ncreate-container -i ctr ''");
    let path = |command: &str, id: &str| {
        let path = session.command([command.to_owned(), id.to_owned()]).stdout_path();
        assert!(path.is_dir(), "{}", path.display());
        path
    };
    let paths = [
        path("get-image-dir", "img"),
        path("get-image-run-dir", "img"),
        path("get-container-dir", "ctr"),
        path("get-container-run-dir", "ctr"),
    ];
    for (path, below) in paths.iter().zip([dir.root(), dir.run_root(), dir.root(), dir.run_root()]) {
        assert!(path.starts_with(&below), "{}", path.display());
    }
    session.expect(
        "$ delete-container ctr\n$ delete-image img\n$ get-container-dir ctr\n! container not known\n= 1\n",
    );
    assert!(paths.iter().all(|path| !path.exists()), "{paths:?}");
    session.expect("$ get-image-dir img\n! locating image with ID \"img\": image not known\n= 1\n");
}

/// A store with the image `base`, which has two layers.
fn with_image(name: &str) -> Dir {
    let dir = Dir::new(name);
    let base = [Member::directory("etc"), Member::file("etc/old", b"old\n")];
    let top = [Member::directory("etc"), Member::file("etc/motd", b"hello\n")];
    let written = Image::new([Layer::new(base), Layer::new(top)]).write(dir.join("base.oci"), "1");
    dir.layerstore(["load", &written.reference(), "--name", "base"]).assert_success();
    dir
}

#[test]
fn images_are_shown_with_their_layers() {
    let dir = with_image("compat-images");
    let mut session = Session::layerstore(&dir);
    let image = session.command(["images".into(), "-j".into()]).json();
    let (image, count) = (&image[0], image.as_array().unwrap().len());
    assert_eq!(count, 1);
    let (id, top) = (image["id"].as_str().unwrap(), image["layer"].as_str().unwrap());
    let digest = image["digest"].as_str().unwrap();
    let told = session.command(["images".into()]).stdout();
    assert!(told.starts_with(&format!("{id}\n\tname: base\n\tdigest: {digest}\n")), "{told}");
    assert_eq!(session.command(["images".into(), "-q".into()]).stdout(), format!("{id}\n"));
    let by_digest = ["images-by-digest".into(), "-q".into(), digest.into()];
    assert_eq!(session.command(by_digest).stdout(), format!("{id}\n"));

    let layers = session.command(["layers".into(), "-j".into()]).json();
    let sizes: u64 =
        layers.as_array().unwrap().iter().map(|layer| layer["diff-size"].as_u64().unwrap()).sum();
    let items: u64 = image["big-data-sizes"]
        .as_object()
        .map_or(0, |sizes| sizes.values().map(|size| size.as_u64().unwrap()).sum());
    let told = session.command(["image".into(), "base".into()]).stdout();
    assert!(
        told.starts_with(&format!("ID: {id}\nName: base\nTop Layer: {top}\nDigest: {digest}\n")),
        "{told}"
    );
    assert!(told.contains(&format!("\nSize: {}\n", sizes + items)), "{told}");
    let told = session.command(["layer".into(), top.into()]).stdout();
    assert_eq!(told, format!("ID: {top}\nParent: {}\n", layers[0]["id"].as_str().unwrap()));
    session.expect(
        r#"
$ image nope
= 1
$ image -j nope
[]
= 1
$ images-by-digest junk
! junk: invalid checksum digest format
= 1
$ images-by-digest -j sha256:7b14e2d92338aed25808bbc74dabe3a37da6be8f335f2106d11aa36e5e31f7ea
[]
"#,
    );
}

#[test]
fn layers_of_an_image_have_the_changes_of_their_archives() {
    let dir = with_image("compat-changes");
    let mut session = Session::layerstore(&dir);
    let layers = session.command(["layers".into(), "-q".into()]).stdout();
    let [base, top] = [0, 1].map(|index| layers.lines().nth(index).unwrap());
    let changes = |words: &[&str]| {
        session.command(["changes"].iter().chain(words).map(|word| (*word).to_owned())).stdout()
    };
    assert_eq!(changes(&[base]), "Add \"/etc\"\nAdd \"/etc/old\"\n");
    assert_eq!(changes(&[top]), "Modify \"/etc\"\nAdd \"/etc/motd\"\n");
    assert_eq!(
        changes(&["-j", top]),
        "[{\"Path\":\"/etc\",\"Kind\":0},{\"Path\":\"/etc/motd\",\"Kind\":1}]\n"
    );
    session.expect("$ changes nope\n! layer not known\n= 1\n");
}

#[test]
fn what_is_used_is_not_deleted() {
    let dir = with_image("compat-used");
    let mut session = Session::layerstore(&dir);
    let layers = session.command(["layers".into(), "-q".into()]).stdout();
    let [base, top] = [0, 1].map(|index| layers.lines().nth(index).unwrap());
    session.run("create-container -i ctr base");
    let of_container = session.command(["container".into(), "-j".into(), "ctr".into()]).json();
    let of_container = of_container[0]["layer"].as_str().unwrap();
    let errors = |words: &[&str]| session.command(words.iter().map(|word| (*word).to_owned())).assert_exit(1);
    assert_eq!(
        errors(&["delete-layer", base, top, of_container, "nope"]),
        format!(
            "{base}: used by layer {top}: layer has children\n\
             {top}: used by layer {of_container}: layer has children\n\
             {of_container}: layer {of_container} used by container ctr: layer is in use by a container\n\
             nope: identifier is not a layer\n"
        )
    );
    assert_eq!(
        errors(&["delete-image", "base"]),
        "base: image used by ctr: image is in use by a container\n"
    );
    session.expect(
        r#"
$ delete-image -j base
{"base":{"error":"image used by ctr: image is in use by a container"}}
= 1
$ delete-image nope
! nope: identifier is not an image
= 1
$ delete-container ctr
"#,
    );
    let told = |words: &[&str]| {
        let output = session.command(words.iter().map(|word| (*word).to_owned())).output();
        assert!(output.status.success(), "{words:?}");
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    let both = format!("{{\"base\":{{\"deleted-layers\":[\"{top}\",\"{base}\"]}}}}\n");
    assert_eq!(told(&["delete-image", "-t", "-j", "base"]), both);
    assert_eq!(told(&["exists", "base"]), "base: true\n", "only a test");
    assert_eq!(told(&["delete-image", "base"]), format!("base: {top}\nbase: {base}\n"));
    assert_eq!(told(&["layers"]), "");
}

#[test]
fn layers_with_names_go_with_their_image() {
    let dir = with_image("compat-named");
    let mut session = Session::layerstore(&dir);
    let layers = session.command(["layers".into(), "-q".into()]).stdout();
    let base = layers.lines().next().unwrap();
    session.command(["add-names".into(), "-n".into(), "named".into(), base.into()]).assert_success();
    session.command(["delete-image".into(), "base".into()]).assert_success();
    session.expect("$ layers -j\nnull\n");
}
