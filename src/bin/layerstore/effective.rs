//! The options of the store: flags over variables over a file of configuration over defaults, and which of these each
//! value came from.

use std::cell::LazyCell;
use std::env;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use layerstore::config::{
    AdditionalLayerPath, DISABLE_ID_MAPS, DriverOption, Environment, Origin, OverlayOptions, Setting,
    Settings,
};
use layerstore::{Limit, StoreOptions, SyncMode};
use serde_json::{Value, json};

use crate::args::{GlobalArgs, Sync};
use crate::failure::Failure;
use crate::output::json::Bytes;

mod surroundings;

use surroundings::Surroundings;

/// The options that are in effect.
#[derive(Debug)]
pub struct Effective {
    pub options: StoreOptions,
    pub root: PathBuf,
    pub run_root: PathBuf,
    /// The file of configuration, if one was asked for.
    pub file: Option<PathBuf>,
    /// Every option with its value, for people and programs.
    pub lines: Vec<Line>,
    /// What the file has that does nothing.
    pub warnings: Vec<String>,
}

/// An option in effect.
#[derive(Debug)]
pub struct Line {
    pub option: &'static str,
    pub value: Value,
    pub origin: Origin,
    /// Of an option that is a table: which name in it came from where.
    pub each: Vec<(&'static str, Origin)>,
}

impl Line {
    /// Where it came from: the names of a table perhaps from several places.
    pub fn from(&self) -> String {
        let mut places: Vec<String> = Vec::new();
        for place in self.each.iter().map(|(_, origin)| origin.to_string()) {
            if !places.contains(&place) {
                places.push(place);
            }
        }
        if places.is_empty() { self.origin.to_string() } else { places.join(", ") }
    }
}

/// A value, and what gave it.
struct Chosen<T> {
    value: T,
    origin: Origin,
}

impl<T> Chosen<T> {
    fn by_default(value: T) -> Self {
        Chosen { value, origin: Origin::Default }
    }
}

impl<T: Clone> From<&Setting<T>> for Chosen<T> {
    fn from(setting: &Setting<T>) -> Self {
        Chosen { value: setting.value.clone(), origin: setting.origin.clone() }
    }
}

/// The variable, unless it is empty.
pub fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// What a flag says, else what a variable does.
fn given<T: From<OsString>>(
    flag: Option<T>,
    name: &'static str,
    variable_name: &'static str,
) -> Option<Chosen<T>> {
    let flag = flag.map(|value| Chosen { value, origin: Origin::Flag(name) });
    flag.or_else(|| {
        let value = variable(variable_name)?.into();
        Some(Chosen { value, origin: Origin::Variable(variable_name) })
    })
}

impl Effective {
    /// An option that somebody has set, as `option = value (where)`: for messages.
    pub fn told(&self, option: &str) -> Option<String> {
        let line = self.lines.iter().find(|line| line.option == option && line.origin != Origin::Default)?;
        Some(format!("{option} = {} ({})", shown(&line.value), line.from()))
    }

