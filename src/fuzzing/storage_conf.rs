//! The configuration of a machine: files, drop-in files and variables.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use super::place::{Place, place};
use crate::config::{DriverOption, Environment, Origin, OverlayOptions, Settings, Value, parse_size};
use crate::error::ConfigError;
use crate::store::StoreOptions;
use crate::sys::userns::{IdExtent, IdMaps};

/// What parts of an input are separated by.
const SEPARATOR: &[u8] = b"\n%%\n";

/// Where the files of a machine are, in the order in which an input has them. The first is a main file.
const FILES: [&str; 6] = [
    "etc/containers/storage.conf",
    "etc/containers/storage.conf.d/20.conf",
    "usr/share/containers/storage.conf.d/10.conf",
    "etc/containers/storage.rootless.conf.d/1000/30.conf",
    "home/.config/containers/storage.conf",
    "last.conf",
];

/// The variables that any text may be in. Those that name files name none but the machine's.
const VARIABLES: [&str; 9] = [
    "STORAGE_OPTS",
    "STORAGE_DRIVER",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "TMPDIR",
    "HOME",
    "USER",
    "X",
    "_CONTAINERS_OVERLAY_DISABLE_IDMAP",
];

/// Reads bytes as a machine's configuration. The first byte says who asks and which files there are, up to the first
/// separator come variables, one a line, and the rest is files between separators.
///
/// - Nothing panics, and reading again gives the same.
/// - What is accepted, written as one file by a plain writer, is read as the same values.
/// - A key that nobody knows is a warning with its file and line, and changes no value.
/// - Each option of a driver is applied or passed over with a reason, and means the same in the canonical form of its
///   value: sizes as bytes, masks as octal digits.
/// - Text that is a size, or a map of ids, is the same when it is written and read again.
///
/// # Panics
///
/// If one of these does not hold.
pub fn fuzz_storage_conf(bytes: &[u8]) {
    thread_local!(static MACHINE: io::Result<Place> = place());
    let Some((&mode, bytes)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    check_texts(text);
    MACHINE.with(|root| {
        assert!(root.is_ok(), "no place to work in: {:?}", root.as_ref().err());
        let Ok(root) = root else { return };
        let environment = set_up(root, mode, text);
        assert!(environment.is_ok(), "{:?}", environment.err());
        if let Ok(environment) = environment {
            check_machine(&environment, root);
        }
    });
}

/// Makes the machine what the input says.
fn set_up(root: &Path, mode: u8, text: &str) -> io::Result<Environment> {
    let separator = String::from_utf8_lossy(SEPARATOR);
    let mut parts = text.split(separator.as_ref());
    let mut variables = BTreeMap::new();
    for line in parts.next().unwrap_or_default().lines() {
        if let Some((name, value)) = line.split_once('=')
            && VARIABLES.contains(&name)
        {
            variables.insert(name.to_owned(), value.to_owned());
        }
    }
    for (at, file) in FILES.iter().enumerate() {
        let path = root.join(file);
        match parts.next().filter(|_| mode & 1 << at != 0) {
            Some(text) => {
                fs::create_dir_all(path.parent().unwrap_or(root))?;
                fs::write(&path, text)?;
                if *file == "last.conf" {
                    let path = path.display().to_string();
                    variables.insert("CONTAINERS_STORAGE_CONF_OVERRIDE".to_owned(), path);
                }
            }
            None => drop(fs::remove_file(&path)),
        }
    }
    let user = if mode & 0x80 == 0 { 0 } else { 1000 };
    let home = (mode & 0x40 == 0).then(|| root.join("home"));
    Ok(Environment {
        user,
        variables,
        home,
        own_homes: vec![root.join("home")],
        system_root: root.to_owned(),
    })
}

fn check_machine(environment: &Environment, root: &Path) {
    let loaded = Settings::load(environment);
    let Ok(settings) = loaded else { return };
    let again = Settings::load(environment).map(|again| format!("{again:?}"));
    assert!(again.ok() == Some(format!("{settings:?}")), "read again, it is another");
    for warning in settings.warnings() {
        let lines = fs::read_to_string(&warning.path).unwrap_or_default().split('\n').count();
        assert!(settings.files().contains(&warning.path) && (1..=lines).contains(&warning.line), "{warning}");
    }

    let written = root.join("written.conf");
    let plain = Environment { variables: BTreeMap::new(), ..environment.clone() };
    let values = values(&settings);
    let read = |text: String| -> Option<Settings> {
        fs::write(&written, text).ok()?;
        let read = Settings::load_file(&plain, &written);
        // Where the store is may have been said by a variable.
        let is_elsewhere = matches!(read, Err(ConfigError::SameStores { .. } | ConfigError::NoHome { .. }));
        assert!(read.is_ok() || is_elsewhere, "what was written is refused: {:?}", read.as_ref().err());
        read.ok()
    };
    let text = to_toml(&settings);
    if let Some(read) = read(text.clone()) {
        assert!(self::values(&read) == values, "{text}\nis read as {:?}", self::values(&read));
        assert!(read.warnings().is_empty(), "{text}\n{:?}", read.warnings());
    }
    let key = "fuzz.nosuch";
    if let Some(more) = read(format!("{key} = 1\n{text}")) {
        assert!(self::values(&more) == values, "an unknown key changes something");
        let noted = matches!(more.warnings(), [one] if one.line == 1 && one.path == written);
        assert!(noted, "{:?}", more.warnings());
    }
    check_options(&settings);
    // Only that it does not panic: what is refused depends on this machine.
    drop(StoreOptions::from_settings(&settings));
}

/// What files say, without where.
fn values(settings: &Settings) -> Vec<(&'static str, Value)> {
    settings.iter().map(|(key, setting)| (key, setting.value.clone())).collect()
}

/// One file that says the same.
fn to_toml(settings: &Settings) -> String {
    let mut text = String::new();
    for (key, setting) in settings.iter() {
        let value = match &setting.value {
            Value::Text(value) => quoted(value),
            Value::Flag(flag) => flag.to_string(),
            Value::Number(number) => number.to_string(),
            Value::List(items) => {
                format!("[{}]", items.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(", "))
            }
            Value::Map(items) => {
                let items = items.iter().map(|(key, value)| format!("{} = {}", quoted(key), quoted(value)));
                format!("{{{}}}", items.collect::<Vec<_>>().join(", "))
            }
        };
        assert!(writeln!(text, "{key} = {value}").is_ok());
    }
    text
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            plain if plain.is_control() => assert!(write!(quoted, "\\u{:04x}", u32::from(plain)).is_ok()),
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    quoted
}

/// Each option by itself, and with its value in the canonical form.
fn check_options(settings: &Settings) {
    for option in settings.driver_options() {
        let one = std::slice::from_ref(option);
        let Ok(parsed) = OverlayOptions::parse(one) else { continue };
        let noted = parsed.passed_over.len();
        assert!(noted <= 1 && parsed.passed_over.iter().all(|note| note.option == option.name()));
        let nothing = parsed == OverlayOptions::default();
        let is_empty_list = option
            .text
            .split_once('=')
            .is_some_and(|(_, list)| list.split(',').all(|one| one.trim().is_empty()));
        assert!(!nothing || is_empty_list, "{option:?} is neither applied nor passed over");
        let canonical = if let Some(size) = &parsed.size {
            format!("size={}", size.value)
        } else if let Some(mask) = &parsed.force_mask {
            assert!(mask.value <= 0o7777, "{option:?}");
            format!("force_mask={:o}", mask.value)
        } else if let Some(inodes) = &parsed.inodes {
            format!("inodes={}", inodes.value)
        } else if let Some(mount) = &parsed.mount_options {
            format!("mountopt={}", mount.value.join(","))
        } else {
            continue;
        };
        let again = OverlayOptions::parse(&[DriverOption::new(canonical.clone(), option.origin.clone())]);
        assert!(again.as_ref().ok() == Some(&parsed), "{canonical} is {again:?} and not {parsed:?}");
    }
}

/// Each line as texts of other forms.
fn check_texts(text: &str) {
    for line in text.lines() {
        if let Some(size) = parse_size(line) {
            assert!(parse_size(&size.to_string()) == Some(size), "{line:?} is {size}");
            for (unit, power) in [("k", 10), ("MiB", 20), ("GB", 30)] {
                if size % (1 << power) == 0 {
                    let shown = format!("{} {unit}", size >> power);
                    assert!(parse_size(&shown) == Some(size), "{shown:?} is {:?}", parse_size(&shown));
                }
            }
        }
        if let Ok(extent) = line.parse::<IdExtent>() {
            assert!(extent.to_string().parse() == Ok(extent), "{line:?} is {extent}");
            let maps = IdMaps::both([extent]);
            if maps.check().is_ok() {
                let last = extent.count - 1;
                let (inside, outside) = (extent.inside + last, extent.outside + last);
                assert!(maps.to_host(inside, inside) == Some((outside, outside)));
                assert!(maps.to_container(outside, outside) == Some((inside, inside)));
                assert!(maps.to_host(inside + 1, 0).is_none());
            }
        }
        let option = DriverOption::new(line, Origin::Flag("--storage-opt"));
        drop(OverlayOptions::parse(&[option]));
    }
}
