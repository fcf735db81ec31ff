//! What the things that all workers change may be: the last value that was written, or one that was being written.
//!
//! For each such thing the log has writes and reads, each from a line to a line. A read may return what a write wrote that
//! began before the read ended, unless another write was certainly done in between.

use std::collections::{BTreeMap, BTreeSet};

use super::images::SharedImage;
use super::log::{Attempt, History};
use super::model::Owned;
use super::observe::{METADATA, PAIR};
use super::op::{Op, Outcome, Refusal, Shared};

/// One thing that has a value or none.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Key {
    /// Whether an image is there.
    Image(String),
    /// The image that has a name.
    Name(String),
    /// The word in an item of the arena.
    Item(String),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Effect {
    Write(Option<String>),
    /// Nothing afterwards, if this was the value.
    Clear(String),
    Read(Option<String>),
}

struct Event<'h> {
    effect: Effect,
    certain: bool,
    attempt: &'h Attempt,
}

/// Compares what the store has, and everything that was read meanwhile, with what was written. `before` and `after` are
/// the things before and after all of the history.
///
/// An error says what cannot be.
pub fn check(
    images: &[SharedImage],
    history: &History,
    owned: &BTreeMap<usize, Owned>,
    before: &Shared,
    after: &Shared,
) -> Result<(), String> {
    let before = values(images, before);
    let mut events: BTreeMap<Key, Vec<Event<'_>>> = BTreeMap::new();
    let after = values(images, after);
    let mut keys: BTreeSet<Key> = before.keys().chain(after.keys()).cloned().collect();
    for attempt in history.attempts() {
        keys.extend(effects(images, attempt, &BTreeSet::new()).into_iter().map(|(key, _)| key));
    }
    for attempt in history.attempts() {
        for (key, effect) in effects(images, attempt, &keys) {
            let certain = attempt.outcome.is_some();
            events.entry(key).or_default().push(Event { effect, certain, attempt });
        }
    }
    for key in &keys {
        let register =
            Register { initial: before.get(key), events: events.get(key).map_or(&[], Vec::as_slice) };
        for event in register.events {
            if let Effect::Read(value) = &event.effect
                && !register.may_be(value.as_ref(), event.attempt.start, event.attempt.end)
            {
                return Err(register.story(key, value.as_ref(), Some(event.attempt)));
            }
        }
        let last = after.get(key);
        if !register.may_be(last, usize::MAX, usize::MAX) {
            return Err(register.story(key, last, None));
        }
    }
    history.attempts().try_for_each(|attempt| is_legal(images, history, owned, attempt))
}

/// The values of everything shared.
fn values(images: &[SharedImage], shared: &Shared) -> BTreeMap<Key, String> {
    let there = images.iter().filter(|image| shared.images.contains(&image.id));
    let mut values: BTreeMap<Key, String> = there.map(|image| (image_key(image), THERE.to_owned())).collect();
    values.extend(shared.names.iter().map(|(name, id)| (Key::Name(name.clone()), id.clone())));
    values.extend(shared.items.iter().map(|(key, word)| (Key::Item(key.clone()), word.clone())));
    values
}

const THERE: &str = "there";

fn image_key(image: &SharedImage) -> Key {
    Key::Image(image.id.clone())
}

