//! What the configuration depends on besides files: who asks, where the home is, which variables are set.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::settings::{Ignored, Origin};
use crate::error::ConfigError;
use crate::sys::{accounts, path as sys_path, privileges};

/// The variable that says that mounts are not to map ids.
pub const DISABLE_ID_MAPS: &str = "_CONTAINERS_OVERLAY_DISABLE_IDMAP";

/// The variables that say where a user's configuration is.
const CONFIG_HOME: &str = "XDG_CONFIG_HOME";
const HOME: &str = "HOME";
const ROOTLESS_USER: &str = "_CONTAINERS_ROOTLESS_UID";

/// The surroundings in which configuration is looked for. A value, so that a test or a program that configures
/// another system can give its own.
#[derive(Clone, Debug)]
pub struct Environment {
    /// The user: as a rule the effective user id, or inside the user namespace of an ordinary user that user's id.
    pub user: u32,
    /// Environment variables by name. One that is empty counts as not set, except `STORAGE_OPTS`.
    pub variables: BTreeMap<String, String>,
    /// The home directory to use when `HOME` is not set.
    pub home: Option<PathBuf>,
    /// The home directories that the user database gives whoever runs this, whatever variables say: only a user's configuration that
    /// is below one of them may name programs.
    pub own_homes: Vec<PathBuf>,
    /// The directory that stands for `/` when system-wide files are looked for.
    pub system_root: PathBuf,
}

impl Environment {
    /// The surroundings of this process.
    ///
    /// They include what the user database says, which may be asked of another machine. Who only wants to know of variables takes
    /// [`of_variables`](Self::of_variables).
    pub fn of_this_process() -> Self {
        let of_variables = Environment::of_variables();
        let user = of_variables.user;
        let own = BTreeSet::from([privileges::effective_user(), privileges::user_outside()]);
        // Each is asked for once: as a rule they are one.
        let asked = own.iter().copied().chain([user]).collect::<BTreeSet<u32>>();
        let homes: BTreeMap<u32, PathBuf> =
            asked.into_iter().filter_map(|user| Some((user, accounts::with_id(user)?.home))).collect();
        Environment {
            home: homes.get(&user).cloned(),
            own_homes: own.iter().filter_map(|user| homes.get(user).cloned()).collect(),
            ..of_variables
        }
    }

    /// The same without what the user database says: no home is known but that of `HOME`, and none is the user's own.
    pub fn of_variables() -> Self {
        let variables: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        // A program that entered a user namespace as an ordinary user says so here, for itself and its children.
        let outside = variables.get(ROOTLESS_USER).and_then(|text| text.parse().ok());
        let user = outside.unwrap_or_else(privileges::effective_user);
        Environment { user, variables, home: None, own_homes: Vec::new(), system_root: PathBuf::from("/") }
    }

    /// Whether mounts are not to map ids: `_CONTAINERS_OVERLAY_DISABLE_IDMAP` is `yes`.
    pub fn disables_id_mapped_mounts(&self) -> bool {
        self.variable(DISABLE_ID_MAPS) == Some("yes")
    }

    /// What is to be told of a variable that looks as if it disabled them, and does not.
    pub fn id_maps_note(&self) -> Option<Ignored> {
        let value = self.variable(DISABLE_ID_MAPS).filter(|value| *value != "yes")?;
        let (option, reason) = (format!("the value {value:?}"), "only \"yes\" has one".to_owned());
        Some(Ignored { option, origin: Origin::Variable(DISABLE_ID_MAPS), reason })
    }

