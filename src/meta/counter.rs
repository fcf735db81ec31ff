//! A number that changes with every commit of any process, at the price of a memory read.
//!
//! redb keeps two commit slots in the header page of its file, and one bit that says which of them counts; each slot
//! has the number of its transaction (redb's `docs/design.md`, "Database header"). The page is mapped, so the number
//! needs no system call and no lock. It says *that* something changed, never what: a transaction says that.

use std::io;
use std::sync::atomic::{Ordering, fence};

use crate::sys::file::File;
use crate::sys::map::FirstPage;

/// The byte whose lowest bit picks the slot.
const GOD_BYTE: usize = 9;

/// Where the transaction numbers of the two slots stand.
const TRANSACTION_IDS: [usize; 2] = [168, 296];

/// The mapped header of a database file.
#[derive(Debug)]
pub(crate) struct ChangeCounter(FirstPage);

impl ChangeCounter {
    /// Maps the header of a database file.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        FirstPage::map(file).map(ChangeCounter)
    }

    /// The number of the last commit.
    ///
    /// A commit fills the slot that does not count, then turns the bit, while this reads. So what two looks have in
    /// common is taken: of a number that is being written, or whose bit is not yet turned, there are no two.
    pub(crate) fn current(&self) -> u64 {
        let mut last = self.look();
        loop {
            let again = self.look();
            if again == last {
                return again.1;
            }
            last = again;
        }
    }

    /// The bit, and the number in the slot that it picks.
    fn look(&self) -> (bool, u64) {
        let [god] = self.0.read(GOD_BYTE).unwrap_or_default();
        let [first, second] = TRANSACTION_IDS;
        let second_counts = god & 1 == 1;
        // The slot is read after the bit, also by processors that would do it the other way round.
        fence(Ordering::Acquire);
        let offset = if second_counts { second } else { first };
        let number = self.0.read(offset).map(u64::from_le_bytes).unwrap_or_default();
        fence(Ordering::Acquire);
        (second_counts, number)
    }
}
