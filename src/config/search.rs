//! Which files are read, by the rules of containers-config(5).
//!
//! One main file: the user's, else the administrator's, else the distribution's. Then the drop-in files of all three
//! places: of several with one name only the user's or the administrator's counts, and all are read in the order of
//! their names, whatever place each comes from. `CONTAINERS_STORAGE_CONF` stands for all of these, and
//! `CONTAINERS_STORAGE_CONF_OVERRIDE` is read last in any case.
//!
//! The main file of the system says where root's store is; a user's is elsewhere, whatever `graphroot` and `runroot` stand there.
//! Drop-in files say it for all whom they are for, and `rootless_storage_path` for every user.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::Environment;
use super::environment::is_same;
use crate::error::ConfigError;
use crate::sys::path as sys_path;

const ONLY: &str = "CONTAINERS_STORAGE_CONF";
const LAST: &str = "CONTAINERS_STORAGE_CONF_OVERRIDE";

/// A file that is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    /// The variable that names it, or the directory that it is found in; `None` if it is where the machine and its user database
    /// have it, or a caller names it.
    pub(super) named_by: Option<&'static str>,
}

impl Source {
    fn at(path: PathBuf) -> Self {
        Source { path, named_by: None }
    }
}

/// The files to read, those whose values count less first.
///
/// Returns [`ConfigError::Missing`] if a variable names a file that is not there, and [`ConfigError::Read`] if a
/// directory cannot be listed.
pub(super) fn files(environment: &Environment) -> Result<Vec<Source>, ConfigError> {
    let mut files = match named_by(environment, ONLY)? {
        Some(only) => vec![only],
        None => {
            let places = places(environment);
            let mut files = Vec::from_iter(main_of(&places));
            files.extend(drop_ins(environment, &places)?);
            let user = environment.config_home();
            let of_system = system_places(environment);
            let source = |path: PathBuf| match &user {
                _ if of_system.iter().any(|place| path.starts_with(place)) => Source::at(path),
                Some((home, named_by)) if path.starts_with(home) => Source { path, named_by: *named_by },
                _ => Source::at(path),
            };
            files.into_iter().map(source).collect()
        }
    };
    files.extend(named_by(environment, LAST)?);
    Ok(files)
}

/// The main file if it is the administrator's or the distribution's, and no variable names another.
pub(super) fn main_of_system(environment: &Environment) -> Option<PathBuf> {
    let main = main_of(&places(environment)).filter(|_| environment.variable(ONLY).is_none());
    main.filter(|main| system_places(environment).iter().any(|place| main.starts_with(place)))
}

fn main_of(places: &[PathBuf]) -> Option<PathBuf> {
    let files = places.iter().rev().map(|place| place.join("storage.conf"));
    files.into_iter().find(|path| sys_path::is_file(path))
}

fn named_by(environment: &Environment, variable: &'static str) -> Result<Option<Source>, ConfigError> {
    let Some(path) = environment.variable(variable).map(PathBuf::from) else { return Ok(None) };
    // Of anything else that stands there its reader has the words, and some of it can be read.
    if sys_path::stat(&path).is_err_and(|error| is_absence(&error)) {
        return Err(ConfigError::Missing { path, variable });
    }
    let named_by = (!is_usual(environment, &path)).then_some(variable);
    Ok(Some(Source { path, named_by }))
}

/// Whether a file is one that is read where no variable names another.
fn is_usual(environment: &Environment, file: &Path) -> bool {
    let own = environment.own_homes.iter().map(|home| home.join(".config/containers"));
    let mut places = system_places(environment).into_iter().chain(own);
    places.any(|place| is_same(&place.join("storage.conf"), file))
}

/// The directories that hold a `storage.conf`, the weakest first.
fn places(environment: &Environment) -> Vec<PathBuf> {
    let user = environment.config_home().map(|(home, _)| home.join("containers"));
    system_places(environment).into_iter().chain(user).collect()
}

fn system_places(environment: &Environment) -> [PathBuf; 2] {
    ["/usr/share/containers", "/etc/containers"].map(|path| environment.system_path(path))
}

fn drop_ins(environment: &Environment, places: &[PathBuf]) -> Result<Vec<PathBuf>, ConfigError> {
    let mut by_name: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for (index, place) in places.iter().enumerate() {
        let mut directories = vec![place.join("storage.conf.d")];
        // The user's own place has no need to tell users apart.
        let is_system = index < 2;
        if is_system && environment.is_rootless() {
            let rootless = place.join("storage.rootless.conf.d");
            directories.extend([rootless.clone(), rootless.join(environment.user.to_string())]);
        } else if is_system {
            directories.push(place.join("storage.rootful.conf.d"));
        }
        for directory in directories {
            by_name.extend(conf_files(&directory)?);
        }
    }
    Ok(by_name.into_values().collect())
}

/// The files of a directory that end in `.conf`, by name; none if there is no such directory.
fn conf_files(directory: &Path) -> Result<Vec<(OsString, PathBuf)>, ConfigError> {
    let paths = match sys_path::list(directory) {
        Ok(paths) => paths,
        Err(error) if is_absence(&error) => return Ok(Vec::new()),
        Err(source) => return Err(ConfigError::Read { path: directory.to_owned(), source }),
    };
    let is_conf = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "conf") && sys_path::is_file(path)
    };
    let files = paths.into_iter().filter(is_conf);
    Ok(files.filter_map(|path| Some((path.file_name()?.to_owned(), path))).collect())
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