    /// A variable that is set to something.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) fn is_rootless(&self) -> bool {
        self.user != 0
    }

    /// A path of the system, such as `/etc/containers`.
    pub(super) fn system_path(&self, path: &str) -> PathBuf {
        self.system_root.join(path.trim_start_matches('/'))
    }

    fn home_directory(&self) -> Result<PathBuf, ConfigError> {
        let home = self.variable(HOME).map(PathBuf::from).or_else(|| self.home.clone());
        home.ok_or(ConfigError::NoHome { user: self.user })
    }

    /// Where the user's configuration is; `None` without a home. With the variable that says so, if the user database says otherwise.
    pub(super) fn config_home(&self) -> Option<(PathBuf, Option<&'static str>)> {
        let (path, variable) = match self.variable(CONFIG_HOME) {
            Some(set) => (PathBuf::from(set), CONFIG_HOME),
            None if self.variable(HOME).is_some() => (self.home_directory().ok()?.join(".config"), HOME),
            None => (self.home_directory().ok()?.join(".config"), ROOTLESS_USER),
        };
        let is_own = self.own_homes.iter().any(|home| is_same(&home.join(".config"), &path));
        Some((path, (!is_own).then_some(variable)))
    }

    /// Where the user's data is.
    ///
    /// Returns [`ConfigError::NoHome`] if neither variables nor the user's entry tell.
    pub(super) fn data_home(&self) -> Result<PathBuf, ConfigError> {
        match self.variable("XDG_DATA_HOME") {
            Some(set) => Ok(set.into()),
            None => Ok(self.home_directory()?.join(".local/share")),
        }
    }

    /// Where what a reboot drops is kept for the user. Nothing is made.
    pub(super) fn runtime_dir(&self) -> RuntimeDir {
        if let Some(set) = self.variable("XDG_RUNTIME_DIR") {
            return RuntimeDir::Own(set.into());
        }
        let usual = self.system_path(&format!("/run/user/{}", self.user));
        if sys_path::is_directory(&usual) {
            return RuntimeDir::Own(usual);
        }
        let above = PathBuf::from(self.variable("TMPDIR").unwrap_or("/tmp"));
        let above = std::path::absolute(&above).unwrap_or(above);
        let shared = above.join(format!("storage-run-{}", self.user));
        match self.home_directory() {
            Ok(home) if !sys_path::is_directory(&above) || self.is_of_others(&shared) => {
                RuntimeDir::Own(home.join("rundir"))
            }
            _ => RuntimeDir::Shared(shared),
        }
    }

    /// Whether a directory, whose name everybody can know and where everybody can make one, was made by somebody else, or others may
    /// write in it. One that is missing is nobody's yet: whoever makes it by then, it is looked at again when it is used.
    fn is_of_others(&self, directory: &Path) -> bool {
        let own = [self.user, privileges::effective_user()];
        match sys_path::stat_itself(directory) {
            Ok(found) => {
                found.kind != FileType::Directory || !own.contains(&found.uid) || found.mode & 0o022 != 0
            }
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    /// Puts variables into a path: `$NAME` and `${NAME}`; `$UID` is the user id. One that is not set is nothing.
    pub(super) fn expand(&self, text: &str) -> PathBuf {
        let mut path = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            path.push_str(before);
            let (name, behind) = split_name(after);
            match name {
                "" => path.push('$'),
                "UID" => path.push_str(&self.user.to_string()),
                name => path.push_str(self.variable(name).unwrap_or_default()),
            }
            rest = behind;
        }
        path.push_str(rest);
        PathBuf::from(path)
    }
}

/// A directory for what a reboot drops.
pub(super) enum RuntimeDir {
    /// Nobody but the user has anything to do with it.
    Own(PathBuf),
    /// Everybody can make one of that name.
    Shared(PathBuf),
}

/// Whether two paths lead to one place. What is not there is nowhere.
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    one == other
        || matches!((sys_path::resolve(one), sys_path::resolve(other)), (Ok(one), Ok(other)) if one == other)
}

/// The name that a text behind a `$` begins with, and what follows it.
fn split_name(text: &str) -> (&str, &str) {
    if let Some((name, rest)) = text.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
        return (name, rest);
    }
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or(("", text))
}
