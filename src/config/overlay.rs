//! The options of the overlay driver: what files, variables and flags say, as values.

use std::path::{Path, PathBuf};

use super::document::parse_flag;
use super::settings::{DriverOption, Ignored, Origin, Setting};
use crate::error::ConfigError;
use crate::sys::{exposure, path as sys_path, process};

/// The prefixes of options that are another driver's, and nobody else's concern.
const OTHER_DRIVERS: [&str; 7] = ["aufs", "btrfs", "devicemapper", "dm", "vfs", "windowsfilter", "zfs"];

/// Whether a layer's files are on the disk when its record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LayerSync {
    /// The kernel writes them when it likes.
    None,
    /// The filesystem is synced after a layer was written.
    Filesystem,
}

/// What the options of the overlay driver say; a field that nobody has set is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OverlayOptions {
    /// `mountopt`: options for every mount.
    pub mount_options: Option<Setting<Vec<String>>>,
    /// `mount_program`: the program that mounts in the kernel's place.
    pub mount_program: Option<Setting<PathBuf>>,
    /// `skip_mount_home`: whether the store's directory is not made a mount of its own.
    pub skip_mount_home: Option<Setting<bool>>,
    /// `ignore_chown_errors`: whether an owner that cannot be given is left out.
    pub ignore_chown_errors: Option<Setting<bool>>,
    /// `force_mask`: the mode that files have on the disk whatever an archive says.
    pub force_mask: Option<Setting<u32>>,
    /// `size`: how many bytes a container may write.
    pub size: Option<Setting<u64>>,
    /// `inodes`: how many files a container may make.
    pub inodes: Option<Setting<u64>>,
    /// `use_composefs`: whether layers are kept as images of composefs.
    pub use_composefs: Option<Setting<bool>>,
    /// `sync`: whether layers are synced.
    pub sync: Option<Setting<LayerSync>>,
    /// `imagestore` and `additionalimagestore`: other stores to read from, in this order.
    pub image_stores: Vec<Setting<PathBuf>>,
    /// `additionallayerstore`: file systems that fill layers on demand.
    pub layer_stores: Vec<Setting<AdditionalLayerPath>>,
    /// Options that mean nothing to the driver, each with the reason.
    pub passed_over: Vec<Ignored>,
}

/// An additional layer store: `PATH`, or `PATH:ref`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdditionalLayerPath {
    /// Its directory.
    pub path: PathBuf,
    /// Whether it has its layers below the references of images.
    pub with_reference: bool,
}

impl OverlayOptions {
    /// Reads options: of two of a kind the later one counts. The case of keys does not count, nor do spaces around keys and values.
    /// A key may begin with `overlay.`, `overlay2.` or a point; those of other drivers are [passed over](Self::passed_over). A `mount_program` without a slash
    /// is looked for in the directories of the system, whatever `$PATH` says; one that a [variable](Origin::Variable) gives, or a file that
    /// a variable [names](Origin::File::named_by) or other users could write, is refused, since it would be run.
    ///
    /// Returns [`ConfigError::Option`] if one has no key or value, a key is unknown, or a value means nothing: such as a
    /// mount program or an image store that is not there.
    pub fn parse(options: &[DriverOption]) -> Result<Self, ConfigError> {
        let mut parsed = OverlayOptions::default();
        for option in options {
            parsed.take(option).map_err(|reason| ConfigError::Option {
                option: option.name.clone(),
                origin: option.origin.to_string(),
                reason,
            })?;
        }
        Ok(parsed)
    }

