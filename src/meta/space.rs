//! What each page of a database file is used for: at most one thing. And the record of which pages are free that redb writes with
//! every commit, and takes for right when it is read again.

use std::ops::Range;

use super::page::{Flaw, REGION_ORDER, chunk, u32_at};

/// The pages of a file, each of them taken or not.
#[derive(Debug)]
pub(super) struct Space {
    length: u64,
    words: Vec<u64>,
}

impl Space {
    /// Of this many pages, of which none is taken.
    pub(super) fn new(length: u64) -> Result<Self, Flaw> {
        let words = usize::try_from(length.div_ceil(64)).map_err(|_| "the file is too long")?;
        Ok(Space { length, words: vec![0; words] })
    }

    /// Takes these pages.
    pub(super) fn take(&mut self, pages: Range<u64>) -> Result<(), Flaw> {
        if pages.end > self.length {
            return Err("a page lies beyond the end of the file");
        }
        let mut at = pages.start;
        while at < pages.end {
            // As many as are in one word.
            let within = at % 64;
            let count = pages.end.saturating_sub(at).min(64_u64.saturating_sub(within));
            let mask = (u64::MAX >> 64_u64.saturating_sub(count)) << within;
            let word = usize::try_from(at / 64).ok().and_then(|word| self.words.get_mut(word));
            match word {
                Some(word) if *word & mask == 0 => *word |= mask,
                _ => return Err("a page is used for two things, or free and used"),
            }
            at = at.saturating_add(count);
        }
        Ok(())
    }

    /// Takes the pages that are free by the record of each region.
    pub(super) fn take_free(&mut self, regions: &[Vec<u8>]) -> Result<(), Flaw> {
        let mut known = 0;
        for (number, region) in (0_u64..).zip(regions) {
            let start = number << REGION_ORDER;
            if known != start {
                return Err("a region that is not the last one has too few pages");
            }
            let pages = u64::from(self.take_free_of(start, region)?);
            known = start.saturating_add(pages);
        }
        // The file has grown since: what is new is free.
        if known < self.length { self.take(known..self.length) } else { Ok(()) }
    }

    /// Takes the free pages of the region that begins here. How many pages it has.
    fn take_free_of(&mut self, start: u64, record: &[u8]) -> Result<u32, Flaw> {
        const CUT: Flaw = "the record of free pages ends too early";
        let pages = u32_at(record, 4).ok_or(CUT)?;
        if record.first().copied().map(u32::from) != Some(REGION_ORDER) || pages > 1 << REGION_ORDER {
            return Err("a region has another size");
        }
        let (length, mut from) = (self.length, FREE_AT);
        for order in 0..=REGION_ORDER {
            let end = 4_usize.saturating_mul(order as usize).saturating_add(8);
            let end = u32_at(record, end).and_then(|end| usize::try_from(end).ok()).ok_or(CUT)?;
            let bits = Bits::read(
                record.get(from..end).ok_or(CUT)?,
                pages >> order,
                REGION_ORDER.saturating_sub(order),
            )?;
            for free in bits.unset() {
                if order < REGION_ORDER && bits.is_unset(free ^ 1) {
                    return Err("two free halves are not one free page");
                }
                let first = start.saturating_add(u64::from(free) << order);
                // The record is of before the end of the file was cut off.
                self.take(first.min(length)..first.saturating_add(1 << order).min(length))?;
            }
            from = end;
        }
        Ok(pages)
    }
}

/// Where the bits begin: after the order, the number of pages, and for each order where its bits end.
const FREE_AT: usize = 8 + 4 * (REGION_ORDER as usize + 1);

/// Looks whether the record of which regions have free pages is one, of this many regions.
pub(super) fn check_regions(record: &[u8], regions: usize) -> Result<(), Flaw> {
    const CUT: Flaw = "the record of regions ends too early";
    let orders = REGION_ORDER as usize;
    if u32_at(record, 0) != Some(REGION_ORDER.saturating_add(1)) {
        return Err("the record of regions has another number of orders");
    }
    let mut from = FREE_AT.saturating_sub(4);
    for order in 0..=orders {
        let length = u32_at(record, order.saturating_mul(4).saturating_add(4)).ok_or(CUT)?;
        let end = usize::try_from(length).ok().and_then(|length| from.checked_add(length)).ok_or(CUT)?;
        let bits = record.get(from..end).ok_or(CUT)?;
        // As many as there are: the length is before the bits of the last level.
        let count = Bits::length(bits).ok_or(CUT)?;
        let bits = Bits::read(bits, count, REGION_ORDER)?;
        if usize::try_from(count).unwrap_or(0) < regions {
            return Err("the record of regions has too few of them");
        }
        if bits.unset().any(|region| usize::try_from(region).is_ok_and(|region| region >= regions)) {
            return Err("a region that is not there has free pages");
        }
        from = end;
    }
    Ok(())
}

