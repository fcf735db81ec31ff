//! As many layers as nobody has.

use super::{CommandLine, Compat, Own, Scripted, can_mount};
use crate::support::tar::{Member, archive};

const DEPTH: usize = 301;

fn id(number: usize) -> String {
    format!("level-{number:03}")
}

/// Makes a chain in which each layer has a file of its own and one that all have; every hundredth is written through a
/// mount. The last one removes what the first ones made.
fn build(store: &Scripted) {
    let mut parent: Option<String> = None;
    for number in 0..DEPTH {
        let (id, below) = (id(number), parent.as_deref());
        let own = format!("own/{number}");
        match number {
            300 => {
                store.create_layer(&id, below);
                let top = store.mount(&id);
                for gone in [0, 150, 299] {
                    std::fs::remove_file(top.join(format!("own/{gone}"))).unwrap();
                }
                std::fs::write(top.join("last"), &id).unwrap();
                store.unmount(&id);
            }
            100 | 200 => {
                store.create_layer(&id, below);
                let top = store.mount(&id);
                std::fs::write(top.join(&own), &id).unwrap();
                std::fs::write(top.join("last"), &id).unwrap();
                store.unmount(&id);
            }
            _ => store.put_layer(&id, below, &archive(&[Member::file(&own, &id), Member::file("last", &id)])),
        }
        parent = Some(id);
    }
}

/// Reads through the chain, compares across it, and takes it down.
fn is_used(line: CommandLine) {
    if !can_mount() {
        skip!("mounting needs root or a user namespace");
    }
    let store = Scripted::new(line, "deep");
    build(&store);
    let (top, base) = (id(DEPTH - 1), id(0));
    assert_eq!(store.layers().len(), DEPTH);

    let path = store.mount_above(&top);
    let read = |file: &str| std::fs::read_to_string(path.join(file)).unwrap();
    assert_eq!(read("last"), top);
    for number in [1, 99, 100, 101, 200, 298] {
        assert_eq!(read(&format!("own/{number}")), id(number));
    }
    let own = std::fs::read_dir(path.join("own")).unwrap().count();
    assert_eq!(own, DEPTH - 1 - 3, "the last one has no file of its own, and removed three");
    store.unmount_above(&top);

    let words = |kind: char, path: &str| match (line, kind) {
        (Own, kind) => format!("{kind} {path}\n"),
        (_, 'A') => format!("Add \"{path}\"\n"),
        (_, 'C') => format!("Modify \"{path}\"\n"),
        (_, _) => format!("Delete \"{path}\"\n"),
    };
    let expected = words('C', "/last")
        + &words('C', "/own")
        + &words('D', "/own/0")
        + &words('D', "/own/150")
        + &words('D', "/own/299");
    assert_eq!(store.command(&["changes", &top]).stdout(), expected);
    let since = match line {
        Own => store.command(&["changes", &top, "--since", &base]),
        _ => store.command(&["changes", &top, &base]),
    }
    .stdout();
    assert_eq!(since.lines().count(), 2 + 1 + DEPTH - 1 - 3, "{since}");
    assert!(since.contains(words('D', "/own/0").as_str()) && since.contains(words('A', "/own/298").as_str()));
    let members: Vec<_> = tar::Archive::new(&*store.diff(&top))
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(members, ["last", "own/", "own/.wh.0", "own/.wh.150", "own/.wh.299"]);
    let tree = store.command(&["layers", "--tree"]).stdout();
    let of_top = tree.lines().find(|line| line.contains(&top)).unwrap();
    assert!(of_top.chars().take_while(|c| !c.is_alphanumeric()).count() >= DEPTH, "{of_top}");

    // From below nothing can go, and from above all of it.
    let words: &[&str] = if line == Own { &["rm", "--layer"] } else { &["delete-layer"] };
    let remove = |ids: Vec<String>| store.command(words).args(ids).output();
    let refused = remove(vec![id(0), id(150), id(299)]);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(store.layers().len(), DEPTH);
    let removed = remove((0..DEPTH).rev().map(id).collect());
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    assert_eq!(store.layers(), [""; 0]);
    store.assert_whole();
    assert!(std::fs::read_dir(store.dir.root().join("diffs")).unwrap().next().is_none());
}

#[test]
fn three_hundred_and_one_layers_are_used() {
    is_used(Own);
}

#[test]
fn three_hundred_and_one_layers_are_used_by_the_other_command_line() {
    is_used(Compat);
}
