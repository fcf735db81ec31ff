//! The effective value of each key, and where it came from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::document::{self, Value, Warning};
use super::environment::RuntimeDir;
use super::file;
use super::key::KEYS;
use super::search::Source;
use super::{Environment, OverlayOptions, search};
use crate::error::ConfigError;

/// The directories of a machine's root user.
const SYSTEM_GRAPH_ROOT: &str = "/var/lib/containers/storage";
const SYSTEM_RUN_ROOT: &str = "/run/containers/storage";

/// The keys that say where a store is. In the main file of the system they say where root's is.
const ROOTS: [&str; 2] = ["storage.graphroot", "storage.runroot"];

/// The tables of driver options, in the order in which their options are listed.
const DRIVERS: [&str; 4] = ["overlay", "vfs", "btrfs", "zfs"];

/// The options of every driver, in the order in which they are listed, as the keys below `storage.options` name them.
const GENERAL_OPTIONS: [&str; 6] =
    ["size", "mount_program", "skip_mount_home", "ignore_chown_errors", "force_mask", "mountopt"];

/// The table of options for programs that pull images.
const PULL_KEY: &str = "storage.options.pull_options";

/// The options for programs that pull images, and whether each says yes or no.
const PULL_OPTIONS: [(&str, bool); 5] = [
    ("enable_partial_images", true),
    ("use_hard_links", true),
    ("convert_images", true),
    ("insecure_allow_unpredictable_image_contents", true),
    ("ostree_repos", false),
];

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Origin {
    /// Nothing says otherwise.
    Default,
    /// A line of a file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The environment variable that names the file, or the directory that it is found in; `None` if it is where the machine and
        /// its user database have it, or a caller names it. Programs to be run are not taken from a file that a variable names.
        named_by: Option<&'static str>,
    },
    /// An environment variable.
    Variable(&'static str),
    /// A flag of the command line.
    Flag(&'static str),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line, .. } => write!(f, "{}:{line}", path.display()),
            Origin::Variable(name) => write!(f, "${name}"),
            Origin::Flag(name) => f.write_str(name),
        }
    }
}

/// A value and where it came from.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Setting<T = Value> {
    /// The value.
    pub value: T,
    /// What gave it. Of a list that several files add to: the last of them.
    pub origin: Origin,
}

impl Setting<PathBuf> {
    /// Whether a path was set by somebody.
    pub fn is_set(&self) -> bool {
        self.origin != Origin::Default
    }
}

/// Something that was asked for and has no effect here.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Ignored {
    /// The option, as it was given.
    pub option: String,
    /// What gave it.
    pub origin: Origin,
    /// Why it has no effect.
    pub reason: String,
}

impl std::fmt::Display for Ignored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} has no effect: {}", self.origin, self.option, self.reason)
    }
}

/// An option of a storage driver, as `--storage-opt` takes it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DriverOption {
    /// `key=value`; the key begins with a driver and a point if it is that driver's alone.
    pub text: String,
    /// What gave it.
    pub origin: Origin,
    /// What whoever gave it calls it, with the value.
    pub(super) name: String,
}

impl DriverOption {
    /// An option, `key=value`.
    pub fn new(text: impl Into<String>, origin: Origin) -> Self {
        let text = text.into();
        DriverOption { name: text.clone(), text, origin }
    }

    /// The same, under the name by which it was given, such as that of a flag: for messages.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        DriverOption { name: name.into(), ..self }
    }

    /// What whoever gave it calls it, with the value.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The configuration of a machine or user, as the files and variables make it together.
