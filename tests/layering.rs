//! The source keeps its own rules: modules point down, `unsafe` stays in one place, text is ASCII.
//!
//! Inside one crate the compiler enforces no direction between modules, so these tests read the source.

use std::path::Path;

use crate::support::machine::repository;
use crate::support::source::{code_only, is_name, line_of, rust_files, words};

/// The modules, lowest first. A module names modules of earlier groups, never a neighbour, never a later one.
const GROUPS: &[&[&str]] = &[
    &["error"],
    &["types"],
    &["timing"],
    &["sys", "compress"],
    &["archive", "config", "disk", "meta"],
    &["chunked", "composefs"],
    &["layer", "image", "overlay"],
    &["store"],
    &["gc", "dedup", "oci"],
    &["check"],
    &["repair"],
    &["snapshotter", "graphdriver", "interop"],
    // What the fuzz targets see of the inside.
    &["fuzzing", "fault_tests"],
    &["bin"],
];

/// These stand on the store's public methods alone.
const FACADES: &[&str] = &["snapshotter", "graphdriver", "interop"];
const HIDDEN_FROM_FACADES: &[&str] = &["meta", "disk"];

fn group(module: &str) -> Option<usize> {
    GROUPS.iter().position(|group| group.contains(&module))
}

/// The top-level module that a file below `src/` belongs to; none for `lib.rs`, which names them all.
fn module_of(file: &Path) -> Option<String> {
    let first = file.iter().next()?.to_str()?;
    let module = first.strip_suffix(".rs").unwrap_or(first);
    (module != "lib").then(|| module.to_owned())
}

/// Whether a file holds unit tests only: those may take the public names, as a user would.
fn is_test_file(file: &Path) -> bool {
    file.iter().any(|part| part == "tests" || part == "tests.rs" || part == "fault_tests")
}

/// Whether a name after `crate::` is a public name of `lib.rs`, not a module.
fn is_public_name(named: &str) -> bool {
    named.starts_with(|first: char| first.is_ascii_uppercase())
}

/// The first names after each `crate::`, also those of `crate::{a, b::c}`, with their places.
fn crate_names(code: &str) -> Vec<(usize, &str)> {
    let mut names = Vec::new();
    for at in words(code, "crate") {
        let Some(rest) = code[at + "crate".len()..].trim_start().strip_prefix("::") else { continue };
        let rest = rest.trim_start();
        if let Some(list) = rest.strip_prefix('{') {
            names.extend(list_items(list).into_iter().map(|name| (at, name)));
        } else {
            names.push((at, first_name(rest)));
        }
    }
    names
}

/// The first name of each item of a use list, up to its closing brace.
fn list_items(list: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' | ',' if depth == 0 => {
                items.push(first_name(list[start..at].trim_start()));
                start = at + 1;
            }
            '}' => depth -= 1,
            _ => {}
        }
        if character == '}' && start == at + 1 {
            break;
        }
    }
    items.retain(|item| !item.is_empty());
    items
}

fn first_name(text: &str) -> &str {
    let end = text.bytes().position(|byte| !is_name(byte)).unwrap_or(text.len());
    &text[..end]
}

/// Why `module` must not name `named`, if it must not.
fn objection(module: &str, named: &str) -> Option<String> {
    if named == module {
        return None;
    }
    let Some(own) = group(module) else {
        return Some(format!("`{module}` is in no group of tests/layering.rs"));
    };
    if is_public_name(named) {
        return Some(format!("`crate::{named}` hides which module it comes from: name the module"));
    }
    match group(named) {
        None => Some(format!("`{named}` is in no group of tests/layering.rs")),
        Some(other) if other == own => Some(format!("`{module}` names its neighbour `{named}`")),
        Some(other) if other > own => Some(format!("`{module}` names `{named}`, which is above it")),
        Some(_) if FACADES.contains(&module) && HIDDEN_FROM_FACADES.contains(&named) => {
            Some(format!("`{module}` names `{named}`; a facade uses the store's public methods"))
        }
        Some(_) => None,
    }
}

