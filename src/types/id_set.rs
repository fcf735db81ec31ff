//! Sets of user or group ids, as ranges.

use std::ops::Range;

/// How many ids there are: 0 to 4294967294. The last number means "none".
const END: u64 = 0xffff_ffff;

/// A set of ids, as sorted ranges that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IdSet(Vec<Range<u64>>);

impl IdSet {
    /// The ids of ranges in any order, given as first id and count; what lies beyond the last id is left out.
    pub(crate) fn new(ranges: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let range = |(first, count): (u32, u32)| {
            let first = u64::from(first);
            first..first.saturating_add(count.into()).min(END)
        };
        Self::normalised(ranges.into_iter().map(range))
    }

    /// The ids below `count`.
    pub(crate) fn first_ids(count: u64) -> Self {
        Self::normalised(std::iter::once(0..count.min(END)))
    }

    fn normalised(ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        ranges.sort_by_key(|range| range.start);
        let mut set: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match set.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => set.push(range),
            }
        }
        IdSet(set)
    }

    /// How many ids it has.
    pub(crate) fn size(&self) -> u64 {
        self.0.iter().map(|range| range.end.saturating_sub(range.start)).sum()
    }

    /// The ids of either.
    pub(crate) fn union(&self, other: &Self) -> Self {
        Self::normalised(self.0.iter().chain(&other.0).cloned())
    }

    /// Its ids without those of `other`.
    pub(crate) fn subtract(&self, other: &Self) -> Self {
        let mut rest = Vec::new();
        for range in &self.0 {
            let mut from = range.start;
            for hole in other.0.iter().filter(|hole| hole.end > range.start && hole.start < range.end) {
                rest.push(from..hole.start.max(from));
                from = from.max(hole.end);
            }
            rest.push(from..range.end.max(from));
        }
        Self::normalised(rest)
    }

    /// Its `count` lowest ids in one piece if it has a piece of that size, else its `count` lowest in several; `None` if it
    /// has not so many.
    pub(crate) fn first(&self, count: u64) -> Option<Self> {
        let long_enough = |range: &&Range<u64>| range.end.saturating_sub(range.start) >= count;
        if let Some(piece) = self.0.iter().find(long_enough) {
            let end = piece.start.saturating_add(count);
            return Some(Self::normalised(std::iter::once(piece.start..end)));
        }
        let mut rest = count;
        let mut taken = Vec::new();
        for range in &self.0 {
            let end = range.start.saturating_add(rest).min(range.end);
            rest = rest.saturating_sub(end.saturating_sub(range.start));
            taken.push(range.start..end);
        }
        (rest == 0).then(|| Self::normalised(taken))
    }

    /// Pairs its ids with those of `other` in order: runs of first id here, first id there, and count. As long as the
    /// shorter of the two.
    pub(crate) fn zip(&self, other: &Self) -> Vec<(u32, u32, u32)> {
        let (mut here, mut there) = (self.0.iter().cloned(), other.0.iter().cloned());
        let (mut left, mut right) = (here.next(), there.next());
        let mut pairs = Vec::new();
        while let (Some(a), Some(b)) = (&mut left, &mut right) {
            let count = a.end.saturating_sub(a.start).min(b.end.saturating_sub(b.start));
            let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
            pairs.push((narrow(a.start), narrow(b.start), narrow(count)));
            a.start = a.start.saturating_add(count);
            b.start = b.start.saturating_add(count);
            if a.is_empty() {
                left = here.next();
            }
            if right.as_ref().is_some_and(Range::is_empty) {
                right = there.next();
            }
        }
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[(u32, u32)]) -> IdSet {
        IdSet::new(ranges.iter().copied())
    }

    #[test]
    fn ranges_are_normalised() {
        for (given, expected) in [
            (&[][..], &[][..]),
            (&[(5, 0)], &[]),
            (&[(5, 1)], &[(5, 6)]),
            (&[(10, 5), (0, 5)], &[(0, 5), (10, 15)]),
            (&[(0, 5), (5, 5)], &[(0, 10)]),
            (&[(0, 10), (2, 3)], &[(0, 10)]),
            (&[(3, 4), (0, 4), (20, 1)], &[(0, 7), (20, 21)]),
            (&[(u32::MAX - 1, 5)], &[(END - 1, END)]),
            (&[(u32::MAX, 5)], &[]),
        ] {
            let found: Vec<_> = set(given).0.iter().map(|range| (range.start, range.end)).collect();
            assert_eq!(found, expected, "{given:?}");
        }
        assert_eq!(IdSet::first_ids(3), set(&[(0, 3)]));
        assert_eq!(IdSet::first_ids(u64::MAX).size(), END);
    }

    #[test]
    fn sets_are_joined_and_cut() {
        let a = set(&[(0, 10), (20, 10)]);
        assert_eq!((a.size(), set(&[]).size()), (20, 0));
        assert_eq!(a.union(&set(&[(8, 13)])), set(&[(0, 30)]));
        for (hole, rest) in [
            (&[][..], &[(0, 10), (20, 10)][..]),
            (&[(0, 30)], &[]),
            (&[(0, 1), (9, 12), (29, 5)], &[(1, 8), (21, 8)]),
            (&[(3, 2), (5, 1)], &[(0, 3), (6, 4), (20, 10)]),
            (&[(10, 10), (30, 10)], &[(0, 10), (20, 10)]),
            (&[(22, 2), (26, 2)], &[(0, 10), (20, 2), (24, 2), (28, 2)]),
        ] {
            assert_eq!(a.subtract(&set(hole)), set(rest), "{hole:?}");
        }
        assert_eq!(set(&[]).subtract(&a), set(&[]));
    }

    #[test]
    fn one_piece_is_better_than_several() {
        let free = set(&[(0, 5), (10, 20), (40, 30)]);
        assert_eq!(free.first(5), Some(set(&[(0, 5)])));
        assert_eq!(free.first(6), Some(set(&[(10, 6)])));
        assert_eq!(free.first(30), Some(set(&[(40, 30)])));
        assert_eq!(free.first(31), Some(set(&[(0, 5), (10, 20), (40, 6)])));
        assert_eq!(free.first(55), Some(free.clone()));
        assert_eq!(free.first(56), None);
        assert_eq!(free.first(0), Some(set(&[])));
        assert_eq!(set(&[]).first(1), None);
    }

    #[test]
    fn ids_are_paired_in_order() {
        let a = set(&[(0, 5), (10, 5)]);
        assert_eq!(a.zip(&set(&[(100, 10)])), [(0, 100, 5), (10, 105, 5)]);
        assert_eq!(a.zip(&set(&[(100, 2), (200, 8)])), [(0, 100, 2), (2, 200, 3), (10, 203, 5)]);
        assert_eq!(a.zip(&set(&[(7, 3)])), [(0, 7, 3)], "as long as the shorter");
        assert_eq!(a.zip(&set(&[])), []);
    }
}
