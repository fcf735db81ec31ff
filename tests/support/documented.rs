//! Tests that a page of `docs/` names, so that none of them goes away unnoticed.

use super::machine::repository;

/// A test that a page names: its modules, its name, and whether it is one in `src`.
#[derive(Clone, Debug)]
pub struct Named {
    pub modules: Vec<String>,
    pub name: String,
    pub is_unit: bool,
}

impl Named {
    /// Stops unless the test is there, with its modules below this directory of the repository, or those of the crate `schema`
    /// below that of the crate. Returns its code.
    #[track_caller]
    pub fn assert_is_below(&self, directory: &str, line: &str) -> String {
        let (directory, modules) = match &self.modules[..] {
            [first, modules @ ..] if first == "schema" => ("schema/src", modules),
            modules => (directory, modules),
        };
        // A module of tests may stand in the file of what it tests.
        let inline = modules.strip_suffix(&["tests".to_owned()]).unwrap_or_default();
        let found = [modules, inline].iter().find_map(|modules| {
            let place = repository().join(directory).join(modules.join("/"));
            let read = |file| std::fs::read_to_string(file).ok();
            read(place.with_extension("rs")).or_else(|| read(place.join("mod.rs")))
        });
        let code = found.unwrap_or_else(|| panic!("there is no module for {self:?} of {line}"));
        let Some((_, code)) = code.split_once(&format!("fn {}(", self.name)) else {
            panic!("there is no {self:?} of {line}");
        };
        code.split("\n}\n").next().unwrap_or_default().to_owned()
    }
}

/// The tests that a line names. In a column for tests, which is the last, what follows one is a test of the same module.
pub fn tests_in(line: &str, has_tests: bool) -> Vec<Named> {
    let mut tests: Vec<Named> = Vec::new();
    let cells: Vec<&str> =
        if has_tests { line.trim_end_matches('|').split('|').collect() } else { vec![line] };
    for (position, cell) in cells.iter().enumerate() {
        let is_for_tests = has_tests && position + 1 == cells.len();
        let parts: Vec<&str> = cell.split('`').collect();
        for pair in parts.chunks_exact(2) {
            let (before, word) = (pair[0], pair[1]);
            let is_name =
                word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:".contains(c));
            match word.rsplit_once("::") {
                Some((modules, name)) if is_name => tests.push(Named {
                    modules: modules.split("::").map(str::to_owned).collect(),
                    name: name.to_owned(),
                    is_unit: before.ends_with("unit test "),
                }),
                None if is_name && is_for_tests && word.contains('_') => {
                    let before = tests.last().unwrap_or_else(|| panic!("{word} is in no module: {line}"));
                    tests.push(Named { name: word.to_owned(), ..before.clone() });
                }
                _ => {}
            }
        }
    }
    tests
}

/// What stands in the last cell of a table's row.
pub fn last_cell(row: &str) -> &str {
    row.trim_end_matches('|').rsplit('|').next().unwrap_or_default().trim()
}
