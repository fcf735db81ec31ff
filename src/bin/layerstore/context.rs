//! What the flags mean: how the store is opened, and how to print.

use std::ffi::OsString;
use std::path::Path;

use layerstore::{Error, MountError, Store, StoreOptions, Timings};

use crate::args::{Color, GlobalArgs};
use crate::effective::{Effective, variable};
use crate::failure::Failure;
use crate::output::{Output, ProgressBars, log, report, timings};

/// What every command works with. Made once, then never changed.
#[derive(Debug)]
pub struct Context {
    effective: Effective,
    out: Output,
    color: Color,
    no_write: bool,
    quiet: bool,
    bars: bool,
    may_mount: bool,
    may_unshare: bool,
    has_mount_program: bool,
}

impl Context {
    /// Takes the flags and the environment for what they mean.
    pub fn new(global: &GlobalArgs) -> Result<Self, Failure> {
        let of_variable = || Some(("$LAYERSTORE_LOG", lossy(variable("LAYERSTORE_LOG")?)));
        let filter = global.log.clone().map(|filter| ("--log", filter)).or_else(of_variable);
        if let Some((name, filter)) = &filter {
            log::start(name, filter, global.color)?;
        }
        let effective = Effective::new(global)?;
        let has_mount_program = effective.options.has_mount_program();
        Ok(Context {
            effective,
            out: Output::new(global.json, global.color),
            color: global.color,
            no_write: global.no_write,
            quiet: global.quiet,
            // What is logged would be torn apart by bars.
            bars: !global.quiet && filter.is_none(),
            // Before a namespace is entered, which ends with the command.
            may_mount: layerstore::is_privileged(),
            may_unshare: !global.no_unshare,
            has_mount_program,
        })
    }

    /// The options in effect.
    pub fn effective(&self) -> &Effective {
        &self.effective
    }

    /// How the store is opened.
    pub fn options(&self) -> &StoreOptions {
        &self.effective.options
    }

    /// Where to print.
    pub fn out(&self) -> &Output {
        &self.out
    }

    /// Whether lists print only ids.
    pub fn quiet(&self) -> bool {
        self.quiet
    }

    /// The store, which is made if it is missing.
    pub fn store(&self) -> Result<Store, Failure> {
        self.store_with(|options| options)
    }

    /// The same, opened in another way.
    pub fn store_with(&self, change: impl FnOnce(StoreOptions) -> StoreOptions) -> Result<Store, Failure> {
        self.tell_warnings();
        let store = Store::open(&change(self.effective.options.clone()))?;
        if !self.quiet && !store.is_read_only() {
            store.open_roots()?.iter().for_each(|root| self.note(&root.to_string()));
        }
        Ok(store)
    }

    /// The store, which must be there: for commands that put nothing in. A mistyped `--root` makes none. One whose images
    /// are in other stores is made, as there is something to see in it from the beginning.
    pub fn existing_store(&self) -> Result<Store, Failure> {
        self.existing_store_with(|options| options)
    }

    /// The same, opened in another way.
    pub fn existing_store_with(
        &self,
        change: impl FnOnce(StoreOptions) -> StoreOptions,
    ) -> Result<Store, Failure> {
        self.store_with(|options| {
            let options = change(options);
            let has_others = options.has_other_stores();
            options.create(has_others)
        })
    }

    /// The store, for what is done to it before a command opens it: `None` where it cannot be opened, which the command tells.
    pub fn store_before(&self) -> Option<Store> {
        Store::open(&self.effective.options.clone().create(false)).ok()
    }

    /// Tells what in the configuration has no effect.
    pub fn tell_warnings(&self) {
        self.effective.warnings.iter().for_each(|warning| self.note(warning));
    }

    /// Bars for a long operation.
    pub fn progress(&self) -> ProgressBars {
        ProgressBars::new(self.bars)
    }

    /// Whether mounts can be made that last.
    pub fn may_mount(&self) -> bool {
        self.may_mount
    }

    /// Whether a command may enter a user namespace by itself.
    pub fn may_unshare(&self) -> bool {
        self.may_unshare
    }

    /// Whether a mount program is named.
    pub fn has_mount_program(&self) -> bool {
        self.has_mount_program
    }

    /// Refuses what needs a mount where none can be made, before anything is tried.
    pub fn require_mounts(&self, thing: &str) -> Result<(), Failure> {
        if self.may_mount || self.has_mount_program {
            return Ok(());
        }
        Err(Failure::NotPrivileged { thing: thing.to_owned() })
    }

    /// Says of a failure which setting asks for what cannot be had, if it is one of the configuration.
    pub fn explained(&self, failure: Failure) -> Failure {
        let Failure::Store(source) = failure else { return failure };
        let options: &[&str] = match &source {
            Error::Quota(error) if error.is_of_place() => &["size", "inodes"],
            Error::Mount(MountError::IdMap { reason }) if *reason == MountError::MASKED => &["force_mask"],
            Error::Mount(MountError::Composefs { .. }) => &["use_composefs"],
            _ => &[],
        };
        let told: Vec<String> = options.iter().filter_map(|option| self.effective.told(option)).collect();
        match told.is_empty() {
            true => Failure::Store(source),
            false => Failure::Asked { source, by: told.join(", ") },
        }
    }

    /// Tells a failure that does not end the command.
    pub fn tell(&self, failure: &Failure) {
        failure.report(self.color, self.no_write);
    }

    /// Tells something that is no failure.
    pub fn note(&self, text: &str) {
        report::note(text, self.color);
    }

    /// Tells how long the stages took, unless that is part of the answer.
    pub fn tell_timings(&self, timings: Option<&Timings>) {
        if let Some(timings) = timings.filter(|_| !self.out.is_json()) {
            report::tables(&timings::tables(timings), self.color);
        }
    }

    /// The root directory.
    pub fn root(&self) -> &Path {
        &self.effective.root
    }

    /// The directory for what a reboot drops.
    pub fn run_root(&self) -> &Path {
        &self.effective.run_root
    }
}

fn lossy(value: OsString) -> String {
    value.to_string_lossy().into_owned()
}
