//! Layers of many members: four times as many take about four times as much of the processor's time. With the square of
//! their number it would be sixteen times. The calls alone are counted exactly by a unit test.

use super::*;
use crate::support::tar::pax_record;

/// Between what is linear and what is not, far from both: a machine that is busy makes no time nine times another.
const MOST: u32 = 9;

/// What the larger one may take at all.
const LONGEST: Duration = Duration::from_secs(120);

impl Place {
    /// The least that so many loads of this layer take in each mode.
    fn least_cpu(&self, name: &str, layer: &Layer, loads: usize) -> Vec<Duration> {
        self.write([layer.clone()]);
        let mut least = vec![Duration::MAX; Mode::all().len()];
        for _ in 0..loads {
            for (least, outcome) in least.iter_mut().zip(self.load(name, process::longest(LONGEST)).outcomes)
            {
                assert_eq!(outcome.error, None, "{name}");
                *least = outcome.cpu.min(*least);
            }
        }
        least
    }

    fn assert_grows(&self, name: &str, count: usize, loads: usize, layer: impl Fn(usize) -> Layer) {
        let measure = |count| self.least_cpu(name, &layer(count), loads);
        let is_more = |small: &[Duration], large: &[Duration]| {
            small.iter().zip(large).any(|(small, large)| *large >= *small * MOST)
        };
        let (mut small, mut large) = (measure(count), measure(4 * count));
        // Filesystems have bad minutes, too: some search long for an inode where many have just been deleted.
        for _ in 0..3 {
            if is_more(&small, &large) {
                large = least(large, measure(4 * count));
                small = least(small, measure(count));
            }
        }
        assert!(!is_more(&small, &large), "{name}: {small:?}, and {large:?} for four times as many");
        assert!(large.iter().all(|large| *large < LONGEST), "{name}: {large:?}");
    }

    /// Of the same member again and again.
    fn assert_repeats(&self, name: &str, count: usize, member: &Member) {
        self.assert_grows(name, count, 1, |count| {
            let mut tar = Member::directory("d").to_bytes();
            tar.extend(member.to_bytes().repeat(count));
            tar.resize(tar.len() + 1024, 0);
            Layer::from_tar(tar)
        });
    }

    /// Of members that differ by their number.
    fn assert_each(&self, name: &str, member: impl Fn(usize) -> Member) {
        let members = |count| (0..count).map(&member).collect::<Vec<_>>();
        self.assert_grows(name, 500, 1, |count| Layer::new(members(count)));
    }
}

/// The smaller of each two.
fn least(one: Vec<Duration>, other: Vec<Duration>) -> Vec<Duration> {
    one.into_iter().zip(other).map(|(one, other)| one.min(other)).collect()
}

/// The largest of them has two hundred thousand members.
#[test]
fn the_same_marker_again_and_again() {
    let place = Place::new();
    place.assert_repeats("opaque markers", 50_000, &Member::opaque("d"));
    place.assert_repeats("whiteouts", 20_000, &Member::whiteout("d/name"));
}

#[test]
fn many_names() {
    let place = Place::new();
    place.assert_each("whiteouts", |number| Member::whiteout(format!("d/{number}")));
    place.assert_each("long names", |number| {
        Member::file(format!("{}/{number:0>255}", "d".repeat(255)), b"x")
    });
    place
        .assert_each("directories that nobody named", |number| Member::file(format!("{number}/d/e/f"), b"x"));
}

#[test]
fn many_links() {
    let place = Place::new();
    place.assert_each("links", |number| Member::symlink(format!("l{number}"), "../../../victim"));
    place.assert_each("hard links", |number| match number {
        0 => Member::file("h0", b"x"),
        _ => Member::hard_link(format!("h{number}"), format!("h{}", number - 1)),
    });
}

/// In one extension header, which has a limit of its own.
#[test]
fn many_records() {
    let place = Place::new();
    place.assert_grows("records", 4000, 1, |count| {
        let mut records = Vec::new();
        (0..count).for_each(|number| pax_record(&mut records, format!("comment.{number}").as_bytes(), b"x"));
        Layer::new([Member::file("f", b"x").pax_bytes(records)])
    });
}