    /// Takes everything together.
    pub fn new(global: &GlobalArgs) -> Result<Self, Failure> {
        let file = given(global.config.clone(), "--config", "LAYERSTORE_CONFIG");
        let environment = match &file {
            Some(_) => Environment::of_this_process(),
            // Without a file nobody asks where the user's are.
            None => Environment::of_variables(),
        };
        let settings = file.as_ref().map(|file: &Chosen<PathBuf>| match file.origin {
            Origin::Variable(variable) => {
                Settings::load_file_of_variable(&environment, &file.value, variable)
            }
            _ => Settings::load_file(&environment, &file.value),
        });
        let (settings, file) = (settings.transpose()?, file.map(|file| file.value));
        let (root, run_root) = roots(global, settings.as_ref())?;
        let (mut options, mut warnings) = (StoreOptions::at(&root.value), Vec::new());
        let mut lines = Lines(Vec::new());
        lines.add("root", path(&root.value), root.origin.clone());
        lines.add("run_root", path(&run_root.value), run_root.origin.clone());
        let flags = driver_options(global);
        if let Some(mut settings) = settings {
            warnings.extend(settings.warnings().iter().map(ToString::to_string));
            settings.set_graph_root(root.value.clone(), root.origin);
            settings.set_run_root(run_root.value.clone(), run_root.origin);
            // Those of flags come last, and count more.
            settings.set_driver_options([settings.driver_options(), &flags].concat());
            options = StoreOptions::from_settings(&settings)?;
            warnings.extend(options.ignored().iter().map(ToString::to_string));
            warnings.extend(pull_options_note(&settings));
            lines.add_settings(&settings, &options)?;
        } else {
            options = options.driver_options(&flags)?;
            warnings.extend(environment.id_maps_note().map(|note| note.to_string()));
            warnings.extend(variables_note());
        }
        lines.add_driver_flags(&flags)?;
        options = options.run_root(&run_root.value);
        options = lines.apply_flags(options, global, &environment)?;
        let (root, run_root) = (root.value, run_root.value);
        Ok(Effective { options, root, run_root, file, lines: lines.0, warnings })
    }
}

/// The flags that are options of the driver.
fn driver_options(global: &GlobalArgs) -> Vec<DriverOption> {
    let text = |program: &PathBuf| format!("mount_program={}", program.display());
    let program = global.mount_program.iter().map(text);
    program.map(|text| DriverOption::new(text, Origin::Flag("--mount-program"))).collect()
}

/// Variables that a configuration counts with, where there is none.
fn variables_note() -> impl Iterator<Item = String> {
    // What is said of the driver may be what is so anyway.
    let says = |name: &&str| match variable(name) {
        Some(value) => {
            *name != "STORAGE_DRIVER" || !["overlay", "overlay2"].map(OsString::from).contains(&value)
        }
        None => false,
    };
    let names = ["STORAGE_DRIVER", "STORAGE_OPTS"].into_iter().filter(says);
    names.map(|name| format!("${name} has no effect: it counts with --config and for `layerstore compat`"))
}

/// Options for pulling that mean something to programs that pull.
fn pull_options_note(settings: &Settings) -> Option<String> {
    let setting = settings.get("storage.options.pull_options")?;
    let told = |name: &String| {
        let begin = format!("pull_options {name} = ");
        settings.ignored().iter().any(|note| note.option.starts_with(&begin))
    };
    let names: Vec<String> = settings.pull_options().into_keys().filter(|name| !told(name)).collect();
    let names = names.join(", ");
    let note =
        || format!("{}: pull_options {names} has no effect: no command here pulls images", setting.origin);
    (!names.is_empty()).then(note)
}

/// Where the store is, and where what a reboot drops.
fn roots(
    global: &GlobalArgs,
    settings: Option<&Settings>,
) -> Result<(Chosen<PathBuf>, Chosen<PathBuf>), Failure> {
    // Not needed where both are named.
    let surroundings = LazyCell::new(Surroundings::of_this_process);
    let configured =
        |setting: Option<&Setting<PathBuf>>| setting.filter(|one| one.is_set()).map(Chosen::from);
    let root = given(global.root.clone(), "--root", "LAYERSTORE_ROOT")
        .or_else(|| configured(settings.map(Settings::graph_root)));
    let is_named = root.is_some();
    let root = match root {
        Some(root) => root,
        None => Chosen::by_default(surroundings.default_root()?),
    };
    let run_root = given(global.runroot.clone(), "--runroot", "LAYERSTORE_RUNROOT")
        .or_else(|| configured(settings.map(Settings::run_root)));
    let run_root = run_root.unwrap_or_else(|| {
        let inside = || root.value.join("run");
        // Two stores must not share it.
        Chosen::by_default(match is_named {
            true => inside(),
            false => surroundings.default_run_root().unwrap_or_else(inside),
        })
    });
    Ok((root, run_root))
}

fn path(path: &Path) -> Value {
    serde_json::to_value(Bytes(path.as_os_str().as_bytes().to_vec())).unwrap_or_default()
}

struct Lines(Vec<Line>);

impl Lines {
    /// Adds a line, or puts it in the place of the one that is there.
    fn add(&mut self, option: &'static str, value: Value, origin: Origin) {
        self.put(Line { option, value, origin, each: Vec::new() });
    }

    /// Adds the limits that are not the default. Those that `from_here` names came from `origin`, and the others from where they did before.
    fn add_limits(&mut self, options: &StoreOptions, from_here: &[Limit], origin: Origin) {
        let before = self.0.iter().find(|line| line.option == LIMITS).map(|line| line.each.clone());
        let before = before.unwrap_or_default();
        let (mut value, mut each) = (serde_json::Map::new(), Vec::new());
        for (limit, amount) in options.granted().changed() {
            let known = before.iter().find(|(name, _)| *name == limit.name());
            let known = known.filter(|_| !from_here.contains(&limit)).map(|(_, origin)| origin);
            each.push((limit.name(), known.unwrap_or(&origin).clone()));
            value.insert(limit.name().to_owned(), amount.into());
        }
        self.put(Line { option: LIMITS, value: Value::Object(value), origin, each });
    }

