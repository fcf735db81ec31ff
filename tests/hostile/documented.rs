//! docs/hostile-input.md has a test for each attack, and names none that is not there.

use crate::support::documented::{last_cell, tests_in};
use crate::support::machine::repository;

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
        assert_eq!(line.matches(" | ").count(), 2, "three cells: {line}");
        let tests = tests_in(line, true);
        assert!(!tests.is_empty(), "no test shows this: {line}");
        for test in &tests {
            test.assert_is_below(if test.is_unit { "src" } else { "tests" }, line);
        }
        named += tests.len();
    }
    assert!(named > 50, "{named} tests were found");
}
