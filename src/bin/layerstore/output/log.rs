//! What the library tells of its work, on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::args::Color;
use crate::failure::Failure;

/// Starts to tell what passes the filter.
///
/// Returns [`Failure::Setting`] if it is no filter.
pub fn start(filter: &str, color: Color) -> Result<(), Failure> {
    let invalid = |reason: String| Failure::Setting { name: "--log", value: filter.to_owned(), reason };
    let parsed = EnvFilter::try_new(filter).map_err(|error| invalid(error.to_string()))?;
    let ansi = match color {
        Color::Auto => {
            io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
        }
        Color::Always => true,
        Color::Never => false,
    };
    tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(ansi)
        .with_writer(io::stderr)
        .try_init()
        .map_err(|error| invalid(error.to_string()))
}
