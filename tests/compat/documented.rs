//! docs/compat.md has a row for every command and its flags, and names no test and no item that is not there.

use crate::support::TestCommand;
use crate::support::documented::{last_cell, tests_in};
use crate::support::machine::repository;

fn page() -> String {
    std::fs::read_to_string(repository().join("docs/compat.md")).unwrap()
}

#[test]
fn every_command_has_a_row() {
    let page = page();
    let help = TestCommand::layerstore().args(["compat", "--help"]).stdout();
    let names: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .take_while(|line| *line != "Options:")
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .collect();
    assert!(names.len() > 40, "{names:?}");
    for name in names {
        let spelled = format!("`{name}`");
        let row = page.lines().find(|line| line.starts_with('|') && first_cell(line).contains(&spelled));
        let row = row.unwrap_or_else(|| panic!("docs/compat.md has no row for {name}"));
        let usage = TestCommand::layerstore().args(["compat", name, "--help"]).output();
        let flags = String::from_utf8(usage.stderr).unwrap();
        let flags = flags.lines().filter(|line| line.starts_with("  -"));
        let own = flags.filter(|line| !GLOBAL.iter().any(|flag| line.contains(flag)));
        for flag in own {
            let spellings: Vec<String> = flag
                .split_whitespace()
                .take_while(|word| word.starts_with('-'))
                .map(|word| format!("`{}`", word.trim_end_matches(',').split('=').next().unwrap()))
                .collect();
            let is_map = spellings.iter().any(|name| name.ends_with("idmap`"));
            let told = is_map && row.contains("map flags") || spellings.iter().any(|name| row.contains(name));
            assert!(told || row.contains("as `create-layer`"), "{name}: {spellings:?} is not in {row}");
        }
    }
}

/// The flags of every command.
const GLOBAL: &[&str] = &[
    "--graph",
    "--run",
    "--storage-driver",
    "--storage-opt",
    "--image-store",
    "--transient-store",
    "--debug",
    "--unshare",
];

fn first_cell(row: &str) -> &str {
    row.split('|').nth(1).unwrap_or_default()
}

#[test]
fn every_test_that_is_named_is_there() {
    let mut named = 0;
    // In which directory modules are, in `tests` and in `src`.
    let mut places = ["tests/compat", "src/bin/layerstore/compat"];
    let mut has_tests = false;
    for line in page().lines() {
        if line == "## Library" {
            places = ["tests", "src"];
        }
        has_tests = line.starts_with('|') && (has_tests || last_cell(line) == "test");
        let tests = tests_in(line, has_tests);
        for test in &tests {
            test.assert_is_below(places[usize::from(test.is_unit)], line);
        }
        let is_row = has_tests && last_cell(line) != "test" && !line.starts_with("| ---");
        if is_row && places[0] == "tests" {
            let here = line.split('|').nth(2).unwrap();
            assert!(!tests.is_empty() || here.contains("none"), "no test shows this: {line}");
        }
        named += tests.len();
    }
    assert!(named > 200, "{named} tests were found");
}

#[test]
fn every_item_that_is_named_is_there() {
    let mut code = String::new();
    read_all(&repository().join("src"), &mut code);
    let words: std::collections::HashSet<&str> =
        code.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
    let page = page();
    let (_, library) = page.split_once("## Library").unwrap();
    let mut named = 0;
    for word in library.split('`').skip(1).step_by(2) {
        let Some((kind, item)) = word.split_once("::") else { continue };
        if !kind.starts_with(char::is_uppercase) {
            continue;
        }
        named += 1;
        let has = |what: &str, name: &str| {
            let found = format!("{what} {name}");
            let mut ends = code.match_indices(&found).map(|(at, _)| &code[at + found.len()..]);
            ends.any(|rest| rest.starts_with(['(', '<', ':', ' ', ';']))
        };
        assert!(has("pub struct", kind) || has("pub enum", kind), "there is no {kind} for {word}");
        let is_variant = item.starts_with(char::is_uppercase);
        assert!(
            if is_variant { words.contains(item) } else { has("fn", item) || has("pub", item) },
            "no {word}"
        );
    }
    assert!(named > 150, "{named} items were found");
}

fn read_all(directory: &std::path::Path, code: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, code);
        } else {
            code.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}
