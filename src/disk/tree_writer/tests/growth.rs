//! Work that grows with the number of members, and not with its square: the system calls are counted, exactly.

use super::*;
use crate::sys::call::fault::counted;

type Write = fn(&mut TreeWriter, usize);

/// What many members of an archive may be, each time made again with another number.
const KINDS: [(&str, Write); 12] = [
    ("files", |tree, number| file(tree, &format!("d/{number}"))),
    ("files of one name", |tree, _| file(tree, "d/file")),
    ("files with long names", |tree, number| file(tree, &format!("d/{number:0>255}"))),
    ("files in directories that nobody names", |tree, number| file(tree, &format!("d{number}/e/f"))),
    ("directories of one name", |tree, _| tree.directory(&path("d"), &metadata(0o700)).unwrap()),
    ("directory and link by turns", |tree, number| match number % 2 {
        0 => tree.directory(&path("d"), &metadata(0o700)).unwrap(),
        _ => tree.symlink(&path("d"), b"/", &metadata(0o777)).unwrap(),
    }),
    ("links", |tree, number| tree.symlink(&path(&format!("d/{number}")), b"/", &metadata(0o777)).unwrap()),
    ("hard links to one file", |tree, number| match number {
        0 => file(tree, "d/0"),
        _ => tree.hard_link(&path(&format!("d/{number}")), &path("d/0")).unwrap(),
    }),
    ("hard links to hard links", |tree, number| match number {
        0 => file(tree, "d/0"),
        _ => tree.hard_link(&path(&format!("d/{number}")), &path(&format!("d/{}", number - 1))).unwrap(),
    }),
    ("whiteouts", |tree, number| tree.whiteout(&path(&format!("d/{number}"))).unwrap()),
    ("whiteouts of one name", |tree, _| tree.whiteout(&path("d/name")).unwrap()),
    ("opaque markers of one directory", |tree, _| tree.opaque(&path("d")).unwrap()),
];

fn file(tree: &mut TreeWriter, at: &str) {
    write_file(tree, at, b"x", &metadata(0o644)).map(drop).unwrap();
}

/// How many calls it takes to unpack so many.
fn calls(write: Write, count: usize) -> usize {
    let place = Place::new();
    let mut tree = place.strict_writer();
    let ((), calls) = counted(|| {
        (0..count).for_each(|number| write(&mut tree, number));
        tree.finish().map(drop).unwrap();
    });
    calls.len()
}

/// What the first members may need less than those after them.
const FEW: usize = 16;

#[test]
fn twice_the_members_take_no_more_than_twice_the_calls() {
    for (name, write) in KINDS {
        let [one, two, four] = [200, 400, 800].map(|count| calls(write, count));
        assert!(two <= 2 * one + FEW && four <= 4 * one + FEW, "{name}: {one}, {two} and {four} calls");
    }
}
