//! Damage as people read it: each thing once, with all that was found in it and what a repair would do about that. Ids
//! are short, and have names where there are some; JSON has them whole.

use std::collections::BTreeMap;
use std::mem;

use layerstore::{Finding, Note, Remedy, Store};

use super::{Output, text};
use crate::failure::Failure;

/// What things are called that have an id.
#[derive(Debug, Default)]
pub struct Names(BTreeMap<String, String>);

impl Names {
    /// The names in a store, as far as they can be read: it may be damaged.
    pub fn of(store: &Store) -> Self {
        let mut names = BTreeMap::new();
        for container in store.containers().unwrap_or_default() {
            let name = container.names.first().map(ToString::to_string);
            names.extend(name.map(|name| (container.id.to_string(), name)));
        }
        for image in store.images().unwrap_or_default() {
            let Some(name) = image.names.first().map(ToString::to_string) else { continue };
            let layers = image.top_layer.as_ref().map(|top| store.layer_chain(top).unwrap_or_default());
            for layer in layers.into_iter().flatten() {
                names.entry(layer.id.to_string()).or_insert_with(|| format!("image {name}"));
            }
            names.insert(image.id.to_string(), name);
        }
        Names(names)
    }

    /// A thing such as `layer 5f70bf18a086`, with the name of the first id in it.
    pub fn thing(&self, thing: &str) -> String {
        let shown = short_ids(&text::printable(thing));
        let mut words = thing.split([' ', ',']);
        match words.find_map(|word| self.0.get(word)) {
            Some(name) => format!("{shown} ({})", text::printable(name)),
            None => shown,
        }
    }
}

/// Prints what was found, each line that begins with a thing after `prefix`.
pub fn print(findings: &[Finding], names: &Names, prefix: &str, out: &Output) -> Result<(), Failure> {
    for (thing, findings) in grouped(findings, Finding::thing) {
        out.line(format_args!("{prefix}{}", names.thing(&thing)))?;
        for (remedy, findings) in grouped(findings, |finding| finding.remedy.clone()) {
            for finding in findings {
                let message = finding.damage.to_string();
                let message = message.strip_prefix(&format!("{thing}: ")).unwrap_or(&message);
                out.line(format_args!("  {}: {}", finding.code(), shown(message)))?;
            }
            print_remedy(&remedy, out)?;
        }
    }
    Ok(())
}

fn print_remedy(remedy: &Remedy, out: &Output) -> Result<(), Failure> {
    let removes = remedy.removes();
    if removes.is_empty() {
        return out.line(format_args!("    {}", shown(&remedy.to_string())));
    }
    match remedy.wanted() {
        [] => out.line("    it cannot be had again; a repair with --force removes")?,
        wanted => {
            let wanted = shown(&wanted.join(" or "));
            out.line(format_args!("    a repair needs an image (--from oci:DIR) with {wanted}"))?;
            out.line("    with --force it removes")?;
        }
    }
    removes.iter().try_for_each(|one| out.line(format_args!("      {}", shown(one))))
}

/// Prints what is not on the disk for certain, a line for each kind of note, and a line for each of the others.
pub fn print_notes(notes: &[Note], out: &Output) -> Result<(), Failure> {
    for (_, notes) in grouped(notes, mem::discriminant) {
        let (one, several, what) = match notes.first() {
            Some(Note::Unverified { .. }) => (
                "was",
                "were",
                "not synced when the machine went down, verified before the first use or by `layerstore check --deep`",
            ),
            Some(Note::Unsynced { .. }) => {
                ("is", "are", "not synced; `layerstore sync` brings to the disk what is not")
            }
            _ => {
                notes
                    .iter()
                    .try_for_each(|note| out.line(format_args!("note: {}", shown(&note.to_string()))))?;
                continue;
            }
        };
        let blobs = notes.iter().filter(|note| note.thing().starts_with("kept blob ")).count();
        let counts = [(notes.len().saturating_sub(blobs), "layer"), (blobs, "kept blob")];
        let counts = counts.into_iter().filter(|(number, _)| *number > 0);
        let counts: Vec<_> = counts
            .map(|(number, noun)| text::count(u64::try_from(number).unwrap_or(u64::MAX), noun))
            .collect();
        let verb = if notes.len() == 1 { one } else { several };
        out.line(format_args!("note: {} {verb} {what}", counts.join(" and ")))?;
    }
    Ok(())
}

/// Text of the store on one line, with short ids.
pub fn shown(text: &str) -> String {
    short_ids(&text::printable(text))
}

/// The text with each id and digest cut short; what is part of a path stays.
fn short_ids(text: &str) -> String {
    let is_id =
        |word: &str| matches!(word.len(), 64 | 128) && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_between = |character: char| !character.is_ascii_alphanumeric() && !"/-_".contains(character);
    let mut shown = String::with_capacity(text.len());
    for word in text.split_inclusive(is_between) {
        let bare = word.trim_end_matches(is_between);
        shown.push_str(text::short(bare, !is_id(bare)));
        shown.push_str(word.get(bare.len()..).unwrap_or_default());
    }
    shown
}

/// What has the same key together, in the order of the first of each.
fn grouped<'a, T, K: PartialEq>(
    all: impl IntoIterator<Item = &'a T>,
    key: impl Fn(&'a T) -> K,
) -> Vec<(K, Vec<&'a T>)> {
    let mut groups: Vec<(K, Vec<&T>)> = Vec::new();
    for one in all {
        let of = key(one);
        match groups.iter_mut().find(|(key, _)| *key == of) {
            Some((_, group)) => group.push(one),
            None => groups.push((of, vec![one])),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_cut_short_and_paths_are_not() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(short_ids(&format!("layers {id}, {id}: x")), "layers 0123456789ab, 0123456789ab: x");
        assert_eq!(short_ids(&format!("web ({id}) sha256:{id}")), "web (0123456789ab) sha256:0123456789ab");
        for path in [format!("\"/a/{id}\""), format!("/a/{id}/b"), format!("{id}0"), "deadbeef".to_owned()] {
            assert_eq!(short_ids(&path), path);
        }
    }
}
