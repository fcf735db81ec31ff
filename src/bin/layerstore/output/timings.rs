//! How long the stages of a command took, of those that have `--timings`.

use std::time::Duration;

use layerstore::{LayerTimings, Stage, Timings};
use serde::Serialize;
use serde_json::{Map, Value};

use super::table::{Align, Table};
use super::text::short;

/// Does the work of a command, and measures it if that is asked for.
pub fn measured<T>(asked: bool, work: impl FnOnce() -> T) -> (T, Option<Timings>) {
    if !asked {
        return (work(), None);
    }
    let (value, timings) = layerstore::measure(work);
    (value, Some(timings))
}

/// A table of the stages, and one of the layers if there are any.
pub fn tables(timings: &Timings) -> Vec<Table> {
    let mut stages = Table::new([("STAGE", Align::Left), ("SECONDS", Align::Right), ("WHAT", Align::Left)]);
    let row = |stage: &Stage| [stage.to_string(), seconds(timings.of(*stage)), meaning(*stage).to_owned()];
    let (waits, work): (Vec<Stage>, Vec<Stage>) = Stage::ALL.iter().partition(|stage| stage.is_wait());
    work.iter().for_each(|stage| stages.row(row(stage)));
    let (busy, wall) = (seconds(timings.busy()), seconds(timings.wall()));
    stages.row(["busy".to_owned(), busy, "all of the above".to_owned()]);
    waits.iter().for_each(|stage| stages.row(row(stage)));
    stages.row(["wall".to_owned(), wall, "from beginning to end, with threads beside each other".to_owned()]);
    let layers = (!timings.layers().is_empty()).then(|| layer_table(timings.layers()));
    [stages].into_iter().chain(layers).collect()
}

/// The stages that tell something of a layer, if they took any time: columns are dear. How long its threads waited for each
/// other is in the sum, and in the JSON.
fn layer_table(layers: &[LayerTimings]) -> Table {
    let is_shown = |stage: &Stage| {
        !matches!(stage, Stage::QueueWait | Stage::Other)
            && layers.iter().any(|layer| layer.of(*stage) >= Duration::from_micros(500))
    };
    let shown: Vec<Stage> = Stage::ALL.iter().copied().filter(is_shown).collect();
    let headings = shown.iter().map(|stage| (stage.name().to_uppercase(), Align::Right));
    let first = [("LAYER".to_owned(), Align::Left), ("WALL".to_owned(), Align::Right)];
    let mut table = Table::new(first.into_iter().chain(headings));
    for layer in layers {
        let name = layer.blob().unwrap_or(&layer.diff_id().0);
        let first = [short(name.hex(), false).to_owned(), seconds(layer.wall())];
        table.row(first.into_iter().chain(shown.iter().map(|stage| seconds(layer.of(*stage)))));
    }
    table
}

/// Thousandths tell a stage that took some time from one that was not there.
fn seconds(time: Duration) -> String {
    if time.is_zero() { String::new() } else { format!("{:.3}", time.as_secs_f64()) }
}

fn meaning(stage: Stage) -> &'static str {
    match stage {
        Stage::Read => "blobs, from the source",
        Stage::Decompress => "blobs",
        Stage::Hash => "digests of blobs, of what is in them, and of files",
        Stage::Unpack => "tars to files, links and directories",
        Stage::Write => "bytes and attributes of files",
        Stage::Seal => "directories read back for their manifests",
        Stage::Share => "equal files, with --dedup",
        Stage::Sync => "files to the disk",
        Stage::Commit => "records, with the syncs of the database",
        Stage::LockWait => "for locks that somebody else holds",
        Stage::QueueWait => "of threads for other threads of this command",
        Stage::Other => "all else",
        _ => "",
    }
}

/// A document, with its timings if they are asked for.
#[derive(Debug, Serialize)]
pub struct Timed<T> {
    #[serde(flatten)]
    value: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<TimingsJson>,
}

impl<T> Timed<T> {
    /// The document `value`.
    pub fn new(value: T, timings: Option<&Timings>) -> Self {
        Timed { value, timings: timings.map(TimingsJson::new) }
    }
}

/// Everything is in seconds.
#[derive(Debug, Serialize)]
struct TimingsJson {
    wall: f64,
    busy: f64,
    stages: Map<String, Value>,
    layers: Vec<LayerTimingsJson>,
}

#[derive(Debug, Serialize)]
struct LayerTimingsJson {
    diff_id: String,
    blob: Option<String>,
    wall: f64,
    stages: Map<String, Value>,
}

impl TimingsJson {
    fn new(timings: &Timings) -> Self {
        let layer = |layer: &LayerTimings| LayerTimingsJson {
            diff_id: layer.diff_id().to_string(),
            blob: layer.blob().map(ToString::to_string),
            wall: layer.wall().as_secs_f64(),
            stages: stages(|stage| layer.of(stage)),
        };
        TimingsJson {
            wall: timings.wall().as_secs_f64(),
            busy: timings.busy().as_secs_f64(),
            stages: stages(|stage| timings.of(stage)),
            layers: timings.layers().iter().map(layer).collect(),
        }
    }
}

fn stages(time: impl Fn(Stage) -> Duration) -> Map<String, Value> {
    let field = |stage: &Stage| (stage.name().replace(' ', "_"), time(*stage).as_secs_f64().into());
    Stage::ALL.iter().map(field).collect()
}
