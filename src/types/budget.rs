//! What is left of the limits that hold for all layers of an image together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Limits;
use crate::error::{Limit, LimitError};

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
    unpacked: AtomicU64,
    holes: AtomicU64,
    zeros: AtomicU64,
    expanded: AtomicU64,
}

impl Budget {
    /// All that `limits` grant.
    pub(crate) fn new(limits: &Limits) -> Self {
        let left = Left {
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
        let granted = self.limits.unpacked_bytes;
        match take(&self.left.unpacked, bytes) {
            Ok(()) => Ok(()),
            Err(left) => {
                let found = granted.saturating_sub(left).saturating_add(bytes);
                Err(LimitError::new(name, Limit::UnpackedBytes, granted, Some(found)))
            }
        }
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

/// Takes `bytes`, or says how many are left.
fn take(left: &AtomicU64, bytes: u64) -> Result<(), u64> {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).map(drop)
}
