//! `layerstore config`: what is in effect, and why.

use crate::support::{Dir, TestCommand};

#[test]
fn each_option_says_where_it_came_from() {
    let dir = Dir::new("config");
    let other = dir.create_dir("other");
    let file = dir.write(
        "storage.conf",
        format!(
            "[storage]\ngraphroot = '/from/file'\ntransient_store = true\n[storage.options.overlay]\n\
             mountopt = 'nodev,index=on'\nimagestore = 1\n\n[storage.options]\nadditionalimagestores = ['{}']\n",
            other.display()
        ),
    );
    let at = |line: u32| format!("{}:{line}", file.display());
    let config = |arguments: &[&str]| {
        let mut command =
            TestCommand::layerstore().args(["--config"]).arg(&file).args(arguments).args(["config"]);
        let output = command.output();
        assert!(output.status.success(), "{output:?}");
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (json, notes) = config(&["--json", "--root", "/from/flag"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let option = |name: &str| (json[name]["value"].clone(), json[name]["from"].as_str().unwrap().to_owned());
    assert_eq!(option("root"), ("/from/flag".into(), "--root".to_owned()));
    assert_eq!(option("run_root"), ("/from/flag/run".into(), "default".to_owned()));
    assert_eq!(option("transient"), (true.into(), at(3)));
    assert_eq!(
        option("mount_options"),
        (serde_json::json!(["nodev"]), at(5)),
        "what has no effect is no option"
    );
    assert_eq!(option("image_stores"), (serde_json::json!([other]), at(9)));
    assert_eq!(option("sync"), ("full".into(), "default".to_owned()));
    assert!(notes.contains(&format!("{}: storage.options.overlay.imagestore is no key", at(6))), "{notes}");
    assert!(notes.contains(&format!("{}: mountopt index=on has no effect: it ties", at(5))), "{notes}");
    let (json, _) = config(&["--json", "--run-root", "/elsewhere"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["run_root"], serde_json::json!({ "value": "/elsewhere", "from": "--runroot" }));
    let (text, _) = config(&[]);
    assert!(text.contains("/from/file") && text.contains(&at(2)), "{text}");
}

#[test]
fn variables_name_a_configuration_too() {
    let dir = Dir::new("config-variable");
    let file = dir.write("storage.conf", "[storage.options.overlay]\nsync = 'none'\n");
    let config = |sync: &str| {
        let command = TestCommand::layerstore().args(["config", "--json"]).env("LAYERSTORE_CONFIG", &file);
        command.env("LAYERSTORE_SYNC", sync).json()["sync"].clone()
    };
    assert_eq!(
        config(""),
        serde_json::json!({ "value": "records", "from": format!("{}:2", file.display()) })
    );
    assert_eq!(config("off"), serde_json::json!({ "value": "off", "from": "$LAYERSTORE_SYNC" }));
    // The machine's own file is of other programs' stores.
    let own =
        TestCommand::layerstore().args(["config", "--json"]).env("CONTAINERS_STORAGE_CONF", &file).json();
    assert_eq!(own["sync"]["from"], "default");
}

#[test]
fn each_limit_says_where_it_came_from() {
    let dir = Dir::new("config-limits");
    let file = dir
        .write("storage.conf", "[storage.options.layerstore.limits]\nentries = 7\nlayers = 8\nnames = 9\n");
    let config = || {
        let flags = ["--limit", "layers=5", "--limit", "indexes=6", "config"];
        TestCommand::layerstore().arg("--config").arg(&file).args(flags)
    };
    let of_file = format!("{}:1", file.display());
    let json = config().arg("--json").json();
    assert_eq!(
        json["limits"],
        serde_json::json!({
            "value": { "entries": 7, "layers": 5, "indexes": 6, "names": 9 },
            "from": format!("{of_file}, --limit"),
            "each": { "entries": of_file, "layers": "--limit", "indexes": "--limit", "names": of_file },
        })
    );
    let text = config().stdout();
    for (limit, from) in [("entries=7", &*of_file), ("layers=5", "--limit"), ("names=9", &of_file)] {
        let line = text.lines().find(|line| line.contains(limit)).unwrap();
        assert!(line.starts_with("limits ") && line.ends_with(from), "{line}");
    }
    // The flag and its value are said once.
    let error = dir.layerstore(["images", "--limit", "entries=lots"]).assert_exit(2);
    assert_eq!(error.matches("entries=lots").count(), 1, "{error}");
    assert!(error.contains(": it takes a whole number"), "{error}");
}

#[test]
fn a_bad_configuration_is_status_2() {
    let dir = Dir::new("config-bad");
    for (text, expected) in [
        ("[storage]\ndriver = 7\n", "storage.conf:2: storage.driver must be a string, not 7"),
        ("[storage]\ndriver = 'vfs'\n", "storage.conf:2: the storage driver \"vfs\""),
        (
            "[storage.options]\nforce_mask = '700'\n",
            "storage.conf:2: the storage option \"force_mask = 700\"",
        ),
        ("[storage\n", "storage.conf:1: "),
    ] {
        let file = dir.write("storage.conf", text);
        let error = dir.layerstore(["images"]).arg("--config").arg(file).assert_exit(2);
        assert!(error.contains(expected), "{error}");
    }
    let error = dir.layerstore(["images", "--config", "missing.conf"]).assert_exit(2);
    assert!(error.contains("missing.conf"), "{error}");
    let error = dir.layerstore(["images", "--config", "/dev/zero"]).assert_exit(2);
    assert!(error.contains("the configuration /dev/zero is no regular file"), "{error}");
    assert!(!dir.root().exists(), "nothing was made");
}
