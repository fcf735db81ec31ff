//! From a machine's configuration to the options of a store.

use super::{AdditionalLayerStore, AutoIdDefaults, StoreOptions, SyncMode};
use crate::config::{
    AdditionalLayerPath, DriverOption, Ignored, LayerSync, Origin, OverlayOptions, Setting, Settings,
};
use crate::error::ConfigError;
use crate::overlay;

impl StoreOptions {
    /// The store that a machine's configuration describes, as its programs for containers would have it.
    ///
    /// Each setting has its effect, or is refused, or is told by [`ignored`](Self::ignored) with the reason why it has
    /// none: such as mount options that would make layers which mean nothing elsewhere.
    ///
    /// | setting | effect |
    /// | --- | --- |
    /// | `graphroot`, `runroot` | [`at`](Self::at), [`run_root`](Self::run_root) |
    /// | `imagestore` | [`image_store_root`](Self::image_store_root) |
    /// | `additionalimagestores` | [`image_store`](Self::image_store) for each |
    /// | `additionallayerstores` | [`additional_layer_store`](Self::additional_layer_store) for each |
    /// | `transient_store` | [`transient`](Self::transient) |
    /// | `mountopt` | [`mount_options`](Self::mount_options), without those that the store refuses |
    /// | `mount_program` | [`mount_program`](Self::mount_program), which is preferred to the kernel |
    /// | `ignore_chown_errors` | [`ignore_chown_errors`](Self::ignore_chown_errors) |
    /// | `$_CONTAINERS_OVERLAY_DISABLE_IDMAP` | `yes`: [`id_mapped_mounts`](Self::id_mapped_mounts) |
    /// | `disable-volatile` | [`volatile_mounts`](Self::volatile_mounts) |
    /// | `sync` | `none`: [`SyncMode::Records`]; `filesystem`, and if nothing is said: [`SyncMode::Full`] |
    /// | `pull_options` | kept for programs that pull images: [`pull_options`](Self::pull_options) |
    /// | `root-auto-userns-user`, `auto-userns-min-size`, `auto-userns-max-size` | [`auto_id_defaults`](Self::auto_id_defaults) |
    /// | `size`, `inodes` | [`quota`](Self::quota) |
    /// | `limits` of `storage.options.layerstore` | [`limits`](Self::limits) |
    /// | `force_mask` | [`force_mask`](Self::force_mask); refused without `mount_program` |
    ///
    /// Returns [`ConfigError::Driver`] if a driver other than overlay is asked for, [`ConfigError::Option`] if an
    /// option is unknown, means nothing, or asks for what this store never does, and [`ConfigError::Contradiction`] if two
    /// exclude each other.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use layerstore::config::{Environment, Settings};
    /// use layerstore::{Store, StoreOptions};
    ///
    /// let settings = Settings::load(&Environment::of_this_process())?;
    /// let options = StoreOptions::from_settings(&settings)?;
    /// for ignored in options.ignored() {
    ///     eprintln!("{ignored}");
    /// }
    /// let store = Store::open(&options)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_settings(settings: &Settings) -> Result<Self, ConfigError> {
        if let Some(driver) = settings.driver().filter(|driver| driver.value != "overlay") {
            let (driver, origin) = (driver.value.clone(), driver.origin.to_string());
            return Err(ConfigError::Driver { driver, origin });
        }
        let mut options = StoreOptions::at(&settings.graph_root().value)
            .run_root(&settings.run_root().value)
            .transient(settings.transient_store())
            .volatile_mounts(!settings.disable_volatile())
            .id_mapped_mounts(!settings.disable_id_mapped_mounts());
        if let Some(drivers) = settings.get("storage.driver_priority") {
            let (option, origin) = ("driver_priority".to_owned(), drivers.origin.clone());
            let reason = "there is one driver to choose from".to_owned();
            options.ignored.push(Ignored { option, origin, reason });
        }
        if let Some(store) = settings.image_store() {
            options = options.image_store_root(&store.value);
        }
        options.limits = settings.limits()?;
        options.pull_options = settings.pull_options();
        options.shared_run_directory = settings.shared_run_directory().map(ToOwned::to_owned);
        options.ignored.extend_from_slice(settings.ignored());
        options.files = settings.files().to_vec();
        options.auto_ids = auto_ids(settings)?;
        options.driver_options(settings.driver_options())
    }

    /// These options with what options of the overlay driver say, such as `overlay.mountopt=nodev`: for each of them
    /// what [`from_settings`](Self::from_settings) does for those of a configuration.
    ///
    /// Returns [`ConfigError::Option`] if an option is unknown, means nothing, or asks for what this store never does, and
    /// [`ConfigError::Contradiction`] if two exclude each other.
    ///
    /// # Examples
    ///
    /// ```
    /// use layerstore::StoreOptions;
    /// use layerstore::config::{DriverOption, Origin};
    ///
    /// let given = ["overlay.mountopt=nodev", "sync=none"].map(|text| DriverOption::new(text, Origin::Flag("--storage-opt")));
    /// let options = StoreOptions::at("/var/lib/demo").driver_options(&given)?;
    /// # Ok::<(), layerstore::ConfigError>(())
    /// ```
    pub fn driver_options(self, given: &[DriverOption]) -> Result<Self, ConfigError> {
        let overlay = OverlayOptions::parse(given)?;
        refuse_impossible(&overlay, given)?;
        let mut ignored = without_effect(&overlay);
        let mut options = self;
        if let Some(given) = &overlay.mount_options {
            options = options.mount_options(mount_options(given, &mut ignored));
        }
        if let Some(ignore) = &overlay.ignore_chown_errors {
            options = options.ignore_chown_errors(ignore.value);
        }
        if let Some(composefs) = &overlay.use_composefs {
            options = options.use_composefs(composefs.value);
        }
        for store in &overlay.layer_stores {
            let AdditionalLayerPath { path, with_reference } = &store.value;
            let store = AdditionalLayerStore::at(path).with_reference(*with_reference);
            options = options.additional_layer_store(store);
        }
        for store in &overlay.image_stores {
            options = options.image_store(&store.value);
        }
        if let Some(program) = &overlay.mount_program {
            options = options.mount_program(&program.value).prefer_mount_program(true);
        }
        options.quota.size = overlay.size.map(|size| size.value).or(options.quota.size);
        options.quota.inodes = overlay.inodes.map(|inodes| inodes.value).or(options.quota.inodes);
        let mask = overlay.force_mask.and_then(|mask| u16::try_from(mask.value & 0o777).ok());
        options.force_mask = mask.or(options.force_mask);
        if let Some(Setting { value: LayerSync::None, .. }) = overlay.sync {
            options = options.sync(SyncMode::Records);
        }
        options.ignored.append(&mut ignored);
        Ok(options)
    }
}

