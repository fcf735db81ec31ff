//! The bytes of a database file as redb 4.4 writes them, read without trust: what is in its header, and in a page.
//!
//! A page says nothing of itself but its entries. Its checksum, XXH3 of 128 bits over what is used of it, is where its number is:
//! in the page above it, in the row of its table, in the header.

use std::ops::Range;

use twox_hash::XxHash3_128;

/// What a page is in bytes; larger ones are powers of two of them. Every store's are, see [`super::database`].
pub(super) const PAGE: u64 = 4096;

/// How many pages a region has, as a power of two, and so the order of the largest page.
pub(super) const REGION_ORDER: u32 = 20;

/// The length of the header.
pub(super) const HEADER: usize = 320;

/// Where the length of the file is: how many regions have all their pages, and how many pages the last one has.
const LAYOUT: usize = 24;

/// The end of that.
pub(super) const LAYOUT_END: usize = 32;

/// Where the two last commits are.
const SLOTS: (usize, usize) = (64, 192);

/// Where the flags are: which commit is the last, whether a commit is under way or its writer died, whether commits are of two phases.
const FLAGS: usize = 9;
const SECOND: u8 = 1;
const UNSETTLED: u8 = 2;
const TWO_PHASES: u8 = 4;

pub(super) const LEAF: u8 = 1;
pub(super) const BRANCH: u8 = 2;

/// What cannot be in a file that redb wrote.
pub(super) type Flaw = &'static str;

const SHORT: Flaw = "a page ends within its entries";

/// The number of a page: where it begins, and its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageNumber(pub(super) u64);

impl PageNumber {
    /// It takes two to the power of this many single pages.
    pub(super) fn order(self) -> u32 {
        u32::try_from(self.0 >> 59).unwrap_or(u32::MAX)
    }

    /// The single pages that it takes, counted from the first one after the header.
    pub(super) fn pages(self) -> Result<Range<u64>, Flaw> {
        let order = self.order();
        if order > REGION_ORDER {
            return Err("a page is larger than a region");
        }
        let index = (self.0 & (0xf_ffff >> order)) << order;
        let region = (self.0 >> 20) & 0xf_ffff;
        let start = region << REGION_ORDER | index;
        Ok(start..start.saturating_add(1 << order))
    }
}

/// Where a tree begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) page: PageNumber,
    pub(super) checksum: u128,
    /// How many rows it says that it has.
    pub(super) rows: u64,
}

impl Root {
    fn read(bytes: &[u8]) -> Option<Self> {
        let page = PageNumber(u64_at(bytes, 0)?);
        Some(Root { page, checksum: u128_at(bytes, 8)?, rows: u64_at(bytes, 24)? })
    }

    /// Of a field that may be empty: a byte that says so, and elsewhere the root.
    fn read_optional(bytes: &[u8], there: usize, at: usize) -> Option<Option<Self>> {
        let root = Root::read(bytes.get(at..)?)?;
        Some((*bytes.get(there)? != 0).then_some(root))
    }
}

/// The last commit, by the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) transaction: u64,
    /// Whether its pages were on the disk before the header was.
    pub(super) two_phase: bool,
    /// The tree of the user's tables.
    pub(super) user: Option<Root>,
    /// The tree of the tables that redb keeps for itself.
    pub(super) system: Option<Root>,
}

impl Commit {
    pub(super) fn read(header: &[u8]) -> Result<Self, Flaw> {
        let flags = header.get(FLAGS).copied().unwrap_or_default();
        let start = slots(flags).0;
        let read = || {
            let slot = header.get(start..)?.first_chunk::<128>()?;
            let (said, sum) = slot.split_last_chunk::<16>()?;
            let commit = Commit {
                transaction: u64_at(said, 104)?,
                two_phase: flags & TWO_PHASES != 0,
                user: Root::read_optional(said, 1, 8)?,
                system: Root::read_optional(said, 2, 40)?,
            };
            Some((commit, XxHash3_128::oneshot(said) == u128::from_le_bytes(*sum)))
        };
        match read() {
            Some((commit, true)) => Ok(commit),
            Some((_, false)) => Err("the last commit is not as it was written"),
            None => Err("the header ends too early"),
        }
    }
}

