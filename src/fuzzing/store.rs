//! Operations on a store, some of them struck by faults, beside a model.

mod observe;
mod op;
mod snapshots;
mod state;
mod template;

use std::fs;
use std::path::Path;

use super::fields::Fields;
use super::place::{Place, open_descriptors, place};
use crate::check::{CheckLevel, CheckOptions};
use crate::error::Error;
use crate::store::{Store, StoreOptions};
use crate::sys::call::fault::{Fault, Strike, during_here};
use observe::observe;
use op::{Op, failed};
use state::{Predicted, State};
use template::Template;

/// The most operations of an input.
const STEPS: usize = 24;

/// Does bytes as operations on a new store: each is a number, of which the highest bit says that one of its system calls
/// fails, then which call of which thread and how, and then what it is done to.
///
/// - An operation that is acknowledged did what the model says, and one that is refused did nothing.
/// - What is refused without a fault is what the model refuses, and nothing is refused for a call that a signal
///   interrupts or that moves a part of the bytes.
/// - The handle that saw a fault goes on, and in the end a new one sees the same.
/// - In the end nothing is damaged, a collection of garbage leaves none, and no file descriptor is left open.
///
/// # Panics
///
/// If one of these does not hold.
pub fn fuzz_store(bytes: &[u8]) {
    thread_local!(static BENCH: Result<Bench, Error> = Bench::new());
    BENCH.with(|bench| {
        assert!(bench.is_ok(), "no place to work in: {:?}", bench.as_ref().err());
        let Ok(bench) = bench else { return };
        let descriptors = open_descriptors();
        let trial = Trial::new(bench);
        assert!(trial.is_ok(), "no store: {:?}", trial.as_ref().err());
        if let Ok(mut trial) = trial {
            let mut fields = Fields(bytes);
            for _ in 0..STEPS {
                if fields.0.is_empty() {
                    break;
                }
                let number = fields.byte();
                let fault = (number & 0x80 != 0).then(|| planned(&mut fields));
                trial.step(&Op::new(number & 0x7f, &mut fields), fault);
            }
            trial.finish();
        }
        // Beside other tests, they are not this one's alone.
        assert!(cfg!(test) || open_descriptors() == descriptors, "descriptors are left open");
        let removed = fs::remove_dir_all(bench.root());
        assert!(removed.is_ok(), "the store cannot be removed: {removed:?}");
    });
}

/// Where stores are made, one after the other.
struct Bench {
    options: StoreOptions,
    template: Template,
    _place: Place,
}

impl Bench {
    fn new() -> Result<Self, Error> {
        let place = place().map_err(failed)?;
        let root = place.join("store");
        let options = StoreOptions::at(&root).run_root(root.join("run")).reserve(64 << 10);
        drop(open(&options)?);
        let template = Template::read(&root).map_err(failed)?;
        fs::remove_dir_all(root).map_err(failed)?;
        Ok(Bench { options, template, _place: place })
    }

    fn root(&self) -> &Path {
        self.options.root()
    }
}

/// The fault of an operation. Most operations make fewer calls than it counts to. Of those that unpack, the threads are: one that
/// digests, one that decompresses, one that makes names, and those that fill files.
fn planned(fields: &mut Fields<'_>) -> Strike {
    let [low, high] = fields.array();
    let fault = match high & 3 {
        0 => Fault::Broken,
        1 => Fault::Full,
        2 => Fault::Interrupted,
        _ => Fault::Short,
    };
    let thread = usize::from(high >> 2 & 7).saturating_sub(3);
    Strike { thread, at: usize::from(low) + usize::from(high >> 7) * 256, fault }
}

/// Whether an operation is to go on as if nothing had been.
fn is_harmless(fault: Fault) -> bool {
    matches!(fault, Fault::Interrupted | Fault::Short)
}

struct Trial {
    options: StoreOptions,
    store: Store,
    state: State,
}

impl Trial {
    fn new(bench: &Bench) -> Result<Self, Error> {
        // What an input left that ended the process.
        drop(fs::remove_dir_all(bench.root()));
        bench.template.make(bench.root()).map_err(failed)?;
        let options = bench.options.clone();
        Ok(Trial { store: open(&options)?, options, state: State::default() })
    }

    fn step(&mut self, op: &Op, fault: Option<Strike>) {
        let predicted = self.state.predict(op);
        let (outcome, is_struck) = match fault {
            None => (self.perform(op), false),
            Some(strike) => {
                let outcome = during_here(strike, || self.perform(op));
                (outcome.value, outcome.struck.is_some() && !is_harmless(strike.fault))
            }
        };
        let found = observe(&self.store);
        assert!(found.is_ok(), "after {op:?} with {fault:?}, {outcome:?}: {:?}", found.as_ref().err());
        let Ok(found) = found else { return };
        let (is_before, is_after) = (found == self.state, predicted.is(&found));
        let told =
            || format!("{op:?} with {fault:?}: {outcome:?}\nbefore {:#?}\nafter {found:#?}", self.state);
        match &outcome {
            Ok(()) => assert!(is_after, "acknowledged, and not done: {}", told()),
            Err(error) if is_struck => {
                let is_unknown = error.is_outcome_unknown();
                assert!(is_before || is_after && is_unknown, "neither done nor not: {}", told());
            }
            Err(_) => {
                assert!(is_before, "refused, and done: {}", told());
                assert!(matches!(predicted, Predicted::Refused), "refused without a reason: {}", told());
            }
        }
        self.state = found;
    }

    fn perform(&mut self, op: &Op) -> Result<(), Error> {
        if let Op::Reopen = op {
            self.store = open(&self.options)?;
        }
        op.perform(&self.store)
    }

    fn finish(self) {
        let Trial { options, store, state } = self;
        drop(store);
        let ended = (|| {
            let store = open(&options)?;
            let found = observe(&store)?;
            assert!(found == state, "a new handle sees {found:#?}\ninstead of {state:#?}");
            let left = store.gc(false)?.left;
            assert!(left.is_empty(), "what cannot be collected: {left:?}");
            let again = store.gc(true)?.removed;
            assert!(again.is_empty(), "garbage after a collection: {again:?}");
            let deep = CheckOptions { level: CheckLevel::Deep, ..CheckOptions::default() };
            let findings = store.check(&deep)?.findings;
            assert!(findings.is_empty(), "damage: {findings:?}");
            let found = observe(&store)?;
            assert!(found == state, "a collection made of {state:#?}\n{found:#?}");
            Ok::<_, Error>(())
        })();
        assert!(ended.is_ok(), "{ended:?}");
    }
}

/// Opens the store, with every handle that it keeps.
fn open(options: &StoreOptions) -> Result<Store, Error> {
    let store = Store::open(options)?;
    store.status()?;
    Ok(store)
}