    fn take(&mut self, option: &DriverOption) -> Result<(), String> {
        let (key, value) = option.text.split_once('=').ok_or("has no \"=\"")?;
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
        let key = match key.split_once('.') {
            None => key.as_str(),
            Some(("" | "overlay" | "overlay2", key)) => key,
            Some((driver, _)) if OTHER_DRIVERS.contains(&driver) => {
                self.pass_over(
                    option,
                    format!("it is an option of the driver {driver}, and layers are kept for overlay"),
                );
                return Ok(());
            }
            Some((driver, _)) => return Err(format!("is of {driver:?}, which is no storage driver")),
        };
        let flag = || parse_flag(value).ok_or("takes true or false");
        match key {
            "mountopt" => self.mount_options = Some(option.with(list(value))),
            "mount_program" => {
                may_be_run(&option.origin)?;
                self.mount_program = Some(option.with(program(value)?));
            }
            "skip_mount_home" => self.skip_mount_home = Some(option.with(flag()?)),
            "ignore_chown_errors" => self.ignore_chown_errors = Some(option.with(flag()?)),
            "use_composefs" => self.use_composefs = Some(option.with(flag()?)),
            "force_mask" => self.force_mask = Some(option.with(mask(value)?)),
            "size" => self.size = Some(option.with(parse_size(value).ok_or("takes a size such as 10G")?)),
            "inodes" => {
                let count =
                    value.parse().map_err(|_| "takes a whole number such as 100000, without a unit")?;
                self.inodes = Some(option.with(count));
            }
            "sync" => self.sync = Some(option.with(sync(value)?)),
            "imagestore" | "additionalimagestore" => {
                for path in list(value) {
                    self.image_stores.push(option.with(directory(&path)?));
                }
            }
            "additionallayerstore" => {
                for path in list(value) {
                    self.layer_stores.push(option.with(layer_store(&path)?));
                }
            }
            "override_kernel_check" => {
                self.pass_over(
                    option,
                    "what the kernel can do is tried out, and not told from its version".to_owned(),
                );
            }
            _ => return Err(ConfigError::UNKNOWN.to_owned()),
        }
        Ok(())
    }

    fn pass_over(&mut self, option: &DriverOption, reason: String) {
        let (option, origin) = (option.name.clone(), option.origin.clone());
        self.passed_over.push(Ignored { option, origin, reason });
    }
}

impl DriverOption {
    fn with<T>(&self, value: T) -> Setting<T> {
        Setting { value, origin: self.origin.clone() }
    }
}

