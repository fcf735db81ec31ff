//! What is left of the limits that hold for all layers of an image together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Limits;
use crate::error::{Limit, LimitError};

/// What an xattr of less counts for.
const XATTR_COUNTS: u64 = 64;

/// Limits, and how much of them was taken by the layers that share them: those of one image. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    limits: Limits,
    left: Arc<Left>,
    /// Whether the blob was counted when it was unpacked for another layer.
    again: bool,
}

#[derive(Debug)]
struct Left {
    entries: AtomicU64,
    paths: AtomicU64,
    xattrs: AtomicU64,
    unpacked: AtomicU64,
    holes: AtomicU64,
    zeros: AtomicU64,
    expanded: AtomicU64,
}

impl Budget {
    /// All that `limits` grant.
    pub(crate) fn new(limits: &Limits) -> Self {
        let granted = |limit| AtomicU64::new(limits.get(limit));
        let left = Left {
            entries: granted(Limit::Entries),
            paths: granted(Limit::AllPathBytes),
            xattrs: granted(Limit::AllXattrBytes),
            unpacked: AtomicU64::new(limits.unpacked_bytes),
            holes: AtomicU64::new(limits.hole_bytes),
            zeros: AtomicU64::new(limits.hole_bytes),
            expanded: AtomicU64::new(limits.expansion_floor),
        };
        Budget { limits: *limits, left: Arc::new(left), again: false }
    }

    /// The same, for a blob that comes a second time: of whoever names it again, it asks nothing more to be sent.
    pub(crate) fn again(&self) -> Self {
        Budget { again: true, ..self.clone() }
    }

    /// What is granted, each layer by itself.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Takes bytes that a stream decompresses to.
    pub(crate) fn take_unpacked(&self, bytes: u64, name: &str) -> Result<(), LimitError> {
        self.take(&self.left.unpacked, Limit::UnpackedBytes, bytes, || name.to_owned())
    }

    /// Takes something that has an entry in the manifest of its layer.
    pub(crate) fn take_entry(&self, subject: impl FnOnce() -> String) -> Result<(), LimitError> {
        self.take(&self.left.entries, Limit::Entries, 1, subject)
    }

    /// Takes the bytes of paths and link targets. Short ones need not count for more than they have: there are no more of them
    /// than entries.
    pub(crate) fn take_paths(&self, bytes: u64, subject: impl FnOnce() -> String) -> Result<(), LimitError> {
        self.take(&self.left.paths, Limit::AllPathBytes, bytes, subject)
    }

    /// Takes xattrs. However short, one takes memory for itself.
    pub(crate) fn take_xattrs(
        &self,
        xattrs: &[(Vec<u8>, Vec<u8>)],
        subject: impl FnOnce() -> String,
    ) -> Result<(), LimitError> {
        let bytes =
            xattrs.iter().map(|(name, value)| XATTR_COUNTS.max(length(name).saturating_add(length(value))));
        self.take(&self.left.xattrs, Limit::AllXattrBytes, bytes.fold(0, u64::saturating_add), subject)
    }

    fn take(
        &self,
        left: &AtomicU64,
        limit: Limit,
        amount: u64,
        subject: impl FnOnce() -> String,
    ) -> Result<(), LimitError> {
        take(left, amount).map_err(|left| {
            let granted = self.limits.get(limit);
            let found = granted.saturating_sub(left).saturating_add(amount);
            LimitError::new(subject(), limit, granted, Some(found))
        })
    }

    /// Takes holes; false if that many are not left.
    pub(crate) fn take_holes(&self, bytes: u64) -> bool {
        take(&self.left.holes, bytes).is_ok()
    }

    /// Takes zeros that need not count for the expansion: as many as are left. Returns how many that are.
    pub(crate) fn take_zeros(&self, bytes: u64) -> u64 {
        let mut taken = 0;
        let some = |left: u64| {
            taken = left.min(bytes);
            left.checked_sub(taken)
        };
        match self.left.zeros.fetch_update(Ordering::Relaxed, Ordering::Relaxed, some) {
            Ok(_) => taken,
            Err(_) => 0,
        }
    }

    /// Takes bytes beyond what `expansion` grants for the bytes that were read; false if that many are not left.
    pub(crate) fn take_expanded(&self, bytes: u64) -> bool {
        take(&self.left.expanded, bytes).is_ok()
    }

    /// How many bytes of a blob count as delivered, of those that were read.
    pub(crate) fn delivered(&self, read: u64) -> u64 {
        if self.again { 0 } else { read }
    }
}

/// The length of bytes, as it is counted.
fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Takes `bytes`, or says how many are left.
fn take(left: &AtomicU64, bytes: u64) -> Result<(), u64> {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).map(drop)
}
