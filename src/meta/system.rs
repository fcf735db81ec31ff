//! What redb keeps for itself in a file, verified before the first change: its own tables with the lists of freed pages, and the
//! record of which pages are free.
//!
//! A commit frees the pages on those lists, and redb takes the lists for right. Where one names a page that cannot be it panics in
//! the middle of taking rows out of a table, and again while that is tidied up, which ends the process: no guard can keep that in.
//! So a handle looks at these few pages before it changes anything, with the write lock held, and so at the commit that it builds
//! upon:
//!
//! * every page has the checksum that the page above it says, and the first one that which the header says;
//! * every tree is one: its entries within their pages, its keys in order, as many rows as it says;
//! * a page is in the file, and is used for one thing: as a part of these tables, by one entry of one list, or free.
//!
//! A file that passes was either written like that, or made by hand with great care; then the worst is what the rows say. Nothing
//! here is needed for reading.

use std::cmp::Ordering;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::page::{
    Commit, Flaw, HEADER, Node, PAGE, PageNumber, Root, TableRow, Widths, chunk, u32_at, u64_at,
};
use super::space::{Space, check_regions};
use crate::sys::file::File;

/// No tree is deeper.
const DEEPEST: usize = 32;

/// No page of these trees is larger: redb's largest value is the record of a region, of some 300 KiB.
const LARGEST: u64 = 4 << 20;

/// The tables that redb keeps in a store's file, and what it calls the types of their rows.
const FREED: [&[u8]; 2] = [b"data_pages_unreachable", b"system_pages_unreachable"];
const ALLOCATED: &[u8] = b"data_pages_allocated";
const FREE: &[u8] = b"allocator_state";
const LISTS: Kind = Kind {
    widths: Widths { key: Some(16), value: None },
    order: by_transaction,
    largest: LARGEST,
    types: b"\x01redb::TransactionIdWithPagination\x01redb::PageList",
};
const RECORDS: Kind = Kind {
    widths: Widths { key: Some(5), value: None },
    order: by_record,
    largest: LARGEST,
    types: b"\x01redb::AllocatorStateKey\x01&[u8]",
};

/// Why a file was not found to be right.
#[derive(Debug)]
pub(super) enum Fault {
    /// It could not be read.
    Io(io::Error),
    /// This is wrong with it.
    Damaged(Flaw),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Io(error)
    }
}

impl From<Flaw> for Fault {
    fn from(flaw: Flaw) -> Self {
        Fault::Damaged(flaw)
    }
}

/// Verifies what redb keeps for itself in the last commit of a file that nobody else writes meanwhile. Returns the pages that it read
/// after the header, counted from the first one after it.
pub(super) fn verify(file: &File) -> Result<Vec<Range<u64>>, Fault> {
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0)?;
    verify_commit(file, &Commit::read(&header)?)
}

/// The same of a commit whose pages nobody changes meanwhile.
pub(super) fn verify_commit(file: &File, commit: &Commit) -> Result<Vec<Range<u64>>, Fault> {
    let mut walk = Walk::new(file)?;
    if let Some(root) = commit.user {
        walk.space.take(root.page.pages()?)?;
    }
    let Some(root) = commit.system else { return Ok(walk.read) };
    let (mut freed, mut free) = (Vec::new(), Vec::new());
    let mut tables = Vec::new();
    walk.tree(root, &TABLES, &mut |name, row| {
        tables.push((name.to_vec(), row.to_vec()));
        Ok(())
    })?;
    for (name, row) in &tables {
        let row = TableRow::read(row).ok_or("the row of a table ends too early")?;
        let name = name.as_slice();
        if FREED.contains(&name) {
            walk.table(&row, &LISTS, &mut |_, list| list_of(list, |page| freed.push(page)))?;
        } else if name == ALLOCATED {
            walk.table(&row, &LISTS, &mut |_, list| list_of(list, drop))?;
        } else if name == FREE {
            walk.table(&row, &RECORDS, &mut |key, record| {
                free.push((key.to_vec(), record.to_vec()));
                Ok(())
            })?;
        } else if row.root.is_some() {
            // Savepoints, which no store has.
            return Err("there is a table that no store has".into());
        }
    }
    for page in freed {
        walk.space.take(page.pages()?)?;
    }
    // redb takes no other record for right, and makes it anew from pages that it verifies then.
    if commit.two_phase
        && free.last().is_some_and(|(_, of)| of.as_slice() == commit.transaction.to_le_bytes())
    {
        take_free(&mut walk.space, free)?;
    }
    Ok(walk.read)
}

