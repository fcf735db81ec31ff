//! What a writer's handle reads of a file, held against the checksums that are written down for it. redb does not look at them,
//! and gives a page that it moves or changes a new one: rot in it would be right from then on.
//!
//! redb comes to a page by the one above it, so this costs no read: the header says the checksums of the first pages, and each page
//! that was found to be right those of the pages below. What the handle has written itself is not looked at.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};

use super::page::{Commit, Flaw, HEADER, Node, PAGE, PageNumber, Root, TableRow, Widths};

/// A page that was read is not as it was written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Rotten(Flaw);

/// The checksums of the pages that redb may read next.
#[derive(Debug, Default)]
pub(super) struct Checksums(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    commit: Option<Commit>,
    /// By where the page begins, in bytes.
    pages: BTreeMap<u64, Expected>,
}

#[derive(Clone, Copy, Debug)]
struct Expected {
    length: u64,
    checksum: u128,
    widths: Widths,
    /// Whether its rows are tables.
    of_tables: bool,
}

impl Checksums {
    /// Looks at what was read from `offset` on.
    ///
    /// Returns [`Rotten`] inside of the error if it is a page with another checksum.
    pub(super) fn read(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match offset {
            0 if bytes.len() >= HEADER => {
                known.header(bytes);
                Ok(())
            }
            _ => known
                .page(offset, bytes)
                .map_err(|flaw| io::Error::new(io::ErrorKind::InvalidData, Rotten(flaw))),
        }
    }

    /// Forgets what was expected where something else is written.
    pub(super) fn written(&self, offset: u64, length: usize) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let end = offset.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        let over =
            |(start, page): (&u64, &Expected)| (start.saturating_add(page.length) > offset).then_some(*start);
        while let Some(start) = known.pages.range(..end).next_back().and_then(over) {
            known.pages.remove(&start);
        }
    }
}

impl Known {
    /// Begins anew with another commit, whosever it is. One that is damaged is for redb to refuse.
    fn header(&mut self, bytes: &[u8]) {
        let commit = Commit::read(bytes).ok();
        if commit != self.commit {
            self.pages.clear();
            self.commit = commit;
            for root in commit.iter().flat_map(|commit| [commit.user, commit.system]).flatten() {
                self.expect(root.page, root.checksum, Widths::TABLES, true);
            }
        }
    }

    fn page(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Flaw> {
        let Some(expected) = self.pages.get(&offset).copied() else { return Ok(()) };
        if usize::try_from(expected.length).ok() != Some(bytes.len()) {
            return Ok(());
        }
        match Node::read(bytes, expected.widths, expected.checksum)? {
            Node::Branch { children, .. } => {
                for (page, checksum) in children {
                    self.expect(page, checksum, expected.widths, expected.of_tables);
                }
            }
            Node::Leaf(rows) if expected.of_tables => {
                let tables = rows.into_iter().filter_map(|(_, row)| TableRow::read(row));
                for TableRow { root, widths, .. } in tables.filter(|table| table.is_plain) {
                    if let Some(Root { page, checksum, .. }) = root {
                        self.expect(page, checksum, widths, false);
                    }
                }
            }
            Node::Leaf(_) => {}
        }
        Ok(())
    }

    fn expect(&mut self, page: PageNumber, checksum: u128, widths: Widths, of_tables: bool) {
        let Ok(pages) = page.pages() else { return };
        let length = pages.end.saturating_sub(pages.start).saturating_mul(PAGE);
        let offset = pages.start.saturating_add(1).saturating_mul(PAGE);
        self.pages.insert(offset, Expected { length, checksum, widths, of_tables });
    }
}
