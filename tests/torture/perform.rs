//! Doing one operation through the public interface of the library.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use layerstore::oci::{CommitOptions, LoadOptions, Source};
use layerstore::{
    ApplyOptions, AutoIdMaps, CheckLevel, CheckOptions, ContainerOptions, Digest, Error, HostRanges,
    IdMapping, ImageId, ImageOptions, ImportError, InUseError, LayerId, LayerOptions, LookupError, MetaError,
    MountOptions, Name, NewItem, Store, ThingId, Uncollected, UnmountMode, ValueError,
};

use super::content::Content;
use super::images::SharedImage;
use super::model::Owned;
use super::observe::{self, ARENA, DATA, FLAG, PAIR, Trouble};
use super::op::{Answer, Change, Op, Outcome, Refusal};
use super::snapshots;
use crate::support::tar::{self, Member};

/// Does it. Errors that other workers can cause are outcomes; any other is trouble.
pub fn perform(
    store: &Store,
    images: &[SharedImage],
    owned: &Owned,
    op: &Op,
    sync: bool,
) -> Result<Outcome, Trouble> {
    let refused = |refusal| Ok(Outcome::Refused(refusal));
    match answer(store, images, owned, op, sync) {
        Ok(answer) => Ok(Outcome::Done(answer)),
        // The error that `update` makes up.
        Err(Trouble::Error(Error::Value(_))) if matches!(op, Op::Update { fails: true, .. }) => {
            refused(Refusal::Aborted)
        }
        // Nothing keeps a layer from being removed while it is read; that this one was is looked at later.
        Err(Trouble::Error(error))
            if matches!(op, Op::Export { .. } | Op::MountImage { .. }) && is_vanished(&error) =>
        {
            refused(Refusal::Vanished)
        }
        Err(Trouble::Error(error)) => match refusal(&error) {
            Some(refusal) => refused(refusal),
            None => Err(error.into()),
        },
        Err(trouble) => Err(trouble),
    }
}

/// What an error means to who shares a store with others; `None` if it must not come up.
pub fn refusal(error: &Error) -> Option<Refusal> {
    Some(match error {
        Error::Lookup(LookupError::NotFound { .. }) => Refusal::NotFound,
        Error::InUse(used) if used.is_mounted() => Refusal::Mounted,
        Error::InUse(InUseError::Busy { .. }) => Refusal::Busy,
        Error::InUse(_) => Refusal::InUse,
        Error::Meta(MetaError::NameInUse { .. }) => Refusal::NameInUse,
        Error::Meta(MetaError::Locked { .. }) => Refusal::Locked,
        Error::Import(error) if is_vanished_layer(error) => Refusal::Vanished,
        _ => return None,
    })
}

fn is_vanished_layer(error: &ImportError) -> bool {
    match error {
        ImportError::Vanished { .. } => true,
        ImportError::InLayer { source, .. } => is_vanished_layer(source),
        ImportError::Meta(MetaError::Locked { .. }) => false,
        _ => false,
    }
}

fn is_vanished(error: &Error) -> bool {
    matches!(
        error,
        Error::Export(_)
            | Error::Layout(_)
            | Error::LayerMissing { .. }
            | Error::Mount(_)
            | Error::Meta(MetaError::Missing { .. })
    )
}

