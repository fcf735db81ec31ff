//! `status`, `version`, `config`.

use layerstore::CapabilityValue;
use layerstore::config::{Setting, Settings, Value};
use serde_json::{Map, json};

use super::super::call::Call;
use super::super::failure::Failure;

pub fn status(call: &Call<'_>) -> Result<(), Failure> {
    let mut pairs = call.place.description().to_vec();
    let capabilities = call.store.capabilities().unwrap_or_default();
    let works = |name: &str| {
        let known = capabilities.iter().find(|row| row.name == name);
        known.is_some_and(|row| row.value != CapabilityValue::No)
    };
    // What a program has mounted is read as what the kernel has; but the reference says so of the kernel's mounts alone.
    let by_kernel = capabilities
        .iter()
        .any(|row| row.name == "mounts" && matches!(&row.value, CapabilityValue::By(way) if way == "kernel"));
    let word = |works: bool| if works { "true" } else { "false" };
    let of_driver = [
        ("Backing Filesystem", filesystem(call)),
        ("Supports d_type", word(works("d_type"))),
        ("Native Overlay Diff", word(works("native diff") && by_kernel)),
        ("Using metacopy", "false"),
        ("Supports shifting", word(works("id-mapped mounts"))),
        ("Supports volatile", word(works("volatile mounts"))),
    ];
    pairs.extend(of_driver.map(|(name, value)| (name, value.to_owned())));
    tell(call, &pairs)
}

pub fn version(call: &Call<'_>) -> Result<(), Failure> {
    tell(call, &[("Version", layerstore::VERSION.to_owned())])
}

pub fn config(call: &Call<'_>) -> Result<(), Failure> {
    call.console.json(&document(&call.place.settings))
}

/// Pairs go to standard error, but as JSON to standard output.
fn tell(call: &Call<'_>, pairs: &[(&str, String)]) -> Result<(), Failure> {
    if call.is_json() {
        return call.console.json(&pairs);
    }
    pairs.iter().for_each(|(name, value)| call.console.tell(format_args!("{name}: {value}")));
    Ok(())
}

/// The name that the reference has for the filesystem of the store.
fn filesystem(call: &Call<'_>) -> &'static str {
    // linux/magic.h
    match rustix::fs::statfs(&call.place.root).map(|stat| stat.f_type) {
        Ok(0xef53) => "extfs",
        Ok(0x5846_5342) => "xfs",
        Ok(0x9123_683e) => "btrfs",
        Ok(0x0102_1994) => "tmpfs",
        Ok(0x794c_7630) => "overlayfs",
        Ok(0x2fc1_2fc1) => "zfs",
        Ok(0xf2f5_2010) => "f2fs",
        _ => "<unknown>",
    }
}

/// The configuration. What is empty is left out, but for the options of pulling.
fn document(settings: &Settings) -> Map<String, serde_json::Value> {
    let of = |key: &str| settings.get(key).map(|setting: &Setting| value(&setting.value));
    let options: Vec<&str> = settings.driver_options().iter().map(|option| option.text.as_str()).collect();
    let fields = [
        ("runroot", Some(json!(settings.run_root().value))),
        ("root", Some(json!(settings.graph_root().value))),
        ("imagestore", settings.image_store().map(|store| json!(store.value))),
        ("driver", settings.driver().map(|driver| json!(driver.value))),
        ("driver-priority", of("storage.driver_priority")),
        ("driver-options", Some(json!(options))),
        ("root_auto_ns_user", of("storage.options.root-auto-userns-user")),
        ("auto_userns_min_size", of("storage.options.auto-userns-min-size")),
        ("auto_userns_max_size", of("storage.options.auto-userns-max-size")),
        ("PullOptions", Some(of("storage.options.pull_options").unwrap_or_default())),
        ("disable-volatile", Some(json!(settings.disable_volatile()))),
        ("transient_store", Some(json!(settings.transient_store()))),
    ];
    let empty = |value: &serde_json::Value| {
        matches!(value.as_array().map(Vec::len), Some(0)) || *value == json!(false) || *value == json!(0)
    };
    let mut document = Map::new();
    for (name, value) in fields {
        if let Some(value) = value
            && !empty(&value)
        {
            document.insert(name.to_owned(), value);
        }
    }
    document
}

fn value(value: &Value) -> serde_json::Value {
    match value {
        Value::Text(text) => json!(text),
        Value::Flag(flag) => json!(flag),
        Value::Number(number) => json!(number),
        Value::List(items) => json!(items),
        Value::Map(map) => json!(map),
        _ => serde_json::Value::Null,
    }
}