/// A bit for each of some things, unset for what is free; above 64 bits is one that is set if they all are.
struct Bits(Vec<u64>);

impl Bits {
    /// How many bits the last level has.
    fn length(bytes: &[u8]) -> Option<u32> {
        let levels = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let start = match levels.checked_sub(2) {
            Some(before) => usize::try_from(u32_at(bytes, before.checked_mul(4)?.checked_add(4)?)?).ok()?,
            None => levels.checked_mul(4)?.checked_add(4)?,
        };
        u32_at(bytes, start)
    }

    /// Reads `length` bits, whose levels are as many as for two to the power of `capacity`.
    fn read(bytes: &[u8], length: u32, capacity: u32) -> Result<Self, Flaw> {
        const CUT: Flaw = "a record of bits ends too early";
        let levels = capacity.div_ceil(6).max(1);
        if u32_at(bytes, 0) != Some(levels) {
            return Err("a record of bits has another number of levels");
        }
        let levels = levels as usize;
        let mut from = levels.saturating_add(1).saturating_mul(4);
        let mut lengths: Vec<u32> =
            std::iter::successors(Some(length), |below| Some(below.div_ceil(64))).take(levels).collect();
        lengths.reverse();
        // A set bit stands for a word below without an unset one.
        let mut above: Option<Vec<u64>> = None;
        for (level, length) in lengths.into_iter().enumerate() {
            let end = u32_at(bytes, level.saturating_mul(4).saturating_add(4)).ok_or(CUT)?;
            let end = usize::try_from(end).map_err(|_| CUT)?;
            let level = bytes.get(from..end).ok_or(CUT)?;
            let (words, rest) = level.get(4..).ok_or(CUT)?.as_chunks::<8>();
            let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
            if chunk(level, 0).map(u32::from_le_bytes) != Some(length)
                || !rest.is_empty()
                || words.len() != length.div_ceil(64) as usize
            {
                return Err("a record of bits has another length");
            }
            if words
                .last()
                .is_some_and(|last| length % 64 != 0 && last >> (length % 64) != u64::MAX >> (length % 64))
            {
                return Err("what is not there is free");
            }
            if above.is_some_and(|above| !fits(&above, &words)) {
                return Err("the levels of a record of bits do not fit");
            }
            above = Some(words);
            from = end;
        }
        Ok(Bits(above.unwrap_or_default()))
    }

    fn is_unset(&self, bit: u32) -> bool {
        self.0.get((bit / 64) as usize).is_some_and(|word| word >> (bit % 64) & 1 == 0)
    }

    /// The bits that are not set.
    fn unset(&self) -> impl Iterator<Item = u32> {
        (0_u32..).zip(&self.0).flat_map(|(number, word)| {
            let mut left = !word;
            std::iter::from_fn(move || {
                let bit = left.checked_ilog2()?;
                left ^= 1 << bit;
                Some(number.saturating_mul(64).saturating_add(bit))
            })
        })
    }
}

/// Whether each bit of a level says of a word of the next whether it is full.
fn fits(above: &[u64], below: &[u64]) -> bool {
    let said = above.iter().flat_map(|word| (0..64).map(move |bit| word >> bit & 1 == 1));
    below.iter().zip(said).all(|(word, full)| (*word == u64::MAX) == full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_taken_once() {
        let mut space = Space::new(200).unwrap();
        space.take(60..130).unwrap();
        for taken in [60..61, 64..128, 0..61, 129..200, 100..101] {
            assert!(space.take(taken.clone()).is_err(), "{taken:?}");
        }
        assert!(space.take(199..201).is_err() && space.take(1 << 40..1 << 41).is_err());
        space.take(0..60).unwrap();
        space.take(130..199).unwrap();
        space.take(199..200).unwrap();
        space.take(200..200).unwrap();
    }
}