fn answer(
    store: &Store,
    images: &[SharedImage],
    owned: &Owned,
    op: &Op,
    sync: bool,
) -> Result<Answer, Trouble> {
    let container = |id: &str| id.parse::<layerstore::ContainerId>().map_err(Error::from);
    let image_id = |index: &usize| images[*index].id.parse::<ImageId>().map_err(Error::from);
    let arena = container(ARENA)?;
    let mut answer = Answer::default();
    match op {
        Op::Create { id, image, names, metadata, volatile, ids } => {
            let mut options = ContainerOptions::default();
            options.id = Some(container(id)?);
            options.names = names.iter().cloned().collect();
            options.metadata.clone_from(metadata);
            options.volatile = *volatile;
            if *ids {
                let mut auto = AutoIdMaps::default();
                let free = vec![(200_000, 2000)];
                auto.ranges = Some(HostRanges { uids: free.clone(), gids: free });
                auto.size = Some(10);
                options.ids = IdMapping::Auto(auto);
            }
            let image = image.as_ref().map(|id| id.parse::<ImageId>()).transpose().map_err(Error::from)?;
            let made = store.create_container(image.as_ref(), &options)?;
            expect(made == store.container(id)?, || format!("{made:?} is not what the store has"))?;
        }
        Op::Update { id, change, fails } => update(store, &container(id)?, change, *fails)?,
        Op::Mount { id } => {
            let mount = store.mount(thing(owned, id)?, &MountOptions::default())?;
            answer.count = Some(mount.count);
            let files = owned.own.get(id).map_or_else(|| &owned.containers[id].files, |layer| &layer.files);
            for (path, content) in files {
                expect_file(&mount.path().join(path), content)?;
            }
        }
        Op::Unmount { id } => answer.count = Some(store.unmount(thing(owned, id)?, UnmountMode::Plain)?),
        Op::WriteFile { id, path, content } => {
            let mount =
                store.mounted(thing(owned, id)?)?.ok_or_else(|| format!("{id} is not mounted any more"))?;
            write_file(&mount.path().join(path), content, sync)?;
        }
        Op::UseRunDirectory { id } => {
            let path = store.run_directory(&container(id)?)?;
            std::fs::write(path.join("pid"), id).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Op::WriteData { id, content } => {
            store.write_container_file(&container(id)?, DATA, &content.bytes())?
        }
        Op::Commit { id, name } => {
            let mut options = CommitOptions::named(name);
            // Makes the config, and with it the id, another one for each commit.
            options.comment = Some(name.clone());
            let image = store.commit(&container(id)?, &options)?;
            let top = image.top_layer.as_ref().ok_or_else(|| format!("{name} has no layer"))?;
            answer.image = Some((image.id.to_string(), top.to_string()));
        }
        Op::Delete { id } => store.remove_container(&container(id)?)?,
        Op::DeleteRegardless { id } => store.remove_regardless(&container(id)?)?,
        Op::MakeLayer { id, name, parent, template, files } => {
            let mut options = LayerOptions::named(name);
            options.id = Some(layer_id(id)?);
            options.template = template.as_deref().map(layer_id).transpose()?;
            let parent = parent.as_deref().map(layer_id).transpose()?;
            let made = match files {
                None => store.create_layer(parent.as_ref(), &options)?,
                Some(files) => store.put_layer(parent.as_ref(), &options, &*archive(files))?,
            };
            expect(made == store.layer(id)?, || format!("{made:?} is not what the store has"))?;
        }
        Op::ApplyDiff { id, files } => {
            let (layer, tar, options) = (layer_id(id)?, archive(files), ApplyOptions::default());
            // In one step or in two.
            let changed = match files.len() % 2 {
                0 => store.apply_diff(&layer, &*tar, &options)?,
                _ => store.stage_diff(&*tar, &options)?.apply_to(&layer)?,
            };
            expect(changed == store.layer(id)?, || format!("{changed:?} is not what the store has"))?;
        }
        Op::Seal { id } => {
            let sealed = store.seal(&layer_id(id)?)?;
            expect(!sealed.is_writable(), || format!("{sealed:?} is not sealed"))?;
        }
        Op::Unseal { id } => {
            let unsealed = store.unseal(&layer_id(id)?)?;
            expect(unsealed.is_writable(), || format!("{unsealed:?} is sealed"))?;
        }
        Op::DeleteOwn { id } => store.remove_layer(&layer_id(id)?)?,
        Op::MakeImage { id, name, top } => {
            let mut options = ImageOptions::named(name);
            options.id = Some(id.parse::<ImageId>().map_err(Error::from)?);
            options.top_layer = Some(layer_id(top)?);
            options.items = ["manifest", "manifest-other", "notes"]
                .map(|key| NewItem::new(key, format!("{key} of {id}").into_bytes()))
                .to_vec();
            let made = store.create_image(&options)?;
            let found = store.images_by_digest(&Digest::sha256(format!("manifest of {id}").as_bytes()))?;
            expect(found == [made], || format!("{found:?} has the digest of {id}"))?;
        }
        Op::Prepare { .. } | Op::CommitSnapshot { .. } | Op::RemoveSnapshot { .. } => {
            snapshots::perform(store, op)?;
        }
        Op::DeleteImage { id, .. } => {
            store.remove_image(&id.parse().map_err(Error::from)?)?;
        }
        Op::NameLayer { layer, name } => {
            let (layer, name) = (layer_id(layer)?, parse_name(name)?);
            store.write(|txn| txn.add_name(&layer, &name))?;
        }
        Op::DeleteLayer { layer } => store.remove_layer(&layer_id(layer)?)?,
        Op::Load { image, name } => {
            let image = &images[*image];
            let reference = image.reference.parse().map_err(Error::from)?;
            let source = Source::open(&reference, store.root()).map_err(Error::from)?;
            let loaded = store.load(&source, &LoadOptions::named(name))?;
            expect(loaded.id.as_str() == image.id, || format!("{} was loaded as {}", image.id, loaded.id))?;
        }
        Op::Remove { image } => {
            store.remove_image(&image_id(image)?)?;
        }
        Op::MountImage { image } => {
            let mount = store.mount(image_id(image)?, &MountOptions::default())?;
            answer.count = Some(mount.count);
            let (path, content) = &images[*image].file;
            expect_file(&mount.path().join(path), content)?;
        }
        Op::UnmountImage { image } => {
            let image = &images[*image];
            let layer = layer_id(image.top())?;
            let mount = store.mounted(&layer)?.ok_or_else(|| format!("{layer} is not mounted any more"))?;
            let (path, content) = &image.file;
            expect_file(&mount.path().join(path), content)?;
            // By the layer: an image may go while its top layer is mounted, if the layer is needed otherwise.
            answer.count = Some(store.unmount(layer, UnmountMode::Plain)?);
        }
        Op::MoveName { name, image } => {
            let (name, image) = (parse_name(name)?, image_id(image)?);
            store.write(|txn| txn.move_name(&image, &name))?;
        }
        Op::RemoveName { name, image } => {
            let (name, image) = (parse_name(name)?, image_id(image)?);
            store.write(|txn| txn.remove_name(image, &name))?;
        }
        Op::Export { image } => {
            let mut tar = Vec::new();
            store.diff(image_id(image)?, &mut tar)?;
            let (digest, expected) =
                (Digest::sha256(&tar).to_string(), images[*image].diff_ids.last().unwrap());
            expect(digest == *expected, || format!("a tar of {} bytes has the digest {digest}", tar.len()))?;
        }
        Op::RemoveLayerOfImage { image } => {
            store.remove_layer(&layer_id(images[*image].top())?)?;
        }
        Op::PutItem { key, content } => store.write(|txn| txn.put_item(&arena, key, &content.bytes()))?,
        Op::PutPair { content } => {
            let bytes = content.bytes();
            store.write(|txn| {
                txn.put_item(&arena, PAIR[0], &bytes)?;
                txn.set_metadata(&arena, &content.word)?;
                txn.put_item(&arena, PAIR[1], &bytes)
            })?;
        }
        Op::LockDigest { number } => {
            let lock = store.lock_digest(&Digest::sha256(number.to_string().as_bytes()))?;
            let path = store.run_root().with_file_name(format!("locked-{number}"));
            let me = std::process::id().to_string();
            let alone = std::fs::write(&path, &me)
                .and_then(|()| {
                    std::thread::yield_now();
                    std::fs::read_to_string(&path)
                })
                .map_err(|error| format!("{}: {error}", path.display()))?;
            expect(alone == me, || format!("{alone} has {:?} too", lock.path()))?;
        }
        Op::ReadShared => answer.shared = Some(observe::shared(store)?),
        Op::Gc => {
            let report = store.gc(false)?;
            let is_locked = |left: &Uncollected| matches!(left.error, Error::Meta(MetaError::Locked { .. }));
            match report.left.into_iter().next() {
                None => {}
                // Who waits for nobody leaves what another is holding.
                Some(left) if is_locked(&left) => return Err(left.error.into()),
                Some(left) => return Err(format!("garbage was left: {left:?}").into()),
            }
        }
        Op::Check { deep } => {
            let level = if *deep { CheckLevel::Deep } else { CheckLevel::Default };
            check(store, level)?;
        }
        Op::DropBlobs => {
            store.drop_blobs(None)?;
        }
    }
    Ok(answer)
}

/// Checks while others work: they may die, and leave garbage, which is no finding.
fn check(store: &Store, level: CheckLevel) -> Result<(), Trouble> {
    let mut options = CheckOptions::default();
    options.level = level;
    let findings = store.check(&options)?.findings;
    expect(findings.is_empty(), || format!("check found {findings:?}"))
}

fn update(store: &Store, id: &layerstore::ContainerId, change: &Change, fails: bool) -> Result<(), Trouble> {
    let names = change.names.as_ref().map(|names| names.iter().map(|name| parse_name(name)).collect());
    let names: Option<Vec<Name>> = names.transpose()?;
    store.write(|txn| {
        for key in &change.remove {
            txn.remove_item(id, key)?;
        }
        for (key, content) in &change.put {
            txn.put_item(id, key, &content.bytes())?;
        }
        if let Some(metadata) = &change.metadata {
            txn.set_metadata(id, metadata)?;
        }
        if let Some(flag) = &change.flag {
            txn.set_flag(id, FLAG, flag)?;
        }
        if let Some(names) = &names {
            txn.set_names(id, names)?;
        }
        if fails { Err(ValueError::Name("made up".to_owned()).into()) } else { Ok(()) }
    })?;
    Ok(())
}

/// Whole or not at all, and if asked for, on the disk when it returns.
fn write_file(path: &Path, content: &Content, sync: bool) -> Result<(), Trouble> {
    let write = || {
        let parent = path.parent().unwrap();
        std::fs::create_dir_all(parent)?;
        let part = path.with_extension("part");
        let mut file = File::create(&part)?;
        file.write_all(&content.bytes())?;
        if sync {
            file.sync_all()?;
        }
        std::fs::rename(&part, path)?;
        if sync { rustix::fs::syncfs(&file).map_err(std::io::Error::from) } else { Ok(()) }
    };
    write().map_err(|error: std::io::Error| Trouble::Wrong(format!("{}: {error}", path.display())))
}

fn expect_file(path: &Path, content: &Content) -> Result<(), Trouble> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let found = Content::of(&bytes).map_err(|why| format!("{}: {why}", path.display()))?;
    expect(found == *content, || format!("{} is {found:?}, not {content:?}", path.display()))
}

fn expect(good: bool, why: impl FnOnce() -> String) -> Result<(), Trouble> {
    if good { Ok(()) } else { Err(Trouble::Wrong(why())) }
}

/// A container or a layer of the worker's own.
fn thing(owned: &Owned, id: &str) -> Result<ThingId, Error> {
    Ok(match owned.own.contains_key(id) {
        true => ThingId::Layer(id.parse()?),
        false => ThingId::Container(id.parse()?),
    })
}

fn archive(files: &std::collections::BTreeMap<String, Content>) -> Vec<u8> {
    let members: Vec<_> = files.iter().map(|(path, content)| Member::file(path, content.bytes())).collect();
    tar::archive(&members)
}

fn layer_id(text: &str) -> Result<LayerId, Error> {
    Ok(text.parse()?)
}

fn parse_name(text: &str) -> Result<Name, Error> {
    Ok(text.parse()?)
}
