//! The small operations, as whole processes. The numbers are what was counted; whoever needs more of them says here what for.

use crate::support::{Dir, machine};

/// What every program does to have memory and to end. Builds for tests also have the standard library ask for each descriptor before it
/// is closed, which does not count, and redb read each page of a small file, which does.
const OF_ANY_PROGRAM: [&str; 14] = [
    "brk(",
    "mmap(NULL",
    "munmap(",
    "mprotect(",
    "madvise(",
    "futex(",
    "close(",
    "geteuid(",
    "getpid(",
    "sigaltstack(",
    "rt_sig",
    "exit_group(",
    "write(1,",
    "+++ ",
];

/// Runs a command of the program. Returns its calls from the first that has to do with the store.
fn calls(dir: &Dir, arguments: &[&str]) -> Vec<String> {
    let text = dir.traced(&["-e", "signal=none"], arguments);
    assert!(!text.contains("/etc/passwd") && !text.contains("nscd"), "the user database is asked:\n{text}");
    let root = dir.root();
    // How deep the store lies is the tests' affair.
    let above: Vec<String> =
        root.ancestors().skip(1).map(|above| format!("\"{}\", ", above.display())).collect();
    let begins = format!("\"{}\"", root.display());
    let calls = text.lines().map(|line| line.split_once(' ').map_or(line, |(_, call)| call.trim_start()));
    let calls = calls.skip_while(|call| call.starts_with("execve(") || !call.contains(&begins));
    let counts = |call: &&str| {
        !OF_ANY_PROGRAM.iter().any(|known| call.starts_with(known))
            && !above.iter().any(|above| call.contains(above))
            && !call.contains("F_GETFD")
            && !call.contains(" resumed>")
    };
    let calls: Vec<_> = calls.filter(counts).map(str::to_owned).collect();
    assert!(!calls.is_empty(), "nothing of the store in\n{text}");
    calls
}

#[test]
fn small_operations_make_few_system_calls() {
    if !machine::can_trace() {
        skip!("strace is not here, or may not trace");
    }
    let dir = Dir::new("calls");
    dir.layerstore(["create-container", "--name", "base"]).assert_success();
    let list = calls(&dir, &["containers", "--quiet"]);
    let is_write =
        |call: &String| call.contains("O_RDWR") && call.contains("store.redb") || call.starts_with("pwrite");
    assert!(!list.iter().any(is_write), "a list writes:\n{}", list.join("\n"));
    let mut counted = vec![
        ("open and list", list, 38),
        ("open and look at one", calls(&dir, &["inspect", "base"]), 93),
        ("create a container", calls(&dir, &["create-container", "--name", "web"]), 162),
        ("remove a container", calls(&dir, &["rm", "web"]), 232),
    ];
    if machine::is_root() {
        // The first one tries out what the kernel can do.
        dir.layerstore(["mount", "base"]).assert_success();
        dir.layerstore(["unmount", "base"]).assert_success();
        counted.push(("mount a container", calls(&dir, &["mount", "base"]), 212));
        counted.push(("unmount a container", calls(&dir, &["unmount", "base"]), 156));
    }
    // In a namespace the map of its ids is read, too: several times.
    let of_namespace = if machine::in_user_namespace() { 20 } else { 0 };
    let more: Vec<String> = counted
        .into_iter()
        .map(|(operation, calls, most)| (operation, calls, most + of_namespace))
        .filter(|(_, calls, most)| calls.len() > *most)
        .map(|(operation, calls, most)| {
            format!("{operation}: {} calls, and not {most}:\n{}\n", calls.len(), calls.join("\n"))
        })
        .collect();
    assert!(more.is_empty(), "{}", more.concat());
}
