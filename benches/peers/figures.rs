//! The arithmetic of measuring: medians, ratios of pairs, and figures as people read them.

use serde::{Deserialize, Serialize};

/// The middle of some values, and how far they went.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => f64::midpoint(sorted[half - 1], sorted[half]),
            _ => sorted[half],
        };
        Some(Self { median, min, max })
    }
}

/// The median, and 0 of nothing.
pub fn median(values: &[f64]) -> f64 {
    Spread::of(values).map_or(0.0, |spread| spread.median)
}

/// The ratio of each pair. Only what was measured in turn may be paired.
pub fn ratios(dividends: &[f64], divisors: &[f64]) -> Vec<f64> {
    assert_eq!(dividends.len(), divisors.len(), "one of a pair is missing");
    dividends.iter().zip(divisors).map(|(dividend, divisor)| dividend / divisor).collect()
}

/// What a value is a number of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Seconds,
    PerSecond,
    Bytes,
    Count,
    Ratio,
}

impl Unit {
    /// Whether more of it is better.
    pub fn more_is_better(self) -> bool {
        matches!(self, Unit::PerSecond | Unit::Ratio)
    }

    pub fn show(self, value: f64) -> String {
        match self {
            Unit::Seconds => seconds(value),
            Unit::PerSecond => format!("{}/s", digits(value)),
            Unit::Bytes => format!("{} MiB", digits(value / f64::from(1 << 20))),
            Unit::Count => count(value),
            Unit::Ratio => digits(value),
        }
    }
}

fn seconds(value: f64) -> String {
    match value {
        _ if value >= 1.0 => format!("{} s", digits(value)),
        _ if value >= 1e-3 => format!("{} ms", digits(value * 1e3)),
        _ => format!("{} us", digits(value * 1e6)),
    }
}

/// Three digits that count, at the least those before the point.
pub fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A number of things, never less than none, which of an average has a part behind the point.
fn count(value: f64) -> String {
    if value.fract() != 0.0 && value < 99.95 {
        return digits(value);
    }
    let plain = format!("{value:.0}");
    let mut grouped = String::new();
    for (at, digit) in plain.char_indices() {
        if at > 0 && (plain.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[3.0]), Some(Spread { median: 3.0, min: 3.0, max: 3.0 }));
        assert_eq!(Spread::of(&[9.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 9.0 }));
        assert_eq!(Spread::of(&[4.0, 10.0, 1.0, 2.0]), Some(Spread { median: 3.0, min: 1.0, max: 10.0 }));
    }

    #[test]
    fn a_ratio_is_of_what_was_measured_in_turn() {
        assert_eq!(ratios(&[8.0, 9.0], &[2.0, 3.0]), [4.0, 3.0]);
        // The median of the ratios is not the ratio of the medians.
        let (ours, theirs) = ([1.0, 10.0, 2.0], [4.0, 20.0, 20.0]);
        assert_eq!(median(&ratios(&theirs, &ours)), 4.0);
        assert_eq!(median(&theirs) / median(&ours), 10.0);
    }

    #[test]
    #[should_panic(expected = "one of a pair is missing")]
    fn no_ratio_is_made_of_what_has_no_other() {
        ratios(&[1.0, 2.0], &[1.0]);
    }

    #[test]
    fn figures_have_three_digits_and_a_unit() {
        let shown = [3.0, 14.37, 0.4567, 0.009_99, 0.000_123_4, 123.4].map(|value| Unit::Seconds.show(value));
        assert_eq!(shown, ["3.00 s", "14.4 s", "457 ms", "9.99 ms", "123 us", "123 s"]);
        assert_eq!(Unit::PerSecond.show(1234.5), "1234/s");
        assert_eq!(Unit::Bytes.show(64.0 * 1024.0 * 1024.0), "64.0 MiB");
        assert_eq!([9.996, 99.96, 0.0].map(digits), ["10.0", "100", "0.00"]);
        assert_eq!(
            [7.0, 999.0, 1000.4, 1_234_567.0, 2.5].map(count),
            ["7", "999", "1,000", "1,234,567", "2.50"]
        );
    }
}