/// How long the file is by its header, in bytes.
pub(super) fn said_length(header: &[u8]) -> Option<u64> {
    let [full, rest] = [LAYOUT, LAYOUT.checked_add(4)?].map(|at| u32_at(header, at).map(u64::from));
    let pages = full?.checked_mul(1 << REGION_ORDER)?.checked_add(rest?)?;
    // The header has a page of its own.
    pages.checked_add(1)?.checked_mul(PAGE)
}

/// Where the last commit is, and the one before.
fn slots(flags: u8) -> (usize, usize) {
    if flags & SECOND == 0 { SLOTS } else { (SLOTS.1, SLOTS.0) }
}

/// Whether a header has the mark of a commit that is under way.
pub(super) fn is_marked(header: &[u8]) -> bool {
    header.get(FLAGS).is_some_and(|flags| flags & UNSETTLED != 0)
}

/// What takes the mark from a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unmarking {
    /// Where it is written.
    pub(super) offset: u64,
    /// What is.
    pub(super) flags: u8,
    /// How long the file is by its header.
    pub(super) length: u64,
}

/// How to take the mark from a file whose header is this one and on the disk; `None` if the commit is not at its end.
///
/// A commit of two phases writes the header twice: first with what is new beside the last commit, and then with nothing changed but
/// which of the two is the last.
pub(super) fn unmarking(header: &[u8]) -> Option<Unmarking> {
    let flags = *header.get(FLAGS)?;
    let (last, before) = slots(flags);
    let transaction = |slot: usize| u64_at(header.get(slot..)?, 104);
    let ends = flags & TWO_PHASES != 0 && transaction(last)? > transaction(before)?;
    let unmarking =
        Unmarking { offset: FLAGS as u64, flags: flags & !UNSETTLED, length: said_length(header)? };
    (is_marked(header) && ends).then_some(unmarking)
}

/// The header of the same commit without what redb keeps for itself: it makes that anew, of what it verifies of the rest.
pub(super) fn without_system(header: &[u8]) -> Result<Vec<u8>, Flaw> {
    Commit::read(header)?;
    let mut header = header.to_vec();
    let flags = header.get_mut(FLAGS).ok_or(SHORT)?;
    // As if its writer had died, so that it is looked after.
    *flags |= UNSETTLED;
    let (start, _) = slots(*flags);
    let slot = header.get_mut(start..).and_then(|slot| slot.first_chunk_mut::<128>()).ok_or(SHORT)?;
    let (said, sum) = slot.split_last_chunk_mut::<16>().ok_or(SHORT)?;
    for range in [2..3, 40..72] {
        said.get_mut(range).ok_or(SHORT)?.fill(0);
    }
    *sum = XxHash3_128::oneshot(said).to_le_bytes();
    Ok(header)
}

/// How long the keys and the values of a tree are, if all are of one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Widths {
    pub(super) key: Option<usize>,
    pub(super) value: Option<usize>,
}

impl Widths {
    /// Those of a tree of tables.
    pub(super) const TABLES: Widths = Widths { key: None, value: None };
}

/// A table, as the row of its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TableRow<'r> {
    /// Whether a key has one value.
    pub(super) is_plain: bool,
    pub(super) rows: u64,
    pub(super) root: Option<Root>,
    pub(super) widths: Widths,
    /// What redb calls the types of its keys and values, as it stores that.
    pub(super) types: &'r [u8],
}

impl<'r> TableRow<'r> {
    pub(super) fn read(row: &'r [u8]) -> Option<Self> {
        let width = |there: usize| {
            let width = usize::try_from(u32_at(row, there.checked_add(1)?)?).ok()?;
            Some((*row.get(there)? != 0).then_some(width))
        };
        Some(TableRow {
            is_plain: *row.first()? == 3,
            rows: u64_at(row, 1)?,
            root: Root::read_optional(row, 9, 10)?,
            widths: Widths { key: width(42)?, value: width(47)? },
            types: row.get(52..)?,
        })
    }
}

