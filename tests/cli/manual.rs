//! Manual pages and completions.

use crate::support::{Dir, TestCommand, machine};

#[test]
fn every_command_has_a_page() {
    let dir = Dir::new("man");
    dir.layerstore(["man", "--dir", "man"]).assert_success();
    let help = TestCommand::layerstore().arg("-h").stdout();
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let mut seen = 0;
    for line in commands.take_while(|line| !line.is_empty()) {
        let Some(command) = line.split_whitespace().next().filter(|word| *word != "help") else { continue };
        let page = dir.join(format!("man/layerstore-{command}.1"));
        assert!(page.exists(), "no page for {command}");
        seen += 1;
    }
    assert!(seen > 20, "{help}");
    let page = std::fs::read_to_string(dir.join("man/layerstore-load.1")).unwrap();
    assert!(page.contains(".SH NAME") && page.contains("docker\\-archive"), "{page}");
    assert_eq!(
        TestCommand::layerstore().arg("man").stdout(),
        std::fs::read_to_string(dir.join("man/layerstore.1")).unwrap()
    );
}

#[test]
fn pages_in_the_repository_are_those_that_the_program_writes() {
    let committed = machine::repository().join("man");
    let dir = Dir::new("man-current");
    dir.layerstore(["man", "--dir", "man"]).assert_success();
    let names = |path: &std::path::Path| {
        let mut names: Vec<_> =
            std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&committed), names(&dir.join("man")));
    for name in names(&committed) {
        let same = std::fs::read(committed.join(&name)).unwrap()
            == std::fs::read(dir.join("man").join(&name)).unwrap();
        assert!(same, "{name:?} is out of date: run `cargo run -- man --dir man`");
    }
}

#[test]
fn shells_get_completions() {
    for shell in ["bash", "zsh", "fish", "elvish"] {
        let script = TestCommand::layerstore().args(["completions", shell]).stdout();
        assert!(script.contains("create-container"), "{shell}");
    }
    let script = TestCommand::layerstore().args(["completions", "bash"]).stdout();
    if machine::has_program("bash") {
        TestCommand::new("bash").args(["-n", "/dev/stdin"]).stdin(script).assert_success();
    }
}
