//! The watch of a thread: which stage it is at, and since when.
//!
//! It stands in a variable of the thread, so that a lock deep in the database counts for the layer that it is taken for, and
//! nobody on the way there has to know. Threads of a call have what their maker has: see [`follow`].

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{LayerTimings, Stage, Times, Timings};
use crate::types::{DiffId, Digest};

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// Does `work` at a stage; within it, others may count for themselves.
pub(crate) fn during<T>(stage: Stage, work: impl FnOnce() -> T) -> T {
    let _before = Before(turn(stage));
    work()
}

/// As [`during`], in a span of the stage's name: not for each file, unless the span is for `trace` alone.
pub(crate) fn spanned<T>(stage: Stage, work: impl FnOnce() -> T) -> T {
    during(stage, || stage.span().in_scope(work))
}

/// Makes of the work of a new thread one that counts as that of this thread does now.
pub(crate) fn follow<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let watch = with(|watch| watch.clone()).flatten();
    move || match watch {
        Some(watch) => watch.wear(work),
        None => work(),
    }
}

/// Does `work`, which counts for a layer of an image: the one at `position`, where the lowest is 0.
pub(crate) fn layer<T>(
    position: usize,
    (diff_id, blob): (&DiffId, Option<&Digest>),
    work: impl FnOnce() -> T,
) -> T {
    let Some(mut watch) = with(|watch| watch.clone()).flatten() else { return work() };
    let begun = Instant::now();
    let counts = watch.sheet.layer(position, diff_id, blob);
    watch.counts = Arc::clone(&counts);
    let value = watch.wear(work);
    counts.add_wall(begun.elapsed());
    value
}

/// What a measured thread has.
#[derive(Clone)]
struct Watch {
    sheet: Sheet,
    /// What the thread's time counts for.
    counts: Arc<Counts>,
    stage: Stage,
    since: Instant,
}

impl Watch {
    /// Does `work` with this watch. What the thread had before it stands still meanwhile.
    fn wear<T>(mut self, work: impl FnOnce() -> T) -> T {
        let before = with(|watch| {
            let now = Instant::now();
            if let Some(before) = watch {
                before.pass(now);
            }
            self.since = now;
            watch.replace(self)
        });
        let _worn = Worn(before.flatten());
        work()
    }

    /// Counts the time up to now.
    fn pass(&mut self, now: Instant) {
        self.counts.add(self.stage, now.saturating_duration_since(self.since));
        self.since = now;
    }
}

/// Gives the thread back what it had.
struct Worn(Option<Watch>);

impl Drop for Worn {
    fn drop(&mut self) {
        let before = self.0.take();
        with(|watch| {
            let now = Instant::now();
            if let Some(watch) = watch {
                watch.pass(now);
            }
            *watch = before.map(|before| Watch { since: now, ..before });
        });
    }
}

/// The stage to go back to, of a thread that has a watch.
struct Before(Option<Stage>);

impl Drop for Before {
    fn drop(&mut self) {
        self.0.map(turn);
    }
}

/// Goes to a stage, and returns the one before; `None` if nobody measures.
fn turn(stage: Stage) -> Option<Stage> {
    with(|watch| {
        let watch = watch.as_mut()?;
        watch.pass(Instant::now());
        Some(std::mem::replace(&mut watch.stage, stage))
    })
    .flatten()
}

/// Nothing in `look` may come here again. `None` in a thread that is about to end, which counts no more.
fn with<T>(look: impl FnOnce(&mut Option<Watch>) -> T) -> Option<T> {
    WATCH.try_with(|watch| look(&mut watch.borrow_mut())).ok()
}

/// What one call of [`measure`](super::measure) finds.
#[derive(Clone, Default)]
pub(super) struct Sheet(Arc<Found>);

#[derive(Default)]
struct Found {
    /// What is no layer's.
    rest: Arc<Counts>,
    layers: Mutex<Vec<Row>>,
}

struct Row {
    position: usize,
    diff_id: DiffId,
    blob: Option<Digest>,
    counts: Arc<Counts>,
}

impl Sheet {
    pub(super) fn measure<T>(&self, work: impl FnOnce() -> T) -> T {
        let counts = Arc::clone(&self.0.rest);
        let watch = Watch { sheet: self.clone(), counts, stage: Stage::Other, since: Instant::now() };
        watch.wear(work)
    }

    fn layer(&self, position: usize, diff_id: &DiffId, blob: Option<&Digest>) -> Arc<Counts> {
        let mut layers = self.0.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |row: &&Row| row.position == position && row.diff_id == *diff_id;
        // An import that begins anew comes to its layers again.
        if let Some(row) = layers.iter().find(same) {
            return Arc::clone(&row.counts);
        }
        let counts = Arc::default();
        let (diff_id, blob) = (diff_id.clone(), blob.cloned());
        layers.push(Row { position, diff_id, blob, counts: Arc::clone(&counts) });
        counts
    }

