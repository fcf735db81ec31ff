//! Where the store is and how it is opened: what the global flags, the configuration and the variables say together.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use layerstore::config::{DriverOption, Environment, Origin, Settings};
use layerstore::{ConfigError, Digest, Store, StoreOptions};

use super::failure::{Failure, known};
use super::flags::Flags;
use super::table::{DRIVER, GRAPH, IMAGE_STORE, RUN, STORAGE_OPT, TRANSIENT_STORE};

/// The only driver that there is.
const OVERLAY: &str = "overlay";

/// How many digits of the digest of a root's path its run root has in its name.
const RUN_ROOT_DIGITS: usize = 16;

/// Where the store is, and with which options it is opened.
#[derive(Debug)]
pub struct Place {
    /// The graph root, absolute.
    pub root: PathBuf,
    /// The run root, absolute.
    pub run_root: PathBuf,
    /// The driver options, as they were given.
    pub driver_options: Vec<String>,
    /// The configuration of the machine.
    pub settings: Settings,
    options: StoreOptions,
}

impl Place {
    /// Takes the global flags for what they mean. Where none says anything, the configuration does.
    ///
    /// Returns [`Failure::Text`] if the configuration cannot be read, or flags contradict it or themselves.
    pub fn new(flags: &Flags) -> Result<Self, Failure> {
        let settings = Settings::load(&Environment::of_this_process())
            .map_err(|error| Failure::new(error.to_string()))?;
        let (graph, run) = (flags.text(&GRAPH), flags.text(&RUN));
        let (driver, given) = (flags.text(&DRIVER), flags.list(&STORAGE_OPT));
        let from_settings = graph.is_none() && run.is_none() && driver.is_none() && given.is_empty();
        if !from_settings && graph.is_none() && run.is_none() {
            let text = format!("no storage runroot or graphroot specified: {}", known::INCOMPLETE);
            return Err(Failure::Text(text));
        }
        let configured = settings.driver().map(|driver| driver.value.as_str());
        check_driver(if from_settings { configured } else { driver })?;
        let mut effective = settings.clone();
        let root = absolute(graph.map_or(settings.graph_root().value.as_path(), Path::new))?;
        let run_root = match run {
            Some(run) => absolute(Path::new(run))?,
            None => run_root_of(&root, graph.is_some(), &settings)?,
        };
        effective.set_graph_root(root.clone(), Origin::Flag("--graph"));
        effective.set_run_root(run_root.clone(), Origin::Flag("--run"));
        effective.set_driver(OVERLAY, Origin::Flag("--storage-driver"));
        if !from_settings {
            let given = given.into_iter().map(|text| DriverOption::new(text, Origin::Flag("--storage-opt")));
            effective.set_driver_options(given.collect());
            effective.set_image_store(None);
            effective.set_transient_store(false, Origin::Flag("--transient-store"));
        }
        if let Some(store) = flags.text(&IMAGE_STORE) {
            let store = absolute(Path::new(store))?;
            effective.set_image_store(Some((store, Origin::Flag("--image-store"))));
        }
        if flags.is(&TRANSIENT_STORE) {
            effective.set_transient_store(true, Origin::Flag("--transient-store"));
        }
        let driver_options: Vec<String> =
            effective.driver_options().iter().map(|option| option.text.clone()).collect();
        if let Some(option) = driver_options.iter().find(|option| !option.contains('=')) {
            return Err(Failure::Text(format!("unable to parse key/value option: {option}")));
        }
        let options = StoreOptions::from_settings(&effective).map_err(of_option)?;
        Ok(Place { root, run_root, driver_options, settings, options })
    }

    /// Opens the store, which is made if it is missing.
    pub fn open(&self) -> Result<Store, Failure> {
        Ok(Store::open(&self.options)?)
    }

    /// Whether the mount program may be run, as far as it can be told before a namespace is entered.
    pub fn check_program(&self) -> Result<(), Failure> {
        Ok(self.options.check_program()?)
    }

    /// What is told first with `--debug`.
    pub fn debug_lines(&self) -> [String; 4] {
        let [root, run_root, driver, options] = self.description();
        [root, run_root, driver, options].map(|(name, value)| format!("{name}: {value}"))
    }

    /// What was asked for and has no effect. The other program tells nothing of the kind, so it is for who debugs.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        self.options.ignored().iter().map(ToString::to_string)
    }

    /// Names and values of what every driver has.
    pub fn description(&self) -> [(&'static str, String); 4] {
        [
            ("Root", self.root.display().to_string()),
            ("Run Root", self.run_root.display().to_string()),
            ("Driver Name", OVERLAY.to_owned()),
            ("Driver Options", super::golang::list(&self.driver_options)),
        ]
    }
}

/// The run root of a store when no flag says it. That of the configuration belongs to the store of the configuration: any
/// other has a directory of its own in it, as no two share one.
fn run_root_of(root: &Path, is_flag: bool, settings: &Settings) -> Result<PathBuf, Failure> {
    let base = absolute(&settings.run_root().value)?;
    let configured = settings.graph_root();
    let is_configured = !is_flag || real(root) == real(&absolute(&configured.value)?);
    let is_named_alone = configured.is_set() && !settings.run_root().is_set();
    if is_configured && !is_named_alone {
        return Ok(base);
    }
    // Short, whatever the root is called, and the same by whatever link it is reached.
    let digest = Digest::sha256(real(root).as_os_str().as_bytes());
    let name = digest.hex().get(..RUN_ROOT_DIGITS).unwrap_or_default().to_owned();
    Ok(base.join(format!("layerstore-{name}")))
}

/// The path without links, as far as there is something.
fn real(path: &Path) -> PathBuf {
    let there = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    let Some((above, real)) = there else { return path.to_owned() };
    match path.strip_prefix(above) {
        Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
        _ => real,
    }
}

/// An option that is unknown is told in the other program's words.
fn of_option(error: ConfigError) -> Failure {
    let ConfigError::Option { option, reason, .. } = &error else { return Failure::new(error.to_string()) };
    if reason != ConfigError::UNKNOWN {
        return Failure::Text(error.to_string());
    }
    let key = option.split('=').next().unwrap_or(option);
    let key = key.rsplit('.').next().unwrap_or(key);
    Failure::Text(format!("unknown option {key:?} ({option:?})"))
}

fn check_driver(name: Option<&str>) -> Result<(), Failure> {
    match name {
        None | Some("" | OVERLAY | "overlay2") => Ok(()),
        Some(name) => Err(Failure::Text(format!("storage driver {name:?}: {}", known::NOT_SUPPORTED))),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::Text(super::golang::call_failed("getwd", path, &error)))
}
