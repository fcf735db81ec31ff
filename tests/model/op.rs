//! What may happen to a store, as the generator says it: things are picked by number from what is there at the time, so
//! that every list of steps means something, also a shorter one.

use proptest::collection::vec;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::action::{Action, Change, Target};
use super::images::{Files, IMAGES};
use super::state::{Kind, State};

/// The names that things are given. Two are ids of containers, one begins like another.
pub const NAMES: &[&str] = &["a", "web", "web:1", "ca", "cab"];
/// What is no name.
pub const BAD_NAME: &str = " bad";
/// The ids that containers are given: each but the last begins another or has a name's text.
pub const CONTAINERS: &[&str] = &["ca", "cab", "cb", "web"];
/// The ids that layers are given.
pub const LAYERS: &[&str] = &["la", "lab", "lb", "lc"];
/// The ids that images are given which are made of layers. None has documents.
pub const MADE: &[&str] = &["ia", "iab"];
const KEYS: &[&str] = &["spec", "state"];
const FILES: &[&str] = &["a", "b", "c", "new"];

/// Who does a step.
#[derive(Clone, Copy, Debug)]
pub enum Actor {
    /// The first of two handles that stay open.
    First,
    /// The second.
    Second,
    /// A process of its own.
    Process,
    /// A process that is killed so many microseconds after it began.
    Killed(u16),
}

/// One step of a case.
#[derive(Clone, Debug)]
pub struct Step {
    pub actor: Actor,
    pub op: Op,
}

/// One operation, with things picked by number.
#[derive(Clone, Debug)]
pub enum Op {
    Load { image: u8, names: Vec<u8> },
    CreateContainer { id: u8, image: Option<u8>, names: Vec<u8> },
    CreateImage { id: u8, layer: Option<u8>, names: Vec<u8>, content: Content },
    RemoveContainer(u8),
    EndMountsToRemove(bool, u8),
    RemoveImage(u8),
    RemoveLayer(u8),
    CreateLayer { id: u8, parent: Option<u8>, template: Option<u8>, names: Vec<u8> },
    PutLayer { id: u8, parent: Option<u8>, names: Vec<u8>, files: Vec<(u8, u8)> },
    ApplyDiff { layer: u8, files: Vec<(u8, u8)> },
    Seal(u8),
    Unseal(u8),
    Write { changes: Vec<ChangeOp>, go_on: bool, roll_back: bool },
    DropBlobs(Option<u8>),
    WriteData { container: u8, content: u8 },
    MakeDirectory(Pick),
    RemoveRegardless(u8),
    Wipe,
    Mount(Pick),
    Unmount { of: Pick, all: bool },
    WriteFile { container: u8, file: u8, content: u8 },
    RemoveFile { container: u8, file: u8 },
    Commit { container: u8, names: Vec<u8> },
    Save(u8),
    Gc { dry_run: bool },
    Check { deep: bool },
    Reopen,
}

/// A thing that is there, or one that is not.
#[derive(Clone, Copy, Debug)]
pub struct Pick {
    kind: Kind,
    number: u8,
}

/// One change of a write transaction, with things picked by number.
#[derive(Clone, Debug)]
pub enum ChangeOp {
    SetNames(Pick, Vec<u8>),
    AddName(Pick, u8),
    RemoveName(Pick, u8),
    MoveName(u8, u8),
    SetMetadata(Pick, u8),
    SetFlag(Pick, u8),
    ClearFlag(Pick),
    PutItem(Pick, u8, Content),
    RemoveItem(Pick, u8),
}

/// Bytes of an item: some are equal, and some are larger than what the database keeps in one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pub seed: u8,
    pub length: u32,
}

impl Content {
    pub fn bytes(self) -> Vec<u8> {
        (0..self.length).map(|position| (position / 7) as u8 ^ self.seed).collect()
    }
}

/// Of the last number in a choice, something that is not there is made.
const ABSENT: u8 = 15;

pub fn steps(mounts: bool) -> impl Strategy<Value = Vec<Step>> {
    vec((actor(), op(mounts)).prop_map(|(actor, op)| Step { actor, op }), 1..40)
}

