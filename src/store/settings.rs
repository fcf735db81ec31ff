//! From a machine's configuration to the options of a store.

use super::{AdditionalLayerStore, StoreOptions, SyncMode};
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
    /// | `pull_options` | kept: [`pull_options`](Self::pull_options) |
    /// | `size`, `inodes` | [`quota`](Self::quota) |
    /// | `force_mask` | [`force_mask`](Self::force_mask); refused without `mount_program` |
    ///
    /// Returns [`ConfigError::Driver`] if a driver other than overlay is asked for, and [`ConfigError::Option`] if an
    /// option is unknown, means nothing, or asks for what this store never does.
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
        options.pull_options = settings.pull_options();
        options.driver_options(settings.driver_options())
    }

    /// These options with what options of the overlay driver say, such as `overlay.mountopt=nodev`: for each of them
    /// what [`from_settings`](Self::from_settings) does for those of a configuration.
    ///
    /// Returns [`ConfigError::Option`] if an option is unknown, means nothing, or asks for what this store never does.
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
    let mask = overlay.force_mask.as_ref().filter(|_| overlay.mount_program.is_none());
    let Some(Setting { origin, .. }) = mask else { return Ok(()) };
    let text = |option: &&DriverOption| key_of(option) == "force_mask" && option.origin == *origin;
    let option = given.iter().find(text).map_or("force_mask".to_owned(), |option| option.text.clone());
    let reason = "needs a mount_program, which shows the modes that the layers have".to_owned();
    Err(ConfigError::Option { option, origin: origin.to_string(), reason })
}

fn key_of(option: &DriverOption) -> &str {
    let key = option.text.split('=').next().unwrap_or_default();
    key.rsplit('.').next().unwrap_or(key)
}

/// What does no harm if it is passed over.
fn without_effect(overlay: &OverlayOptions) -> Vec<Ignored> {
    let mut ignored = Vec::new();
    let mut ignore = |option: &str, origin: &Origin, reason: &str| {
        let (option, reason) = (option.to_owned(), reason.to_owned());
        ignored.push(Ignored { option, origin: origin.clone(), reason });
    };
    if let Some(skip) = overlay.skip_mount_home.as_ref().filter(|skip| !skip.value) {
        ignore("skip_mount_home", &skip.origin, "the store's directory is never made a mount");
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
        let environment = Environment { user: 0, variables, home: None, system_root: dir.path().to_owned() };
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
             ignore_chown_errors = 'true'\nsync = 'none'\nuse_composefs = 'true'\n"
        );
        let options = from(&text, &[]).unwrap();
        assert_eq!(options.root(), Path::new("/g"));
        assert_eq!(options.run_root_path(), Path::new("/r"));
        assert_eq!(options.image_store_root.as_deref(), Some(Path::new("/i")));
        assert_eq!(options.image_stores, [dir.path()]);
        let lazy = |with_reference| AdditionalLayerStore::at(dir.path()).with_reference(with_reference);
        assert_eq!(options.additional_layer_stores, [lazy(true), lazy(false)]);
        assert!(
            options.transient && options.use_composefs && !options.volatile && options.ignore_chown_errors
        );
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
        assert!(message("[storage.options]\nforce_mask = 'shared'\n", &[]).contains("force_mask=755"));
    }
}
