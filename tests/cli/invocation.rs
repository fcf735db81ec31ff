//! The command line itself: usage, exit statuses, environment.

use super::{TAG, entries, image};
use crate::support::{Dir, TestCommand};

#[test]
fn wrong_usage_is_status_2() {
    let dir = Dir::new("usage");
    for arguments in [
        &[][..],
        &["nope"],
        &["load"],
        &["load", "docker://debian"],
        &["mount", "web", "--nope"],
        &["--lock-timeout", "-1", "images"],
        &["--log", "a=b=c", "images"],
        &["prune"],
        &["save", "a", "oci:b", "--level", "3"],
        &["names", "a", "--set", "x", "--add", "y"],
        &["create-container", "--id", "../x"],
    ] {
        let error = dir.layerstore(arguments).assert_exit(2);
        assert!(!error.is_empty());
    }
    assert!(!dir.root().exists(), "nothing was made");
}

#[test]
fn help_and_version_are_no_failures() {
    let help = TestCommand::layerstore().arg("--help").stdout();
    assert!(help.contains("Examples:") && help.contains("Exit status"), "{help}");
    let version = TestCommand::layerstore().arg("version").stdout();
    assert_eq!(version, format!("layerstore {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(TestCommand::layerstore().arg("--version").stdout(), version);
    let json = TestCommand::layerstore().args(["version", "--json"]).json();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn environment_names_the_store() {
    let dir = Dir::new("environment");
    let root = dir.join("elsewhere");
    TestCommand::layerstore().arg("create-container").env("LAYERSTORE_ROOT", &root).assert_success();
    dir.layerstore(["create-container"]).assert_success();
    let status = TestCommand::layerstore().args(["status", "--json"]).env("LAYERSTORE_ROOT", &root).json();
    assert_eq!(status["root"], root.to_str().unwrap());
    // Not a place that other stores have too.
    assert_eq!(status["run_root"], root.join("run").to_str().unwrap());
    let status = dir.layerstore(["status", "--json"]).env("LAYERSTORE_ROOT", &root).json();
    assert_eq!(status["root"], dir.root().to_str().unwrap(), "the flag wins");
}

#[test]
fn a_store_is_made_by_what_puts_something_in() {
    let dir = Dir::new("no-store");
    image().write(dir.join("base.oci"), TAG);
    dir.write("damaged.tar", "no archive");
    let reading =
        ["status", "du", "images", "containers", "layers", "events", "check", "gc", "mount", "sync"];
    let others = [
        &["inspect", "web"][..],
        &["create-container", "nope"],
        &["create-layer", "nope", "--name", "base"],
        &["create-layer", "--template", "nope"],
        &["create-image", "nope", "--name", "base"],
        &["backup", "copy"],
        &["load", "oci:/nonexistent"],
        &["load", "oci-archive:damaged.tar"],
        &["load", "oci:base.oci:nope"],
        &["load", "oci:base.oci", "--platform", "plan9/mips"],
    ];
    for command in reading.iter().map(std::slice::from_ref).chain(others) {
        for empty in [false, true] {
            if empty {
                dir.create_dir("root");
            }
            let error = dir.layerstore(command).assert_exit(1);
            if command[0] != "load" {
                assert!(
                    error.contains("there is no store at") && error.contains("`layerstore load`"),
                    "{error}"
                );
            }
            assert!(!empty || entries(&dir, "") == 0, "{command:?} has made a store");
            // Fails if there is something in it.
            std::fs::remove_dir(dir.root()).or_else(|error| if empty { Err(error) } else { Ok(()) }).unwrap();
            assert!(!dir.root().exists() && !dir.run_root().exists(), "{command:?} has made a directory");
        }
    }
    assert!(!dir.join("copy").exists());
    dir.layerstore(["load", &format!("oci:base.oci:{TAG}")]).assert_success();
    assert!(dir.root().join("store.redb").exists());
}

#[test]
fn log_goes_to_standard_error() {
    let dir = Dir::new("log");
    let output = dir.layerstore(["create-container", "--log", "trace"]).output();
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1);
    assert!(!output.stderr.is_empty());
    let quiet = dir.layerstore(["create-container"]).output();
    assert_eq!(String::from_utf8_lossy(&quiet.stderr), "");
}

#[test]
fn a_word_that_is_no_level_is_refused() {
    let dir = Dir::new("log");
    let error = dir.layerstore(["--log", "bogus", "version"]).assert_exit(2);
    assert!(error.contains("--log") && error.contains("debug and trace"), "{error}");
    let error = dir.layerstore(["version"]).env("LAYERSTORE_LOG", "loud").assert_exit(2);
    assert!(error.contains("$LAYERSTORE_LOG"), "{error}");
    dir.layerstore(["--log", "layerstore::store=debug", "version"]).assert_success();
}

#[test]
fn a_failure_is_text_and_a_status_with_json_too() {
    let dir = Dir::new("json-failures");
    dir.layerstore(["create-layer", "--name", "base"]).assert_success();
    for (command, status) in [
        (&["inspect", "missing"][..], 1),
        (&["rm", "--layer", "missing"], 1),
        (&["create-layer", "missing"], 1),
        (&["put-layer", "--file", "missing"], 1),
        (&["images", "--config", "missing"], 2),
    ] {
        let output = dir.layerstore(command).arg("--json").output();
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        assert!(
            output.stdout.is_empty() || serde_json::from_slice::<serde_json::Value>(&output.stdout).is_ok(),
            "{output:?}"
        );
        let told = String::from_utf8(output.stderr).unwrap();
        let forms = ["error: ", "  caused by: ", "  hint: "];
        assert!(told.starts_with("error: "), "{told}");
        assert!(told.lines().all(|line| forms.iter().any(|form| line.starts_with(form))), "{told}");
    }
}
