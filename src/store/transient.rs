//! Containers that a reboot drops.
//!
//! Their rows, with those of their layers, are in the run database, which is never synced: so creating and removing one costs
//! no sync. Their directories are in the store like all others, and garbage when the rows are gone. A note in the store says
//! in which run root the rows of this boot are: whoever opens the store finds them, with whatever run root, and takes
//! nothing of theirs for garbage. Who has another mount namespace may not see that run root, or see another directory in its
//! place: he goes on without them, and deletes nothing that may be theirs.

use std::path::PathBuf;

use crate::disk::RunLayout;
use crate::error::{Error, InUseError, LookupError, MetaError};
use crate::meta::{
    NamedNumbers, Query, ReadTxn, RunDatabase, TransientNote, WriteTxn, made_empty, named_numbers,
    transient_note,
};
use crate::sys::{machine, moment};
use crate::types::ContainerId;

use super::Store;
use super::container::{Insertion, NewContainer};
use super::remove::Doomed;
use super::users::shown;

/// What is known of the rows of this boot.
enum Rows<'s> {
    /// There are none.
    None,
    /// They are here.
    Seen(&'s RunDatabase),
    /// They are not to be seen, in this run root.
    Unseen(PathBuf),
}

impl Store {
    /// The run database with the containers of this boot that the next one drops, if there are any to be seen. `own` is a
    /// snapshot of the store.
    pub(crate) fn transient(&self, own: &ReadTxn) -> Result<Option<&RunDatabase>, MetaError> {
        match self.find_transient(own)? {
            Rows::Seen(run) => Ok(Some(run)),
            Rows::None | Rows::Unseen(_) => Ok(None),
        }
    }

    /// The same, for who must know of all that is needed: what deletes, or gives away what nobody else may have.
    ///
    /// Returns [`MetaError::TransientUnseen`] if there may be some which this process cannot see.
    pub(crate) fn known_transient(&self, own: &ReadTxn) -> Result<Option<&RunDatabase>, MetaError> {
        match self.find_transient(own)? {
            Rows::Seen(run) => Ok(Some(run)),
            Rows::None => Ok(None),
            Rows::Unseen(run_root) => Err(MetaError::TransientUnseen { run_root }),
        }
    }

