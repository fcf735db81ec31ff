//! What the flags mean: where the store is, and how to print.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use layerstore::{Store, StoreOptions, SyncMode};

use crate::args::{Color, GlobalArgs, Sync};
use crate::failure::Failure;
use crate::output::{Output, ProgressBars, log, report};

/// What every command works with. Made once, then never changed.
#[derive(Debug)]
pub struct Context {
    options: StoreOptions,
    out: Output,
    color: Color,
    quiet: bool,
    bars: bool,
    has_mount_program: bool,
    root: PathBuf,
    run_root: PathBuf,
}

impl Context {
    /// Takes the flags and the environment for what they mean.
    pub fn new(global: &GlobalArgs) -> Result<Self, Failure> {
        let given = |name| env::var_os(name).filter(|value| !value.is_empty());
        let filter = global.log.clone().or_else(|| given("LAYERSTORE_LOG").map(lossy));
        if let Some(filter) = &filter {
            log::start(filter, global.color)?;
        }
        let surroundings = Surroundings::of_this_process();
        let named = global.root.clone().or_else(|| given("LAYERSTORE_ROOT").map(PathBuf::from));
        let is_named = named.is_some();
        let root = named.map_or_else(|| surroundings.default_root(), Ok)?;
        let run_root = global.runroot.clone().or_else(|| given("LAYERSTORE_RUNROOT").map(PathBuf::from));
        let run_root = match run_root {
            Some(run_root) => run_root,
            // Two stores must not share it.
            None if is_named => root.join("run"),
            None => surroundings.default_run_root().unwrap_or_else(|| root.join("run")),
        };
        let mut options = StoreOptions::at(&root)
            .run_root(&run_root)
            .sync(sync_mode(global.sync, given("LAYERSTORE_SYNC"))?)
            .keep_blobs(!global.no_keep_blobs);
        if let Some(timeout) = global.lock_timeout {
            options = options.lock_timeout(timeout);
        }
        if let Some(program) = &global.mount_program {
            options = options.mount_program(program);
        }
        Ok(Context {
            options,
            out: Output::new(global.json, global.color),
            color: global.color,
            quiet: global.quiet,
            // What is logged would be torn apart by bars.
            bars: !global.quiet && filter.is_none(),
            has_mount_program: global.mount_program.is_some(),
            root,
            run_root,
        })
    }

    /// Where to print.
    pub fn out(&self) -> &Output {
        &self.out
    }

    /// Whether lists print only ids.
    pub fn quiet(&self) -> bool {
        self.quiet
    }

    /// The store, which is made if it is missing.
    pub fn store(&self) -> Result<Store, Failure> {
        Ok(Store::open(&self.options)?)
    }

    /// The store, which must be there: for commands that put nothing in. A mistyped `--root` makes none.
    pub fn existing_store(&self) -> Result<Store, Failure> {
        Ok(Store::open(&self.options.clone().create(false))?)
    }

    /// Bars for a long operation.
    pub fn progress(&self) -> ProgressBars {
        ProgressBars::new(self.bars)
    }

    /// Refuses what needs a mount where none can be made, before anything is tried.
    pub fn require_mounts(&self, thing: &str) -> Result<(), Failure> {
        if layerstore::is_privileged() || self.has_mount_program {
            return Ok(());
        }
        Err(Failure::NotPrivileged { thing: thing.to_owned() })
    }

    /// Tells a failure that does not end the command.
    pub fn tell(&self, failure: &Failure) {
        failure.report(self.color);
    }

    /// Tells something that is no failure.
    pub fn note(&self, text: &str) {
        report::note(text, self.color);
    }

    /// The root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory for what a reboot drops.
    pub fn run_root(&self) -> &Path {
        &self.run_root
    }
}

fn sync_mode(flag: Option<Sync>, variable: Option<OsString>) -> Result<SyncMode, Failure> {
    let mode = match (flag, variable) {
        (Some(flag), _) => flag,
        (None, None) => Sync::Full,
        (None, Some(variable)) => {
            let value = lossy(variable);
            <Sync as ValueEnum>::from_str(&value, false).map_err(|_| Failure::Setting {
                name: "$LAYERSTORE_SYNC",
                value,
                reason: "it is one of full, records and off".to_owned(),
            })?
        }
    };
    Ok(match mode {
        Sync::Full => SyncMode::Full,
        Sync::Records => SyncMode::Records,
        Sync::Off => SyncMode::Off,
    })
}

fn lossy(value: OsString) -> String {
    value.to_string_lossy().into_owned()
}

/// What decides where a store is, if nobody says it.
struct Surroundings {
    machine_root: bool,
    data_home: Option<OsString>,
    home: Option<OsString>,
    runtime_dir: Option<OsString>,
}

impl Surroundings {
    fn of_this_process() -> Self {
        // Root of a user namespace is some ordinary user, and keeps that user's directories.
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let initial = map.split_whitespace().eq(["0", "0", "4294967295"]);
        let set = |name| env::var_os(name).filter(|value| Path::new(value).is_absolute());
        Surroundings {
            machine_root: rustix::process::geteuid().is_root() && initial,
            data_home: set("XDG_DATA_HOME"),
            home: set("HOME"),
            runtime_dir: set("XDG_RUNTIME_DIR"),
        }
    }

    fn default_root(&self) -> Result<PathBuf, Failure> {
        if self.machine_root {
            return Ok("/var/lib/layerstore".into());
        }
        match (&self.data_home, &self.home) {
            (Some(data), _) => Ok(Path::new(data).join("layerstore")),
            (None, Some(home)) => Ok(Path::new(home).join(".local/share/layerstore")),
            (None, None) => Err(Failure::Setting {
                name: "$HOME",
                value: String::new(),
                reason: "it must be an absolute path; or name the store with --root".into(),
            }),
        }
    }

    fn default_run_root(&self) -> Option<PathBuf> {
        if self.machine_root {
            return Some("/run/layerstore".into());
        }
        self.runtime_dir.as_ref().map(|dir| Path::new(dir).join("layerstore"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(data_home: Option<&str>, home: Option<&str>, runtime_dir: Option<&str>) -> Surroundings {
        let set = |value: Option<&str>| value.map(OsString::from);
        Surroundings {
            machine_root: false,
            data_home: set(data_home),
            home: set(home),
            runtime_dir: set(runtime_dir),
        }
    }

    #[test]
    fn stores_are_where_programs_keep_their_data() {
        let root = Surroundings { machine_root: true, ..user(Some("/d"), Some("/h"), Some("/r")) };
        assert_eq!(root.default_root().unwrap(), Path::new("/var/lib/layerstore"));
        assert_eq!(root.default_run_root().unwrap(), Path::new("/run/layerstore"));
        let with_all = user(Some("/d"), Some("/h"), Some("/r"));
        assert_eq!(with_all.default_root().unwrap(), Path::new("/d/layerstore"));
        assert_eq!(with_all.default_run_root().unwrap(), Path::new("/r/layerstore"));
        let with_home = user(None, Some("/h"), None);
        assert_eq!(with_home.default_root().unwrap(), Path::new("/h/.local/share/layerstore"));
        assert_eq!(with_home.default_run_root(), None);
        assert!(user(None, None, None).default_root().is_err());
    }
}