    fn put(&mut self, line: Line) {
        let option = line.option;
        match self.0.iter_mut().find(|known| known.option == option) {
            Some(known) => *known = line,
            None => self.0.push(line),
        }
    }

    fn is_set(&self, option: &str) -> bool {
        self.0.iter().any(|line| line.option == option)
    }

    /// What a file of configuration says.
    fn add_settings(&mut self, settings: &Settings, options: &StoreOptions) -> Result<(), Failure> {
        let overlay = settings.overlay()?;
        let of_key = |key: &str| settings.get(key).map(|setting| setting.origin.clone());
        if let Some(store) = settings.image_store() {
            self.add("image_store_root", path(&store.value), store.origin.clone());
        }
        if let Some(last) = overlay.image_stores.last() {
            let stores = overlay.image_stores.iter().map(|store| path(&store.value)).collect();
            self.add("image_stores", stores, last.origin.clone());
        }
        if let Some(last) = overlay.layer_stores.last() {
            let one = |store: &Setting<AdditionalLayerPath>| json!({ "path": path(&store.value.path), "with_reference": store.value.with_reference });
            let stores = overlay.layer_stores.iter().map(one).collect();
            self.add("additional_layer_stores", stores, last.origin.clone());
        }
        if let Some(origin) = of_key("storage.transient_store") {
            self.add("transient", settings.transient_store().into(), origin);
        }
        if let Some(sync) = &overlay.sync {
            self.add("sync", sync_word(options.sync_mode()).into(), sync.origin.clone());
        }
        if let Some(program) = &overlay.mount_program {
            self.add("mount_program", path(&program.value), program.origin.clone());
        }
        if let Some(mount) = &overlay.mount_options {
            // Without those that are told to have no effect.
            self.add("mount_options", json!(options.options_of_mounts()), mount.origin.clone());
        }
        if let Some(origin) = of_key("storage.options.disable-volatile") {
            self.add("volatile_mounts", (!settings.disable_volatile()).into(), origin);
        }
        if let Some(ignore) = &overlay.ignore_chown_errors {
            self.add("ignore_chown_errors", ignore.value.into(), ignore.origin.clone());
        }
        if let Some(size) = &overlay.size {
            self.add("size", size.value.into(), size.origin.clone());
        }
        if let Some(inodes) = &overlay.inodes {
            self.add("inodes", inodes.value.into(), inodes.origin.clone());
        }
        if let Some(mask) = &overlay.force_mask {
            self.add("force_mask", format!("{:o}", mask.value & 0o777).into(), mask.origin.clone());
        }
        if let Some(composefs) = &overlay.use_composefs {
            self.add("use_composefs", composefs.value.into(), composefs.origin.clone());
        }
        let (least, most) = settings.auto_userns_sizes();
        let of_ids = [
            ("userns_user", "root-auto-userns-user", settings.auto_userns_user().map(Value::from)),
            ("userns_min_size", "auto-userns-min-size", least.map(Value::from)),
            ("userns_max_size", "auto-userns-max-size", most.map(Value::from)),
        ];
        for (option, key, value) in of_ids {
            if let (Some(value), Some(origin)) = (value, of_key(&format!("storage.options.{key}"))) {
                self.add(option, value, origin);
            }
        }
        if let Some(origin) = of_key("storage.options.pull_options") {
            self.add("pull_options", json!(settings.pull_options()), origin);
        }
        if let Some(origin) = of_key("storage.options.layerstore.limits") {
            self.add_limits(options, &[], origin);
        }
        Ok(())
    }

    /// What flags say that are options of the driver.
    fn add_driver_flags(&mut self, flags: &[DriverOption]) -> Result<(), Failure> {
        if let Some(program) = OverlayOptions::parse(flags)?.mount_program {
            self.add("mount_program", path(&program.value), program.origin);
        }
        Ok(())
    }