/// The parts between commas.
fn list(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Refuses a program that somebody else than the user or the administrator could have chosen: variables are passed on by whatever
/// stands between, and a file counts as far as nobody else can write it.
fn may_be_run(origin: &Origin) -> Result<(), String> {
    let by_variable = |which: &str| {
        Err(format!(
            "names a program to be run, which {which} does not decide: put it into /etc/containers/storage.conf or \
             ~/.config/containers/storage.conf, or give it as --mount-program or --storage-opt; or name the file with --config"
        ))
    };
    match origin {
        Origin::Default | Origin::Flag(_) => Ok(()),
        Origin::Variable(_) => by_variable("a variable"),
        Origin::File { named_by: Some(variable), .. } => {
            by_variable(&format!("a file that ${variable} leads to"))
        }
        Origin::File { path, .. } => match exposure::on_the_way_to(path) {
            Ok(None) => Ok(()),
            Ok(Some(exposed)) => Err(format!(
                "names a program to be run, and others could name one there: {} {}; take that right away, or put the option into \
                 another file",
                exposed.path.display(),
                exposed.by
            )),
            Err(error) => Err(format!(
                "names a program to be run, and who could have written that cannot be told: {error}"
            )),
        },
    }
}

/// A program: by its full path, or by a name that is looked for in the directories of the system. Any other path would name another
/// program in each directory.
fn program(value: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(value);
    if !value.contains('/') {
        return process::find(value).ok_or_else(|| {
            format!("names a program that is in no directory of the system ({value}): install it, or give its full path")
        });
    }
    if !path.is_absolute() {
        return Err("takes the full path of a program, or the name of one that is installed".to_owned());
    }
    match sys_path::stat(&path) {
        Ok(_) => Ok(path),
        Err(error) => Err(format!("names a program that cannot be used: {error}")),
    }
}

fn directory(value: &str) -> Result<PathBuf, String> {
    let path = Path::new(value);
    if !path.is_absolute() {
        return Err(format!("takes absolute paths, and {value:?} is none"));
    }
    if !sys_path::is_directory(path) {
        return Err(format!("names {value:?}, which is no directory"));
    }
    Ok(path.to_owned())
}

/// A directory, after which may stand how images are told there.
fn layer_store(value: &str) -> Result<AdditionalLayerPath, String> {
    let (path, with_reference) = match value.split_once(':') {
        None => (value, false),
        Some((path, "ref")) => (path, true),
        Some((_, suffix)) => return Err(format!("knows the suffix :ref, once, and not :{suffix}")),
    };
    Ok(AdditionalLayerPath { path: directory(path)?, with_reference })
}

fn mask(value: &str) -> Result<u32, String> {
    match value {
        "shared" => Ok(0o755),
        "private" => Ok(0o700),
        _ => u32::from_str_radix(value, 8)
            .ok()
            .filter(|mode| *mode <= 0o7777)
            .ok_or_else(|| "takes shared, private or an octal mode".to_owned()),
    }
}

fn sync(value: &str) -> Result<LayerSync, String> {
    match value {
        "none" | "" => Ok(LayerSync::None),
        "filesystem" => Ok(LayerSync::Filesystem),
        _ => Err("takes none or filesystem".to_owned()),
    }
}

/// A number of bytes as people write it: the units are powers of 1024, from `k` to `P` in either case, with or without `i` and
/// `B` after them. `None` if it is none.
///
/// # Examples
///
/// ```
/// use layerstore::config::parse_size;
///
/// assert_eq!(parse_size("10G"), Some(10 << 30));
/// assert_eq!(parse_size("1.5 MiB"), Some(3 << 19));
/// assert_eq!(parse_size("much"), None);
/// ```
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let unit = unit.trim().to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let factor: u64 = match unit.strip_suffix('i').unwrap_or(unit) {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        "p" => 1 << 50,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().ok()?;
    let part = if fraction.is_empty() { 0 } else { fraction.parse::<u64>().ok()? };
    let digits = u32::try_from(fraction.len()).ok()?;
    let part = u128::from(part).checked_mul(factor.into())?.checked_div(10u128.checked_pow(digits)?)?;
    whole.checked_mul(factor)?.checked_add(u64::try_from(part).ok()?)
}

#[cfg(test)]
mod tests {
    use super::super::Origin;
    use super::*;

    fn parse(options: &[&str]) -> Result<OverlayOptions, ConfigError> {
        let options = options.iter().map(|text| DriverOption::new(*text, Origin::Flag("--storage-opt")));
        OverlayOptions::parse(&options.collect::<Vec<_>>())
    }

    fn reason(option: &str) -> String {
        match parse(&[option]) {
            Err(ConfigError::Option { reason, .. }) => reason,
            other => panic!("{option}: {other:?}"),
        }
    }

    #[test]
    fn a_key_may_name_its_driver() {
        for key in ["size", ".size", "overlay.size", "overlay2.size", "SIZE"] {
            assert_eq!(parse(&[&format!("{key}=10G")]).unwrap().size.unwrap().value, 10 << 30, "{key}");
        }
        let passed_over =
            parse(&["zfs.size=1", "vfs.nonsense=x", "override_kernel_check=1"]).unwrap().passed_over;
        let told: Vec<_> = passed_over.iter().map(ToString::to_string).collect();
        assert!(
            told[0].contains("--storage-opt: zfs.size=1 has no effect: it is an option of the driver zfs"),
            "{told:?}"
        );
        assert!(
            told[1].contains("vfs.nonsense=x") && told[2].contains("override_kernel_check=1"),
            "{told:?}"
        );
        assert!(reason("tape.size=1").contains("no storage driver"));
        assert_eq!(reason("nosuch=1"), "is unknown");
        assert!(reason("size").contains('='));
    }

    #[test]
    fn values_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().display();
        let both =
            parse(&[&format!("imagestore={store}"), &format!(".additionalimagestore={store},{store}")]);
        assert_eq!(both.unwrap().image_stores.len(), 3);
        let layers = parse(&[&format!("additionallayerstore={store}:ref,{store}")]).unwrap().layer_stores;
        let path = |with_reference| AdditionalLayerPath { path: dir.path().to_owned(), with_reference };
        assert_eq!(
            layers.into_iter().map(|store| store.value).collect::<Vec<_>>(),
            [path(true), path(false)]
        );
        assert!(reason("imagestore=relative").contains("absolute"));
        assert!(reason("imagestore=/no/such/store").contains("no directory"));
        for suffix in ["ref:ref", "other"] {
            assert!(reason(&format!("additionallayerstore={store}:{suffix}")).contains(":ref"));
        }
        assert!(reason("mount_program=/no/such/program").contains("cannot be used"));
        assert!(reason("mount_program=no-such-program").contains("in no directory of the system"));
        assert!(reason("mount_program=bin/sh").contains("full path"));
        let program = parse(&["mount_program=sh"]).unwrap().mount_program.unwrap().value;
        assert!(program.is_absolute() && program.ends_with("sh"), "{program:?}");
        for bad in ["size=much", "size=", "size=1.x", "inodes=-1", "sync=all", "force_mask=rwx"] {
            reason(bad);
        }
        for key in ["use_composefs", "skip_mount_home", "ignore_chown_errors"] {
            assert!(reason(&format!("{key}=maybe")).contains("true or false"));
            parse(&[&format!("{key}=true")]).unwrap();
        }
        let masks = ["shared", "private", "0711"]
            .map(|mask| parse(&[&format!("force_mask={mask}")]).unwrap().force_mask.unwrap().value);
        assert_eq!(masks, [0o755, 0o700, 0o711]);
    }

    #[test]
    fn what_is_run_is_decided_by_nobody_else() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("storage.conf");
        std::fs::write(&path, "").unwrap();
        let parse = |origin| OverlayOptions::parse(&[DriverOption::new("overlay.mount_program=sh", origin)]);
        let file = || Origin::File { path: path.clone(), line: 7, named_by: None };
        for good in [Origin::Flag("--mount-program"), file()] {
            assert!(parse(good).unwrap().mount_program.is_some());
        }
        let said = |origin| parse(origin).unwrap_err().to_string();
        let variable = said(Origin::Variable("STORAGE_OPTS"));
        assert!(
            variable.starts_with("$STORAGE_OPTS: ") && variable.contains("a variable does not decide"),
            "{variable}"
        );
        let named = said(Origin::File { path: path.clone(), line: 7, named_by: Some("HOME") });
        assert!(named.contains("storage.conf:7") && named.contains("a file that $HOME leads to"), "{named}");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        let exposed = said(file());
        assert!(
            exposed.contains("storage.conf:7") && exposed.contains("can be written by everybody"),
            "{exposed}"
        );
        std::fs::remove_file(&path).unwrap();
        assert!(said(file()).contains("cannot be told"));
        // What is not run is nobody's concern.
        let size = DriverOption::new("size=1G", Origin::Variable("STORAGE_OPTS"));
        assert!(OverlayOptions::parse(&[size]).is_ok());
    }

    #[test]
    fn sizes_are_written_in_many_ways() {
        let sizes = ["0", "512", "1k", "1 KiB", "1.5M", "2gb", "1T"].map(parse_size);
        let expected = [0, 512, 1024, 1024, 3 << 19, 2 << 30, 1 << 40].map(Some);
        assert_eq!(sizes, expected);
        assert_eq!(parse_size("99999999P"), None);
    }
}