    fn find_transient(&self, own: &impl Query) -> Result<Rows<'_>, MetaError> {
        if let Some(known) = self.transient_slot().get() {
            return Ok(Rows::Seen(known));
        }
        let Some(note) = transient_note(own)? else { return Ok(Rows::None) };
        let boot = boot_id()?;
        // The rows went with the boot.
        if note.boot != boot {
            return Ok(Rows::None);
        }
        // They are perhaps in another mount namespace, with containers that run. Who looks there makes nothing there.
        let path = RunLayout::database_below(&note.run_root);
        if !RunDatabase::exists(&path, &boot) {
            return Ok(Rows::Unseen(note.run_root));
        }
        let run = match RunDatabase::open(&path, &boot, self.uuid(), &self.options().database) {
            // It is another store's now, which took this one for gone.
            Err(MetaError::RunRootInUse { .. }) => return Ok(Rows::Unseen(note.run_root)),
            opened => opened?,
        };
        if run.things()?.as_ref() != Some(&note.things) {
            return Ok(Rows::Unseen(note.run_root));
        }
        Ok(Rows::Seen(self.transient_slot().get_or_init(|| run)))
    }

    /// Gives up the transient containers of this boot whose run root was removed: what they wrote is garbage after that.
    /// While their rows are not to be seen, nothing can be collected, no image or layer removed and no transient container
    /// created, since the containers may well run in another mount namespace that has the run root: make sure that none
    /// does. A reboot does the same.
    ///
    /// Returns whether there was anything to give up: not if the rows are there, and [`Error::ReadOnly`] if the store is open
    /// for reading only.
    pub fn forget_transient(&self) -> Result<bool, Error> {
        self.refuse_read_only()?;
        self.database().write(|txn| {
            let unseen = matches!(self.find_transient(txn)?, Rows::Unseen(_));
            if unseen {
                txn.remove_transient_note()?;
            }
            Ok(unseen)
        })
    }

    /// The run database for a container that the next boot drops, noted in the store.
    ///
    /// Returns [`Error::TransientElsewhere`] if this boot has some in another run root, and
    /// [`MetaError::TransientUnseen`] if those that it has cannot be seen.
    fn note_transient(&self) -> Result<&RunDatabase, Error> {
        let boot = self.boot_id()?;
        let run_root = std::path::absolute(self.run_root()).map_err(|source| Error::Io {
            action: "find",
            path: self.run_root(),
            source,
        })?;
        let wanted = TransientNote { boot: boot.to_owned(), things: self.run()?.ensure_things()?, run_root };
        let is_noted = |note: Option<TransientNote>| -> Result<bool, Error> {
            match note {
                Some(note) if note == wanted => Ok(true),
                Some(note) if self.known_transient(&self.database().begin_read()?)?.is_some() => {
                    Err(Error::TransientElsewhere { run_root: note.run_root })
                }
                _ => Ok(false),
            }
        };
        if !is_noted(transient_note(&self.database().begin_read()?)?)? {
            self.database().write::<_, Error>(|txn| match is_noted(transient_note(txn)?)? {
                true => Ok(()),
                false => Ok(txn.put_transient_note(&wanted)?),
            })?;
        }
        self.run()
    }

    /// Inserts a container with its layer: into the store, or into the run database if the next boot is to drop it.
    pub(super) fn insert_container(&self, new: &NewContainer<'_>) -> Result<Insertion, Error> {
        let insert = |txn: &WriteTxn| {
            let view = self.begin_read()?;
            if let Some((wanted, maps)) = new.choice
                && !wanted.are_free(maps, &view.containers()?)
            {
                return Ok(Insertion::IdsTaken);
            }
            let inserted = new.insert(txn, &view)?;
            moment::pass("before the commit");
            Ok(inserted)
        };
        if self.options().transient {
            // Whoever makes a container in the store, and removals of images, hold the lock of the run database too.
            return self.note_transient()?.rows().write_without_header::<_, Error>(insert);
        }
        loop {
            // Two names are no harm, two containers with the same ids are. Rows of which this handle does not know yet are found with
            // the lock of the store.
            let run = match new.choice {
                Some(_) => self.known_transient(&self.database().begin_read()?)?,
                None => self.transient_slot().get(),
            };
            moment::pass("transient looked for");
            let write = || {
                self.database().write::<_, Error>(|txn| {
                    match run.is_none() && self.has_new_transient(txn)? {
                        true => Ok(None),
                        false => insert(txn).map(Some),
                    }
                })
            };
            // Nobody is given a name, an id or a range of ids there meanwhile.
            let inserted = match run {
                Some(run) => run.rows().hold(write),
                None => write(),
            };
            if let Some(inserted) = inserted? {
                return Ok(inserted);
            }
        }
    }

    /// Whether the first container that the next boot drops came while the caller waited for the lock of the store, which he
    /// has, and sees its rows with `txn`: without the other one, something could be given away twice.
    pub(super) fn has_new_transient(&self, txn: &impl Query) -> Result<bool, MetaError> {
        // Most stores never had one, and need no snapshot for this.
        Ok(transient_note(txn)?.is_some() && self.transient(&self.database().begin_read()?)?.is_some())
    }

    /// Runs `body` while nobody makes a container, of either kind.
    pub(super) fn hold_containers<T>(&self, body: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let mut body = Some(body);
        loop {
            let run = self.known_transient(&self.database().begin_read()?)?;
            moment::pass("transient looked for");
            let mut hold = || {
                self.database().hold(|| {
                    let outdated = run.is_none() && self.has_new_transient(&self.database().begin_read()?)?;
                    body.take_if(|_| !outdated).map(|body| body()).transpose()
                })
            };
            let done = match run {
                Some(run) => run.rows().hold(hold),
                None => hold(),
            };
            if let Some(value) = done? {
                return Ok(value);
            }
        }
    }

    /// Runs `body` while nobody mounts by way of this handle's run root, and nobody makes or removes a transient container,
    /// whose rows may be in another one. `body` is told whether there are such rows: if not, it has to look again with the
    /// lock of the store, as [`has_new_transient`](Self::has_new_transient) does.
    pub(super) fn hold_run<T>(&self, body: impl FnOnce(bool) -> Result<T, Error>) -> Result<T, Error> {
        let own = self.run()?;
        own.hold(|| {
            let run = self.transient(&self.database().begin_read()?)?;
            moment::pass("run lock taken");
            match run {
                Some(run) if !run.rows().is_same_file(own.rows())? => run.rows().hold(|| body(true)),
                run => body(run.is_some()),
            }
        })
    }

    /// Runs `body` while nobody mounts, and nobody makes a container of either kind.
    pub(super) fn hold_users<T>(&self, body: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let mut body = Some(body);
        loop {
            let done = self.hold_run(|known| {
                self.database().hold(|| {
                    let outdated = !known && self.has_new_transient(&self.database().begin_read()?)?;
                    body.take_if(|_| !outdated).map(|body| body()).transpose()
                })
            })?;
            if let Some(value) = done {
                return Ok(value);
            }
        }
    }

    /// Removes the records of a container that the next boot would drop, and returns what no row names any more; `None` if it is
    /// none of those. With `regardless`, whatever stands on its layer.
    pub(super) fn doom_transient(&self, id: &ContainerId, regardless: bool) -> Result<Option<Doomed>, Error> {
        let own = self.database().begin_read()?;
        let Some(run) = self.transient(&own)? else { return Ok(None) };
        if run.rows().begin_read()?.container(id.as_str())?.is_none() {
            return Ok(None);
        }
        let mut doomed = None;
        let remove = |txn: &WriteTxn| -> Result<(), Error> {
            let missing = || LookupError::NotFound { kind: "container", key: id.to_string() };
            let record = txn.container(id.as_str())?.ok_or_else(missing)?;
            let own = self.database().begin_read()?;
            let mut children = txn.children(&record.layer)?.into_iter().chain(own.children(&record.layer)?);
            if let Some(child) = children.next().filter(|_| !regardless) {
                return Err(InUseError::LayerHasChild { layer: record.layer, child }.into());
            }
            self.refuse_mounted(&record.layer, || {
                format!("the container {}", shown(&record.names, &record.id))
            })?;
            let mut freed = txn.remove_container(id.as_str())?;
            freed.add(txn.remove_layer(&record.layer)?);
            doomed = Some(Doomed::announce(self, freed));
            Ok(())
        };
        // Mounts are made with this handle's own lock.
        let own_run = self.run()?;
        let removed = match run.rows().is_same_file(own_run.rows())? {
            true => run.rows().write_without_header(remove),
            false => own_run.hold(|| run.rows().write_without_header(remove)),
        };
        if let (Err(error), Some(doomed)) = (&removed, &doomed)
            && !error.is_outcome_unknown()
        {
            doomed.give_up();
        }
        removed.map(|()| doomed)
    }

    /// The numbers of all directories and files that rows name, here and in the run database.
    ///
    /// Returns what [`named_numbers`] does, [`MetaError::TransientUnseen`], and [`MetaError::Damaged`] if a page that says it is not
    /// as it was written.
    pub(crate) fn named_numbers(&self) -> Result<NamedNumbers, MetaError> {
        let own = self.database().begin_verified_read()?;
        let mut named = named_numbers(&own)?;
        let made = made_empty(&own)?;
        if !made.is_empty() {
            let boot = boot_id()?;
            // In this boot the kernel has them, and what is missing is missed.
            named.unsynced.extend(made.into_iter().filter(|(_, of)| *of != boot).map(|(number, _)| number));
        }
        if let Some(run) = self.known_transient(&own)? {
            let of_run = named_numbers(&run.rows().begin_verified_read()?)?;
            named.diffs.extend(of_run.diffs);
            named.work.extend(of_run.work);
            named.data.extend(of_run.data);
            named.unsynced.extend(of_run.unsynced);
        }
        Ok(named)
    }

    /// Snapshots of the rows that may stand on images and layers of this store and are not in its database: those of
    /// containers that the next boot drops, and of `outer`, the store that has this one for its images. They are for who removes
    /// what nothing stands on.
    ///
    /// Returns [`MetaError::TransientUnseen`] if there may be some which this process cannot see, and [`MetaError::Damaged`] if a page
    /// that says it is not as it was written.
    pub(crate) fn rows_beside(&self, outer: Option<&Store>) -> Result<Vec<ReadTxn>, MetaError> {
        let mut rows = Vec::new();
        for store in [Some(self), outer].into_iter().flatten() {
            let is_outer = outer.is_some_and(|outer| std::ptr::eq(outer, store));
            let own = match is_outer {
                true => store.database().begin_verified_read()?,
                // Who removes something has a transaction for the rest.
                false => store.database().begin_read_with_note()?,
            };
            if let Some(run) = store.known_transient(&own)? {
                rows.push(run.rows().begin_verified_read()?);
            }
            if is_outer {
                rows.push(own);
            }
        }
        Ok(rows)
    }
}

fn boot_id() -> Result<String, MetaError> {
    machine::boot_id()
        .map_err(|source| MetaError::Open { path: machine::BOOT_ID.into(), source: Box::new(source.into()) })
}