/// What is in a page. It is looked at where it lies: a write comes to pages of hundreds of entries, and needs few of them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Node<'p> {
    /// Rows.
    Leaf(Leaf<'p>),
    /// Pages below.
    Branch(Branch<'p>),
}

impl<'p> Node<'p> {
    /// Takes a page apart that has this checksum.
    pub(super) fn read(page: &'p [u8], widths: Widths, checksum: u128) -> Result<Self, Flaw> {
        let (node, used) = Node::unchecked(page, widths)?;
        match page.get(..used).map(XxHash3_128::oneshot) {
            Some(found) if found == checksum => Ok(node),
            _ => Err("a page is not as it was written"),
        }
    }

    /// Takes a page apart, whatever its checksum, and says how much of it is used.
    pub(super) fn unchecked(page: &'p [u8], widths: Widths) -> Result<(Self, usize), Flaw> {
        let count = usize::from(u16::from_le_bytes(chunk(page, 2).ok_or(SHORT)?));
        if count == 0 {
            return Err("a page has no entries");
        }
        match page.first() {
            Some(&LEAF) => leaf(page, widths, count),
            Some(&BRANCH) => branch(page, widths.key, count),
            _ => return Err("a page is neither a leaf nor a branch"),
        }
        .ok_or(SHORT)
    }
}

/// The rows of a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaf<'p> {
    keys: Pieces<'p>,
    values: Pieces<'p>,
}

impl<'p> Leaf<'p> {
    /// Their keys and values.
    pub(super) fn rows(self) -> impl Iterator<Item = (&'p [u8], &'p [u8])> {
        self.keys.iter().zip(self.values.iter())
    }
}

/// The pages below a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Branch<'p> {
    checksums: &'p [[u8; 16]],
    numbers: &'p [[u8; 8]],
    keys: Pieces<'p>,
}

impl<'p> Branch<'p> {
    /// Their numbers and checksums.
    pub(super) fn children(self) -> impl ExactSizeIterator<Item = (PageNumber, u128)> {
        let number = |bytes: &[u8; 8]| PageNumber(u64::from_le_bytes(*bytes));
        self.numbers.iter().map(number).zip(self.checksums.iter().copied().map(u128::from_le_bytes))
    }

    /// The keys between them, one less.
    pub(super) fn keys(self) -> impl Iterator<Item = &'p [u8]> {
        self.keys.iter()
    }
}

/// A leaf, and how much of the page it uses.
fn leaf(page: &[u8], widths: Widths, count: usize) -> Option<(Node<'_>, usize)> {
    let mut at = 4;
    let key_ends = Ends::read(page, widths.key, count, &mut at)?;
    let value_ends = Ends::read(page, widths.value, count, &mut at)?;
    let keys = Pieces::find(page, key_ends, &mut at)?;
    let values = Pieces::find(page, value_ends, &mut at)?;
    Some((Node::Leaf(Leaf { keys, values }), at))
}

/// A branch, and how much of the page it uses.
fn branch(page: &[u8], width: Option<usize>, count: usize) -> Option<(Node<'_>, usize)> {
    let children = count.checked_add(1)?;
    let numbers_at = children.checked_mul(16)?.checked_add(8)?;
    let mut at = children.checked_mul(8)?.checked_add(numbers_at)?;
    let checksums = page.get(8..numbers_at)?.as_chunks().0;
    let numbers = page.get(numbers_at..at)?.as_chunks().0;
    let key_ends = Ends::read(page, width, count, &mut at)?;
    let keys = Pieces::find(page, key_ends, &mut at)?;
    Some((Node::Branch(Branch { checksums, numbers, keys }), at))
}

/// Where pieces of a page end.
#[derive(Clone, Copy, Debug)]
enum Ends<'p> {
    /// Each is as long as the others.
    Even { width: usize, count: usize },
    /// It is written down.
    Listed(&'p [[u8; 4]]),
}

impl<'p> Ends<'p> {
    /// Of so many pieces; `at` goes beyond what is written down of them.
    fn read(page: &'p [u8], width: Option<usize>, count: usize, at: &mut usize) -> Option<Self> {
        if let Some(width) = width {
            return Some(Ends::Even { width, count });
        }
        let start = *at;
        *at = count.checked_mul(4)?.checked_add(start)?;
        Some(Ends::Listed(page.get(start..*at)?.as_chunks().0))
    }

