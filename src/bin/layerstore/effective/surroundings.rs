//! Where a store is, if nobody says it.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// What decides that.
pub(super) struct Surroundings {
    machine_root: bool,
    data_home: Option<OsString>,
    home: Option<OsString>,
    runtime_dir: Option<OsString>,
}

impl Surroundings {
    pub(super) fn of_this_process() -> Self {
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

    pub(super) fn default_root(&self) -> Result<PathBuf, Failure> {
        if self.machine_root {
            return Ok("/var/lib/layerstore".into());
        }
        match (&self.data_home, &self.home) {
            (Some(data), _) => Ok(Path::new(data).join("layerstore")),
            (None, Some(home)) => Ok(Path::new(home).join(".local/share/layerstore")),
            (None, None) => Err(Failure::Setting {
                name: "$HOME",
                value: env::var_os("HOME").unwrap_or_default().to_string_lossy().into_owned(),
                reason: "it must be an absolute path; or name the store with --root".into(),
            }),
        }
    }

    pub(super) fn default_run_root(&self) -> Option<PathBuf> {
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