fn objections(module: &str, source: &str, in_tests: bool) -> Vec<String> {
    let code = code_only(source);
    let names = crate_names(&code).into_iter().filter(|(_, name)| !(in_tests && is_public_name(name)));
    names
        .filter_map(|(at, name)| Some(format!("{}: {}", line_of(&code, at), objection(module, name)?)))
        .collect()
}

#[test]
fn modules_point_down() {
    let sources = repository().join("src");
    let mut found = Vec::new();
    for file in rust_files(&sources) {
        let relative = file.strip_prefix(&sources).unwrap();
        // The program is a crate of its own: the compiler limits it to the public names.
        let Some(module) = module_of(relative).filter(|module| module != "bin") else { continue };
        let source = std::fs::read_to_string(&file).unwrap();
        let lines = objections(&module, &source, is_test_file(relative));
        found.extend(lines.iter().map(|line| format!("src/{}:{line}", relative.display())));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn upward_and_sideways_names_are_found() {
    let count = |module: &str, source: &str| objections(module, source, false).len();
    assert_eq!(
        count("disk", "use crate::sys::dir;\nuse crate::{error::DiskError, types::{RelPath, Digest}};"),
        0
    );
    assert_eq!(count("disk", "use crate::meta::Table;"), 1);
    assert_eq!(
        count("disk", "use crate::{\n    error::DiskError,\n    store::{Store, Options},\n    layer,\n};"),
        2
    );
    assert_eq!(count("error", "use crate::types::Digest;"), 1);
    assert_eq!(count("types", "fn f() -> crate :: sys::Fd {}"), 1);
    assert_eq!(count("types", "use crate::Store;"), 1);
    assert_eq!(count("store", "use crate::newcomer::Thing;"), 1);
    assert_eq!(count("snapshotter", "use crate::{store::Store, meta::Txn};"), 1);
    assert_eq!(
        count("disk", "// use crate::store::Store;\nlet text = \"crate::store\"; pub(crate) fn f() {}"),
        0
    );
    assert!(objections("oci", "use crate::{OciError, store::Store};", true).is_empty());
    assert_eq!(objections("disk", "\n\nuse crate::gc;", true)[0], "3: `disk` names `gc`, which is above it");
}

/// The positions of `unsafe` in code; `unsafe_code` in an attribute is another word.
fn unsafe_words(source: &str) -> Vec<usize> {
    words(&code_only(source), "unsafe").collect()
}

#[test]
fn unsafe_code_is_in_sys_only() {
    let mut found = Vec::new();
    for top in ["src", "schema/src"] {
        for file in rust_files(&repository().join(top)) {
            if file.starts_with(repository().join("src/sys")) {
                continue;
            }
            let source = std::fs::read_to_string(&file).unwrap();
            for at in unsafe_words(&source) {
                found.push(format!("{}:{}", file.display(), line_of(&source, at)));
            }
        }
    }
    assert!(found.is_empty(), "`unsafe` outside src/sys:\n{}", found.join("\n"));
}

#[test]
fn unsafe_words_are_found() {
    assert_eq!(unsafe_words("#![expect(unsafe_code)] // unsafe\nlet s = \"unsafe\";").len(), 0);
    assert_eq!(unsafe_words("unsafe { f() }\nunsafe fn g() {}").len(), 2);
}

/// Ways to reach the system, and what may be named of each outside `src/sys`: types, traits and error numbers.
const SYSTEM: &[(&str, &[&str])] = &[
    ("std::fs", &[]),
    ("std::os::unix::fs", &["FileExt"]),
    ("std::process", &["id"]),
    ("nix", &["fcntl::OFlag", "mount::MsFlags", "libc"]),
    ("rustix", &["fs::FileType", "io::Errno", "mount::MountAttrFlags"]),
    ("libc", &[]),
    ("memmap2", &[]),
];

/// Methods of the standard library's paths and descriptors that are system calls.
const SYSTEM_METHODS: &[&str] = &[
    "canonicalize",
    "exists",
    "is_dir",
    "is_file",
    "is_symlink",
    "read_dir",
    "read_link",
    "symlink_metadata",
    "try_clone_to_owned",
    "try_exists",
];

/// The code of a file before its unit tests, which may do what they like.
fn without_tests(code: &str) -> &str {
    let tests = code.find("#[cfg(test)]\nmod tests {").unwrap_or(code.len());
    &code[..tests]
}

/// Each system call that some code makes by itself, with its place.
fn direct_calls(code: &str) -> Vec<(usize, String)> {
    let mut calls = Vec::new();
    for (prefix, allowed) in SYSTEM {
        let first = prefix.split("::").next().unwrap();
        for at in words(code, first) {
            let Some(rest) = code[at..].strip_prefix(prefix).and_then(|rest| rest.strip_prefix("::")) else {
                continue;
            };
            // `nix::libc::EINVAL` is found at its `libc`.
            let constant = *prefix == "libc" && rest.starts_with(|first: char| first.is_ascii_uppercase());
            let is_allowed = |name: &&str| {
                rest.strip_prefix(*name).is_some_and(|after| {
                    !after.starts_with(|next: char| next.is_ascii() && is_name(next as u8))
                })
            };
            if !constant && !allowed.iter().any(is_allowed) {
                let end = rest.find(|next: char| next != ':' && !(next.is_ascii() && is_name(next as u8)));
                calls.push((at, format!("{prefix}::{}", &rest[..end.unwrap_or(rest.len())])));
            }
        }
    }
    for method in SYSTEM_METHODS {
        let called = words(code, method)
            .filter(|at| code[..*at].ends_with('.') && code[at + method.len()..].starts_with('('));
        calls.extend(called.map(|at| (at, format!(".{method}()"))));
    }
    calls
}

#[test]
fn system_calls_are_in_sys_only() {
    let sources = repository().join("src");
    let mut found = Vec::new();
    for file in rust_files(&sources) {
        let relative = file.strip_prefix(&sources).unwrap();
        let elsewhere = relative.starts_with("sys") || relative.starts_with("bin");
        // The fuzz targets' view of the inside, and the kit of the unit tests.
        let kit = [
            "exercise.rs",
            "fault_tests",
            "fixture.rs",
            "fuzzing",
            "fuzzing.rs",
            "testing.rs",
            "tests",
            "tests.rs",
        ];
        if elsewhere || relative.iter().any(|part| kit.iter().any(|name| part == *name)) {
            continue;
        }
        let code = code_only(&std::fs::read_to_string(&file).unwrap());
        for (at, call) in direct_calls(without_tests(&code)) {
            found.push(format!("src/{}:{}: {call}", relative.display(), line_of(&code, at)));
        }
    }
    assert!(found.is_empty(), "system calls outside src/sys:\n{}", found.join("\n"));
}

#[test]
fn direct_system_calls_are_found() {
    let count = |source: &str| direct_calls(without_tests(&code_only(source))).len();
    assert_eq!(count("use rustix::fs::FileType;\nlet full = error == Some(nix::libc::ENOSPC);"), 0);
    assert_eq!(count("use std::os::unix::fs::FileExt; fn exists(path: &Path) {} exists(path);"), 0);
    assert_eq!(count("fn f() {}\n#[cfg(test)]\nmod tests {\n    std::fs::read(path);\n}"), 0);
    assert_eq!(count("use std::fs::File; let kind = rustix::fs::statat(dir, name);"), 2);
    assert_eq!(count("nix::libc::close(0); std::process::Command::new(program);"), 2);
    assert_eq!(count("if path.exists() || path.is_dir() {}"), 2);
}

#[test]
fn sources_are_ascii() {
    let mut found = Vec::new();
    for top in ["src", "schema", "tests", "benches", "fuzz/fuzz_targets"] {
        for file in rust_files(&repository().join(top)) {
            let source = std::fs::read_to_string(&file).unwrap();
            if let Some(at) = source.find(|character: char| !character.is_ascii()) {
                found.push(format!("{}:{}", file.display(), line_of(&source, at)));
            }
        }
    }
    assert!(found.is_empty(), "characters beyond ASCII:\n{}", found.join("\n"));
}
