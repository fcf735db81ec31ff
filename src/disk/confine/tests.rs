//! What is confined, and that it is: also for the tests of what fills staged directories.

use std::ffi::OsString;
use std::path::Path;
use std::sync::mpsc::channel;

use nix::errno::Errno;

use super::*;
use crate::disk::{Layout, Stage, XattrNamespace};
use crate::sys::moment;
use crate::sys::thread::tests::logged;
use crate::sys::without::without;

/// What fills a staged directory of a store is confined to it. When `work` has come to `moment`, the staged directory's directory `d` is
/// moved elsewhere: the first wall goes by handles, and does not see it. Of what comes into `d` then, `late` is one; without Landlock
/// it lands where nobody wants it. `work` gets a directory, and fills a staged one of the store `store` in it.
pub(crate) fn assert_confined<T>(moment: &'static str, prepare: impl Fn(&Path) -> T, work: impl Fn(&T) + Sync)
where
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
        Confinement::to(&staging).run(|| tracing::info!("in the thread")).unwrap();
    });
    assert!(log.ends_with("put_layer: in the thread\n"), "{log}");
}

#[test]
fn a_panic_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let staging = staging(dir.path());
    let died = Confinement::to(&staging).run(|| assert!(staging.number() == 2, "as if there were a mistake"));
    assert_eq!(died.unwrap_err().to_string(), "the unpacking thread died");
}