/// Takes what is free by the records of the regions, of all regions, and of the commit that they belong to.
fn take_free(space: &mut Space, mut records: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), Flaw> {
    let (commit, all) = (records.pop(), records.pop());
    let are = commit.is_some_and(|(key, _)| key == [5, 0, 0, 0, 0]);
    let Some((_, all)) = all.filter(|(key, _)| are && *key == [4, 0, 0, 0, 0]) else {
        return Err("there is no record of the regions");
    };
    let regions: Vec<Vec<u8>> = (0_u32..)
        .zip(records)
        .map(|(number, (key, record))| {
            let right = key.first() == Some(&3) && u32_at(&key, 1) == Some(number);
            right.then_some(record).ok_or("the record of a region is missing")
        })
        .collect::<Result<_, _>>()?;
    if regions.is_empty() {
        return Err("there is no record of a region");
    }
    check_regions(&all, regions.len())?;
    space.take_free(&regions)
}

/// What is known of a tree before it is read.
pub(super) struct Kind {
    pub(super) widths: Widths,
    /// How two keys compare; `None` if one is no key.
    pub(super) order: fn(&[u8], &[u8]) -> Option<Ordering>,
    /// The bytes of its largest page.
    pub(super) largest: u64,
    /// What redb calls the types of its rows; of tables that [`Walk::table`] reads.
    types: &'static [u8],
}

impl Kind {
    /// Rows that somebody else makes sense of, of whatever length.
    pub(super) fn rows(widths: Widths) -> Self {
        Kind { widths, order: |_, _| Some(Ordering::Less), largest: u64::MAX, types: b"" }
    }
}

/// The tree of tables.
pub(super) const TABLES: Kind = Kind { widths: Widths::TABLES, order: by_name, largest: LARGEST, types: b"" };

fn by_name(one: &[u8], other: &[u8]) -> Option<Ordering> {
    Some(str::from_utf8(one).ok()?.cmp(str::from_utf8(other).ok()?))
}

fn by_transaction(one: &[u8], other: &[u8]) -> Option<Ordering> {
    let key = |bytes| Some((u64_at(bytes, 0)?, u64_at(bytes, 8)?));
    Some(key(one)?.cmp(&key(other)?))
}

fn by_record(one: &[u8], other: &[u8]) -> Option<Ordering> {
    let key = |bytes: &[u8]| match bytes.first()? {
        3 => Some((3, u32_at(bytes, 1)?)),
        kind @ (4 | 5) => Some((*kind, 0)),
        _ => None,
    };
    Some(key(one)?.cmp(&key(other)?))
}

/// Hands out the pages of a list: their number in two bytes, and then they.
fn list_of(list: &[u8], mut each: impl FnMut(PageNumber)) -> Result<(), Flaw> {
    const CUT: Flaw = "a list of pages ends too early";
    let count = usize::from(u16::from_le_bytes(chunk(list, 0).ok_or(CUT)?));
    let (pages, _) = list.get(2..).ok_or(CUT)?.as_chunks::<8>();
    pages.get(..count).ok_or(CUT)?.iter().for_each(|page| each(PageNumber(u64::from_le_bytes(*page))));
    Ok(())
}

/// Called with each row: its key and its value.
pub(super) type EachRow<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), Flaw>;

/// The way through the trees of a file, in which each page has its place and its checksum.
pub(super) struct Walk<'f> {
    file: &'f File,
    /// What is used for something already.
    space: Space,
    read: Vec<Range<u64>>,
}

