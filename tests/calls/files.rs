//! Each small file of a layer: `docs/design.md` has the same numbers. What a command costs besides is taken off, by doing it with few
//! files and with many.

use std::collections::BTreeMap;

use crate::support::tar::{Member, archive};
use crate::support::{Dir, machine};

const FEW: usize = 100;
const MANY: usize = 1100;

/// What a thread that waits for another calls, as often as chance has it; and what a debug build asks of each descriptor that it closes.
const CHANCE: [&str; 5] = ["futex", "sched_yield", "restart_syscall", "fcntl", "madvise"];

type Calls = BTreeMap<String, usize>;

fn calls(dir: &Dir, arguments: &[&str]) -> Calls {
    let arguments = [&["--sync", "off"], arguments].concat();
    let text = dir.traced(&["-c", "-U", "name,calls"], &arguments);
    let line = |line: &str| {
        let (name, count) = line.trim().split_once(char::is_whitespace)?;
        Some((name.to_owned(), count.trim().parse().ok()?))
    };
    text.lines().filter_map(line).filter(|(name, _)| name != "total").collect()
}

/// The calls of putting, exporting, checking and deleting a layer of so many files, a hundred to a directory.
fn of_a_layer(dir: &Dir, count: usize) -> [Calls; 4] {
    let mut members = Vec::new();
    for number in 0..count {
        let directory = format!("dir{}", number / 100);
        if number % 100 == 0 {
            members.push(Member::directory(&directory));
        }
        members
            .push(Member::file(format!("{directory}/file{number}"), format!("{count} {number}")).mode(0o644));
    }
    dir.write("layer.tar", archive(&members));
    let name = format!("of{count}");
    [
        calls(dir, &["put-layer", "--name", &name, "--file", "layer.tar"]),
        calls(dir, &["diff", &name, "--output", "out.tar"]),
        calls(dir, &["check", "--deep", "--layer", &name]),
        calls(dir, &["rm", "--layer", &name]),
    ]
}

/// A call more for each file would be 1000 of them; a directory has some, too, and so have buffers that are full.
#[test]
fn a_small_file_costs_few_system_calls() {
    if !machine::can_trace() {
        skip!("strace is not here, or may not trace");
    }
    let dir = Dir::new("calls-of-files");
    dir.layerstore(["--sync", "off", "create-container"]).assert_success();
    let (few, many) = (of_a_layer(&dir, FEW), of_a_layer(&dir, MANY));
    let expected: [&[(&str, usize)]; 4] = [
        &[("openat", 1), ("pwrite64", 1), ("statx", 1), ("utimensat", 1), ("close", 1)],
        &[("openat2", 1), ("statx", 1), ("read", 1), ("close", 1)],
        &[("openat2", 1), ("statx", 2), ("read", 1), ("close", 1), ("llistxattr", 1)],
        &[("unlinkat", 1)],
    ];
    let operations = ["put-layer", "diff", "check", "rm"];
    for (((operation, few), many), expected) in operations.iter().zip(few).zip(many).zip(expected) {
        for (call, _) in expected {
            assert!(many.contains_key(*call), "{operation}: no {call}: {many:?}");
        }
        for (call, count) in many.iter().filter(|(call, _)| !CHANCE.contains(&call.as_str())) {
            let more = count.saturating_sub(few.get(call).copied().unwrap_or_default());
            let granted = expected.iter().find(|(name, _)| name == call).map_or(0, |(_, granted)| *granted);
            let most = granted * (MANY - FEW) + (MANY - FEW) / 4;
            assert!(more <= most, "{operation}: {more} {call} for {} files: {many:?}", MANY - FEW);
        }
    }
}
