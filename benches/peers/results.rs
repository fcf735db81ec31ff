//! What was measured, as it is kept between runs: a row can be measured again alone, and the page is made of all.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::figures::{Spread, Unit, median, ratios};

/// Everything, by the names of the rows.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Results {
    pub rows: BTreeMap<String, Measured>,
}

impl Results {
    /// What the file has; nothing, if it is not there.
    pub fn read(path: &Path) -> Self {
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                panic!("{} is of another version ({error}): remove it, and measure again", path.display())
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }

    pub fn write(&self, path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let beside = path.with_extension("new");
        std::fs::write(&beside, serde_json::to_vec_pretty(self).unwrap()).unwrap();
        std::fs::rename(&beside, path).unwrap();
    }
}

/// What one row has brought.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Measured {
    pub session: Session,
    pub claims: Vec<Claim>,
    pub costs: Vec<Cost>,
    pub plots: Vec<Plot>,
}

/// Where and when a row was measured.
#[derive(Clone, Default, PartialEq, Debug, Serialize, Deserialize)]
pub struct Session {
    /// Year, month and day.
    pub date: String,
    /// Of the project.
    pub commit: String,
    /// What the machine is, a line for each thing.
    pub machine: Vec<String>,
    /// The programs that were measured against, with their versions.
    pub programs: Vec<String>,
    /// Which part of the processors' time something else took, just before.
    pub busy: f64,
    /// How often each program was measured.
    pub rounds: usize,
    /// Small sizes, to see whether the row works: no figure of it means anything.
    pub quick: bool,
}

/// A line of the table: ours, perhaps beside another's, and what it should be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claim {
    pub work: String,
    /// Who the other is; empty if there is none.
    pub against: String,
    pub unit: Unit,
    pub ours: Vec<f64>,
    /// In the same rounds; empty if there is no other.
    pub other: Vec<f64>,
    /// The other with what it has left to the kernel brought to the disk; empty if that is nothing.
    pub other_synced: Vec<f64>,
    pub target: Target,
}

/// What a figure should be.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// So many times as fast as the other.
    Faster(f64),
    /// At most so many times the other's time.
    Within(f64),
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
    /// It is only told.
    None,
}

impl Claim {
    /// How many times as fast as the other, of each round.
    pub fn times_faster(&self) -> Vec<f64> {
        self.times_faster_than(&self.other)
    }

    /// The same, with the other's sync.
    pub fn times_faster_synced(&self) -> Vec<f64> {
        self.times_faster_than(&self.other_synced)
    }

    fn times_faster_than(&self, other: &[f64]) -> Vec<f64> {
        match (other.is_empty(), self.unit.more_is_better()) {
            (true, _) => Vec::new(),
            (false, true) => ratios(&self.ours, other),
            (false, false) => ratios(other, &self.ours),
        }
    }

    /// How many times the other's time it takes, of each round.
    pub fn times_the_other(&self) -> Vec<f64> {
        self.times_faster().into_iter().map(f64::recip).collect()
    }

    /// Whether the median is what it should be; `None` if nothing was asked for, or nothing measured.
    pub fn is_met(&self) -> Option<bool> {
        let spread = |values: &[f64]| Spread::of(values).map(|spread| spread.median);
        match self.target {
            Target::Faster(times) => spread(&self.times_faster()).map(|median| median >= times),
            Target::Within(times) => spread(&self.times_the_other()).map(|median| median <= times),
            Target::AtMost(limit) => spread(&self.ours).map(|median| median <= limit),
            Target::AtLeast(limit) => spread(&self.ours).map(|median| median >= limit),
            Target::None => None,
        }
    }
}

/// What a program does about what it has written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sync {
    /// It is on the disk when the program ends.
    Included,
    /// The records are; the files of layers are left to the kernel.
    Records,
    /// All is left to the kernel.
    Left,
    /// It writes nothing.
    ReadOnly,
}

impl Sync {
    /// Whether something is to be brought to the disk afterwards.
    pub fn is_left(self) -> bool {
        matches!(self, Sync::Records | Sync::Left)
    }
}

/// What a program took for some work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cost {
    pub work: String,
    pub program: String,
    pub sync: Sync,
    /// Seconds, of each round.
    pub wall: Vec<f64>,
    /// With a sync after it; empty if none is needed.
    pub synced: Vec<f64>,
    /// Seconds of all processors together, of each round.
    pub user: Vec<f64>,
    pub system: Vec<f64>,
    /// Bytes, of all its processes together.
    pub peak: Option<u64>,
    /// Calls of `fsync`, `fdatasync`, `syncfs` and `sync`.
    pub syncs: Option<f64>,
    /// Calls of all kinds.
    pub calls: Option<f64>,
}

impl Cost {
    pub fn processor(&self) -> f64 {
        let sums: Vec<f64> = self.user.iter().zip(&self.system).map(|(user, system)| user + system).collect();
        median(&sums)
    }
}

/// How a time grows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plot {
    /// The name of its file, without an end.
    pub name: String,
    pub title: String,
    /// What grows.
    pub of: String,
    pub lines: Vec<Line>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    pub program: String,
    pub is_ours: bool,
    /// How many there are, and seconds.
    pub points: Vec<(f64, f64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(unit: Unit, ours: &[f64], other: &[f64], target: Target) -> Claim {
        Claim {
            work: String::new(),
            against: String::new(),
            unit,
            ours: ours.to_vec(),
            other: other.to_vec(),
            other_synced: Vec::new(),
            target,
        }
    }

    #[test]
    fn a_target_counts_for_the_median_of_the_pairs() {
        let is_met = |unit, ours: &[f64], other: &[f64], target| claim(unit, ours, other, target).is_met();
        let seconds = Unit::Seconds;
        assert_eq!(is_met(seconds, &[1.0, 1.0, 1.0], &[4.0, 9.0, 1.0], Target::Faster(4.0)), Some(true));
        assert_eq!(is_met(seconds, &[1.0, 1.0, 1.0], &[3.9, 9.0, 1.0], Target::Faster(4.0)), Some(false));
        assert_eq!(is_met(seconds, &[1.3], &[1.0], Target::Within(1.3)), Some(true));
        assert_eq!(is_met(seconds, &[1.4], &[1.0], Target::Within(1.3)), Some(false));
        assert_eq!(is_met(seconds, &[0.01], &[], Target::AtMost(0.02)), Some(true));
        assert_eq!(is_met(Unit::Ratio, &[0.4], &[], Target::AtLeast(0.5)), Some(false));
        assert_eq!(is_met(seconds, &[], &[], Target::Faster(4.0)), None);
        assert_eq!(is_met(seconds, &[1.0], &[2.0], Target::None), None);
    }

    #[test]
    fn more_operations_a_second_are_faster() {
        let rates = claim(Unit::PerSecond, &[100.0, 200.0], &[10.0, 10.0], Target::Faster(10.0));
        assert_eq!(rates.times_faster(), [10.0, 20.0]);
        assert_eq!(rates.is_met(), Some(true));
    }

    #[test]
    fn the_other_may_have_its_sync_counted() {
        let mut claim = claim(Unit::Seconds, &[2.0], &[4.0], Target::Faster(3.0));
        assert!(claim.times_faster_synced().is_empty());
        claim.other_synced = vec![8.0];
        assert_eq!((claim.times_faster(), claim.times_faster_synced()), (vec![2.0], vec![4.0]));
        // What is asked for counts without it.
        assert_eq!(claim.is_met(), Some(false));
    }
}