/// Refuses what would be broken if it were passed over: somebody relies on it.
fn refuse_impossible(overlay: &OverlayOptions, given: &[DriverOption]) -> Result<(), ConfigError> {
    let name = |key: &str, origin: &Origin| {
        let found = given.iter().rfind(|option| key_of(option) == key && option.origin == *origin);
        found.map_or_else(|| key.to_owned(), |option| option.name().to_owned())
    };
    if let (Some(Setting { origin, .. }), None) = (&overlay.force_mask, &overlay.mount_program) {
        let option = name("force_mask", origin);
        let reason = "needs a mount_program, which shows the modes that the layers have".to_owned();
        return Err(ConfigError::Option { option, origin: origin.to_string(), reason });
    }
    match (overlay.use_composefs.as_ref().filter(|setting| setting.value), &overlay.mount_program) {
        (Some(composefs), Some(program)) => Err(ConfigError::Contradiction {
            option: name("use_composefs", &composefs.origin).into(),
            origin: composefs.origin.to_string().into(),
            other: name("mount_program", &program.origin).into(),
            other_origin: program.origin.to_string().into(),
            reason: "a mount program shows directories, and no composefs images",
        }),
        _ => Ok(()),
    }
}

/// What counts for chosen ids that nobody says anything of.
fn auto_ids(settings: &Settings) -> Result<AutoIdDefaults, ConfigError> {
    let (min_size, max_size) = settings.auto_userns_sizes();
    let user = settings.auto_userns_user().map(str::to_owned);
    let defaults = AutoIdDefaults { user, min_size, max_size };
    let limits = defaults.limits();
    if limits.0 <= limits.1 {
        return Ok(defaults);
    }
    let of = |key: &str| {
        let setting = settings.get(&format!("storage.options.{key}"));
        setting.map(|setting| setting.origin.to_string())
    };
    let (least, most) = ("auto-userns-min-size", "auto-userns-max-size");
    let default = || Origin::Default.to_string();
    Err(ConfigError::Contradiction {
        option: format!("{least} = {}", limits.0).into(),
        origin: of(least).unwrap_or_else(default).into(),
        other: format!("{most} = {}", limits.1).into(),
        other_origin: of(most).unwrap_or_else(default).into(),
        reason: "no number of ids is as large as the one and as small as the other",
    })
}

