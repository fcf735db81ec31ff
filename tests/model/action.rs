//! One operation on things that are named, as a process gets it, and doing it through the public interface.

use std::fs::{File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use layerstore::oci::{CommitOptions, LoadOptions, SaveOptions, Source};
use layerstore::{
    ApplyOptions, CheckLevel, CheckOptions, ContainerId, ContainerOptions, Error, Finding, Garbage,
    ImageOptions, LayerId, LayerOptions, MountOptions, Name, NewItem, Store, StoreOptions, SyncMode, ThingId,
    Timestamp, UnmountMode, ValueError, WriteTxn,
};
use serde::{Deserialize, Serialize};

use super::images::{self, Files};
use super::op::Content;
use super::state::Kind;
use super::world::GARBAGE;
use crate::support::oci::ReadImage;

/// A thing by kind and id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub kind: Kind,
    pub id: String,
}

impl Target {
    pub fn thing(&self) -> ThingId {
        match self.kind {
            Kind::Layer => ThingId::Layer(self.id.parse().unwrap()),
            Kind::Image => ThingId::Image(self.id.parse().unwrap()),
            Kind::Container => ThingId::Container(self.id.parse().unwrap()),
        }
    }
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    Load { image: u8, names: Vec<String> },
    CreateContainer { id: String, image: Option<String>, names: Vec<String> },
    CreateImage { id: String, layer: Option<String>, names: Vec<String>, content: Content },
    RemoveContainer(String),
    EndMountsToRemove(Kind, String),
    RemoveImage(String),
    RemoveLayer(String),
    CreateLayer { id: String, parent: Option<String>, template: Option<String>, names: Vec<String> },
    PutLayer { id: String, parent: Option<String>, names: Vec<String>, files: Files },
    ApplyDiff { layer: String, files: Files },
    Seal(String),
    Unseal(String),
    Write { changes: Vec<Change>, go_on: bool, roll_back: bool },
    DropBlobs(Option<Vec<String>>),
    WriteData { container: String, content: Vec<u8> },
    MakeDirectory(Target),
    RemoveRegardless(String),
    Wipe,
    Mount(Target),
    Unmount { of: Target, all: bool },
    WriteFile { container: String, file: String, content: Vec<u8> },
    RemoveFile { container: String, file: String },
    Commit { container: String, names: Vec<String>, created: i64 },
    Save { image: String, serial: u32 },
    Gc { dry_run: bool },
    Check { deep: bool },
    Reopen,
}

/// One change of a write transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    SetNames(Target, Vec<String>),
    AddName(Target, String),
    RemoveName(Target, String),
    MoveName(String, String),
    SetMetadata(Target, String),
    SetFlag(Target, String),
    ClearFlag(Target),
    PutItem(Target, String, Content),
    RemoveItem(Target, String),
}

/// The one flag.
const FLAG: &str = "flag";
/// The file in a container's directory.
pub const DATA: &str = "sub/file";

/// What an operation returned: the value, as far as the model knows it, or the error.
pub type Outcome = Result<Value, String>;

/// What a successful operation says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    Nothing,
    /// The image that came of it.
    Image(String),
    /// The layers that went.
    Layers(Vec<String>),
    /// Bytes, or a count.
    Number(u64),
    /// What each change of a transaction said.
    Changes(Vec<Result<(), String>>),
    /// What was found, each in a line.
    Found(Vec<String>),
}

/// Where a case has its files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Place {
    pub root: PathBuf,
    pub run_root: PathBuf,
    /// The layouts of [`images`].
    pub layouts: PathBuf,
    /// Where images are saved.
    pub saved: PathBuf,
}

impl Place {
    pub fn open(&self) -> Store {
        let options = StoreOptions::at(&self.root).run_root(&self.run_root).sync(SyncMode::Off).reserve(0);
        Store::open(&options).unwrap()
    }
}

/// An error as the model predicts it: the variants with all they say.
pub fn said(error: impl Into<Error>) -> String {
    format!("{:?}", error.into())
}

/// The error that rolls a transaction back.
pub fn roll_back() -> Error {
    ValueError::Name("roll back".to_owned()).into()
}

impl Action {
    /// Does it.
    pub fn perform(&self, store: &Store, place: &Place) -> Outcome {
        self.try_perform(store, place).map_err(said)
    }

