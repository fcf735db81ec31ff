//! What the library tells of its work, on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::Color;
use crate::failure::Failure;

/// The directives of a filter, where a level alone is that of this program. Of what it is made with, such as the server of
/// `layerstore snapshotter`, only warnings are told, unless a directive names it.
fn own(filter: &str) -> String {
    let own = |directive: &str| match directive.trim().parse::<LevelFilter>() {
        Ok(level) => format!("{},layerstore={level}", level.min(LevelFilter::WARN)),
        Err(_) => directive.to_owned(),
    };
    let directives = filter.split(',').filter(|directive| !directive.trim().is_empty());
    directives.map(own).collect::<Vec<_>>().join(",")
}

/// A word that is no level, and would be taken for the name of some part of which nothing is ever told.
fn stray_word(filter: &str) -> Option<&str> {
    let words = filter.split(',').map(str::trim);
    let is_stray = |word: &&str| {
        !word.is_empty()
            && *word != "layerstore"
            && word.chars().all(char::is_alphanumeric)
            && word.parse::<LevelFilter>().is_err()
    };
    words.into_iter().find(is_stray)
}

/// Starts to tell what passes the filter, which `name` has.
///
/// Returns [`Failure::Setting`] if it is no filter.
pub fn start(name: &'static str, filter: &str, color: Color) -> Result<(), Failure> {
    let invalid = |reason: String| Failure::Setting { name, value: filter.to_owned(), reason };
    if let Some(word) = stray_word(filter) {
        return Err(invalid(format!(
            "{word:?} is none of off, error, warn, info, debug and trace; a part has its level behind it, as in \
             layerstore::store=debug"
        )));
    }
    let wanted: Targets = own(filter).parse().map_err(|error| invalid(format!("{error}")))?;
    let ansi = match color {
        Color::Auto => {
            io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
        }
        Color::Always => true,
        Color::Never => false,
    };
    let told = tracing_subscriber::fmt::layer()
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(ansi)
        .with_writer(io::stderr);
    let subscriber = tracing_subscriber::registry().with(told).with(wanted);
    subscriber.try_init().map_err(|error| invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_alone_is_for_this_program() {
        for (filter, meant) in [
            ("debug", "warn,layerstore=debug"),
            ("ERROR", "error,layerstore=error"),
            ("off", "off,layerstore=off"),
            ("debug,h2=info", "warn,layerstore=debug,h2=info"),
            ("layerstore::store=trace", "layerstore::store=trace"),
            ("h2", "h2"),
            ("warn, ,", "warn,layerstore=warn"),
        ] {
            assert_eq!(own(filter), meant);
            own(filter).parse::<Targets>().unwrap();
        }
    }

    #[test]
    fn words_that_are_no_levels_are_found() {
        for (filter, stray) in [
            ("debug,h2=info", None),
            ("layerstore::store=trace, WARN", None),
            ("layerstore", None),
            ("", None),
            ("loud", Some("loud")),
            ("debug,bogus", Some("bogus")),
        ] {
            assert_eq!(stray_word(filter), stray, "{filter}");
        }
    }
}