impl<'f> Walk<'f> {
    /// Through a file as long as it is now.
    pub(super) fn new(file: &'f File) -> Result<Self, Fault> {
        let space = Space::new((file.length()? / PAGE).saturating_sub(1))?;
        Ok(Walk { file, space, read: Vec::new() })
    }

    fn table(&mut self, row: &TableRow<'_>, kind: &Kind, each: EachRow<'_>) -> Result<(), Fault> {
        // The alignments, which are one always, and how long the first name is.
        let types = row.types.get(12..);
        if !row.is_plain || row.widths != kind.widths || types != Some(kind.types) {
            return Err("a table of redb's has other types".into());
        }
        let Some(root) = row.root else {
            return if row.rows == 0 { Ok(()) } else { Err("a table with rows has no pages".into()) };
        };
        if root.rows != row.rows {
            return Err("a table says two numbers of its rows".into());
        }
        self.tree(root, kind, each)
    }

    /// Reads a tree from its root on.
    pub(super) fn tree(&mut self, root: Root, kind: &Kind, each: EachRow<'_>) -> Result<(), Fault> {
        let mut trail = Trail { kind, last: None, rows: 0, each };
        self.node(root.page, root.checksum, 0, &mut trail)?;
        if trail.rows == root.rows { Ok(()) } else { Err("a tree has not as many rows as it says".into()) }
    }

    fn node(
        &mut self,
        page: PageNumber,
        checksum: u128,
        depth: usize,
        trail: &mut Trail<'_>,
    ) -> Result<(), Fault> {
        if depth > DEEPEST {
            return Err("a tree is too deep".into());
        }
        let bytes = self.page(page, trail.kind.largest)?;
        match Node::read(&bytes, trail.kind.widths, checksum)? {
            Node::Leaf(leaf) => Ok(leaf.rows().try_for_each(|(key, value)| trail.row(key, value))?),
            Node::Branch(branch) => {
                let mut keys = branch.keys();
                for (page, checksum) in branch.children() {
                    self.node(page, checksum, depth.saturating_add(1), trail)?;
                    // Between two children is a key that is not below the last one of the first.
                    if let Some(key) = keys.next() {
                        trail.between(key)?;
                    }
                }
                Ok(())
            }
        }
    }

    fn page(&mut self, page: PageNumber, largest: u64) -> Result<Vec<u8>, Fault> {
        let pages = page.pages()?;
        let length = pages.end.saturating_sub(pages.start).saturating_mul(PAGE);
        if length > largest {
            return Err("a page is larger than any of its tree".into());
        }
        let offset = pages.start.saturating_add(1).saturating_mul(PAGE);
        self.space.take(pages.clone())?;
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| "a page is too large")?];
        self.file.read_exact_at(&mut bytes, offset)?;
        self.read.push(pages);
        Ok(bytes)
    }
}

/// The way through a tree, in the order of its keys.
struct Trail<'t> {
    kind: &'t Kind,
    /// What comes next is above it.
    last: Option<Vec<u8>>,
    rows: u64,
    each: EachRow<'t>,
}

impl Trail<'_> {
    fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), Flaw> {
        self.pass(key, Ordering::is_lt)?;
        self.rows = self.rows.saturating_add(1);
        (self.each)(key, value)
    }

    fn between(&mut self, key: &[u8]) -> Result<(), Flaw> {
        self.pass(key, Ordering::is_le)
    }

    fn pass(&mut self, key: &[u8], follows: fn(Ordering) -> bool) -> Result<(), Flaw> {
        const NO_KEY: Flaw = "a key is none";
        let last = self.last.as_deref();
        let order = match last {
            Some(last) => (self.kind.order)(last, key).ok_or(NO_KEY)?,
            // Whether it is a key.
            None => (self.kind.order)(key, key).map(|_| Ordering::Less).ok_or(NO_KEY)?,
        };
        if !follows(order) {
            return Err("keys are not in their order");
        }
        self.last = Some(key.to_vec());
        Ok(())
    }
}