    fn try_perform(&self, store: &Store, place: &Place) -> Result<Value, Error> {
        match self {
            Action::Load { image, names } => {
                let reference = images::reference(&place.layouts, *image);
                let source = Source::open(&reference.parse()?, store.root())?;
                let mut options = LoadOptions::default();
                options.names.clone_from(names);
                Ok(Value::Image(store.load(&source, &options)?.id.to_string()))
            }
            Action::CreateContainer { id, image, names } => {
                let mut options = ContainerOptions::default();
                options.id = Some(id.parse()?);
                options.names.clone_from(names);
                options.metadata = format!("of {id}");
                let image = image.as_ref().map(|image| image.parse()).transpose()?;
                let made = store.create_container(image.as_ref(), &options)?;
                assert_eq!(made.id.as_str(), id);
                Ok(Value::Nothing)
            }
            Action::CreateImage { id, layer, names, content } => {
                let mut options = ImageOptions::default();
                options.id = Some(id.parse()?);
                options.names.clone_from(names);
                options.top_layer = layer.as_ref().map(|layer| layer.parse()).transpose()?;
                options.items = vec![NewItem::new("manifest-made", content.bytes())];
                let made = store.create_image(&options)?;
                assert_eq!(made, store.image(id)?);
                Ok(Value::Nothing)
            }
            Action::RemoveContainer(id) => nothing(store.remove_container(&id.parse()?)),
            Action::EndMountsToRemove(Kind::Container, id) => {
                let id: ContainerId = id.parse()?;
                nothing(store.end_mounts_to(&id, || store.remove_container(&id)))
            }
            Action::EndMountsToRemove(_, id) => {
                let id: LayerId = id.parse()?;
                nothing(store.end_mounts_to(&id, || store.remove_layer(&id)))
            }
            Action::RemoveImage(id) => {
                let id = id.parse()?;
                let known = store.layers_removed_with(&id);
                let removed = store.remove_image(&id)?;
                assert_eq!(known?, removed, "what was said before");
                Ok(Value::Layers(removed.iter().map(ToString::to_string).collect()))
            }
            Action::RemoveLayer(id) => nothing(store.remove_layer(&id.parse()?)),
            Action::CreateLayer { id, parent, template, names } => {
                let (parent, mut options) = new_layer(id, parent.as_deref(), names)?;
                options.template = template.as_ref().map(|template| template.parse()).transpose()?;
                nothing(store.create_layer(parent.as_ref(), &options).map(drop))
            }
            Action::PutLayer { id, parent, names, files } => {
                let (parent, options) = new_layer(id, parent.as_deref(), names)?;
                nothing(store.put_layer(parent.as_ref(), &options, &*images::tar(files)).map(drop))
            }
            Action::ApplyDiff { layer, files } => {
                let tar = images::tar(files);
                nothing(store.apply_diff(&layer.parse()?, &*tar, &ApplyOptions::default()).map(drop))
            }
            Action::Seal(id) => nothing(store.seal(&id.parse()?).map(drop)),
            Action::Unseal(id) => nothing(store.unseal(&id.parse()?).map(drop)),
            Action::Write { changes, go_on, roll_back } => write(store, changes, *go_on, *roll_back),
            Action::DropBlobs(digests) => {
                let digests = digests
                    .as_ref()
                    .map(|digests| digests.iter().map(|digest| digest.parse().unwrap()).collect::<Vec<_>>());
                Ok(Value::Number(store.drop_blobs(digests.as_deref())?))
            }
            Action::WriteData { container, content } => {
                nothing(store.write_container_file(&container.parse()?, DATA, content))
            }
            Action::MakeDirectory(of) => {
                let path = match of.thing() {
                    ThingId::Container(id) => store.container_directory(&id)?,
                    ThingId::Image(id) => store.image_directory(&id)?,
                    ThingId::Layer(id) => store.layer(id.as_str()).map(|_| place.root.clone())?,
                };
                assert!(path.is_dir());
                Ok(Value::Nothing)
            }
            Action::RemoveRegardless(id) => nothing(store.remove_regardless(ThingId::Container(id.parse()?))),
            Action::Wipe => nothing(store.wipe()),
            Action::Mount(of) => Ok(Value::Number(store.mount(of.thing(), &MountOptions::default())?.count)),
            Action::Unmount { of, all: false } => {
                Ok(Value::Number(store.unmount(of.thing(), UnmountMode::Plain)?))
            }
            Action::Unmount { of, all: true } => nothing(store.unmount_all(of.thing(), UnmountMode::Plain)),
            Action::WriteFile { container, file, content } => nothing(in_mount(store, container, |top| {
                std::fs::write(top.join(file), content).unwrap();
                settle_times(&top.join(file));
            })),
            Action::RemoveFile { container, file } => nothing(in_mount(store, container, |top| {
                // It may be gone already.
                std::fs::remove_file(top.join(file)).ok();
            })),
            Action::Commit { container, names, created } => {
                let mut options = CommitOptions::default();
                options.names.clone_from(names);
                options.created = Some(Timestamp { seconds: *created, nanoseconds: 0 });
                Ok(Value::Image(store.commit(&container.parse()?, &options)?.id.to_string()))
            }
            Action::Save { image, serial } => {
                let layout = place.saved.join(serial.to_string());
                let reference = format!("oci:{}:saved", layout.display()).parse()?;
                store.save(&image.parse()?, &reference, &SaveOptions::default())?;
                let saved = ReadImage::open(&layout, "saved");
                assert_eq!(saved.measured_diff_ids(), saved.diff_ids());
                assert_eq!(saved.manifest["config"]["digest"], format!("sha256:{image}"));
                std::fs::remove_dir_all(layout).unwrap();
                Ok(Value::Nothing)
            }
            Action::Gc { dry_run } => {
                let report = store.gc(*dry_run)?;
                let line = |garbage: &Garbage| format!("{GARBAGE}{}", garbage.path.display());
                assert!(report.left.is_empty(), "{report:?}");
                Ok(Value::Found(report.removed.iter().map(line).collect()))
            }
            Action::Check { deep } => {
                let mut options = CheckOptions::default();
                options.level = if *deep { CheckLevel::Deep } else { CheckLevel::Default };
                let report = store.check(&options)?;
                let line = |finding: &Finding| format!("{}: {finding}", finding.code());
                let garbage = report.garbage.iter().map(|path| format!("{GARBAGE}{}", path.display()));
                Ok(Value::Found(report.findings.iter().map(line).chain(garbage).collect()))
            }
            Action::Reopen => Ok(Value::Nothing),
        }
    }