fn actor() -> impl Strategy<Value = Actor> {
    prop_oneof![
        10 => Just(Actor::First),
        10 => Just(Actor::Second),
        1 => Just(Actor::Process),
        3 => (0u16..12_000).prop_map(Actor::Killed),
    ]
}

fn number() -> impl Strategy<Value = u8> {
    0u8..=ABSENT
}

fn names() -> impl Strategy<Value = Vec<u8>> {
    vec(0u8..30, 0..3)
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Container), Just(Kind::Image), Just(Kind::Layer)]
}

fn pick() -> impl Strategy<Value = Pick> {
    (kind(), number()).prop_map(|(kind, number)| Pick { kind, number })
}

fn op(mounts: bool) -> impl Strategy<Value = Op> {
    // Without mounts a container's files cannot be written.
    let mounting = if mounts { 1 } else { 0 };
    prop_oneof![
        6 => (0u8..IMAGES, names()).prop_map(|(image, names)| Op::Load { image, names }),
        5 => (any::<u8>(), proptest::option::weighted(0.8, number()), names())
            .prop_map(|(id, image, names)| Op::CreateContainer { id, image, names }),
        3 => (any::<u8>(), proptest::option::weighted(0.8, number()), names(), 0u8..3).prop_map(
            |(id, layer, names, seed)| {
                let content = Content { seed, length: 100 };
                Op::CreateImage { id, layer, names, content }
            }
        ),
        2 => number().prop_map(Op::RemoveContainer),
        1 => (any::<bool>(), number()).prop_map(|(layer, number)| Op::EndMountsToRemove(layer, number)),
        2 => number().prop_map(Op::RemoveImage),
        2 => number().prop_map(Op::RemoveLayer),
        3 => (any::<u8>(), proptest::option::of(number()), proptest::option::of(number()), names())
            .prop_map(|(id, parent, template, names)| Op::CreateLayer { id, parent, template, names }),
        2 => (number(), any::<u8>()).prop_map(|(container, content)| Op::WriteData { container, content }),
        1 => pick().prop_map(Op::MakeDirectory),
        1 => number().prop_map(Op::RemoveRegardless),
        3 => (any::<u8>(), proptest::option::of(number()), names(), files())
            .prop_map(|(id, parent, names, files)| Op::PutLayer { id, parent, names, files }),
        4 => (number(), files()).prop_map(|(layer, files)| Op::ApplyDiff { layer, files }),
        3 => number().prop_map(Op::Seal),
        3 => number().prop_map(Op::Unseal),
        8 => (vec(change(), 1..5), any::<bool>(), proptest::bool::weighted(0.2))
            .prop_map(|(changes, go_on, roll_back)| Op::Write { changes, go_on, roll_back }),
        1 => proptest::option::of(number()).prop_map(Op::DropBlobs),
        4 * mounting => pick().prop_map(Op::Mount),
        3 * mounting => (pick(), any::<bool>()).prop_map(|(of, all)| Op::Unmount { of, all }),
        4 * mounting => (number(), any::<u8>(), any::<u8>())
            .prop_map(|(container, file, content)| Op::WriteFile { container, file, content }),
        2 * mounting => (number(), any::<u8>()).prop_map(|(container, file)| Op::RemoveFile { container, file }),
        3 => (number(), names()).prop_map(|(container, names)| Op::Commit { container, names }),
        1 => number().prop_map(Op::Save),
        2 => any::<bool>().prop_map(|dry_run| Op::Gc { dry_run }),
        1 => any::<bool>().prop_map(|deep| Op::Check { deep }),
        2 => Just(Op::Reopen),
        1 => proptest::bool::weighted(0.5).prop_map(|wipes| if wipes { Op::Wipe } else { Op::Reopen }),
    ]
}

/// Names and contents. Few contents, so that some layers are equal.
fn files() -> impl Strategy<Value = Vec<(u8, u8)>> {
    vec((any::<u8>(), 0u8..3), 0..3)
}

