//! A machine's files, a user's variables, and what comes of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Environment, Origin, Settings, Value};
use crate::error::ConfigError;

/// A machine with nothing but what a test puts there.
struct Machine {
    root: tempfile::TempDir,
    user: u32,
    variables: BTreeMap<String, String>,
}

impl Machine {
    fn of_root() -> Self {
        Machine { root: tempfile::tempdir().unwrap(), user: 0, variables: BTreeMap::new() }
    }

    fn of_user() -> Self {
        let mut machine = Machine { user: 1000, ..Machine::of_root() };
        let home = machine.path("/home/ann").display().to_string();
        machine.variables.insert("HOME".into(), home);
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn with(self, path: &str, text: &str) -> Self {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn set(mut self, name: &str, value: impl AsRef<Path>) -> Self {
        self.variables.insert(name.into(), value.as_ref().to_str().unwrap().into());
        self
    }

    fn load(&self) -> Result<Settings, ConfigError> {
        Settings::load(&Environment {
            user: self.user,
            variables: self.variables.clone(),
            home: None,
            own_homes: vec![self.path("/home/ann")],
            system_root: self.root.path().to_owned(),
        })
    }

    fn settings(&self) -> Settings {
        self.load().unwrap()
    }

    fn driver(&self) -> String {
        self.settings().driver().unwrap().value.clone()
    }

    fn options(&self) -> Vec<String> {
        self.settings().driver_options().iter().map(|option| option.text.clone()).collect()
    }
}

fn driver_is(name: &str) -> String {
    format!("[storage]\ndriver = {name:?}\n")
}

const ETC: &str = "/etc/containers/storage.conf";
const USR: &str = "/usr/share/containers/storage.conf";
const HOME: &str = "/home/ann/.config/containers/storage.conf";

#[test]
fn without_files_root_has_the_usual_directories() {
    let settings = Machine::of_root().settings();
    assert_eq!(settings.graph_root().value, Path::new("/var/lib/containers/storage"));
    assert_eq!(settings.run_root().value, Path::new("/run/containers/storage"));
    assert_eq!(settings.graph_root().origin, Origin::Default);
    assert!(settings.driver().is_none() && settings.driver_options().is_empty());
}

#[test]
fn without_files_a_user_has_directories_of_their_own() {
    let machine = Machine::of_user();
    assert_eq!(
        machine.settings().graph_root().value,
        machine.path("/home/ann/.local/share/containers/storage")
    );
    let machine = machine.set("XDG_DATA_HOME", "/data").set("XDG_RUNTIME_DIR", "/runtime");
    assert_eq!(machine.settings().graph_root().value, Path::new("/data/containers/storage"));
    assert_eq!(machine.settings().run_root().value, Path::new("/runtime/containers"));

    let mut lost = Machine::of_user();
    lost.variables.clear();
    assert!(matches!(lost.load(), Err(ConfigError::NoHome { user: 1000 })));
}

/// Everybody can know the name, and make it where everybody can.
#[test]
fn a_shared_directory_that_others_made_is_not_a_users() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let machine = Machine::of_user();
    let tmp = machine.path("/tmp");
    let machine = machine.set("TMPDIR", tmp);
    let (shared, home) = (machine.path("/tmp/storage-run-1000"), machine.path("/home/ann/rundir"));
    let is_in = |base: &Path| assert_eq!(machine.settings().run_root().value, base.join("containers"));
    // Where it cannot be made, nobody knows who will.
    is_in(&home);
    std::fs::create_dir(machine.path("/tmp")).unwrap();
    is_in(&shared);
    assert!(!shared.exists(), "who only reads a configuration makes nothing");
    std::fs::create_dir(&shared).unwrap();
    for (mode, base) in [(0o700, &shared), (0o755, &shared), (0o770, &home), (0o777, &home), (0o1777, &home)]
    {
        std::fs::set_permissions(&shared, PermissionsExt::from_mode(mode)).unwrap();
        is_in(base);
    }
    std::fs::set_permissions(&shared, PermissionsExt::from_mode(0o700)).unwrap();
    if std::os::unix::fs::chown(&shared, Some(1001), None).is_ok() {
        is_in(&home);
    }
    std::fs::remove_dir(&shared).unwrap();
    symlink(machine.path("/home"), &shared).unwrap();
    is_in(&home);
    // Who opens a store then says what to do.
    let mut machine = machine.set("XDG_DATA_HOME", "/data");
    machine.variables.remove("HOME");
    assert_eq!(machine.settings().run_root().value, shared.join("containers"));
    assert_eq!(machine.settings().shared_run_directory(), Some(shared.as_path()));
}

#[test]
fn only_the_first_main_file_is_read() {
    let machine = Machine::of_user().with(USR, "[storage]\ndriver = 'usr'\nrunroot = '/usr-run'\n");
    assert_eq!(machine.driver(), "usr");
    let machine = machine.with(ETC, &driver_is("etc"));
    assert_eq!(machine.driver(), "etc");
    assert!(machine.settings().get("storage.runroot").is_none());
    let machine = machine.with(HOME, "");
    assert!(machine.settings().driver().is_none(), "an empty file of the user's stands for the others too");
    let machine = machine.with("/xdg/containers/storage.conf", &driver_is("xdg"));
    let xdg = machine.path("/xdg");
    assert_eq!(machine.set("XDG_CONFIG_HOME", xdg).driver(), "xdg");
}

#[test]
fn drop_ins_are_read_by_name_whatever_their_place() {
    let machine = Machine::of_user()
        .with("/usr/share/containers/storage.conf.d/90-late.conf", &driver_is("late"))
        .with("/home/ann/.config/containers/storage.conf.d/10-early.conf", &driver_is("early"))
        .with("/etc/containers/storage.conf.d/99-not-conf.txt", "not toml");
    assert_eq!(machine.driver(), "late");
    let machine = machine.with("/etc/containers/storage.conf.d/90-late.conf", &driver_is("masked"));
    assert_eq!(machine.driver(), "masked");
    let machine = machine
        .with("/etc/containers/storage.rootful.conf.d/95.conf", &driver_is("rootful"))
        .with("/etc/containers/storage.rootless.conf.d/1001/96.conf", &driver_is("another user"));
    assert_eq!(machine.driver(), "masked");
    let machine = machine.with("/etc/containers/storage.rootless.conf.d/95.conf", &driver_is("rootless"));
    assert_eq!(machine.driver(), "rootless");
    let machine = machine.with("/etc/containers/storage.rootless.conf.d/1000/96.conf", &driver_is("mine"));
    assert_eq!(machine.driver(), "mine");
    assert_eq!(Machine { user: 0, ..machine }.driver(), "rootful");
}

#[test]
fn variables_choose_files() {
    let machine = Machine::of_root()
        .with(ETC, &driver_is("etc"))
        .with("/etc/containers/storage.conf.d/1.conf", &driver_is("drop-in"))
        .with("/only.conf", "[storage]\ngraphroot = '/only'\n")
        .with("/last.conf", "[storage]\nrunroot = '/last'\n");
    let (only, last) = (machine.path("/only.conf"), machine.path("/last.conf"));
    let machine = machine.set("CONTAINERS_STORAGE_CONF_OVERRIDE", last);
    assert_eq!(machine.driver(), "drop-in");
    assert_eq!(machine.settings().run_root().value, Path::new("/last"));
    let machine = machine.set("CONTAINERS_STORAGE_CONF", only);
    assert!(machine.settings().driver().is_none());
    assert_eq!(machine.settings().graph_root().value, Path::new("/only"));
    assert_eq!(machine.settings().run_root().value, Path::new("/last"));
    let error = machine.set("CONTAINERS_STORAGE_CONF", "/nowhere.conf").load().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the configuration /nowhere.conf that $CONTAINERS_STORAGE_CONF names is not there: correct the variable or \
         unset it"
    );
}

