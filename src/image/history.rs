//! The names that an image has had.

use std::collections::HashSet;

use layerstore_schema::record::ImageRecord;

/// Notes names that an image was just given: they come first, in their order, and none stands there twice. Nothing
/// is ever taken out.
pub(crate) fn remember(record: &mut ImageRecord, given: &[String]) {
    let old = std::mem::take(&mut record.names_history);
    let mut seen = HashSet::new();
    record.names_history = given.iter().chain(&old).filter(|name| seen.insert(*name)).cloned().collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_never_shrinks_and_has_no_doubles() {
        let mut record = ImageRecord::default();
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        for (given, history) in [
            (&["a", "b"][..], &["a", "b"][..]),
            (&["c"], &["c", "a", "b"]),
            (&[], &["c", "a", "b"]),
            (&["d", "b", "d"], &["d", "b", "c", "a"]),
        ] {
            remember(&mut record, &names(given));
            assert_eq!(record.names_history, names(history), "{given:?}");
        }
    }
}
