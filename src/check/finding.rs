//! What a check found: a damage, the layers that it is in, and what a repair would do about it.

use std::collections::BTreeSet;
use std::fmt;

use layerstore_schema::record::LayerContent;

use super::{Casualty, Damage, Remedy};
use crate::meta::Records;
use crate::types::TreeDigest;

/// A sealed directory, named by the layers whose files it holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct SealedTree {
    /// The digest of its content.
    pub digest: TreeDigest,
    /// The ids of the layers.
    pub layers: Vec<String>,
}

/// A tree with the layers whose content it is.
pub(crate) fn tree_of(records: &Records, tree: &[u8; 32]) -> SealedTree {
    let content = LayerContent::Sealed(*tree);
    let layers = records.layers.values().filter(|layer| layer.content == content);
    SealedTree { digest: TreeDigest(*tree), layers: layers.map(|layer| layer.id.clone()).collect() }
}

impl fmt::Display for SealedTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layers.as_slice() {
            [] => write!(f, "tree {}", self.digest),
            [only] => write!(f, "layer {only}"),
            several => write!(f, "layers {}", several.join(", ")),
        }
    }
}

/// Something that a check found, and what a repair would do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What is wrong.
    pub damage: Damage,
    /// What [`Store::repair`](crate::store::Store::repair) would do.
    pub remedy: Remedy,
    /// What it hurts, with the remedy for each of these as a whole.
    pub(crate) cures: Vec<Cure>,
}

/// What a repair would do about one thing that is hurt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cure {
    pub(crate) casualty: Casualty,
    pub(crate) remedy: Remedy,
    /// All that goes with `--force`.
    pub(crate) removes: BTreeSet<Casualty>,
}

impl Finding {
    /// A word for the kind of damage, for programs: it stays the same in all releases.
    pub fn code(&self) -> &'static str {
        self.damage.code()
    }

    /// What the damage is in, such as `layer 5f70bf18a086`.
    pub fn thing(&self) -> String {
        self.damage.thing()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.damage, self.remedy)
    }
}
