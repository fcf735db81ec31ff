//! Work on a thread that can reach one staged directory and what goes into it, and nothing else: a second wall, should the first one have
//! a hole.
//!
//! The first wall is that nothing of a layer is resolved but beneath the directory's handle, part by part, and never through a link. This
//! one does not know what a path is: the kernel refuses the thread, and those that it starts, whatever lies elsewhere. So it
//! also holds where somebody moves a directory out of the staged one while a handle of it is open.

use std::os::fd::BorrowedFd;
use std::{io, thread};

use super::staging::Staging;
use crate::sys::landlock::{self, Access, Rules};
use crate::sys::thread::start;

/// Does `work`, which fills `staging`, as [`Confinement::run`] does.
pub(crate) fn confined<T: Send>(staging: &Staging, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    Confinement::to(staging).run(work)
}

/// What a thread can reach.
#[derive(Debug)]
pub(crate) struct Confinement(io::Result<Rules>);

impl Confinement {
    /// A staged directory, to fill it.
    pub(crate) fn to(staging: &Staging) -> Self {
        let both = [staging.directory(), staging.aside()];
        Confinement(Rules::new()).and(&both, Access::Fill)
    }

    /// A directory besides, to read it. It need not stay open.
    pub(crate) fn and_read(self, directory: BorrowedFd<'_>) -> Self {
        self.and(&[directory], Access::Read)
    }

    /// A directory besides, to read it and to give its files second names in the staged one.
    pub(crate) fn and_link(self, directory: BorrowedFd<'_>) -> Self {
        self.and(&[directory], Access::Link)
    }

    fn and(self, directories: &[BorrowedFd<'_>], access: Access) -> Self {
        let add = |rules: Rules| {
            directories.iter().try_for_each(|directory| rules.allow(*directory, access)).map(|()| rules)
        };
        Confinement(self.0.and_then(add))
    }

    /// Does `work` on a thread of its own that can open, make and remove files only there. Where the kernel has no Landlock, only
    /// the thread is its own.
    ///
    /// The thread ends before this returns. Whatever `work` needs of other directories must be open already, or opened with `O_PATH`; and
    /// it must not mount, run programs or call what belongs to the user of the library.
    ///
    /// Returns the error of making the thread, and one that says so if `work` panics.
    pub(crate) fn run<T: Send>(self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let unpack = move || {
                self.confine();
                work()
            };
            start(scope, "unpack", unpack)?.join().map_err(|_| io::Error::other("the unpacking thread died"))
        })
    }

    fn confine(self) {
        let Err(error) = self.0.and_then(|rules| rules.confine_thread()) else { return };
        if landlock::against().is_some() {
            tracing::debug!(%error, "the unpacking thread is not confined");
        } else {
            // As where the caller's thread was confined sixteen times, which is the most.
            tracing::warn!(%error, "the unpacking thread is not confined");
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::ffi::OsString;
    use std::path::Path;
    use std::sync::mpsc::channel;

    use nix::errno::Errno;

    use super::*;
    use crate::disk::{Layout, Stage, XattrNamespace};
    use crate::sys::beneath::tests::without;
    use crate::sys::moment;
    use crate::sys::thread::tests::logged;

    /// What fills a staged directory of a store is confined to it. When `work` has come to `moment`, the staged directory's directory `d` is
    /// moved elsewhere: the first wall goes by handles, and does not see it. Of what comes into `d` then, `late` is one; without Landlock
    /// it lands where nobody wants it. `work` gets a directory, and fills a staged one of the store `store` in it.
    pub(crate) fn assert_confined<T>(
        moment: &'static str,
        prepare: impl Fn(&Path) -> T,
        work: impl Fn(&T) + Sync,
    ) where
        T: Sync,
    {
        if let Some(why) = landlock::against() {
            return eprintln!("skipped: {why}");
        }
        for (missing, is_written) in [(&[][..], false), (&[libc::SYS_landlock_create_ruleset], true)] {
            let dir = tempfile::tempdir().unwrap();
            let prepared = prepare(dir.path());
            let moved = dir.path().join("moved");
            without(missing, Errno::ENOSYS, || {
                let diffs = dir.path().join("store/diffs");
                let names = || -> Vec<OsString> {
                    std::fs::read_dir(&diffs).unwrap().map(|entry| entry.unwrap().file_name()).collect()
                };
                let (before, names, diffs, moved) = (names(), &names, &diffs, &moved);
                let (reached, is_reached) = channel();
                let (go, go_on) = channel();
                moment::meanwhile(moment, move || {
                    reached.send(()).unwrap();
                    go_on.recv().unwrap();
                });
                thread::scope(|scope| {
                    // It has the filter, and is not confined.
                    scope.spawn(move || {
                        let Ok(()) = is_reached.recv() else { return };
                        let is_staged =
                            |name: &OsString| !before.contains(name) && diffs.join(name).join("d").exists();
                        let staged = names().into_iter().find(is_staged).unwrap();
                        std::fs::rename(diffs.join(staged).join("d"), moved).unwrap();
                        go.send(()).unwrap();
                    });
                    work(&prepared);
                    moment::acts().lock().unwrap().clear();
                });
            });
            assert!(moved.join("early").exists(), "{moment} has not come");
            assert_eq!(moved.join("late").exists(), is_written, "without {missing:?}");
        }
    }

    fn staging(dir: &Path) -> Staging {
        let layout = Layout::create(&dir.join("store"), XattrNamespace::User).unwrap();
        Staging::create(&Stage::create(&layout).unwrap(), 1).unwrap()
    }

    #[test]
    fn what_the_thread_logs_is_in_the_span_of_the_caller() {
        let dir = tempfile::tempdir().unwrap();
        let staging = staging(dir.path());
        let log = logged(|| {
            let _span = tracing::info_span!("put_layer").entered();
            confined(&staging, || tracing::info!("in the thread")).unwrap();
        });
        assert!(log.ends_with("put_layer: in the thread\n"), "{log}");
    }

    #[test]
    fn a_panic_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let staging = staging(dir.path());
        let died = confined(&staging, || assert!(staging.number() == 2, "as if there were a mistake"));
        assert_eq!(died.unwrap_err().to_string(), "the unpacking thread died");
    }
}