fn change() -> impl Strategy<Value = ChangeOp> {
    let content = prop_oneof![Just(0u32), 1u32..200, Just(600_000)];
    prop_oneof![
        (pick(), names()).prop_map(|(of, names)| ChangeOp::SetNames(of, names)),
        (pick(), any::<u8>()).prop_map(|(of, name)| ChangeOp::AddName(of, name)),
        (pick(), any::<u8>()).prop_map(|(of, name)| ChangeOp::RemoveName(of, name)),
        (number(), any::<u8>()).prop_map(|(to, name)| ChangeOp::MoveName(to, name)),
        (pick(), any::<u8>()).prop_map(|(of, text)| ChangeOp::SetMetadata(of, text)),
        (pick(), any::<u8>()).prop_map(|(of, value)| ChangeOp::SetFlag(of, value)),
        pick().prop_map(ChangeOp::ClearFlag),
        (pick(), any::<u8>(), 0u8..3, content).prop_map(|(of, key, seed, length)| ChangeOp::PutItem(
            of,
            key,
            Content { seed, length }
        )),
        (pick(), any::<u8>()).prop_map(|(of, key)| ChangeOp::RemoveItem(of, key)),
    ]
}

fn choose(list: &[&str], number: u8) -> String {
    list[usize::from(number) % list.len()].to_owned()
}

fn good_names(numbers: &[u8]) -> Vec<String> {
    numbers.iter().map(|number| choose(NAMES, *number)).collect()
}

/// Names of which few are none.
fn names_of(numbers: &[u8]) -> Vec<String> {
    let name = |number: &u8| if *number == 29 { BAD_NAME.to_owned() } else { choose(NAMES, *number) };
    numbers.iter().map(name).collect()
}

impl Op {
    /// The operation on the things that `state` has. `serial` is another number for each step.
    pub fn resolve(&self, state: &State, serial: u32) -> Action {
        let target = |pick: &Pick| Target { kind: pick.kind, id: pick_id(state, pick.kind, pick.number) };
        let of = |kind, number: &u8| pick_id(state, kind, *number);
        match self {
            Op::Load { image, names } => Action::Load { image: *image, names: names_of(names) },
            Op::CreateContainer { id, image, names } => Action::CreateContainer {
                id: choose(CONTAINERS, *id),
                image: image.as_ref().map(|number| of(Kind::Image, number)),
                names: names_of(names),
            },
            Op::CreateImage { id, layer, names, content } => Action::CreateImage {
                id: choose(MADE, *id),
                layer: layer.map(|number| of(Kind::Layer, &number)),
                names: names_of(names),
                content: *content,
            },
            Op::RemoveContainer(number) => Action::RemoveContainer(of(Kind::Container, number)),
            Op::EndMountsToRemove(layer, number) => {
                let kind = if *layer { Kind::Layer } else { Kind::Container };
                Action::EndMountsToRemove(kind, of(kind, number))
            }
            Op::RemoveImage(number) => Action::RemoveImage(of(Kind::Image, number)),
            Op::RemoveLayer(number) => Action::RemoveLayer(of(Kind::Layer, number)),
            Op::CreateLayer { id, parent, template, names } => Action::CreateLayer {
                id: choose(LAYERS, *id),
                template: template.as_ref().map(|number| of(Kind::Layer, number)),
                parent: parent.as_ref().map(|number| of(Kind::Layer, number)),
                names: names_of(names),
            },
            Op::PutLayer { id, parent, names, files } => Action::PutLayer {
                id: choose(LAYERS, *id),
                parent: parent.as_ref().map(|number| of(Kind::Layer, number)),
                names: names_of(names),
                files: files_of(files),
            },
            Op::ApplyDiff { layer, files } => {
                Action::ApplyDiff { layer: of(Kind::Layer, layer), files: files_of(files) }
            }
            Op::Seal(number) => {
                // The model does not know whether an equal layer has a directory, which those above must not lose theirs for.
                let layer = of(Kind::Layer, number);
                Action::Seal(if state.is_shown(&layer) { "absent".to_owned() } else { layer })
            }
            Op::WriteData { container, content } => {
                Action::WriteData { container: of(Kind::Container, container), content: vec![*content; 20] }
            }
            Op::MakeDirectory(pick) => Action::MakeDirectory(target(pick)),
            Op::RemoveRegardless(number) => Action::RemoveRegardless(of(Kind::Container, number)),
            Op::Wipe => Action::Wipe,
            Op::Unseal(number) => Action::Unseal(of(Kind::Layer, number)),
            Op::Write { changes, go_on, roll_back } => Action::Write {
                changes: changes.iter().map(|change| change.resolve(state)).collect(),
                go_on: *go_on,
                roll_back: *roll_back,
            },
            Op::DropBlobs(None) => Action::DropBlobs(None),
            Op::DropBlobs(Some(number)) => {
                let all: Vec<&String> = state.kept.keys().collect();
                let one = (!all.is_empty()).then(|| all[usize::from(*number) % all.len()].clone());
                Action::DropBlobs(Some(one.into_iter().collect()))
            }
            Op::Mount(pick) => Action::Mount(target(pick)),
            Op::Unmount { of, all } => Action::Unmount { of: target(of), all: *all },
            Op::WriteFile { container, file, content } => Action::WriteFile {
                container: of(Kind::Container, container),
                file: choose(FILES, *file),
                content: vec![*content; 10],
            },
            Op::RemoveFile { container, file } => {
                Action::RemoveFile { container: of(Kind::Container, container), file: choose(FILES, *file) }
            }
            Op::Commit { container, names } => {
                let container = of(Kind::Container, container);
                // An image's layers are called by what they have: of others it would get new ones beside them.
                let renamed = state.containers.get(&container).is_some_and(|row| {
                    let below = state.chain(Some(&row.layer)).into_iter().skip(1);
                    below.into_iter().any(|id| id.len() < 64 && state.layers[&id].diff_id.is_some())
                });
                let container = if renamed { "absent".to_owned() } else { container };
                Action::Commit { container, names: names_of(names), created: i64::from(serial) }
            }
            Op::Save(number) => {
                // What has no documents cannot be written out.
                let image = of(Kind::Image, number);
                let image = if MADE.contains(&image.as_str()) { "absent".to_owned() } else { image };
                Action::Save { image, serial }
            }
            Op::Gc { dry_run } => Action::Gc { dry_run: *dry_run },
            Op::Check { deep } => Action::Check { deep: *deep },
            Op::Reopen => Action::Reopen,
        }
    }
}