///
/// # Examples
///
/// ```
/// use layerstore::config::{Environment, Settings};
///
/// # let dir = tempfile::tempdir().unwrap();
/// let environment = Environment { system_root: dir.path().into(), ..Environment::of_this_process() };
/// # let environment = Environment { user: 0, variables: Default::default(), ..environment };
/// let settings = Settings::load(&environment)?;
/// println!("{} ({})", settings.graph_root().value.display(), settings.graph_root().origin);
/// # assert!(settings.files().is_empty());
/// # Ok::<(), layerstore::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Settings {
    values: BTreeMap<&'static str, Setting>,
    /// Where each name of a table of texts stands, by key and name.
    names: BTreeMap<(&'static str, String), Origin>,
    warnings: Vec<Warning>,
    files: Vec<PathBuf>,
    driver: Option<Setting<String>>,
    driver_options: Vec<DriverOption>,
    graph_root: Setting<PathBuf>,
    run_root: Setting<PathBuf>,
    shared_run_directory: Option<PathBuf>,
    image_store: Option<Setting<PathBuf>>,
    disable_id_maps: bool,
    ignored: Vec<Ignored>,
}

impl Settings {
    /// Finds and reads the configuration.
    ///
    /// Returns [`ConfigError::Missing`] if a variable names a file that is not there; [`ConfigError::Read`],
    /// [`ConfigError::NotAFile`], [`ConfigError::TooLong`], [`ConfigError::Syntax`] or [`ConfigError::Value`] if a file cannot be used; [`ConfigError::NoHome`] if a user's
    /// directories cannot be told; and [`ConfigError::SameStores`] if the images have no directory of their own.
    pub fn load(environment: &Environment) -> Result<Self, ConfigError> {
        let files = search::files(environment)?;
        // The directories that it names are root's: every other user has their own.
        let of_root = search::main_of_system(environment);
        Self::read(environment, files, of_root.filter(|_| environment.is_rootless()).as_deref())
    }

    /// Reads `file` in place of those that the machine has. Variables count as they do for [`load`](Self::load).
    ///
    /// It is a regular file, `/dev/null`, which says nothing, or a pipe without a name, such as a shell makes for `<(...)`; that
    /// is read to its end.
    ///
    /// Returns what [`load`](Self::load) does.
    pub fn load_file(environment: &Environment, file: &Path) -> Result<Self, ConfigError> {
        Self::read(environment, vec![Source { path: file.to_owned(), named_by: None }], None)
    }

    /// The same of a file that the environment variable `variable` names: programs to be run are not taken from it.
    ///
    /// Returns what [`load`](Self::load) does.
    pub fn load_file_of_variable(
        environment: &Environment,
        file: &Path,
        variable: &'static str,
    ) -> Result<Self, ConfigError> {
        Self::read(environment, vec![Source { path: file.to_owned(), named_by: Some(variable) }], None)
    }

    fn read(
        environment: &Environment,
        files: Vec<Source>,
        of_root: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let (mut values, mut names) = (BTreeMap::new(), BTreeMap::new());
        let mut warnings = Vec::new();
        for source in &files {
            let path = &source.path;
            let text = file::read(path)?;
            let document = document::parse(path, &text)?;
            warnings.extend(document.warnings);
            for entry in document.entries {
                if of_root == Some(path.as_path()) && ROOTS.contains(&entry.key) {
                    continue;
                }
                merge(&mut values, &mut names, source, entry);
            }
        }
        // Text that is empty is as good as not there.
        values.retain(|_, setting: &mut Setting| setting.value != Value::Text(String::new()));
        let (run_root, shared_run_directory) = run_root(environment, &values);
        let settings = Settings {
            driver: driver(environment, &values),
            driver_options: driver_options(environment, &values),
            graph_root: graph_root(environment, &values)?,
            run_root,
            shared_run_directory,
            image_store: text(&values, "storage.imagestore").map(|setting| setting.map(PathBuf::from)),
            disable_id_maps: environment.disables_id_mapped_mounts(),
            ignored: ignored(environment, &values, &names),
            values,
            names,
            warnings,
            files: files.into_iter().map(|source| source.path).collect(),
        };
        match settings.image_store() {
            Some(store) if store.value == settings.graph_root.value => {
                Err(ConfigError::SameStores { path: store.value.clone() })
            }
            _ => Ok(settings),
        }
    }