    /// Whether it needs a mount, or makes one: those belong to the process that runs the case.
    pub fn is_about_mounts(&self) -> bool {
        matches!(
            self,
            Action::Mount(_) | Action::Unmount { .. } | Action::WriteFile { .. } | Action::RemoveFile { .. }
        ) || matches!(self, Action::Wipe | Action::RemoveRegardless(_) | Action::EndMountsToRemove(..))
    }
}

fn new_layer(
    id: &str,
    parent: Option<&str>,
    names: &[String],
) -> Result<(Option<LayerId>, LayerOptions), Error> {
    let mut options = LayerOptions::with_id(id.parse()?);
    options.names = names.to_vec();
    Ok((parent.map(str::parse).transpose()?, options))
}

fn nothing(result: Result<(), Error>) -> Result<Value, Error> {
    result.map(|()| Value::Nothing)
}

fn in_mount(store: &Store, container: &str, change: impl FnOnce(&Path)) -> Result<(), Error> {
    let container = store.container(container)?;
    if let Some(mount) = store.mounted(&container)? {
        change(mount.path());
        settle_times(mount.path());
    }
    Ok(())
}

/// Gives a file one fixed time, so that what is committed depends on content alone.
fn settle_times(path: &Path) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let times = FileTimes::new().set_accessed(time).set_modified(time);
    File::open(path).unwrap().set_times(times).unwrap();
}

fn write(store: &Store, changes: &[Change], go_on: bool, rolled_back: bool) -> Result<Value, Error> {
    let said_by_changes = store.write(|txn| {
        let mut all = Vec::new();
        for change in changes {
            match change.perform(txn) {
                Err(error) if !go_on => return Err(error),
                outcome => all.push(outcome.map_err(said)),
            }
        }
        if rolled_back { Err(roll_back()) } else { Ok(all) }
    })?;
    Ok(Value::Changes(said_by_changes))
}

impl Change {
    fn perform(&self, txn: &WriteTxn<'_>) -> Result<(), Error> {
        match self {
            Change::SetNames(of, names) => {
                let names: Vec<Name> = names.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
                txn.set_names(of.thing(), &names)
            }
            Change::AddName(of, name) => txn.add_name(of.thing(), &name.parse()?),
            Change::RemoveName(of, name) => txn.remove_name(of.thing(), &name.parse()?),
            Change::MoveName(to, name) => txn.move_name(&to.parse::<layerstore::ImageId>()?, &name.parse()?),
            Change::SetMetadata(of, text) => txn.set_metadata(of.thing(), text),
            Change::SetFlag(of, value) => txn.set_flag(of.thing(), FLAG, value),
            Change::ClearFlag(of) => txn.clear_flag(of.thing(), FLAG),
            Change::PutItem(of, key, content) => txn.put_item(of.thing(), key, &content.bytes()),
            Change::RemoveItem(of, key) => txn.remove_item(of.thing(), key),
        }
    }
}