/// What an operation wrote, or perhaps wrote, and what it read. `keys` are all there are.
fn effects(images: &[SharedImage], attempt: &Attempt, keys: &BTreeSet<Key>) -> Vec<(Key, Effect)> {
    let there = || Some(THERE.to_owned());
    let id = |image: &usize| images[*image].id.clone();
    let key = |image: &usize| image_key(&images[*image]);
    let done = match &attempt.outcome {
        None => true,
        Some(Outcome::Done(_)) => true,
        Some(Outcome::Refused(_)) => false,
    };
    if let Some(Outcome::Refused(refusal)) = &attempt.outcome {
        let image = match &attempt.op {
            Op::Remove { image }
            | Op::MoveName { image, .. }
            | Op::RemoveName { image, .. }
            | Op::MountImage { image }
            | Op::Export { image } => key(image),
            Op::Create { image: Some(id), .. } => Key::Image(id.clone()),
            _ => return Vec::new(),
        };
        return match refusal {
            Refusal::NotFound => vec![(image, Effect::Read(None))],
            Refusal::InUse => vec![(image, Effect::Read(there()))],
            _ => Vec::new(),
        };
    }
    // Who died has read nothing that anybody knows of.
    let read =
        |key: Key| if attempt.outcome.is_some() { vec![(key, Effect::Read(there()))] } else { Vec::new() };
    debug_assert!(done);
    match &attempt.op {
        Op::Load { image, name } => vec![
            (key(image), Effect::Write(there())),
            (Key::Name(name.clone()), Effect::Write(Some(id(image)))),
        ],
        Op::Remove { image } => {
            let names = keys.iter().filter(|key| matches!(key, Key::Name(_)));
            let mut effects: Vec<_> = names.map(|key| (key.clone(), Effect::Clear(id(image)))).collect();
            effects.push((key(image), Effect::Write(None)));
            effects
        }
        Op::MoveName { name, image } => {
            let mut effects = read(key(image));
            effects.push((Key::Name(name.clone()), Effect::Write(Some(id(image)))));
            effects
        }
        Op::RemoveName { name, image } => {
            let mut effects = read(key(image));
            effects.push((Key::Name(name.clone()), Effect::Clear(id(image))));
            effects
        }
        Op::MountImage { image } | Op::Export { image } => read(key(image)),
        Op::Create { image: Some(id), .. } => read(Key::Image(id.clone()))
            .into_iter()
            .filter(|_| images.iter().any(|image| image.id == *id))
            .collect(),
        Op::PutItem { key, content } => {
            vec![(Key::Item(key.clone()), Effect::Write(Some(content.word.clone())))]
        }
        Op::PutPair { content } => [PAIR[0], PAIR[1], METADATA]
            .iter()
            .map(|key| (Key::Item((*key).to_owned()), Effect::Write(Some(content.word.clone()))))
            .collect(),
        Op::ReadShared => {
            let Some(Outcome::Done(answer)) = &attempt.outcome else { return Vec::new() };
            let read = values(images, answer.shared.as_ref().unwrap());
            keys.iter().map(|key| (key.clone(), Effect::Read(read.get(key).cloned()))).collect()
        }
        _ => Vec::new(),
    }
}

/// One thing through a history.
struct Register<'e, 'h> {
    initial: Option<&'e String>,
    events: &'e [Event<'h>],
}

impl Register<'_, '_> {
    /// Whether a read between two lines may return this.
    fn may_be(&self, value: Option<&String>, start: usize, end: usize) -> bool {
        let initially = self.initial == value && !self.is_overwritten(value, 0, start);
        initially
            || self.events.iter().any(|event| {
                let (from, to) = (event.attempt.start, event.attempt.end);
                let writes = match &event.effect {
                    Effect::Write(written) => written.as_ref() == value,
                    // What was not there was not cleared.
                    Effect::Clear(cleared) => value.is_none() && self.may_be(Some(cleared), from, to),
                    Effect::Read(_) => false,
                };
                writes && from < end && !self.is_overwritten(value, to, start)
            })
    }

    /// Whether something else was certainly written after one line and before another.
    fn is_overwritten(&self, value: Option<&String>, after: usize, before: usize) -> bool {
        self.events.iter().any(|event| {
            let overwrites = match &event.effect {
                Effect::Write(written) => written.as_ref() != value,
                Effect::Clear(cleared) => value == Some(cleared),
                Effect::Read(_) => false,
            };
            let begins_after = after == 0 || event.attempt.start > after;
            overwrites && event.certain && begins_after && event.attempt.end < before
        })
    }

    fn story(&self, key: &Key, value: Option<&String>, reader: Option<&Attempt>) -> String {
        let who = reader.map_or("the store has in the end".to_owned(), |attempt| {
            format!(
                "{:?} read with {:?} between the lines {} and {}",
                attempt.worker, attempt.op, attempt.start, attempt.end
            )
        });
        let mut text = format!("{key:?} cannot be {value:?}, as {who}; it was {:?} at first", self.initial);
        for event in self.events.iter().filter(|event| !matches!(event.effect, Effect::Read(_))) {
            let attempt = event.attempt;
            let end = if event.certain { "" } else { " perhaps" };
            let lines = (attempt.start, attempt.end);
            text += &format!("\n  lines {lines:?}: {:?}{end} by {:?}", event.effect, attempt.worker);
        }
        text
    }
}