    /// The files that were read, those whose values count less first.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// What in the files does nothing.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// What was set and cannot have an effect, as something else counts in its place or its value means nothing.
    pub fn ignored(&self) -> &[Ignored] {
        &self.ignored
    }

    /// What files say of a key, such as `storage.options.mountopt`; `None` if they say nothing.
    pub fn get(&self, key: &str) -> Option<&Setting> {
        self.values.get(key)
    }

    /// Where a name in a table of texts stands, such as one of `storage.options.pull_options`.
    pub fn origin_of(&self, key: &'static str, name: &str) -> Option<&Origin> {
        self.names.get(&(key, name.to_owned()))
    }

    /// Every key that files say something of, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Setting)> {
        KEYS.iter().filter_map(|(key, _)| Some((*key, self.values.get(key)?)))
    }

    /// The directory of the store.
    pub fn graph_root(&self) -> &Setting<PathBuf> {
        &self.graph_root
    }

    /// The directory of what a reboot drops.
    pub fn run_root(&self) -> &Setting<PathBuf> {
        &self.run_root
    }

    /// The directory that the run root is in by default, if that is one where everybody can make it, such as `/tmp/storage-run-1000`: who
    /// opens a store makes it, or refuses it if it is another user's.
    pub(crate) fn shared_run_directory(&self) -> Option<&Path> {
        self.shared_run_directory.as_deref()
    }

    /// The directory of a separate store for images.
    pub fn image_store(&self) -> Option<&Setting<PathBuf>> {
        self.image_store.as_ref()
    }

    /// Whether containers are dropped by a reboot.
    pub fn transient_store(&self) -> bool {
        self.flag("storage.transient_store")
    }

    /// Whether `volatile` mounts are refused.
    pub fn disable_volatile(&self) -> bool {
        self.flag("storage.options.disable-volatile")
    }

    /// Whether mounts are not to map ids, as the variable `_CONTAINERS_OVERLAY_DISABLE_IDMAP` can say.
    pub fn disable_id_mapped_mounts(&self) -> bool {
        self.disable_id_maps
    }

    /// Options for programs that pull images. The store keeps them for those and does nothing with them.
    pub fn pull_options(&self) -> BTreeMap<String, String> {
        match self.values.get("storage.options.pull_options") {
            Some(Setting { value: Value::Map(options), .. }) => options.clone(),
            _ => BTreeMap::new(),
        }
    }

    /// The user whose subordinate ids automatic user namespaces take.
    pub fn auto_userns_user(&self) -> Option<&str> {
        match self.values.get("storage.options.root-auto-userns-user") {
            Some(Setting { value: Value::Text(user), .. }) => Some(user),
            _ => None,
        }
    }

    /// The least and the greatest number of ids in an automatic user namespace, as far as they are set.
    pub fn auto_userns_sizes(&self) -> (Option<u32>, Option<u32>) {
        let number = |key| match self.values.get(key) {
            Some(Setting { value: Value::Number(number), .. }) => Some(*number),
            _ => None,
        };
        (number("storage.options.auto-userns-min-size"), number("storage.options.auto-userns-max-size"))
    }

    /// The storage driver that is asked for. `overlay2` is another name of `overlay`.
    pub fn driver(&self) -> Option<&Setting<String>> {
        self.driver.as_ref()
    }

    /// The options of drivers, in the order in which they are applied: a later one wins.
    pub fn driver_options(&self) -> &[DriverOption] {
        &self.driver_options
    }

    /// What the driver options say, for the overlay driver.
    ///
    /// Returns [`ConfigError::Option`] if one is unknown or has a value that means nothing.
    pub fn overlay(&self) -> Result<OverlayOptions, ConfigError> {
        OverlayOptions::parse(&self.driver_options)
    }

    /// Puts a driver in place of the configured one, as a flag does.
    pub fn set_driver(&mut self, driver: &str, origin: Origin) {
        let driver = if driver == "overlay2" { "overlay" } else { driver };
        self.driver = Some(Setting { value: driver.to_owned(), origin });
    }

    /// Puts driver options in place of the configured ones, as flags do.
    pub fn set_driver_options(&mut self, options: Vec<DriverOption>) {
        self.driver_options = options;
    }

    /// Puts another directory in place of the configured one, as a flag does.
    pub fn set_graph_root(&mut self, path: PathBuf, origin: Origin) {
        self.graph_root = Setting { value: path, origin };
    }

    /// Puts another directory in place of the configured one, as a flag does.
    pub fn set_run_root(&mut self, path: PathBuf, origin: Origin) {
        self.run_root = Setting { value: path, origin };
    }

    /// Puts another store for images in place of the configured one, or none, as a flag does.
    pub fn set_image_store(&mut self, store: Option<(PathBuf, Origin)>) {
        self.image_store = store.map(|(value, origin)| Setting { value, origin });
    }

    /// Says whether containers are dropped by a reboot, as a flag does.
    pub fn set_transient_store(&mut self, transient: bool, origin: Origin) {
        self.values.insert("storage.transient_store", Setting { value: Value::Flag(transient), origin });
    }

    fn flag(&self, key: &str) -> bool {
        matches!(self.values.get(key), Some(Setting { value: Value::Flag(true), .. }))
    }
}

