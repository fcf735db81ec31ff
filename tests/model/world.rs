//! A store beside its model: each step is done, predicted and compared.

use std::time::Duration;

use layerstore::{CheckLevel, CheckOptions, Store};

use super::action::{Action, Outcome, Place, Target, Value, said};
use super::compare::{Same, same};
use super::images;
use super::op::{Actor, Step};
use super::predict::UNKNOWN;
use super::process;
use super::state::{Kind, State};
use crate::support::Dir;

/// How lines about what a killed process left begin.
pub const GARBAGE: &str = "garbage: ";

/// A store with two handles that stay open, and the model of it.
pub struct World {
    place: Place,
    first: Store,
    second: Store,
    state: State,
    serial: u32,
    // Dropped last: it unmounts and removes.
    _dir: Dir,
}

impl World {
    pub fn new() -> Self {
        let dir = Dir::new("model");
        let place = Place {
            root: dir.root(),
            run_root: dir.run_root(),
            layouts: images::ALL.0.path().to_owned(),
            saved: dir.create_dir("saved"),
        };
        let (first, second) = (place.open(), place.open());
        World { place, first, second, state: State::default(), serial: 0, _dir: dir }
    }

    /// Does one step, and compares.
    pub fn step(&mut self, step: &Step) -> Same {
        self.serial += 1;
        let action = step.op.resolve(&self.state, self.serial);
        self.act(step.actor, &action).map_err(|why| format!("step {}, {action:?}: {why}", self.serial))
    }

    fn act(&mut self, actor: Actor, action: &Action) -> Same {
        let by_handle = action.is_about_mounts() || matches!(action, Action::Reopen);
        match actor {
            Actor::Process if !by_handle => {
                let outcome = process::run(action, &self.place, None).ok_or("the process died")?;
                self.judge(action, outcome)?;
            }
            Actor::Killed(after) if !by_handle => {
                let after = Duration::from_micros(u64::from(after));
                match process::run(action, &self.place, Some(after)) {
                    Some(outcome) => self.judge(action, outcome)?,
                    None => self.after_death(action)?,
                }
                // It may have been killed on its way out.
                self.state.littered = true;
            }
            _ => self.act_by_handle(matches!(actor, Actor::First), action)?,
        }
        // What one handle did the other must see.
        let observer = if self.serial.is_multiple_of(2) { &self.first } else { &self.second };
        self.state.compare(observer)
    }

    fn act_by_handle(&mut self, is_first: bool, action: &Action) -> Same {
        if *action == Action::Reopen {
            let fresh = self.place.open();
            *(if is_first { &mut self.first } else { &mut self.second }) = fresh;
        }
        let handle = if is_first { &self.first } else { &self.second }.clone();
        let removed = match action {
            Action::RemoveImage(id) => Some((Kind::Image, id)),
            Action::RemoveLayer(id) => Some((Kind::Layer, id)),
            _ => None,
        };
        let frees = match removed {
            // What is written to is in no sum.
            Some((kind, id)) if self.state.is_sealed(kind, id) => {
                let of = Target { kind, id: id.clone() }.thing();
                let bytes = handle.status().map_err(said)?.layer_bytes;
                Some((bytes, handle.usage(of).map_err(said)?.unique))
            }
            _ => None,
        };
        let outcome = action.perform(&handle, &self.place);
        if let (Some((bytes, unique)), Ok(_)) = (frees, &outcome) {
            let freed = bytes - handle.status().map_err(said)?.layer_bytes;
            same(|| "bytes freed, and those that were its own".to_owned(), &freed, &unique)?;
        }
        self.judge(action, outcome)
    }

    /// The operation ended: its answer is the model's.
    fn judge(&mut self, action: &Action, outcome: Outcome) -> Same {
        let (next, expected) = match self.state.predict(action, &self.place) {
            Ok((next, expected)) => (Some(next), Ok(expected)),
            Err(error) => (None, Err(error)),
        };
        let mut outcome = outcome;
        match (&mut outcome, &expected) {
            (Ok(Value::Image(id)), Ok(Value::Image(unknown))) if unknown == UNKNOWN => id.clone_from(unknown),
            // What a killed process left is no damage, and it is not known what that is.
            (Ok(Value::Found(lines)), _) if self.state.littered => {
                lines.retain(|line| !line.starts_with(GARBAGE));
            }
            _ => {}
        }
        same(|| "answer".to_owned(), &outcome, &expected)?;
        let Some(next) = next else { return Ok(()) };
        self.state = next;
        self.state.learn(action, &self.first)
    }

    /// The process died: the operation was done, or it was not.
    fn after_death(&mut self, action: &Action) -> Same {
        self.state.littered = true;
        let Err(not_before) = self.state.compare(&self.first) else { return Ok(()) };
        let Ok((mut after, _)) = self.state.predict(action, &self.place) else {
            return Err(format!("a killed process changed what it could not: {not_before}"));
        };
        after.littered = true;
        let learned = after.learn(action, &self.first).and_then(|()| after.compare(&self.first));
        if let Err(not_after) = learned {
            return Err(format!("half done. Not the state before, {not_before}\nnor after, {not_after}"));
        }
        self.state = after;
        Ok(())
    }

    /// The end of a case: nothing is damaged, and after a collection nothing is left.
    pub fn finish(self) -> Same {
        let store = self.place.open();
        self.state.compare(&store)?;
        store.gc(false).map_err(said)?;
        let again = store.gc(false).map_err(said)?;
        same(|| "garbage after a collection".to_owned(), &again.removed.len(), &0)?;
        let mut options = CheckOptions::default();
        options.level = CheckLevel::Deep;
        let report = store.check(&options).map_err(said)?;
        same(|| "findings".to_owned(), &report.findings, &Vec::new())?;
        same(|| "garbage".to_owned(), &report.garbage, &Vec::new())?;
        self.state.compare(&store)
    }
}
