//! What is told of it.

use std::io;
use std::path::PathBuf;

/// How many files that were left out are told one by one.
const TOLD: usize = 1000;

/// What came of letting equal files share their extents.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct DedupReport {
    /// Files that were looked at. An inode with several names counts once, and so does a directory of several layers.
    pub files: u64,
    /// Those of them that are equal to one that was looked at before.
    pub candidates: u64,
    /// Their bytes.
    pub candidate_bytes: u64,
    /// The bytes of those that shared their extents already.
    pub bytes_shared_before: u64,
    /// The bytes that the kernel was asked to compare and share, or with `dry_run` would be asked.
    pub bytes_asked: u64,
    /// The bytes that it shares from now on. Files that were sparse or compressed took less space than that.
    pub bytes_shared: u64,
    /// What was left out, and why: the first thousand.
    pub skipped: Vec<Skipped>,
    /// How many were left out.
    pub skipped_count: u64,
}

/// A file or directory that was left out.
#[derive(Debug)]
#[non_exhaustive]
pub struct Skipped {
    /// Where it is, or was.
    pub path: PathBuf,
    /// Why.
    pub reason: SkipReason,
}

/// Why a file or a directory was left out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SkipReason {
    /// It was removed or replaced meanwhile, or is missing: a [check](crate::Store::check) tells which.
    #[error("it is not there any more")]
    Gone,
    /// It is not what it should be. If it was not written to meanwhile, it is damaged, and a
    /// [check](crate::Store::check) finds it.
    #[error("it is not what it should be")]
    Changed,
    /// The kernel found that it is not equal to a file that has the same hash on record: one of the two is damaged, and a
    /// [deep check](crate::CheckLevel::Deep) tells which.
    #[error("the kernel finds it different from {}, which should be equal", other.display())]
    Differs {
        /// The other file.
        other: PathBuf,
    },
    /// It cannot be opened or read, or the kernel does not share it.
    #[error("{0}")]
    Refused(#[source] io::Error),
}

impl SkipReason {
    /// A word for the reason, for programs: it stays the same in all releases.
    pub fn word(&self) -> &'static str {
        match self {
            SkipReason::Gone => "gone",
            SkipReason::Changed => "changed",
            SkipReason::Differs { .. } => "differs",
            SkipReason::Refused(_) => "refused",
        }
    }
}

impl From<io::Error> for SkipReason {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => SkipReason::Gone,
            _ => SkipReason::Refused(error),
        }
    }
}

impl DedupReport {
    pub(super) fn skip(&mut self, path: PathBuf, reason: SkipReason) {
        tracing::debug!(path = %path.display(), %reason, "left out");
        self.skipped_count = self.skipped_count.saturating_add(1);
        if self.skipped.len() < TOLD {
            self.skipped.push(Skipped { path, reason });
        }
    }

    /// Takes the report of another store in.
    pub(super) fn and(&mut self, other: DedupReport) {
        self.files = self.files.saturating_add(other.files);
        self.candidates = self.candidates.saturating_add(other.candidates);
        self.candidate_bytes = self.candidate_bytes.saturating_add(other.candidate_bytes);
        self.bytes_shared_before = self.bytes_shared_before.saturating_add(other.bytes_shared_before);
        self.bytes_asked = self.bytes_asked.saturating_add(other.bytes_asked);
        self.bytes_shared = self.bytes_shared.saturating_add(other.bytes_shared);
        self.skipped_count = self.skipped_count.saturating_add(other.skipped_count);
        let room = TOLD.saturating_sub(self.skipped.len());
        self.skipped.extend(other.skipped.into_iter().take(room));
    }
}