impl<T> Setting<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Setting<U> {
        Setting { value: change(self.value), origin: self.origin }
    }
}

fn merge(
    values: &mut BTreeMap<&'static str, Setting>,
    names: &mut BTreeMap<(&'static str, String), Origin>,
    source: &Source,
    entry: document::Entry,
) {
    let origin_at = |line| Origin::File { path: source.path.clone(), line, named_by: source.named_by };
    names.retain(|(key, _), _| *key != entry.key);
    names.extend(entry.lines.into_iter().map(|(name, line)| ((entry.key, name), origin_at(line))));
    let mut value = entry.value;
    if let (true, Value::List(added), Some(Setting { value: Value::List(earlier), .. })) =
        (entry.append, &value, values.get(entry.key))
    {
        value = Value::List([earlier.as_slice(), added.as_slice()].concat());
    }
    let origin = origin_at(entry.line);
    values.insert(entry.key, Setting { value, origin });
}

fn text(values: &BTreeMap<&'static str, Setting>, key: &str) -> Option<Setting<String>> {
    let setting = values.get(key)?;
    let Value::Text(value) = &setting.value else { return None };
    Some(Setting { value: value.clone(), origin: setting.origin.clone() })
}

fn driver(environment: &Environment, values: &BTreeMap<&'static str, Setting>) -> Option<Setting<String>> {
    let set = environment
        .variable("STORAGE_DRIVER")
        .map(|value| Setting { value: value.to_owned(), origin: Origin::Variable("STORAGE_DRIVER") });
    let mut driver = set.or_else(|| text(values, "storage.driver"))?;
    if driver.value == "overlay2" {
        driver.value = "overlay".to_owned();
    }
    Some(driver)
}

fn driver_options(environment: &Environment, values: &BTreeMap<&'static str, Setting>) -> Vec<DriverOption> {
    if let Some(set) = environment.variables.get("STORAGE_OPTS") {
        let origin = Origin::Variable("STORAGE_OPTS");
        let texts = set.split(',').filter(|text| !text.is_empty());
        return texts.map(|text| DriverOption::new(text, origin.clone())).collect();
    }
    options_of_files(values)
}

/// The options of drivers that files give.
fn options_of_files(values: &BTreeMap<&'static str, Setting>) -> Vec<DriverOption> {
    let mut options = Vec::new();
    let mut add = |name: &str, key: &str| {
        let Some(Setting { value, origin }) = values.get(key) else { return };
        let texts = match value {
            Value::Text(text) => vec![text.clone()],
            Value::Flag(flag) => vec![flag.to_string()],
            Value::Number(number) => vec![number.to_string()],
            Value::List(items) => items.clone(),
            Value::Map(_) => Vec::new(),
        };
        let option = |text: String| {
            let shown = key.strip_prefix("storage.options.").unwrap_or(key);
            DriverOption::new(format!("{name}={text}"), origin.clone()).named(format!("{shown} = {text}"))
        };
        options.extend(texts.into_iter().map(option));
    };
    add("imagestore", "storage.options.additionalimagestores");
    add("additionallayerstore", "storage.options.additionallayerstores");
    for name in GENERAL_OPTIONS {
        add(name, &format!("storage.options.{name}"));
    }
    for driver in DRIVERS {
        let prefix = format!("storage.options.{driver}.");
        for (key, _) in KEYS {
            if let Some(name) = key.strip_prefix(&prefix) {
                add(&format!("{driver}.{name}"), key);
            }
        }
    }
    options
}

/// What is set and overruled, or means nothing.
fn ignored(
    environment: &Environment,
    values: &BTreeMap<&'static str, Setting>,
    names: &BTreeMap<(&'static str, String), Origin>,
) -> Vec<Ignored> {
    let mut ignored = Vec::from_iter(environment.id_maps_note());
    let mut ignore = |option: &str, origin: &Origin, reason: &str| {
        let (option, reason) = (option.to_owned(), reason.to_owned());
        ignored.push(Ignored { option, origin: origin.clone(), reason });
    };
    if environment.variables.contains_key("STORAGE_OPTS") {
        for option in options_of_files(values) {
            ignore(
                &option.name,
                &option.origin,
                "$STORAGE_OPTS stands in the place of all options of drivers",
            );
        }
    }
    if let Some(path) = values.get("storage.rootless_storage_path") {
        if !environment.is_rootless() {
            ignore("rootless_storage_path", &path.origin, "it is for users who are not root");
        } else if values.contains_key("storage.graphroot") {
            ignore("rootless_storage_path", &path.origin, "graphroot says where the store is");
        }
    }
    if let Some(Setting { value: Value::Map(options), origin }) = values.get(PULL_KEY) {
        for (name, value) in options {
            let origin = names.get(&(PULL_KEY, name.clone())).unwrap_or(origin);
            let option = format!("pull_options {name} = {value:?}");
            match PULL_OPTIONS.iter().find(|(known, _)| known == name) {
                None => ignore(&option, origin, "it is no option for pulling"),
                Some((_, true)) if document::parse_flag(value).is_none() => {
                    ignore(&option, origin, "it takes \"true\" or \"false\"");
                }
                Some(_) => {}
            }
        }
    }
    ignored
}

/// `graphroot`, else for an ordinary user `rootless_storage_path`, else the default of the user.
fn graph_root(
    environment: &Environment,
    values: &BTreeMap<&'static str, Setting>,
) -> Result<Setting<PathBuf>, ConfigError> {
    let rootless = || environment.is_rootless().then(|| text(values, "storage.rootless_storage_path"));
    if let Some(set) = text(values, "storage.graphroot").or_else(|| rootless().flatten()) {
        return Ok(set.map(|path| environment.expand(&path)));
    }
    let value = match environment.is_rootless() {
        true => environment.data_home()?.join("containers/storage"),
        false => PathBuf::from(SYSTEM_GRAPH_ROOT),
    };
    Ok(Setting { value, origin: Origin::Default })
}

/// `runroot`, else the default of the user, with the directory above it if everybody can make that.
fn run_root(
    environment: &Environment,
    values: &BTreeMap<&'static str, Setting>,
) -> (Setting<PathBuf>, Option<PathBuf>) {
    if let Some(set) = text(values, "storage.runroot") {
        return (set.map(|path| environment.expand(&path)), None);
    }
    let (value, shared) = match environment.is_rootless().then(|| environment.runtime_dir()) {
        None => (PathBuf::from(SYSTEM_RUN_ROOT), None),
        Some(RuntimeDir::Own(directory)) => (directory.join("containers"), None),
        Some(RuntimeDir::Shared(directory)) => (directory.join("containers"), Some(directory)),
    };
    (Setting { value, origin: Origin::Default }, shared)
}