#[test]
fn a_variable_may_name_what_is_no_regular_file() {
    let machine = Machine::of_root().with(ETC, &driver_is("etc"));
    let machine = machine.set("CONTAINERS_STORAGE_CONF", "/dev/null");
    assert!(machine.settings().driver().is_none());
    let directory = machine.path("/etc/containers");
    let pipe = machine.path("/pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut machine = machine;
    for variable in ["CONTAINERS_STORAGE_CONF", "CONTAINERS_STORAGE_CONF_OVERRIDE"] {
        for path in [Path::new("/dev/zero"), &directory, &pipe] {
            machine = machine.set(variable, path);
            let error = machine.load().unwrap_err().to_string();
            let told = format!("the configuration {} is no regular file, and is not read", path.display());
            assert!(error.starts_with(&told), "{error}");
        }
        machine = machine.set(variable, "/dev/null");
    }
}

#[test]
fn a_variable_that_leads_to_a_file_is_known() {
    let program = "[storage.options]\nmount_program = 'sh'\n";
    let named_by = |machine: &Machine| match machine.settings().get("storage.options.mount_program") {
        Some(super::Setting { origin: Origin::File { named_by, .. }, .. }) => *named_by,
        other => panic!("{other:?}"),
    };
    let machine = Machine::of_user().with(ETC, program);
    assert_eq!(named_by(&machine), None);
    let machine = machine.with(HOME, program).with("/home/bob/.config/containers/storage.conf", program);
    assert_eq!(named_by(&machine), None, "it is where the user database has the user's home");
    let own = machine.path("/home/ann/.config");
    let machine = machine.set("XDG_CONFIG_HOME", own);
    assert_eq!(named_by(&machine), None);
    for (variable, path) in [("HOME", "/home/bob"), ("XDG_CONFIG_HOME", "/home/bob/.config")] {
        let mut machine = Machine::of_user().with("/home/bob/.config/containers/storage.conf", program);
        let drop_in = Machine::of_user()
            .with("/home/bob/.config/containers/storage.conf.d/1.conf", program)
            .with(ETC, program);
        for machine in [&mut machine, &mut { drop_in }] {
            let path = machine.path(path);
            machine.variables.insert(variable.into(), path.to_str().unwrap().into());
            assert_eq!(named_by(machine), Some(variable));
            let error = machine.settings().overlay().unwrap_err().to_string();
            assert!(error.contains(&format!("a file that ${variable} leads to does not decide")), "{error}");
        }
    }
    // An account that only a variable says to be the user's.
    let other = Machine::of_user().with("/home/bob/.config/containers/storage.conf", program);
    let environment = Environment {
        user: 1001,
        variables: BTreeMap::new(),
        home: Some(other.path("/home/bob")),
        own_homes: vec![other.path("/home/ann")],
        system_root: other.path("/"),
    };
    let error = Settings::load(&environment).unwrap().overlay().unwrap_err().to_string();
    assert!(error.contains("$_CONTAINERS_ROOTLESS_UID"), "{error}");

    for variable in ["CONTAINERS_STORAGE_CONF", "CONTAINERS_STORAGE_CONF_OVERRIDE"] {
        let machine = Machine::of_user().with("/x.conf", program).with(ETC, program).with(HOME, program);
        let mut machine = machine;
        for (file, expected) in [(ETC, None), (HOME, None), ("/x.conf", Some(variable))] {
            let path = machine.path(file);
            machine = machine.set(variable, path);
            assert_eq!(named_by(&machine), expected, "{file}");
        }
    }
    let file = Machine::of_root().with("/x.conf", program);
    let environment = Environment::of_this_process();
    let load = Settings::load_file_of_variable(&environment, &file.path("/x.conf"), "LAYERSTORE_CONFIG");
    assert!(load.unwrap().overlay().unwrap_err().to_string().contains("$LAYERSTORE_CONFIG"));
    assert!(Settings::load_file(&environment, &file.path("/x.conf")).unwrap().overlay().is_ok());
}

#[test]
fn lists_replace_or_add() {
    let list = |values: &str| format!("[storage.options]\nadditionalimagestores = [{values}]\n");
    let machine = Machine::of_root().with(ETC, &list("'/a', '/b'"));
    assert_eq!(machine.options(), ["imagestore=/a", "imagestore=/b"]);
    let machine = machine.with("/etc/containers/storage.conf.d/1.conf", &list("'/c', {append=true}"));
    assert_eq!(machine.options(), ["imagestore=/a", "imagestore=/b", "imagestore=/c"]);
    let machine = machine.with("/etc/containers/storage.conf.d/2.conf", &list("'/d'"));
    assert_eq!(machine.options(), ["imagestore=/d"]);
}

#[test]
fn driver_tables_come_after_the_general_options() {
    let machine = Machine::of_root().with(
        ETC,
        "[storage.options]\nmountopt = 'nodev'\nignore_chown_errors = 'true'\nforce_mask = 'shared'\n\
         [storage.options.overlay]\nmountopt = 'nodev,metacopy=on'\nskip_mount_home = false\n\
         [storage.options.vfs]\nignore_chown_errors = 'F'\n",
    );
    assert_eq!(
        machine.options(),
        [
            "ignore_chown_errors=true",
            "force_mask=755",
            "mountopt=nodev",
            "overlay.mountopt=nodev,metacopy=on",
            "overlay.skip_mount_home=false",
            "vfs.ignore_chown_errors=false"
        ]
    );
    let machine = machine.set("STORAGE_OPTS", "a=b,c=d").set("STORAGE_DRIVER", "overlay2");
    assert_eq!(machine.options(), ["a=b", "c=d"]);
    assert_eq!(machine.driver(), "overlay");
    assert!(machine.set("STORAGE_OPTS", "").options().is_empty());
}

#[test]
fn paths_of_a_user_know_variables() {
    let machine = Machine::of_user()
        .set("STATE", "/state")
        .with(ETC, "[storage]\nrootless_storage_path = '$HOME/rootless'\n")
        .with(
            "/etc/containers/storage.rootless.conf.d/5.conf",
            "[storage]\nrunroot = '${STATE}/$UID/run$'\n",
        );
    assert_eq!(machine.settings().graph_root().value, machine.path("/home/ann/rootless"));
    assert_eq!(machine.settings().run_root().value, Path::new("/state/1000/run$"));
    let root = Machine { user: 0, ..machine };
    assert_eq!(root.settings().graph_root().value, Path::new("/var/lib/containers/storage"));
    let root = root.with("/etc/containers/storage.conf.d/1.conf", "[storage]\ngraphroot = '/shared'\n");
    assert_eq!(Machine { user: 1000, ..root }.settings().graph_root().value, Path::new("/shared"));
}

#[test]
fn roots_of_the_system_are_not_those_of_users() {
    let text = "[storage]\ndriver = 'overlay'\ngraphroot = '/graph'\nrunroot = '/run-root'\n";
    let user = || Machine::of_user().set("XDG_RUNTIME_DIR", "/runtime");
    let roots = |machine: &Machine| {
        let settings = machine.settings();
        [settings.graph_root(), settings.run_root()].map(|root| root.value.clone())
    };
    let named = ["/graph", "/run-root"].map(PathBuf::from);
    for file in [USR, ETC] {
        let machine = user().with(file, text);
        let own = [machine.path("/home/ann/.local/share/containers/storage"), "/runtime/containers".into()];
        assert_eq!((roots(&machine), machine.driver()), (own, "overlay".to_owned()), "{file}");
        let root = Machine { user: 0, ..machine };
        assert_eq!(roots(&root), named, "{file}");
        let file = root.path(file);
        let machine = Machine { user: 1000, ..root }.set("CONTAINERS_STORAGE_CONF", file);
        assert_eq!(roots(&machine), named, "named by the user");
    }
    assert_eq!(roots(&user().with(HOME, text)), named);
}

#[test]
fn a_value_knows_its_line() {
    let machine = Machine::of_root().with(ETC, "[storage]\n# where\n\ngraphroot = '/here'\n");
    let settings = machine.settings();
    assert_eq!(settings.graph_root().origin.to_string(), format!("{}:4", machine.path(ETC).display()));
    assert_eq!(settings.get("storage.graphroot").unwrap().value, Value::Text("/here".into()));
    assert_eq!(settings.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["storage.graphroot"]);
}

#[test]
fn an_unknown_key_is_a_warning_with_its_line() {
    let machine =
        Machine::of_root().with(ETC, "[storage]\ndriver = 'overlay'\n\nnosuch = 1\n[other.table]\na = 1\n");
    let warnings: Vec<_> =
        machine.settings().warnings().iter().map(|one| (one.line, one.text.clone())).collect();
    let text = |key: &str| format!("{key} is no key of storage.conf and does nothing");
    assert_eq!(warnings, [(4, text("storage.nosuch")), (5, text("other"))]);
}

#[test]
fn a_bad_value_is_an_error_with_its_line() {
    for (text, line, message) in [
        ("[storage]\ndriver = 7\n", 2, "storage.driver must be a string, not 7"),
        (
            "[storage]\ntransient_store = 'yes'\n",
            2,
            "storage.transient_store must be true or false, not \"yes\"",
        ),
        (
            "[storage.options]\n\nforce_mask = '0999'\n",
            3,
            "storage.options.force_mask must be an octal mode such as \"0755\" or 0o755, or \"shared\", or \"private\", \
             not \"0999\"",
        ),
        ("[storage.options]\nforce_mask = 755\n", 2, "not the number 755, which is not octal"),
        (
            "storage.options.ignore_chown_errors = 'perhaps'\n",
            1,
            "storage.options.ignore_chown_errors must be \"true\" or \"false\", not \"perhaps\"",
        ),
        (
            "[storage]\ndriver_priority = ['a', 1]\n",
            2,
            "storage.driver_priority must be a list of strings, not a list",
        ),
        ("[storage]\ndriver = [\n\n", 2, "unclosed array"),
        (
            "[storage]\ndriver_priority = [\n  'a',\n  1,\n]\n",
            4,
            "storage.driver_priority must be a list of strings, not a list",
        ),
        (
            "[storage.options]\n[storage.options.pull_options]\na = 'b'\nc = []\n",
            4,
            "storage.options.pull_options must be a table of strings, not a table",
        ),
        ("[storage]\ndriver = 'a'\ndriver = 'b'\n", 3, "duplicate key"),
        ("[storage]\ndriver = 'a'\n[storage]\n", 3, "duplicate key"),
        ("[storage]\ndriver = 'a\n", 2, ""),
        ("[storage]\n\ndriver 'a'\n", 3, ""),
        ("[storage\ndriver = 'a'\n", 1, ""),
        ("[storage.options]\nauto-userns-min-size = -1\n", 2, "must be a whole number, not -1"),
    ] {
        let machine = Machine::of_root().with(ETC, text);
        let found = machine.load().unwrap_err().to_string();
        let place = format!("{}:{line}: ", machine.path(ETC).display());
        assert!(found.starts_with(&place) && found.contains(message), "{text:?}: {found}");
    }
}

#[test]
fn what_stands_in_a_table_has_a_line_of_its_own() {
    let table = "[storage]\n\n[storage.options.layerstore.limits]\nentries = 5\nnosuch = 1\n";
    let machine = Machine::of_root().with(ETC, table);
    let error = machine.settings().limits().unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}:5: ", machine.path(ETC).display())), "{error}");
    let options = "[storage.options]\npull_options.ostree_repos = 'x'\n# none\npull_options.nosuch = 'x'\n";
    let machine = Machine::of_root().with(ETC, options);
    let ignored = machine.settings().ignored().first().unwrap().to_string();
    assert!(ignored.starts_with(&format!("{}:4: ", machine.path(ETC).display())), "{ignored}");
}

#[test]
fn the_images_must_have_a_directory_of_their_own() {
    let machine = Machine::of_root().with(ETC, "[storage]\ngraphroot = '/a'\nimagestore = '/a'\n");
    assert!(matches!(machine.load(), Err(ConfigError::SameStores { .. })));
}

/// Nothing is read by a function that calls itself for each level: a file of brackets is an error as any other.
#[test]
fn a_file_that_is_nested_without_end_is_refused() {
    for text in [
        format!("x = {}", "[".repeat(100_000)),
        format!("x = {}", "{a=".repeat(100_000)),
        format!("{}x = 1", "a.".repeat(100_000)),
        format!("[{}a]\n", "a.".repeat(100_000)),
    ] {
        let machine = Machine::of_root().with("/etc/containers/storage.conf", &text);
        // Each thread of a test has 2 MiB for its calls, and a program 8.
        drop(machine.load());
    }
}
