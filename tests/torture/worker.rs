//! A worker: a process that does random things to a store, and says so in the log before and after each.

use std::path::PathBuf;
use std::time::Duration;

use layerstore::{Store, StoreOptions, SyncMode};
use serde::{Deserialize, Serialize};

use super::choose::Chooser;
use super::images::{self, SharedImage};
use super::log::{Line, Log, Worker};
use super::model::Owned;
use super::observe::{self, Trouble};
use super::op::{Op, Outcome, Refusal};
use super::perform;
use crate::support::random::Random;

/// The variable that makes a test executable a worker. Its value is [`Settings`].
pub const VARIABLE: &str = "LAYERSTORE_TORTURE_WORKER";

/// How a worker works.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    pub worker: Worker,
    pub root: PathBuf,
    pub run_root: PathBuf,
    /// Where the images are, if not in the store.
    pub images_root: Option<PathBuf>,
    /// Whether the store is that of the images alone.
    pub direct: bool,
    /// Whether its containers are gone with the next boot.
    pub transient: bool,
    /// Where [`images::write`] wrote the images.
    pub images: PathBuf,
    pub log: PathBuf,
    pub seed: u64,
    /// How many operations, if it is not stopped before.
    pub operations: u64,
    /// The worker ends when there is such a file.
    pub stop: PathBuf,
    /// Whether overlay mounts can be made here.
    pub mounts: bool,
    /// Whether what it does is synced, so that it outlives the machine.
    pub sync: bool,
    /// How long it waits for locks, in milliseconds.
    pub lock_timeout: u64,
    pub handle: Handle,
}

/// How long a worker keeps the store open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Handle {
    /// As long as it lives.
    Kept,
    /// For one operation.
    Fresh,
    /// For some.
    Mixed,
}

impl Settings {
    pub fn open(&self) -> Result<Store, layerstore::Error> {
        let mut options = StoreOptions::at(&self.root).run_root(&self.run_root).create(false).reserve(0);
        options = options.transient(self.transient);
        if let Some(images) = &self.images_root {
            options = options.image_store_root(images);
        }
        let sync = match self.sync {
            true => SyncMode::Full,
            false if self.seed.is_multiple_of(4) => SyncMode::Records,
            false => SyncMode::Off,
        };
        Store::open(&options.sync(sync).lock_timeout(Duration::from_millis(self.lock_timeout)))
    }

    /// Whether it waits for locks as long as it takes.
    pub fn is_patient(&self) -> bool {
        self.lock_timeout >= 10_000
    }
}

/// Works as the environment says, and ends the process. Returns if this process is no worker.
pub fn run_if_worker() {
    let Some(settings) = std::env::var_os(VARIABLE) else { return };
    let settings: Settings = serde_json::from_str(settings.to_str().unwrap()).unwrap();
    // A worker must not outlive a parent that failed.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
    let mut log = Log::append_to(&settings.log);
    let worker = settings.worker.clone();
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Work::new(settings).run()));
    let line = match ended {
        Ok(Ok(())) => Line::Ended { worker },
        Ok(Err(message)) => Line::Failed { worker, message },
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Line::Failed { worker, message: format!("panic: {}", text.unwrap_or_default()) }
        }
    };
    log.write(&line);
    std::process::exit(i32::from(matches!(line, Line::Failed { .. })));
}

/// One worker at work.
pub struct Work {
    settings: Settings,
    images: Vec<SharedImage>,
    log: Log,
    random: Random,
    store: Option<Store>,
    /// What its own things must be.
    owned: Owned,
    /// The shared images that it has mounted.
    held: Vec<usize>,
    number: u64,
}

impl Work {
    pub fn new(settings: Settings) -> Self {
        Work {
            images: images::read(&settings.images),
            log: Log::append_to(&settings.log),
            random: Random::for_purpose(settings.seed, &format!("{:?}", settings.worker)),
            store: None,
            owned: Owned::default(),
            held: Vec::new(),
            number: 0,
            settings,
        }
    }

    /// Begins where the last worker of this slot ended or died, and leaves nothing mounted.
    ///
    /// An error is something that must not be.
    pub fn run(mut self) -> Result<(), String> {
        let seen = loop {
            let slot = self.settings.worker.slot;
            match self.store().map_err(Trouble::from).and_then(|store| observe::owned(&store, slot)) {
                Err(Trouble::Error(error)) if self.may_be_locked(&error) => {}
                seen => break seen.map_err(|trouble| trouble.to_string())?,
            }
        };
        let (worker, patient) = (self.settings.worker.clone(), self.settings.is_patient());
        self.log.write(&Line::Started { worker, seen: seen.clone(), patient });
        self.owned = seen;
        self.unmount_containers()?;
        while self.number < self.settings.operations && !self.settings.stop.exists() {
            let op = {
                let mut chooser = Chooser {
                    random: &mut self.random,
                    owned: &self.owned,
                    held: &self.held,
                    images: &self.images,
                    mounts: self.settings.mounts,
                    direct: self.settings.direct,
                    patient: self.settings.is_patient(),
                    word: self.settings.worker.word(self.number),
                };
                chooser.choose()
            };
            self.attempt(op)?;
        }
        self.unmount_containers()?;
        while let Some(image) = self.held.last() {
            self.attempt(Op::UnmountImage { image: *image })?;
        }
        Ok(())
    }

    fn unmount_containers(&mut self) -> Result<(), String> {
        loop {
            let mut ids = self.owned.containers.keys().chain(self.owned.own.keys());
            let mounted = ids.find(|id| self.owned.mounts_of(id).is_some());
            let Some(id) = mounted.cloned() else { return Ok(()) };
            self.attempt(Op::Unmount { id })?;
        }
    }

    fn attempt(&mut self, op: Op) -> Result<(), String> {
        let (worker, number) = (self.settings.worker.clone(), self.number);
        self.number += 1;
        self.log.write(&Line::Intent { worker: worker.clone(), number, op: op.clone() });
        let failed = |trouble: Trouble| format!("{op:?}: {trouble}");
        let outcome = match self.store() {
            Ok(store) => perform::perform(&store, &self.images, &self.owned, &op, self.settings.sync)
                .map_err(failed)?,
            Err(error) => {
                perform::refusal(&error).map(Outcome::Refused).ok_or_else(|| failed(Trouble::Error(error)))?
            }
        };
        self.log.write(&Line::Answer { worker, number, outcome: outcome.clone() });
        if outcome == Outcome::Refused(Refusal::Locked) {
            // Somebody may have been stopped with the lock.
            std::thread::sleep(Duration::from_millis(1));
        }
        self.owned.apply(&op, &outcome)?;
        if let Outcome::Done(_) = outcome {
            match op {
                Op::MountImage { image } => self.held.push(image),
                Op::UnmountImage { image } => {
                    let position = self.held.iter().rposition(|held| *held == image).unwrap();
                    self.held.remove(position);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn may_be_locked(&self, error: &layerstore::Error) -> bool {
        !self.settings.is_patient() && perform::refusal(error) == Some(Refusal::Locked)
    }

    fn store(&mut self) -> Result<Store, layerstore::Error> {
        let keep = match self.settings.handle {
            Handle::Kept => true,
            Handle::Fresh => false,
            Handle::Mixed => !self.random.once_in(6),
        };
        match &self.store {
            Some(store) if keep => Ok(store.clone()),
            _ => {
                self.store = None;
                Ok(self.store.insert(self.settings.open()?).clone())
            }
        }
    }
}
