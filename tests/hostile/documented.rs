//! docs/hostile-input.md has a test for each attack, names none that is not there, and says in which modes it is tried.

use crate::support::documented::{Named, last_cell, tests_in};
use crate::support::machine::repository;

/// What a test of this module calls that tries its attack in each mode that the process can have.
const EACH_MODE: [&str; 4] = ["Place::new()", "in_each_mode(", "in_each_mode_within(", "Mode::all()"];

/// What a test calls that is never run in a user namespace, and so not in the mode that one has.
const ROOT_ALONE: [&str; 2] = ["if !machine::is_real_root() {", "if skip_unless_real_root() {"];

/// Stops unless the test is there.
fn is_in_each_mode(test: &Named, line: &str) -> bool {
    let code = test.assert_is_below(if test.is_unit { "src" } else { "tests" }, line);
    let says = |words: &[&str]| words.iter().any(|word| code.contains(word));
    let tries = match test.is_unit {
        true => says(&["kinds()"]),
        false => test.modules[0] == "hostile" && says(&EACH_MODE),
    };
    tries && !says(&ROOT_ALONE)
}

#[test]
fn every_attack_has_its_test() {
    let page = std::fs::read_to_string(repository().join("docs/hostile-input.md")).unwrap();
    let mut named = 0;
    let mut has_tests = false;
    for line in page.lines() {
        has_tests = line.starts_with('|') && (has_tests || last_cell(line) == "test");
        if !has_tests || last_cell(line) == "test" || line.starts_with("| ---") {
            continue;
        }
        let cells: Vec<&str> = line.split(" | ").collect();
        let [_, _, modes, _] = cells[..] else { panic!("four cells: {line}") };
        let tests = tests_in(line, true);
        assert!(!tests.is_empty(), "no test shows this: {line}");
        // Each of them is looked for.
        let in_each = tests.iter().filter(|test| is_in_each_mode(test, line)).count() > 0;
        assert_eq!(modes, if in_each { "each" } else { "own" }, "{line}");
        named += tests.len();
    }
    assert!(named > 50, "{named} tests were found");
}