impl ChangeOp {
    fn resolve(&self, state: &State) -> Change {
        let target = |pick: &Pick| Target { kind: pick.kind, id: pick_id(state, pick.kind, pick.number) };
        match self {
            ChangeOp::SetNames(of, names) => Change::SetNames(target(of), good_names(names)),
            ChangeOp::AddName(of, name) => Change::AddName(target(of), choose(NAMES, *name)),
            ChangeOp::RemoveName(of, name) => Change::RemoveName(target(of), choose(NAMES, *name)),
            ChangeOp::MoveName(to, name) => {
                Change::MoveName(pick_id(state, Kind::Image, *to), choose(NAMES, *name))
            }
            ChangeOp::SetMetadata(of, text) => Change::SetMetadata(target(of), format!("metadata {text}")),
            ChangeOp::SetFlag(of, value) => Change::SetFlag(target(of), value.to_string()),
            ChangeOp::ClearFlag(of) => Change::ClearFlag(target(of)),
            ChangeOp::PutItem(of, key, content) => Change::PutItem(target(of), choose(KEYS, *key), *content),
            ChangeOp::RemoveItem(of, key) => Change::RemoveItem(target(of), choose(KEYS, *key)),
        }
    }
}

fn files_of(numbers: &[(u8, u8)]) -> Files {
    numbers.iter().map(|(name, content)| (choose(FILES, *name), Some(vec![*content; 10]))).collect()
}

fn pick_id(state: &State, kind: Kind, number: u8) -> String {
    let ids = state.ids(kind);
    if number == ABSENT || ids.is_empty() {
        return "absent".to_owned();
    }
    ids[usize::from(number) % ids.len()].clone()
}
