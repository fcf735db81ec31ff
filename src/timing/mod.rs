//! Where the time goes: how long the threads of a call were at which stage of its work.
//!
//! At each moment a thread that is measured is at one [`Stage`], so what all stages took together is what all threads
//! took, waits included. It begins at the stage of the thread that made it; who measures nothing has no clock read for it.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`stage`] | the stages, their names, and their spans |
//! | [`watch`] | which stage a thread is at, and since when |

mod stage;
mod watch;

use std::fmt;
use std::time::{Duration, Instant};

pub use self::stage::Stage;
use self::watch::Sheet;
pub(crate) use self::watch::{during, follow, layer, spanned};
use crate::types::{DiffId, Digest};

/// How long the stages of some work took: the answer of [`measure`].
///
/// Stages run beside each other, layers as well. So what is said of a stage is the time of all threads that were at it, which may
/// be more than the time from beginning to end, [`wall`](Self::wall). It is the clock's, not that of processors: a thread that has to
/// wait for one, or for the disk, is at its stage meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timings {
    wall: Duration,
    total: Times,
    layers: Vec<LayerTimings>,
}

impl Timings {
    /// The time from beginning to end.
    pub fn wall(&self) -> Duration {
        self.wall
    }

    /// How long threads were at a stage, those of all layers included.
    pub fn of(&self, stage: Stage) -> Duration {
        self.total.of(stage)
    }

    /// How long threads were at any stage but [`LockWait`](Stage::LockWait) and [`QueueWait`](Stage::QueueWait).
    pub fn busy(&self) -> Duration {
        let busy = Stage::ALL.iter().filter(|stage| !stage.is_wait());
        busy.fold(Duration::ZERO, |sum, stage| sum.saturating_add(self.of(*stage)))
    }

    /// The layers of images that were brought in, bottom first. All else has none, such as a layer that is made of an archive.
    pub fn layers(&self) -> &[LayerTimings] {
        &self.layers
    }
}

/// How long the stages of one layer of an image took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerTimings {
    diff_id: DiffId,
    blob: Option<Digest>,
    wall: Duration,
    times: Times,
}

impl LayerTimings {
    /// The digest of the layer's uncompressed archive.
    pub fn diff_id(&self) -> &DiffId {
        &self.diff_id
    }

    /// The digest of its blob, if it came in one.
    pub fn blob(&self) -> Option<&Digest> {
        self.blob.as_ref()
    }

    /// The time from when somebody took it up until it was ready for its record, waits for layers below included.
    pub fn wall(&self) -> Duration {
        self.wall
    }

    /// How long threads were at a stage of it.
    pub fn of(&self, stage: Stage) -> Duration {
        self.times.of(stage)
    }
}

/// A time for each stage.
#[derive(Clone, Default, PartialEq, Eq)]
struct Times([Duration; Stage::ALL.len()]);

impl Times {
    fn of(&self, stage: Stage) -> Duration {
        self.0.get(stage.index()).copied().unwrap_or_default()
    }

    fn add(&mut self, other: &Times) {
        for (time, more) in self.0.iter_mut().zip(&other.0) {
            *time = time.saturating_add(*more);
        }
    }
}

impl fmt::Debug for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(Stage::ALL.iter().map(|stage| (stage.name(), self.of(*stage)))).finish()
    }
}

/// Does `work`, and says how long its stages took: on this thread, and on those that the library starts for it.
///
/// It costs some twenty looks at the clock for each piece of 128 KiB that goes from thread to thread, and six for each file: less than
/// a hundredth of what else is done with them. Threads of the caller's own are not measured. What `work` measures itself counts
/// there alone, and here for the [`wall`](Timings::wall) only.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use layerstore::{ApplyOptions, LayerOptions, Stage, Store, StoreOptions, measure};
///
/// let store = Store::open(&StoreOptions::at(dir.path().join("store")))?;
/// let tar = [0; 1024]; // one without a member
/// let (layer, timings) = measure(|| store.put_layer(None, &LayerOptions::named("empty"), &tar[..]));
/// layer?;
/// for stage in Stage::ALL {
///     println!("{stage}: {:?}", timings.of(*stage));
/// }
/// println!("from beginning to end: {:?}", timings.wall());
/// # Ok::<(), layerstore::Error>(())
/// ```
pub fn measure<T>(work: impl FnOnce() -> T) -> (T, Timings) {
    let sheet = Sheet::default();
    let begun = Instant::now();
    let value = sheet.measure(work);
    (value, sheet.timings(begun.elapsed()))
}