    pub(super) fn timings(&self, wall: Duration) -> Timings {
        let mut total = self.0.rest.times();
        let mut layers = self.0.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.sort_by_key(|row| row.position);
        let layer = |row: &Row| LayerTimings {
            diff_id: row.diff_id.clone(),
            blob: row.blob.clone(),
            wall: row.counts.wall(),
            times: row.counts.times(),
        };
        let layers: Vec<_> = layers.iter().map(layer).collect();
        layers.iter().for_each(|layer| total.add(&layer.times));
        Timings { wall, total, layers }
    }
}

/// Nanoseconds, counted by many threads.
#[derive(Default)]
struct Counts {
    stages: [AtomicU64; Stage::ALL.len()],
    wall: AtomicU64,
}

impl Counts {
    fn add(&self, stage: Stage, time: Duration) {
        if let Some(count) = self.stages.get(stage.index()) {
            add(count, time);
        }
    }

    fn add_wall(&self, time: Duration) {
        add(&self.wall, time);
    }

    fn wall(&self) -> Duration {
        Duration::from_nanos(self.wall.load(Ordering::Relaxed))
    }

    fn times(&self) -> Times {
        Times(self.stages.each_ref().map(|count| Duration::from_nanos(count.load(Ordering::Relaxed))))
    }
}

fn add(count: &AtomicU64, time: Duration) {
    // There are as many nanoseconds in 584 years.
    count.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;
    use crate::timing::measure;

    const SHORT: Duration = Duration::from_millis(5);

    /// What all stages took.
    fn sum(timings: &Timings) -> Duration {
        Stage::ALL.iter().map(|stage| timings.of(*stage)).sum()
    }

    #[test]
    fn each_moment_counts_for_one_stage() {
        let ((), timings) = measure(|| {
            during(Stage::Read, || {
                sleep(SHORT);
                during(Stage::Hash, || sleep(SHORT));
                sleep(SHORT);
            });
            sleep(SHORT);
        });
        assert!(timings.of(Stage::Read) >= SHORT * 2 && timings.of(Stage::Hash) >= SHORT);
        assert!(timings.of(Stage::Other) >= SHORT);
        assert!(sum(&timings) <= timings.wall(), "{timings:?}");
        assert_eq!(timings.of(Stage::Write), Duration::ZERO);
    }

    #[test]
    fn threads_count_where_their_maker_does() {
        let diff_id = DiffId(Digest::sha256(b"layer"));
        let ((), timings) = measure(|| {
            layer(0, (&diff_id, None), || {
                std::thread::scope(|scope| {
                    let (begin, begun) = std::sync::mpsc::channel::<()>();
                    let work = move || {
                        assert!(begun.recv().is_err());
                        sleep(SHORT);
                        during(Stage::Hash, || sleep(SHORT));
                    };
                    let helper = during(Stage::Seal, || scope.spawn(follow(work)));
                    during(Stage::QueueWait, || {
                        drop(begin);
                        helper.join().unwrap();
                    });
                });
            });
        });
        let [layer] = timings.layers() else { panic!("{timings:?}") };
        assert_eq!((layer.diff_id(), layer.blob()), (&diff_id, None));
        for (stage, least) in [(Stage::Seal, SHORT), (Stage::Hash, SHORT), (Stage::QueueWait, SHORT * 2)] {
            assert!(layer.of(stage) >= least, "{stage}: {timings:?}");
            assert_eq!(layer.of(stage), timings.of(stage), "{stage}: what is a layer's is in the sum");
        }
        assert!(layer.wall() <= timings.wall() && sum(&timings) <= timings.wall() * 2, "{timings:?}");
    }

    #[test]
    fn who_measures_nothing_has_no_watch() {
        let watched = || with(|watch| watch.is_some()).unwrap();
        assert!(!watched());
        during(Stage::Read, || assert!(!watched()));
        let (inner, outer) = measure(|| {
            assert!(watched());
            measure(|| during(Stage::Read, || sleep(SHORT))).1
        });
        assert!(inner.of(Stage::Read) >= SHORT && outer.wall() >= inner.wall());
        assert_eq!(outer.of(Stage::Read), Duration::ZERO, "{outer:?}");
        let panics = || during(Stage::Read, || std::panic::resume_unwind(Box::new(())));
        let panicked = std::panic::catch_unwind(|| measure::<()>(panics));
        assert!(panicked.is_err() && !watched());
    }

    /// One that begins anew, and one that another follows.
    #[test]
    fn a_layer_has_one_row() {
        let ids = [b"a", b"b"].map(|bytes| DiffId(Digest::sha256(bytes)));
        let ((), timings) = measure(|| {
            for position in [1, 0, 1] {
                layer(position, (&ids[position], None), || sleep(SHORT));
            }
        });
        let [lower, upper] = timings.layers() else { panic!("{timings:?}") };
        assert_eq!([lower.diff_id(), upper.diff_id()], [&ids[0], &ids[1]]);
        assert!(upper.wall() >= SHORT * 2 && upper.of(Stage::Other) >= SHORT * 2);
    }
}