    /// Where the piece with this number ends, which begins at `start`; `None` if there are not as many.
    fn get(self, number: usize, start: usize) -> Option<usize> {
        match self {
            Ends::Even { width, count } if number < count => start.checked_add(width),
            Ends::Even { .. } => None,
            Ends::Listed(ends) => usize::try_from(u32::from_le_bytes(*ends.get(number)?)).ok(),
        }
    }

    /// Where the last piece ends, if the first begins at `start` and each where the one before ends.
    fn last(self, start: usize) -> Option<usize> {
        match self {
            Ends::Even { width, count } => width.checked_mul(count)?.checked_add(start),
            Ends::Listed(ends) => ends.iter().try_fold(start, |before, end| {
                usize::try_from(u32::from_le_bytes(*end)).ok().filter(|end| *end >= before)
            }),
        }
    }
}

/// Pieces of a page that follow each other: its keys, or its values.
#[derive(Clone, Copy, Debug)]
struct Pieces<'p> {
    page: &'p [u8],
    start: usize,
    ends: Ends<'p>,
}

impl<'p> Pieces<'p> {
    /// Those from `at` on, which goes beyond them; `None` if they are not within the page.
    fn find(page: &'p [u8], ends: Ends<'p>, at: &mut usize) -> Option<Self> {
        let start = *at;
        *at = ends.last(start).filter(|end| *end <= page.len())?;
        Some(Pieces { page, start, ends })
    }

    fn iter(self) -> impl Iterator<Item = &'p [u8]> {
        let Pieces { page, start: mut at, ends } = self;
        (0..).map_while(move |number| {
            let end = ends.get(number, at)?;
            let piece = page.get(at..end)?;
            at = end;
            Some(piece)
        })
    }
}

pub(super) fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    chunk(bytes, at).map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    chunk(bytes, at).map(u64::from_le_bytes)
}

fn u128_at(bytes: &[u8], at: usize) -> Option<u128> {
    chunk(bytes, at).map(u128::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_says_which_pages_it_takes() {
        assert_eq!(PageNumber(5).pages(), Ok(5..6));
        // What a large page leaves of the bits of its index is not read.
        assert_eq!(PageNumber(3 << 59 | 0x8_0002).pages(), Ok(16..24));
        assert_eq!(PageNumber(2 << 20 | 7).pages(), Ok(2 * (1 << 20) + 7..2 * (1 << 20) + 8));
        assert_eq!(PageNumber(20 << 59 | 1 << 20 | 1).pages(), Ok(1 << 20..2 << 20));
        assert!(PageNumber(21 << 59).pages().is_err());
    }

    #[test]
    fn a_page_is_read_only_with_its_checksum_and_within_its_bounds() {
        // Two rows: "a" and "bc" with values of one byte.
        let mut page = vec![LEAF, 0, 2, 0, 13, 0, 0, 0, 15, 0, 0, 0, b'a', b'b', b'c', 1, 2, 0, 0];
        let widths = Widths { key: None, value: Some(1) };
        let sum = XxHash3_128::oneshot(&page[..17]);
        let rows: Vec<(&[u8], &[u8])> = vec![(b"a", &[1]), (b"bc", &[2])];
        let Ok(Node::Leaf(leaf)) = Node::read(&page, widths, sum) else { panic!("no leaf") };
        assert_eq!(leaf.rows().collect::<Vec<_>>(), rows);
        assert!(Node::read(&page, widths, sum ^ 1).is_err());
        for (at, wrong) in [(0, 3), (2, 0), (2, 9), (3, 1), (4, 11), (4, 16), (8, 12), (8, 30), (11, 1)] {
            let right = std::mem::replace(&mut page[at], wrong);
            assert!(Node::read(&page, widths, sum).is_err(), "{at}");
            page[at] = right;
        }
        assert!(Node::read(&page[..16], widths, sum).is_err());
        assert!(Node::read(&[], widths, sum).is_err());
    }
}
