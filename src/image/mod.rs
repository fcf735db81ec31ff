//! Images and containers as callers see them, and finding things by what people call them.

mod convert;
mod history;
mod lookup;
mod thing;

pub(crate) use convert::{id_maps, id_ranges};
pub(crate) use history::remember;
pub(crate) use lookup::{Lookup, disguised_as, find_container, find_image, find_layer};
pub use thing::{Container, Image, Item, Kind};
