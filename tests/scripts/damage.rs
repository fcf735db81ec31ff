//! Every kind of damage, as scripts find it and have it repaired.

use std::collections::BTreeSet;

use crate::support::damage::{CASES, Case, Fixture, Needs};
use crate::support::transcript::Session;
use crate::support::{Dir, TestCommand};

/// A store with this damage, its processes gone, and the image that it came from.
fn damaged(case: &Case) -> (Dir, String) {
    let fixture = Fixture::new();
    if matches!(case.needs, Needs::Source | Needs::Force) {
        fixture.store.drop_blobs(None).unwrap();
    }
    (case.make)(&fixture);
    let Fixture { dir, store, .. } = fixture;
    drop(store);
    let reference = format!("oci:{}:demo", dir.join("layout-demo").display());
    (dir, reference)
}

/// What a command prints, its status, and all of that for a story.
fn run(command: TestCommand) -> (String, Option<i32>, String) {
    let output = { command }.output();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (out.to_string(), output.status.code(), format!("{}\n{out}{err}", output.status))
}

/// `check --deep` names the damage and has status 3; `repair`, with what it needs, has status 0, and so has the check then.
fn try_own(case: &Case) -> Result<(), String> {
    let (dir, reference) = damaged(case);
    let own = |words: &[&str]| run(dir.layerstore(["--sync", "off"]).args(words));
    let expect = |right: bool, what: &str, story: &str| {
        if right { Ok(()) } else { Err(format!("{}: {what}: {story}", case.name)) }
    };
    let (out, status, story) = own(&["check", "--deep", "--json"]);
    expect(status == Some(3), "it is found", &story)?;
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let findings = report["findings"].as_array().unwrap().iter();
    let codes: BTreeSet<&str> = findings.map(|finding| finding["code"].as_str().unwrap()).collect();
    expect(codes.iter().eq(case.codes), "it is called by its codes", &story)?;
    let (text, status, story) = own(&["check", "--deep"]);
    expect(status == Some(3) && codes.iter().all(|code| text.contains(code)), "text says the same", &story)?;
    let words: &[&str] = match case.needs {
        Needs::Nothing | Needs::Blobs => &["repair"],
        Needs::Source => &["repair", "--from", &reference],
        Needs::Force => &["repair", "--force"],
        Needs::Somebody => {
            let (_, status, story) = own(&["repair", "--force"]);
            return expect(status == Some(3), "it is left to somebody", &story);
        }
    };
    if matches!(case.needs, Needs::Source | Needs::Force) {
        let (_, status, story) = own(&["repair"]);
        expect(status == Some(3), "it is left without what it needs", &story)?;
    }
    let (_, status, story) = own(words);
    expect(status == Some(0), "it is repaired", &story)?;
    let (_, status, story) = own(&["check", "--deep"]);
    expect(status == Some(0), "it is gone", &story)?;
    let (out, status, story) = own(&["repair"]);
    expect(status == Some(0) && out == "nothing to repair\n", "nothing is left to do", &story)
}

/// `check` tells something and has status 1; `check -f` has status 0, and so has the check then.
fn try_compat(case: &Case) -> Result<(), String> {
    let (dir, _) = damaged(case);
    let session = Session::layerstore(&dir);
    let compat = |words: &[&str]| run(session.command(words.iter().map(|word| (*word).to_owned())));
    let expect = |right: bool, what: &str, story: &str| {
        if right { Ok(()) } else { Err(format!("{}: {what}: {story}", case.name)) }
    };
    let (out, status, story) = compat(&["check", "-m", "100h"]);
    expect(status == Some(1) && !out.is_empty(), "it is found", &story)?;
    expect(story.contains(" layer errors, "), "it is counted", &story)?;
    let (out, status, story) = compat(&["check", "-j", "-q"]);
    expect(status == Some(1), "it is found in JSON", &story)?;
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let groups = ["Layers", "ROLayers", "Images", "ROImages", "Containers"];
    let is_empty = |group: &str| report[group].as_object().unwrap().is_empty();
    expect(!groups.into_iter().all(is_empty), "it is told in JSON", &story)?;
    if case.needs == Needs::Somebody {
        let (_, status, story) = compat(&["check", "-f"]);
        return expect(status == Some(1), "it is left to somebody", &story);
    }
    let (_, status, story) = compat(&["check", "-f"]);
    expect(status == Some(0), "it is repaired", &story)?;
    let (out, status, story) = compat(&["check"]);
    expect(status == Some(0) && out.is_empty(), "it is gone", &story)
}