fn key_of(option: &DriverOption) -> &str {
    let key = option.text.split('=').next().unwrap_or_default();
    key.rsplit('.').next().unwrap_or(key)
}

/// What does no harm if it is passed over.
fn without_effect(overlay: &OverlayOptions) -> Vec<Ignored> {
    let mut ignored = overlay.passed_over.clone();
    if let Some(Setting { value, origin }) = &overlay.skip_mount_home {
        let reason = match value {
            true => "the store's directory is never made a mount, so there is nothing to skip",
            false => "the store's directory is never made a mount",
        };
        let option = format!("skip_mount_home = {value}");
        ignored.push(Ignored { option, origin: origin.clone(), reason: reason.to_owned() });
    }
    ignored
}

/// Mount options without those that every mount would be refused for.
fn mount_options(given: &Setting<Vec<String>>, ignored: &mut Vec<Ignored>) -> Vec<String> {
    let Setting { value, origin } = given;
    let mut options = value.clone();
    options.retain(|option| match overlay::objection(option) {
        None => true,
        Some(reason) => {
            let (option, reason) = (format!("mountopt {option}"), reason.to_owned());
            ignored.push(Ignored { option, origin: origin.clone(), reason });
            false
        }
    });
    options
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::config::Environment;
    use crate::store::Quota;

    fn from(text: &str, variables: &[(&str, &str)]) -> Result<StoreOptions, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("storage.conf");
        std::fs::write(&path, text).unwrap();
        let variables: BTreeMap<_, _> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let system_root = dir.path().to_owned();
        let environment = Environment { user: 0, variables, home: None, own_homes: Vec::new(), system_root };
        StoreOptions::from_settings(&Settings::load_file(&environment, &path)?)
    }

    fn ignored(options: &StoreOptions) -> Vec<&str> {
        options.ignored().iter().map(|ignored| ignored.option.as_str()).collect()
    }

    #[test]
    fn each_setting_has_its_effect() {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().display();
        let text = format!(
            "[storage]\ngraphroot = '/g'\nrunroot = '/r'\nimagestore = '/i'\ntransient_store = true\n\
             [storage.options]\nadditionalimagestores = ['{other}']\ndisable-volatile = true\n\
             additionallayerstores = ['{other}:ref', '{other}']\n\
             pull_options = {{enable_partial_images = 'false'}}\n\
             [storage.options.overlay]\nmountopt = 'nodev,metacopy=on'\nmount_program = '{other}'\n\
             ignore_chown_errors = 'true'\nsync = 'none'\n"
        );
        let options = from(&text, &[]).unwrap();
        assert_eq!(options.root(), Path::new("/g"));
        assert_eq!(options.run_root_path(), Path::new("/r"));
        assert_eq!(options.image_store_root.as_deref(), Some(Path::new("/i")));
        assert_eq!(options.image_stores, [dir.path()]);
        let lazy = |with_reference| AdditionalLayerStore::at(dir.path()).with_reference(with_reference);
        assert_eq!(options.additional_layer_stores, [lazy(true), lazy(false)]);
        assert!(options.transient && !options.volatile && options.ignore_chown_errors);
        assert!(from("[storage.options.overlay]\nuse_composefs = 'true'\n", &[]).unwrap().use_composefs);
        assert!(options.prefer_mount_program && options.mount_program.as_deref() == Some(dir.path()));
        assert_eq!(options.mount_options, ["nodev"]);
        assert_eq!(options.sync, SyncMode::Records);
        assert_eq!(options.pull_options()["enable_partial_images"], "false");
        assert_eq!(ignored(&options), ["mountopt metacopy=on"]);
        assert!(
            options.ignored()[0].to_string().contains("storage.conf:12: mountopt metacopy=on has no effect")
        );
    }

    #[test]
    fn nothing_said_is_the_default() {
        let options = from("", &[]).unwrap();
        assert_eq!(options.root(), Path::new("/var/lib/containers/storage"));
        assert_eq!(options.sync, SyncMode::Full);
        assert!(!options.transient && options.volatile && ignored(&options).is_empty());
        assert!(options.id_mapped_mounts);
        for (value, maps) in [("yes", false), ("no", true), ("", true), ("1", true)] {
            let options = from("", &[("_CONTAINERS_OVERLAY_DISABLE_IDMAP", value)]).unwrap();
            assert_eq!(options.id_mapped_mounts, maps, "{value:?}");
        }
    }

    #[test]
    fn limits_of_new_layers_come_from_the_configuration() {
        let quota = |options: &str| from("", &[("STORAGE_OPTS", options)]).unwrap().quota;
        assert_eq!(quota("overlay.size=10G"), Quota { size: Some(10 << 30), inodes: None });
        assert_eq!(quota("size=1.5k,inodes=5"), Quota { size: Some(1536), inodes: Some(5) });
        assert_eq!(quota(""), Quota::default());
        assert!(quota("size=0").or(Quota::default()).is_none());
        // What a container says comes first, and 0 is no limit.
        let asked = Quota { size: Some(0), inodes: None };
        assert_eq!(asked.or(quota("size=5,inodes=6")), Quota { size: None, inodes: Some(6) }.or(asked));
    }

    #[test]
    fn what_somebody_relies_on_is_refused() {
        let message = |text: &str, variables: &[(&str, &str)]| from(text, variables).unwrap_err().to_string();
        let driver = message("[storage]\ndriver = 'vfs'\n", &[]);
        assert!(driver.contains("storage.conf:2") && driver.contains("\"vfs\""), "{driver}");
        assert!(message("[storage.options]\nforce_mask = 'shared'\n", &[]).contains("force_mask = 755"));
    }

    #[test]
    fn settings_that_exclude_each_other_are_both_named() {
        let composefs = from(
            "[storage.options]\nmount_program = 'sh'\n\n[storage.options.overlay]\nuse_composefs = 'true'\n",
            &[],
        );
        let said = composefs.unwrap_err().to_string();
        for part in
            ["overlay.use_composefs = true (", "storage.conf:5) and mount_program = sh (", "storage.conf:2)"]
        {
            assert!(said.contains(part), "{said}");
        }
        let sizes = from("[storage.options]\nauto-userns-min-size = 70000\n", &[]).unwrap_err().to_string();
        for part in
            ["auto-userns-min-size = 70000 (", "storage.conf:2)", "auto-userns-max-size = 65536 (default)"]
        {
            assert!(sizes.contains(part), "{sizes}");
        }
    }

    #[test]
    fn what_has_no_effect_is_told() {
        let told = |text: &str, variables: &[(&str, &str)]| {
            from(text, variables).unwrap().ignored().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        for (text, expected) in [
            (
                "[storage]\nrootless_storage_path = '/x'\n",
                "conf:2: rootless_storage_path has no effect: it is for users",
            ),
            ("[storage]\ndriver_priority = ['overlay']\n", "conf:2: driver_priority has no effect"),
            ("[storage.options]\nskip_mount_home = 'true'\n", "conf:2: skip_mount_home = true has no effect"),
            ("[storage.options]\nskip_mount_home = false\n", "conf:2: skip_mount_home = false has no effect"),
            (
                "[storage.options.vfs]\nsync = 'none'\n",
                "conf:2: vfs.sync = none has no effect: it is an option of the driver",
            ),
            ("[storage.options.btrfs]\nmin_space = '1G'\n", "conf:2: btrfs.min_space = 1G has no effect"),
            ("[storage.options.zfs]\nfsname = 'x'\n", "conf:2: zfs.fsname = x has no effect"),
            (
                "[storage.options]\npull_options = {nosuch = 'true'}\n",
                "conf:2: pull_options nosuch = \"true\" has no effect: it is no option",
            ),
            (
                "[storage.options]\npull_options = {convert_images = 'maybe'}\n",
                "conf:2: pull_options convert_images = \"maybe\" has no effect: it takes \"true\"",
            ),
        ] {
            let notes = told(text, &[]);
            assert!(notes.len() == 1 && notes[0].contains(expected), "{text}: {notes:?}");
        }
        let overruled = told("[storage.options]\nmountopt = 'nodev'\n", &[("STORAGE_OPTS", "size=0")]);
        assert!(
            overruled[0].contains("conf:2: mountopt = nodev has no effect: $STORAGE_OPTS"),
            "{overruled:?}"
        );
        let maps = told("", &[("_CONTAINERS_OVERLAY_DISABLE_IDMAP", "1")]);
        assert_eq!(
            maps,
            ["$_CONTAINERS_OVERLAY_DISABLE_IDMAP: the value \"1\" has no effect: only \"yes\" has one"]
        );
        assert!(told("", &[("_CONTAINERS_OVERLAY_DISABLE_IDMAP", "yes")]).is_empty());
        assert!(told("[storage.options]\npull_options = {convert_images = 'true'}\n", &[]).is_empty());
    }
}
