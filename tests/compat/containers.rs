//! Containers, their names, metadata and data items.

use crate::support::Dir;
use crate::support::transcript::Session;

#[test]
fn containers_are_made_listed_and_removed() {
    let dir = Dir::new("compat-containers");
    Session::layerstore(&dir).expect(
        r#"
$ containers
$ containers -j
[]
$ layers -j
null
$ create-container -i ctr -n c1 -n two -n c1 -m meta ''
ctr
	c1
	two
$ create-container -j --volatile -i vol ''
{"id":"vol","image":"","layer":"ID1","created":"TIME","flags":{"MountLabel":"","ProcessLabel":"","Volatile":true}}
$ createcontainer ''
ID2
$ create-container -i ctr ''
! that ID is already in use
= 1
$ create-container -n c1 ''
! the container name "c1" is already in use by ctr. You have to remove that container to be able to reuse that name: that name is already in use
= 1
$ create-container nope
! locating image with ID "nope": image not known
= 1
$ set-container-data ctr k < data
$ containers
ctr
	name: c1
	name: two
	data: k
vol
ID2
$ container -j c1
[{"id":"ctr","names":["c1","two"],"image":"","layer":"ID3","metadata":"meta","big-data-names":["k"],"big-data-sizes":{"k":4},"big-data-digests":{"k":"sha256:3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"},"created":"TIME","flags":{"MountLabel":"","ProcessLabel":""}}]
$ container nope ct
ID: ctr
Name: c1
Name: two
Image: 
Size: 4
Layer: ID3
Data: k
= 1
$ container -j nope
[]
= 1
$ layers -q
ID3
ID1
ID4
$ delete-container vol nope
! nope: identifier is not a container
= 1
$ deletecontainer -j ctr nope
{"ctr":"","nope":"identifier is not a container"}
= 1
"#,
    );
}

#[test]
fn layers_tell_who_stands_on_them() {
    let dir = Dir::new("compat-layers");
    Session::layerstore(&dir).expect(
        "
$ create-container -i x -n first ''
x
\tfirst
$ create-container -i y ''
y
$ layers
ID1
\tcontainer: x
\t\tname: first
ID2
\tcontainer: y
$ layers --tree
(base)
\u{251c}\u{2500}ID1
\u{2502} container: x
\u{2502} container name: first
\u{2514}\u{2500}ID2
  container: y
$ layers -j
[{\"id\":\"ID1\",\"created\":\"TIME\"},{\"id\":\"ID2\",\"created\":\"TIME\"}]
$ layer nope
= 1
$ layer -j nope
[]
= 1
",
    );
}

#[test]
fn names_move() {
    let dir = Dir::new("compat-names");
    Session::layerstore(&dir).expect(
        r#"
$ create-container -i x -n one ''
x
	one
$ create-container -i y ''
y
$ add-names -n two -n one -n three x
$ get-names x
two
one
three
$ get-names -j x
["two","one","three"]
$ add-names -j -n two y ignored
["two"]
$ getnames x
one
three
$ remove-names -j -n one -n never x
["three"]
$ set-names -j -n three -n four y
["three","four"]
$ get-names -j x
[]
$ set-names -j y
null
$ addnames x
$ get-names nope
! layer not known
= 1
$ set-names -n x nope
! layer not known
= 1
"#,
    );
}

#[test]
fn metadata_is_kept_and_things_exist() {
    let dir = Dir::new("compat-metadata");
    dir.write("text", "of a file\n");
    Session::layerstore(&dir).expect(
        r#"
$ create-container -i x -m '<m>&' ''
x
$ create-container -i y -f text ''
y
$ metadata x nope y
x: <m>&
nope: 
y: of a file
= 1
$ metadata -q y
of a file
$ metadata -j y x
{"x":"\u003cm\u003e\u0026","y":"of a file"}
$ metadata -j nope
{}
= 1
$ set-metadata x
! no new metadata provided
= 1
$ set-metadata -m new nope
! identifier is not a layer, image, or container
= 1
$ set-metadata -f none x
! open none: no such file or directory
= 1
$ setmetadata -m new x
$ metadata x
x: new
$ exists x nope
x: true
nope: false
= 1
$ exists -c x y
x: true
y: true
$ exists -i x
x: true
= 1
$ exists -l -c x
x: true
= 1
$ exists -q nope
= 1
$ exists -j y x nope
{"nope":false,"x":true,"y":true}
= 1
"#,
    );
}

#[test]
fn data_items_are_bytes() {
    let dir = Dir::new("compat-data");
    dir.write("file", "of a file");
    let mut session = Session::layerstore(&dir);
    session.expect(
        r#"
$ create-container -i x ''
x
$ list-container-data x
$ list-container-data -j x
null
$ set-container-data x key < one
$ set-container-data -f file x other
$ set-container-data x key < three
$ listcontainerdata x
key
other
$ list-container-data -j x
["key","other"]
$ get-container-data x key
three
$ get-container-data-size x key
5
$ getcontainerdatadigest x key
sha256:8b5b9db0c13db24256c829aa364aa90c6d2eba318b9232a4ab9313b954d3555f
$ get-container-data -f out x other
$ get-container-data x none
! open ROOT/overlay-containers/x/none: no such file or directory
= 1
$ get-container-data-size x none
! size is not known
= 1
$ get-container-data-digest x none
! could not compute digest of item
= 1
$ set-container-data x '' < x
! can't set empty name for container big data item: not a valid name for a big data item
= 1
$ set-container-data nope key < x
! container not known
= 1
$ list-image-data nope
! locating image with ID "nope": image not known
= 1
$ get-layer-data nope key
! layer not known
= 1
"#,
    );
    assert_eq!(std::fs::read(dir.join("out")).unwrap(), b"of a file");
    let bytes: Vec<u8> = (0..=255).collect();
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    session.command(words("set-container-data x raw")).stdin(bytes.clone()).assert_success();
    assert_eq!(session.command(words("get-container-data x raw")).stdout_bytes(), bytes);
}

#[test]
fn run_directory_is_there_and_goes_with_the_container() {
    let dir = Dir::new("compat-run-dir");
    let mut session = Session::layerstore(&dir);
    session.run("create-container -i x ''");
    let words = ["get-container-run-dir".to_owned(), "x".to_owned()];
    let path = session.command(words).stdout_path();
    assert!(path.is_dir() && path.starts_with(dir.run_root()), "{}", path.display());
    std::fs::write(path.join("socket"), "12345").unwrap();
    let kept = session.command(["get-container-dir".to_owned(), "x".to_owned()]).stdout_path();
    std::fs::write(kept.join("file"), "123").unwrap();
    let told = session.run("container x");
    assert!(told.contains("\nSize: 8\n"), "{told}");
    session.run("delete-container x");
    assert!(!path.exists());
    session.expect("$ get-container-run-dir x\n! container not known\n= 1\n");
}