    /// What flags and variables say, and the defaults of what nobody says.
    fn apply_flags(
        &mut self,
        mut options: StoreOptions,
        global: &GlobalArgs,
        environment: &Environment,
    ) -> Result<StoreOptions, Failure> {
        if let Some(store) = &global.image_store_root {
            options = options.image_store_root(store);
            self.add("image_store_root", path(store), Origin::Flag("--image-store-root"));
        }
        if !global.image_store.is_empty() {
            let stores = global.image_store.iter().map(|store| path(store)).collect();
            self.add("image_stores", stores, Origin::Flag("--image-store"));
            options = options.image_stores(&global.image_store);
        }
        if !global.limits.is_empty() {
            let mut limits = *options.granted();
            for (limit, value) in &global.limits {
                limits.set(*limit, *value)?;
            }
            options = options.limits(limits);
            let flags: Vec<Limit> = global.limits.iter().map(|(limit, _)| *limit).collect();
            self.add_limits(&options, &flags, Origin::Flag("--limit"));
        }
        let read_only = if global.no_write { Origin::Flag("--no-write") } else { Origin::Default };
        self.add("read_only", global.no_write.into(), read_only);
        options = options.read_only(global.no_write);
        if global.transient {
            options = options.transient(true);
            self.add("transient", true.into(), Origin::Flag("--transient"));
        }
        if let Some(sync) = sync_mode(global.sync)? {
            options = options.sync(sync.value);
            self.add("sync", sync_word(sync.value).into(), sync.origin);
        }
        if let Some(timeout) = global.lock_timeout {
            options = options.lock_timeout(timeout);
            self.add("lock_timeout", timeout.as_secs_f64().into(), Origin::Flag("--lock-timeout"));
        }
        let keeps = if global.no_keep_blobs { Origin::Flag("--no-keep-blobs") } else { Origin::Default };
        self.add("keep_blobs", (!global.no_keep_blobs).into(), keeps);
        options = options.keep_blobs(!global.no_keep_blobs);
        if environment.disables_id_mapped_mounts() {
            options = options.id_mapped_mounts(false);
            self.add("id_mapped_mounts", false.into(), Origin::Variable(DISABLE_ID_MAPS));
        }
        let defaults = [
            ("image_store_root", Value::Null),
            ("image_stores", json!([])),
            ("additional_layer_stores", json!([])),
            ("transient", false.into()),
            ("sync", sync_word(SyncMode::default()).into()),
            ("lock_timeout", Duration::from_secs(60).as_secs_f64().into()),
            ("mount_program", Value::Null),
            ("mount_options", json!([])),
            ("volatile_mounts", true.into()),
            ("id_mapped_mounts", true.into()),
            ("ignore_chown_errors", false.into()),
            ("size", 0.into()),
            ("inodes", 0.into()),
            ("force_mask", Value::Null),
            ("userns_user", "containers".into()),
            ("userns_min_size", 1024.into()),
            ("userns_max_size", 65536.into()),
            ("use_composefs", false.into()),
            (LIMITS, json!({})),
            ("pull_options", json!({})),
        ];
        for (option, value) in defaults {
            if !self.is_set(option) {
                self.add(option, value, Origin::Default);
            }
        }
        self.0.sort_by_key(|line| ORDER.iter().position(|option| *option == line.option));
        Ok(options)
    }
}

/// What the table of limits is called among the options.
pub const LIMITS: &str = "limits";

/// The order in which options are shown.
const ORDER: [&str; 24] = [
    "root",
    "run_root",
    "image_store_root",
    "image_stores",
    "additional_layer_stores",
    "read_only",
    "transient",
    "sync",
    "lock_timeout",
    "keep_blobs",
    "mount_program",
    "mount_options",
    "volatile_mounts",
    "id_mapped_mounts",
    "ignore_chown_errors",
    "force_mask",
    "use_composefs",
    "size",
    "inodes",
    "userns_user",
    "userns_min_size",
    "userns_max_size",
    LIMITS,
    "pull_options",
];

fn sync_word(mode: SyncMode) -> &'static str {
    match mode {
        SyncMode::Records => "records",
        SyncMode::Off => "off",
        _ => "full",
    }
}

fn sync_mode(flag: Option<Sync>) -> Result<Option<Chosen<SyncMode>>, Failure> {
    const VARIABLE: &str = "LAYERSTORE_SYNC";
    let (mode, origin) = match (flag, variable(VARIABLE)) {
        (Some(flag), _) => (flag, Origin::Flag("--sync")),
        (None, None) => return Ok(None),
        (None, Some(value)) => {
            let value = value.to_string_lossy().into_owned();
            let mode = <Sync as ValueEnum>::from_str(&value, false).map_err(|_| Failure::Setting {
                name: "$LAYERSTORE_SYNC",
                value,
                reason: "it is one of full, records and off".to_owned(),
            })?;
            (mode, Origin::Variable(VARIABLE))
        }
    };
    let value = match mode {
        Sync::Full => SyncMode::Full,
        Sync::Records => SyncMode::Records,
        Sync::Off => SyncMode::Off,
    };
    Ok(Some(Chosen { value, origin }))
}

/// A value in one cell of a table.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(","),
        Value::Object(items) => {
            items.iter().map(|(key, value)| format!("{key}={}", shown(value))).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}
