//! `copy`.

mod beneath;
mod tree;

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use layerstore::{Error, IdMaps, Layer, MountError, Store, UnmountMode};
use rustix::fs::{Mode, OFlags};

use super::super::call::Call;
use super::super::failure::{Failure, known};
use super::super::golang::{call_failed, quoted};
use super::super::lookup;
use super::super::table::CHOWN;
use super::mount;
use tree::{Copier, Owners};

/// One side of a copy: a path in a layer, or of the host.
struct Side {
    layer: Option<Layer>,
    path: PathBuf,
}

pub fn copy(call: &Call<'_>) -> Result<(), Failure> {
    let Some((target, sources)) = call.args.split_last() else { return Ok(()) };
    let chown = call.flags.text(&CHOWN).map(owner).transpose()?;
    let mut to = side(call, target)?;
    if to.layer.is_none() && Path::new(target).is_relative() {
        return Err(Failure::Text(format!("path: {target} should be absolute")));
    }
    if to.layer.is_none() {
        to.path = cleaned(&to.path);
        if target.ends_with('/') {
            to.path.push("");
        }
    }
    let mut mounts = Mounts { store: &call.store, layers: Vec::new() };
    // Nothing of a mount is open when it is given back.
    let copied = copy_all(call, &mut mounts, sources, (target, &to), chown);
    copied.and(mounts.end())
}

fn copy_all(
    call: &Call<'_>,
    mounts: &mut Mounts<'_>,
    sources: &[String],
    (target, to): (&str, &Side),
    chown: Option<(u32, u32)>,
) -> Result<(), Failure> {
    let root = mounts.root(call, to.layer.as_ref(), false)?;
    for word in sources {
        let from = side(call, word)?;
        let from_root = mounts.root(call, from.layer.as_ref(), true)?;
        let owners = Owners {
            from: maps_of(&call.store, from.layer.as_ref())?,
            to: maps_of(&call.store, to.layer.as_ref())?,
            chown,
        };
        let copier = Copier { from: &from_root, to: &root, owners };
        copier.copy(&from.path, &to.path).map_err(|error| {
            let (word, target) = (quoted(word.as_bytes()), quoted(target.as_bytes()));
            Failure::Text(format!("error copying {word} to {target}: {error}"))
        })?;
    }
    Ok(())
}

/// `LAYER:/path` is in a layer; everything else is a path of the host.
fn side(call: &Call<'_>, word: &str) -> Result<Side, Failure> {
    match word.split_once(':') {
        Some((name, path)) if !name.contains('/') => {
            let missing = || Failure::Text(format!("error finding layer \"{name}\": {}", known::LAYER));
            let layer = lookup::layer(&call.store, name)?.ok_or_else(missing)?;
            Ok(Side { layer: Some(layer), path: cleaned(Path::new(path)) })
        }
        _ => {
            let mut path = std::path::absolute(word)
                .map_err(|error| Failure::Text(call_failed("getwd", word, &error)))?;
            if word.ends_with("/.") {
                path.push("");
            }
            Ok(Side { layer: None, path })
        }
    }
}

/// A path from the root, in which `..` takes the name before it away, whatever that is.
fn cleaned(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}

/// Reads `UID[:GID]`; one number is both.
fn owner(text: &str) -> Result<(u32, u32), Failure> {
    let (user, group) = text.split_once(':').unwrap_or((text, text));
    let number = |what: &str, text: &str| {
        text.parse::<u32>().map_err(|_| Failure::Text(format!("bad {what}: {}", quoted(text.as_bytes()))))
    };
    Ok((number("UID", user)?, number("GID", group)?))
}

/// How the ids of a layer's files are mapped where it is mounted.
fn maps_of(store: &Store, layer: Option<&Layer>) -> Result<IdMaps, Failure> {
    let Some(layer) = layer else { return Ok(IdMaps::default()) };
    let Some(container) = store.container_of_layer(&layer.id)? else { return Ok(IdMaps::default()) };
    Ok(store.container(container.as_str())?.id_maps.unwrap_or_default())
}

/// The layers that are mounted for the time of the copy.
struct Mounts<'a> {
    store: &'a Store,
    layers: Vec<(Layer, PathBuf)>,
}

impl Mounts<'_> {
    /// The root directory of a layer's tree, or of the host's.
    fn root(&mut self, call: &Call<'_>, layer: Option<&Layer>, read_only: bool) -> Result<OwnedFd, Failure> {
        let path = match layer {
            None => PathBuf::from("/"),
            Some(layer) => match self.layers.iter().find(|(mounted, _)| mounted.id == layer.id) {
                Some((_, path)) => path.clone(),
                None => {
                    let path = mount::mount_layer(call, layer, read_only)?;
                    self.layers.push((layer.clone(), path.clone()));
                    path
                }
            },
        };
        rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| Failure::Text(call_failed("open", &path, &error.into())))
    }

    /// Gives the mounts back.
    fn end(mut self) -> Result<(), Failure> {
        let layers = std::mem::take(&mut self.layers);
        layers.iter().try_for_each(|(layer, _)| give_back(self.store, layer))
    }
}

impl Drop for Mounts<'_> {
    fn drop(&mut self) {
        for (layer, _) in &self.layers {
            // The failure that is told is the one before this.
            give_back(self.store, layer).ok();
        }
    }
}

fn give_back(store: &Store, layer: &Layer) -> Result<(), Failure> {
    match store.unmount(layer, UnmountMode::Plain) {
        Ok(_) | Err(Error::Mount(MountError::NotMounted { .. })) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
