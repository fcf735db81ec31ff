//! Where the store is and how it is opened: what the global flags, the configuration and the variables say together.

use std::path::{Path, PathBuf};

use layerstore::config::{Environment, Settings};
use layerstore::{Store, StoreOptions, SyncMode};

use super::failure::{Failure, known};
use super::flags::{Flags, boolean};
use super::table::{DRIVER, GRAPH, RUN, STORAGE_OPT};

/// The only driver that there is.
const OVERLAY: &str = "overlay";

/// Where the store is, and with which options it is opened.
#[derive(Debug)]
pub struct Place {
    /// The graph root, absolute.
    pub root: PathBuf,
    /// The run root, absolute.
    pub run_root: PathBuf,
    /// The driver options, as they were given.
    pub driver_options: Vec<String>,
    /// Options for every mount.
    pub mount_options: Vec<String>,
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
        let driver_options: Vec<String> = if from_settings {
            settings.driver_options().iter().map(|option| option.text.clone()).collect()
        } else {
            given.into_iter().map(str::to_owned).collect()
        };
        let root = absolute(graph.map_or(settings.graph_root().value.as_path(), Path::new))?;
        let run_root = absolute(run.map_or(settings.run_root().value.as_path(), Path::new))?;
        let options = StoreOptions::at(&root).run_root(&run_root);
        let mut place =
            Place { root, run_root, driver_options, mount_options: Vec::new(), settings, options };
        for option in place.driver_options.clone() {
            place.take_option(&option)?;
        }
        Ok(place)
    }

    /// Opens the store, which is made if it is missing.
    pub fn open(&self) -> Result<Store, Failure> {
        Ok(Store::open(&self.options)?)
    }

    /// What is told first with `--debug`.
    pub fn debug_lines(&self) -> [String; 4] {
        let [root, run_root, driver, options] = self.description();
        [root, run_root, driver, options].map(|(name, value)| format!("{name}: {value}"))
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

    fn take_option(&mut self, option: &str) -> Result<(), Failure> {
        let Some((key, value)) = option.split_once('=') else {
            return Err(Failure::Text(format!("unable to parse key/value option: {option}")));
        };
        let key = match key.split_once('.') {
            None | Some(("" | OVERLAY | "overlay2", _)) => key.rsplit('.').next().unwrap_or(key),
            // Another driver's.
            Some(("vfs" | "btrfs" | "zfs", _)) => return Ok(()),
            Some(_) => return Err(unknown_option(key, option)),
        };
        let options = self.options.clone();
        match key.to_ascii_lowercase().as_str() {
            "mountopt" => {
                self.mount_options =
                    value.split(',').filter(|one| !one.is_empty()).map(str::to_owned).collect();
            }
            "mount_program" => self.options = options.mount_program(value),
            "sync" if value == "none" => self.options = options.sync(SyncMode::Records),
            "sync" if value == "filesystem" => self.options = options.sync(SyncMode::Full),
            // They change nothing that can be seen here.
            "skip_mount_home" | "ignore_chown_errors" if boolean(value).is_some() => {}
            "use_composefs" if boolean(value) == Some(false) => {}
            "skip_mount_home"
            | "ignore_chown_errors"
            | "use_composefs"
            | "sync"
            | "force_mask"
            | "size"
            | "inodes"
            | "imagestore"
            | "additionalimagestore"
            | "additionallayerstore" => {
                return Err(Failure::Text(format!("the option {option:?} is not supported")));
            }
            _ => return Err(unknown_option(key, option)),
        }
        Ok(())
    }
}

fn unknown_option(key: &str, option: &str) -> Failure {
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