fn try_all(try_case: fn(&Case) -> Result<(), String>) {
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let halves = CASES.chunks(CASES.len().div_ceil(2));
        let tried: Vec<_> = halves
            .map(|half| {
                scope.spawn(move || half.iter().filter_map(|case| try_case(case).err()).collect::<Vec<_>>())
            })
            .collect();
        tried.into_iter().flat_map(|one| one.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_damage_is_found_and_repaired() {
    try_all(try_own);
}

#[test]
fn every_damage_is_found_and_repaired_by_the_other_command_line() {
    try_all(try_compat);
}

/// What the commands say, word for word.
#[test]
fn damage_is_told_in_the_words_of_scripts() {
    let dir = Dir::new("damage-words");
    let mut session = Session::layerstore(&dir);
    dir.write("tree/a", "one\n");
    dir.write("tree/b", "two\n");
    session.expect(
        r"
% tar -C tree -cf tar --sort=name --mtime=@1700000000 --owner=0 --group=0 a b
$ import-layer -i base -f tar
base
$ import-layer -i top -f tar base
top
$ create-image -i img top
img
$ create-container -i ctr img
ctr
$ import-layer -i other
other
$ create-image -i bare other
bare
$ check
% cd root/diffs && d=$(dirname */a) && touch -r $d ../../stamp && rm $d/a && echo x > $d/new && printf 'TWO\n' > $d/b && touch -r ../../stamp $d
$ check -q
layer base:
 layer base: layer content incorrect digest
layer top:
 layer top: layer content incorrect digest
image img:
 layer top: layer content incorrect digest
 layer base: layer content incorrect digest
container ctr:
 layer top: layer content incorrect digest
 layer base: layer content incorrect digest
! 2 layer errors, 0 read-only layer errors, 2 image errors, 0 read-only image errors, 2 container errors
= 1
$ check -r
layer base:
 layer base: -/a, layer content modified
 layer base: -/b, layer content modified
 layer base: +/b, layer content modified
 layer base: +/new, layer content modified
layer top:
 layer top: -/a, layer content modified
 layer top: -/b, layer content modified
 layer top: +/b, layer content modified
 layer top: +/new, layer content modified
image img:
 layer top: -/a, layer content modified
 layer top: -/b, layer content modified
 layer top: +/b, layer content modified
 layer top: +/new, layer content modified
 layer base: -/a, layer content modified
 layer base: -/b, layer content modified
 layer base: +/b, layer content modified
 layer base: +/new, layer content modified
container ctr:
 layer top: -/a, layer content modified
 layer top: -/b, layer content modified
 layer top: +/b, layer content modified
 layer top: +/new, layer content modified
 layer base: -/a, layer content modified
 layer base: -/b, layer content modified
 layer base: +/b, layer content modified
 layer base: +/new, layer content modified
! 0 read-only layer errors, 0 read-only image errors, 8 container errors
= 1
$ images -q
img
bare
$ check -q -f
layer base:
 layer base: layer content incorrect digest
layer top:
 layer top: layer content incorrect digest
image img:
 layer top: layer content incorrect digest
 layer base: layer content incorrect digest
container ctr:
 layer top: layer content incorrect digest
 layer base: layer content incorrect digest
$ containers
$ images -q
bare
$ layers -q
other
$ check
$ create-container -i lost bare
lost
$ delete bare
$ check
container lost:
 image bare: image missing
! 0 layer errors, 0 read-only layer errors, 0 image errors, 0 read-only image errors, 1 container errors
= 1
",
    );
}