/// Whether others can have been in an operation's way as it says.
fn is_legal(
    images: &[SharedImage],
    history: &History,
    owned: &BTreeMap<usize, Owned>,
    attempt: &Attempt,
) -> Result<(), String> {
    let may_be_done = |other: &&Attempt| !matches!(other.outcome, Some(Outcome::Refused(_)));
    let mut done = history.attempts().filter(may_be_done);
    let id = |image: &usize| images[*image].id.as_str();
    let why = match (&attempt.op, &attempt.outcome) {
        (Op::RemoveLayerOfImage { .. }, Some(Outcome::Done(_))) if !may_leave_lonely_layers(history) => {
            "a layer that something stands on was removed"
        }
        (_, Some(Outcome::Refused(Refusal::Locked))) if attempt.patient => "nobody keeps a lock for so long",
        (op, Some(Outcome::Refused(Refusal::Vanished))) => {
            let removes = |other: &Attempt| {
                let of_layer = matches!(
                    other.op,
                    Op::DeleteLayer { .. } | Op::DeleteOwn { .. } | Op::RemoveLayerOfImage { .. }
                );
                of_layer || matches!(other.op, Op::Remove { .. } | Op::DeleteImage { .. })
            };
            let may_vanish =
                matches!(op, Op::Load { .. } | Op::Commit { .. } | Op::Export { .. } | Op::MountImage { .. })
                    || matches!(op, Op::MakeLayer { .. });
            if may_vanish && done.any(|other| removes(other) && other.overlaps(attempt)) {
                return Ok(());
            }
            "nothing was removed meanwhile"
        }
        (Op::Remove { image }, Some(Outcome::Refused(Refusal::InUse))) => {
            let image = id(image);
            let creates =
                |other: &Attempt| matches!(&other.op, Op::Create { image: Some(on), .. } if on == image);
            if owned.values().any(|owned| owned.has_containers(image))
                || done.any(|other| other.start < attempt.end && creates(other))
            {
                return Ok(());
            }
            "no container stands on it"
        }
        (
            Op::Remove { .. } | Op::RemoveLayerOfImage { .. } | Op::DeleteImage { .. },
            Some(Outcome::Refused(Refusal::Mounted)),
        ) => {
            let mounts = |other: &Attempt| matches!(other.op, Op::MountImage { .. });
            if done.any(|other| other.start < attempt.end && mounts(other)) {
                return Ok(());
            }
            "nobody has mounted an image"
        }
        (Op::RemoveLayerOfImage { .. }, Some(Outcome::Refused(Refusal::InUse | Refusal::NotFound))) => {
            return Ok(());
        }
        (Op::Create { names, .. }, Some(Outcome::Refused(Refusal::NameInUse))) => {
            if names.iter().any(|name| may_be_taken(history, owned, attempt, name)) {
                return Ok(());
            }
            "nobody had one of these names"
        }
        (Op::Update { change, .. }, Some(Outcome::Refused(Refusal::NameInUse))) => {
            let mut names = change.names.iter().flatten();
            if names.any(|name| may_be_taken(history, owned, attempt, name)) {
                return Ok(());
            }
            "nobody had one of these names"
        }
        (
            Op::Load { .. } | Op::RemoveLayerOfImage { .. } | Op::MountImage { .. } | Op::MoveName { .. },
            Some(Outcome::Refused(refusal)),
        ) if !matches!(refusal, Refusal::NotFound | Refusal::Locked) => "this is no reason",
        (Op::Load { .. }, Some(Outcome::Refused(Refusal::NotFound))) => "the layout has it",
        _ => return Ok(()),
    };
    Err(format!("{:?}: {:?} came to {:?}, but {why}", attempt.worker, attempt.op, attempt.outcome))
}

/// Removing a layer leaves those below it, also if nothing else stands on them.
pub fn may_leave_lonely_layers(history: &History) -> bool {
    let is_refused = |attempt: &Attempt| matches!(attempt.outcome, Some(Outcome::Refused(_)));
    let removes = |op: &Op| matches!(op, Op::DeleteLayer { .. } | Op::DeleteOwn { .. });
    history.attempts().any(|attempt| removes(&attempt.op) && !is_refused(attempt))
}

fn may_be_taken(
    history: &History,
    owned: &BTreeMap<usize, Owned>,
    attempt: &Attempt,
    wanted: &String,
) -> bool {
    let from_the_start =
        owned.values().flat_map(|owned| owned.containers.values()).any(|one| one.names.contains(wanted));
    from_the_start
        || history.attempts().any(|other| {
            let names = match &other.op {
                Op::Create { names, .. } => names.contains(wanted),
                Op::Update { change, .. } => {
                    change.names.as_ref().is_some_and(|names| names.contains(wanted))
                }
                _ => false,
            };
            let refused = matches!(other.outcome, Some(Outcome::Refused(_)));
            names && !refused && other.start < attempt.end && !std::ptr::eq(other, attempt)
        })
}

/// How many have asked for the mount of each shared layer, at the least and at the most.
pub fn mount_counts(images: &[SharedImage], history: &History) -> BTreeMap<String, (u64, u64)> {
    let mut counts: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for attempt in history.attempts() {
        let (image, step) = match &attempt.op {
            Op::MountImage { image } => (image, 1),
            Op::UnmountImage { image } => (image, -1),
            _ => continue,
        };
        let count = counts.entry(images[*image].top().to_owned()).or_default();
        match &attempt.outcome {
            Some(Outcome::Done(_)) => *count = (count.0 + step, count.1 + step),
            Some(Outcome::Refused(_)) => {}
            None if step > 0 => count.1 += 1,
            None => count.0 -= 1,
        }
    }
    let clamped = |(least, most): (i64, i64)| (least.max(0) as u64, most.max(0) as u64);
    counts.into_iter().map(|(layer, count)| (layer, clamped(count))).collect()
}
