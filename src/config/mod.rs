//! `storage.conf`: the configuration that a machine has for programs that keep containers.
//!
//! | part | what it does |
//! | --- | --- |
//! | `key` | which keys there are, and what each takes |
//! | `document` | one file: values with their lines |
//! | `search` | which files are read, in which order |
//! | `environment` | what is asked of the process: user, home, variables |
//! | `limits` | what is granted to what comes in |
//! | `overlay` | the options of the overlay driver, as values |
//! | `settings` | the effective value of each key, and where it came from |
//!
//! The format and the search order are those of containers-storage.conf(5) and containers-config(5).

mod document;
mod environment;
mod file;
mod key;
mod limits;
mod overlay;
mod search;
mod settings;
#[cfg(test)]
mod tests;

pub use document::{Value, Warning};
pub use environment::{DISABLE_ID_MAPS, Environment};
pub use limits::parse_limit;
pub use overlay::{AdditionalLayerPath, LayerSync, OverlayOptions, parse_size};
pub use settings::{DriverOption, Ignored, Origin, Setting, Settings};
