//! docs/compat.md has a row for every command and its flags.

use crate::support::TestCommand;
use crate::support::machine::repository;

#[test]
fn every_command_has_a_row() {
    let page = std::fs::read_to_string(repository().join("docs/compat.md")).unwrap();
    let help = TestCommand::layerstore().args(["compat", "--help"]).stdout();
    let names: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .collect();
    assert!(names.len() > 40, "{names:?}");
    for name in names {
        let spelled = format!("`{name}`");
        let row = page.lines().find(|line| line.starts_with('|') && first_cell(line).contains(&spelled));
        let row = row.unwrap_or_else(|| panic!("docs/compat.md has no row for {name}"));
        let usage = TestCommand::layerstore().args(["compat", name, "--help"]).output();
        let flags = String::from_utf8(usage.stderr).unwrap();
        let own = flags.lines().filter(|line| !GLOBAL.iter().any(|flag| line.contains(flag)));
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
