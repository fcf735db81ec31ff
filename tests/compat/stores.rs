//! Several stores: one for images, others that are only read, and containers that a reboot drops.

use crate::support::Dir;
use crate::support::command::TestCommand;

/// Runs a command on the store `name`, with more global flags, and returns what it says and whether it succeeds.
fn run(dir: &Dir, name: &str, words: &[&str]) -> (String, bool) {
    let places = [dir.join(name), dir.join(format!("{name}.run"))];
    let [graph, run] = places.map(|place| place.display().to_string());
    let output = TestCommand::layerstore().args(["compat", "-g", &graph, "-R", &run]).args(words).output();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8(text).unwrap(), output.status.success())
}

fn done(dir: &Dir, name: &str, words: &[&str]) -> String {
    let (text, is_done) = run(dir, name, words);
    assert!(is_done, "{words:?}: {text}");
    text
}

#[test]
fn what_is_in_another_store_is_read_only() {
    let dir = Dir::new("compat-other-store");
    done(&dir, "other", &["create-layer", "-i", "base"]);
    done(&dir, "other", &["create-image", "-i", "img", "base"]);
    let option = format!("--storage-opt=overlay.imagestore={}", dir.join("other").display());
    let on = |words: &[&str]| run(&dir, "own", &[&[option.as_str()], words].concat());
    assert_eq!(on(&["layers", "-q"]).0, "base\n");
    assert!(on(&["layer", "base"]).0.ends_with("Read Only: true\n"));
    assert!(on(&["image", "img"]).0.ends_with("Read Only: true\n"));
    assert!(on(&["create-container", "-i", "ctr", "img"]).1);
    let (text, is_done) = on(&["delete-image", "img"]);
    assert!(!is_done && text.contains("identifier is not an image"), "{text}");
    let (text, is_done) = on(&["delete-layer", "base"]);
    assert!(!is_done && text.contains("identifier is not a layer"), "{text}");
    let (text, is_done) = on(&["set-metadata", "-m", "new", "img"]);
    assert!(!is_done && text.contains("identifier is not a layer, image, or container"), "{text}");
    dir.write("data", "1");
    let file = dir.join("data").display().to_string();
    let (text, is_done) = on(&["set-image-data", "-f", &file, "img", "key"]);
    assert!(!is_done && text.contains("image not known"), "{text}");
    assert!(on(&["check", "-m", "0"]).1);
    assert_eq!(done(&dir, "other", &["layers", "-q"]), "base\n");
}

#[test]
fn images_have_a_store_of_their_own() {
    let dir = Dir::new("compat-image-store");
    let flag = format!("--image-store={}", dir.join("images").display());
    done(&dir, "own", &[&flag, "create-layer", "-i", "base"]);
    done(&dir, "own", &[&flag, "create-image", "-i", "img", "base"]);
    done(&dir, "own", &[&flag, "create-container", "-i", "ctr", "img"]);
    assert_eq!(done(&dir, "images", &["images", "-q"]), "img\n");
    assert_eq!(done(&dir, "own", &["containers"]), "ctr\n");
    assert!(!done(&dir, "own", &[&flag, "image", "img"]).contains("Read Only"));
    done(&dir, "own", &[&flag, "delete-container", "ctr"]);
    done(&dir, "own", &[&flag, "delete-image", "img"]);
    assert_eq!(done(&dir, "images", &["layers", "-q"]), "");
}

#[test]
fn containers_are_kept_in_the_run_root() {
    let dir = Dir::new("compat-transient");
    done(&dir, "own", &["--transient-store", "create-container", "-i", "ctr", ""]);
    assert_eq!(done(&dir, "own", &["containers"]), "ctr\n");
    std::fs::remove_dir_all(dir.join("own.run")).unwrap();
    assert_eq!(done(&dir, "own", &["containers"]), "");
}
