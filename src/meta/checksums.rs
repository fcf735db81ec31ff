//! What a writer's handle reads of a file, held against the checksums that are written down for it. redb does not look at them,
//! and gives a page that it moves or changes a new one: rot in it would be right from then on.
//!
//! redb comes to a page by the one above it, so this costs no read: the header says the checksums of the first pages, and each page
//! that was found to be right those of the pages below. What the handle has written itself is not looked at.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::page::{Commit, Flaw, HEADER, Node, PAGE, PageNumber, Root, TableRow, Widths};

/// A page that was read is not as it was written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Rotten(Flaw);

/// The checksums of the pages that redb may read next.
#[derive(Debug, Default)]
pub(super) struct Checksums(Mutex<Known>);

/// What is known so far. A branch has a hundred pages below it, of which a write comes to one or two, so what is kept of each is little.
#[derive(Debug, Default)]
struct Known {
    commit: Option<Commit>,
    /// By the first of the single pages that it takes, counted from the one after the header.
    pages: HashMap<u64, Expected>,
    /// What is in pages, each kind once.
    kinds: Vec<Kind>,
    /// The largest order of them all.
    largest: u32,
}

#[derive(Clone, Copy, Debug)]
struct Expected {
    checksum: u128,
    /// It takes two to the power of this many single pages.
    order: u32,
    /// Where in the list its kind is.
    kind: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    widths: Widths,
    /// Whether its rows are tables.
    of_tables: bool,
}

impl Checksums {
    /// Looks at what was read from `offset` on.
    ///
    /// Returns [`Rotten`] inside of the error if it is a page with another checksum.
    pub(super) fn read(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match offset {
            0 if bytes.len() >= HEADER => {
                self.known().header(bytes);
                Ok(())
            }
            _ => self
                .known()
                .page(offset, bytes)
                .map_err(|flaw| io::Error::new(io::ErrorKind::InvalidData, Rotten(flaw))),
        }
    }

    /// Forgets what was expected where something else is written.
    pub(super) fn written(&self, offset: u64, length: usize) {
        let end = offset.saturating_add(u64::try_from(length).unwrap_or(u64::MAX)).div_ceil(PAGE);
        // The header is none of the pages.
        if let (Some(first), Some(end)) = ((offset / PAGE).checked_sub(1), end.checked_sub(1)) {
            self.known().forget(first..end);
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Begins anew with another commit, whosever it is. One that is damaged is for redb to refuse.
    fn header(&mut self, bytes: &[u8]) {
        let commit = Commit::read(bytes).ok();
        if commit != self.commit {
            *self = Known { commit, ..Known::default() };
            let tables = self.kind(Kind { widths: Widths::TABLES, of_tables: true });
            for root in commit.iter().flat_map(|commit| [commit.user, commit.system]).flatten() {
                self.expect(root.page, root.checksum, tables);
            }
        }
    }

    fn page(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Flaw> {
        let Some(first) = (offset / PAGE).checked_sub(1).filter(|_| offset.is_multiple_of(PAGE)) else {
            return Ok(());
        };
        let Some(Expected { checksum, order, kind }) = self.pages.get(&first).copied() else { return Ok(()) };
        let Some(Kind { widths, of_tables }) = self.kinds.get(kind).copied() else { return Ok(()) };
        if PAGE.checked_shl(order) != u64::try_from(bytes.len()).ok() {
            return Ok(());
        }
        match Node::read(bytes, widths, checksum)? {
            Node::Branch(branch) => {
                let children = branch.children();
                self.pages.reserve(children.len());
                for (page, checksum) in children {
                    self.expect(page, checksum, kind);
                }
            }
            Node::Leaf(leaf) if of_tables => {
                let tables = leaf.rows().filter_map(|(_, row)| TableRow::read(row));
                for TableRow { root, widths, .. } in tables.filter(|table| table.is_plain) {
                    if let Some(Root { page, checksum, .. }) = root {
                        let kind = self.kind(Kind { widths, of_tables: false });
                        self.expect(page, checksum, kind);
                    }
                }
            }
            Node::Leaf(_) => {}
        }
        Ok(())
    }

    /// Where in the list a kind is.
    fn kind(&mut self, kind: Kind) -> usize {
        let known = self.kinds.iter().position(|known| *known == kind);
        known.unwrap_or_else(|| {
            self.kinds.push(kind);
            self.kinds.len().saturating_sub(1)
        })
    }

    fn expect(&mut self, page: PageNumber, checksum: u128, kind: usize) {
        let Ok(pages) = page.pages() else { return };
        let order = page.order();
        self.largest = self.largest.max(order);
        self.pages.insert(pages.start, Expected { checksum, order, kind });
    }

    /// Forgets the pages that have one of these single ones.
    fn forget(&mut self, written: Range<u64>) {
        for first in written.clone() {
            self.pages.remove(&first);
        }
        // A larger one begins where a page of its size can begin.
        for order in 1..=self.largest {
            let first = written.start >> order << order;
            if self.pages.get(&first).is_some_and(|page| page.order >= order) {
                self.pages.remove(&first);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_makes_every_page_forgotten_that_it_reaches_into() {
        let numbers = [3, 2 << 59 | 1, 8, 9, 3 << 59 | 2].map(PageNumber);
        let starts = [3, 4, 8, 9, 16];
        for (written, gone) in
            [(0..3, &[][..]), (3..4, &[3]), (6..7, &[4]), (7..9, &[4, 8]), (10..16, &[]), (23..24, &[16])]
        {
            let checksums = Checksums::default();
            for number in numbers {
                checksums.known().expect(number, 0, 0);
            }
            let length = usize::try_from((written.end - written.start) * PAGE).unwrap();
            checksums.written((written.start + 1) * PAGE, length);
            let left: Vec<u64> = starts.into_iter().filter(|start| !gone.contains(start)).collect();
            let mut found: Vec<u64> = checksums.known().pages.keys().copied().collect();
            found.sort_unstable();
            assert_eq!(found, left, "{written:?}");
        }
        let checksums = Checksums::default();
        checksums.known().expect(PageNumber(0), 0, 0);
        checksums.written(0, HEADER);
        assert_eq!(checksums.known().pages.len(), 1, "the header is none of them");
    }
}
