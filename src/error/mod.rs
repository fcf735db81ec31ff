//! Every error of the crate: one enum for each domain, one [`Error`] over them all.
//!
//! Each message names the thing and the cause, in lower case and without a full stop; `source()` leads to
//! the cause below. This module names no other module of the crate: things appear as text and paths.

mod archive;
mod value;

pub use archive::{ArchiveError, CompressError, SplitError};
pub use value::ValueError;
