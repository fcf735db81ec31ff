//! The rows: each is some work that layerstore and others do, and what it should cost.

mod containers;
mod growth;
mod image;
mod layer;
pub mod library;
mod load;
mod program;

use super::Bench;
use super::results::{Claim, Cost, Measured, Plot};

/// Something that is measured by itself.
pub struct Row {
    pub name: &'static str,
    /// What it measures, in a line.
    pub about: &'static str,
    pub measure: fn(&mut Bench) -> Measured,
}

/// All of them, in the order of the page.
pub const ROWS: &[Row] = &[
    Row { name: "load-gzip", about: "load the six-layer Debian image, gzip", measure: load::gzip },
    Row { name: "load-zstd", about: "the same, zstd", measure: load::zstd },
    Row { name: "load-known", about: "load an image whose layers are all known", measure: load::known },
    Row {
        name: "small-files",
        about: "one uncompressed layer of 50,000 small files",
        measure: layer::small_files,
    },
    Row { name: "export", about: "export that layer, bit for bit", measure: layer::export },
    Row {
        name: "containers",
        about: "create and delete a container beside 10, 1,000 and 10,000 others",
        measure: containers::create_and_delete,
    },
    Row {
        name: "library",
        about: "operations of the library, beside bare system calls",
        measure: library::operations,
    },
    Row { name: "list", about: "list 10,000 containers as JSON", measure: containers::list },
    Row {
        name: "processes",
        about: "8 processes that create and delete containers",
        measure: containers::processes,
    },
    Row { name: "delete", about: "delete an image with a layer of 50,000 files", measure: image::delete },
    Row { name: "check", about: "check --deep of the Debian image, beside b3sum", measure: image::check },
    Row { name: "memory", about: "peak memory of commands", measure: program::memory },
    Row { name: "binary", about: "size and start of the program", measure: program::binary },
    Row { name: "growth-layers", about: "load images of 1 to 100 layers", measure: growth::layers },
    Row { name: "growth-files", about: "put layers of 10 to 100,000 files", measure: growth::files },
    Row {
        name: "growth-containers",
        about: "create and delete beside 10 to 100,000 containers",
        measure: growth::containers,
    },
];

fn measured(claims: Vec<Claim>, costs: Vec<Cost>) -> Measured {
    Measured { claims, costs, ..Measured::default() }
}

fn plotted(plot: Plot, costs: Vec<Cost>) -> Measured {
    Measured { plots: vec![plot], costs, ..Measured::default() }
}
