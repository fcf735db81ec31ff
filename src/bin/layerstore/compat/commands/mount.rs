//! `mount`, `unmount`, `mounted`, `shutdown`.

use std::path::PathBuf;

use layerstore::{Error, Layer, MountError, MountOptions, ThingId, UnmountMode};
use serde::Serialize;
use serde_json::Map;

use super::super::call::Call;
use super::super::failure::{Failure, known};
use super::super::lookup;
use super::super::table::{FORCE, LABEL, READ_ONLY};

#[derive(Serialize)]
struct Mounted<'a> {
    id: &'a str,
    mountpoint: String,
    error: String,
}

#[derive(Serialize)]
struct Done<'a> {
    id: &'a str,
    error: String,
}

pub fn mount(call: &Call<'_>) -> Result<(), Failure> {
    let mut all = Vec::new();
    for word in &call.args {
        let (mountpoint, error) = match mount_one(call, word) {
            Ok(path) => (path, String::new()),
            Err(failure) => (String::new(), failure.text()),
        };
        all.push(Mounted { id: word, mountpoint, error });
    }
    if call.is_json() {
        call.console.json(&all)?;
    } else {
        for one in &all {
            if !one.error.is_empty() {
                call.console.tell(format_args!("{} while mounting {}", one.error, one.id));
            }
            call.console.line(&one.mountpoint)?;
        }
    }
    if all.iter().all(|one| one.error.is_empty()) { Ok(()) } else { Err(Failure::Told) }
}

fn mount_one(call: &Call<'_>, word: &str) -> Result<String, Failure> {
    if call.flags.is(&READ_ONLY) {
        let image = lookup::known_image(&call.store, word)?;
        let mut options = options(call);
        options.read_only = true;
        return Ok(call.store.mount(&image, &options)?.path().display().to_string());
    }
    let layer = lookup::mountable(&call.store, word)?.ok_or_else(|| Failure::new(known::LAYER))?;
    if layer.image_store.is_some() {
        return Err(Failure::new(known::READ_ONLY_MOUNT));
    }
    Ok(mount_layer(call, &layer, false)?.display().to_string())
}

/// Mounts a layer. Who does that for writing writes to it whatever stands on it; then it is not what it was, and loses
/// its digests.
pub fn mount_layer(call: &Call<'_>, layer: &Layer, read_only: bool) -> Result<PathBuf, Failure> {
    let mut options = options(call);
    options.read_only = read_only;
    options.unseal = !read_only && !layer.read_only;
    options.change_under_others = true;
    Ok(call.store.mount(layer, &options)?.path().to_owned())
}

fn options(call: &Call<'_>) -> MountOptions {
    let mut options = MountOptions::default();
    options.label = call.flags.text(&LABEL).map(str::to_owned);
    options
}

pub fn unmount(call: &Call<'_>) -> Result<(), Failure> {
    let mut all = Vec::new();
    for word in &call.args {
        let error = match unmount_one(call, word) {
            Ok(left) => {
                if left == Some(0) {
                    call.console.line(format_args!("{word} mountpoint unmounted"))?;
                }
                String::new()
            }
            Err(failure) => failure.text(),
        };
        all.push(Done { id: word, error });
    }
    finish(call, &all, |one| format!("{} while unmounting {}", one.error, one.id))
}

/// How many still use the mount; `None` if it was an image's, of which the reference says nothing.
fn unmount_one(call: &Call<'_>, word: &str) -> Result<Option<u64>, Failure> {
    if let Some(layer) = own_mountable(call, word)? {
        return give_back(call, &(&layer).into()).map(Some);
    }
    let image = lookup::image(&call.store, word)?.ok_or_else(|| Failure::new(known::LAYER))?;
    give_back(call, &(&image).into()).map(|_| None)
}

fn give_back(call: &Call<'_>, thing: &ThingId) -> Result<u64, Failure> {
    let done = if call.flags.is(&FORCE) {
        call.store.unmount_all(thing, UnmountMode::Detach).map(|()| 0)
    } else {
        call.store.unmount(thing, UnmountMode::Plain)
    };
    match done {
        // What is not mounted is as it should be.
        Err(Error::Mount(MountError::NotMounted { .. })) => Ok(0),
        left => Ok(left?),
    }
}

pub fn mounted(call: &Call<'_>) -> Result<(), Failure> {
    let mut all = Vec::new();
    for word in &call.args {
        let error = match is_mounted(call, word) {
            Ok(true) => {
                call.console.line(format_args!("{word} mounted"))?;
                String::new()
            }
            Ok(false) => String::new(),
            Err(failure) => failure.text(),
        };
        all.push(Done { id: word, error });
    }
    finish(call, &all, |one| format!("{} checking if {} is mounted", one.error, one.id))
}

fn is_mounted(call: &Call<'_>, word: &str) -> Result<bool, Failure> {
    let layer = own_mountable(call, word)?.ok_or_else(|| Failure::new(known::LAYER))?;
    Ok(call.store.mounted(&layer)?.is_some())
}

/// What of a store that is only read is mounted, is so by its image.
fn own_mountable(call: &Call<'_>, word: &str) -> Result<Option<Layer>, Failure> {
    Ok(lookup::mountable(&call.store, word)?.filter(|layer| layer.image_store.is_none()))
}

/// Tells what failed, all together at the end.
fn finish(call: &Call<'_>, all: &[Done<'_>], text: impl Fn(&Done<'_>) -> String) -> Result<(), Failure> {
    let failed: Vec<_> = all.iter().filter(|one| !one.error.is_empty()).collect();
    if call.is_json() {
        call.console.json(&all)?;
    } else {
        failed.iter().for_each(|one| call.console.tell(text(one)));
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::Told) }
}

pub fn shutdown(call: &Call<'_>) -> Result<(), Failure> {
    if call.store.shutdown(false)?.is_empty() {
        return if call.is_json() { call.console.json(&"") } else { Ok(()) };
    }
    if call.flags.is(&FORCE) {
        call.store.shutdown(true)?;
    }
    // Also if nothing is mounted any more: scripts know it so.
    if call.is_json() {
        // What the reference makes of any error.
        call.console.json(&Map::new())?;
        return Err(Failure::Told);
    }
    Err(Failure::Text(shutdown_text()))
}

/// Ends all mounts, as some commands do at their end, and tells if there were any.
pub fn end_all(call: &Call<'_>) -> Result<(), Failure> {
    if !call.store.shutdown(false)?.is_empty() {
        call.store.shutdown(true)?;
        call.console.tell(shutdown_text());
    }
    Ok(())
}

fn shutdown_text() -> String {
    format!("shutdown: a layer is mounted: {}", known::USED_BY_CONTAINER)
}
