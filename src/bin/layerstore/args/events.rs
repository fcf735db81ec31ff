//! `layerstore events`.

use std::time::Duration;

use clap::Args;

use super::global::seconds;

/// List what was changed in the store, and follow what is being changed
///
/// Prints the newest 4096 changes, the oldest first, and ends; with --follow those that are made from now on, by
/// whatever process, as they are committed. Each has a position, from which a later call can go on with --since.
/// Mounts are not told.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  layerstore events
  layerstore events --follow --filter kind=container
  layerstore events --follow --since 4711 --json | while read -r event; do ...; done
  layerstore events --since oldest --follow --timeout 60")]
pub struct EventsArgs {
    /// Begin after this position, or with the oldest change that is kept [default: oldest; with --follow, now]
    ///
    /// Fails with status 1 if changes after the position are no longer kept, and says from where to go on.
    #[arg(long, value_name = "POSITION|oldest", value_parser = since)]
    pub since: Option<Since>,

    /// Wait for further changes
    #[arg(short, long)]
    pub follow: bool,

    /// End after this time; only with --follow, and else wrong usage (status 2)
    #[arg(long, value_name = "SECONDS", value_parser = seconds, requires = "follow")]
    pub timeout: Option<Duration>,

    /// Print only these: kind=, event=, id=, name= or changed=; may be repeated
    ///
    /// Kinds are layer, image, container and blob; events are created, changed and removed; an id may be the beginning
    /// of one; changed is names, metadata, items, flags, labels, digests or record. Of several filters with one key
    /// any must hold, and of several keys all.
    #[arg(long = "filter", value_name = "KEY=VALUE", value_parser = filter)]
    pub filters: Vec<Filter>,

    /// Print whole ids
    #[arg(long)]
    pub no_trunc: bool,
}

/// Where to begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Since {
    /// With all that is kept.
    Oldest,
    /// After a position.
    Position(u64),
}

/// What an event must have to be printed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter {
    /// Which property.
    pub key: FilterKey,
    /// What it must be.
    pub value: String,
}

/// A property of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FilterKey {
    /// What it is about.
    Kind,
    /// What happened.
    Event,
    /// The beginning of the id.
    Id,
    /// One of the names.
    Name,
    /// One of the aspects.
    Changed,
}

fn since(text: &str) -> Result<Since, String> {
    match text {
        "oldest" => Ok(Since::Oldest),
        _ => text.parse().map(Since::Position).map_err(|_| "neither a position nor `oldest`".to_owned()),
    }
}

fn filter(text: &str) -> Result<Filter, String> {
    let (key, value) = text.split_once('=').ok_or("not of the form KEY=VALUE")?;
    let (key, known): (_, &[&str]) = match key {
        "kind" => (FilterKey::Kind, &["layer", "image", "container", "blob"]),
        "event" => (FilterKey::Event, &["created", "changed", "removed"]),
        "changed" => {
            (FilterKey::Changed, &["names", "metadata", "items", "flags", "labels", "digests", "record"])
        }
        "id" => (FilterKey::Id, &[]),
        "name" => (FilterKey::Name, &[]),
        _ => return Err("the key is none of kind, event, id, name and changed".to_owned()),
    };
    if !known.is_empty() && !known.contains(&value) {
        return Err(format!("the value is none of {}", known.join(", ")));
    }
    Ok(Filter { key, value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_filters_are_checked() {
        assert_eq!(since("0"), Ok(Since::Position(0)));
        assert_eq!(since("oldest"), Ok(Since::Oldest));
        assert!(since("-1").is_err() && since("10m").is_err());
        assert_eq!(filter("name=a=b"), Ok(Filter { key: FilterKey::Name, value: "a=b".to_owned() }));
        assert!(
            filter("kind=blob").is_ok() && filter("event=removed").is_ok() && filter("changed=items").is_ok()
        );
        for bad in ["kind", "kind=volume", "event=died", "changed=all", "label=x"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
