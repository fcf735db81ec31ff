//! Layers: import, seal, changes, export, removal. Joins the directories with the records.

mod changes;
mod pipeline;
mod stack;
mod thing;

pub use changes::{Change, ChangeKind};
pub use thing::{Layer, LayerBlob};
