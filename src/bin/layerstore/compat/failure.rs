//! What went wrong, in the reference's words: the one place where the library's errors become its texts.

use std::io;

use layerstore::{CreateError, Error, InUseError, LookupError, MetaError};

use crate::output::report;

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// The line that says it.
    Text(String),
    /// It was told already.
    Told,
    /// Standard output cannot be written.
    Output(io::Error),
}

impl Failure {
    /// A failure with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Failure::Text(text.into())
    }

    /// The text, with what was being done in front of it.
    pub fn while_doing(self, what: impl std::fmt::Display) -> Self {
        match self {
            Failure::Text(text) => Failure::Text(format!("{what}: {text}")),
            other => other,
        }
    }

    /// The text; empty if it was told.
    pub fn text(&self) -> String {
        match self {
            Failure::Text(text) => text.clone(),
            Failure::Told => String::new(),
            Failure::Output(error) => format!("write /dev/stdout: {}", super::golang::system_text(error)),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Text(text(&error))
    }
}

/// The reference's texts for its own errors. Scripts look for them.
pub mod known {
    pub const CONTAINER: &str = "container not known";
    pub const IMAGE: &str = "image not known";
    pub const LAYER: &str = "layer not known";
    pub const NOT_CONTAINER: &str = "identifier is not a container";
    pub const NOT_IMAGE: &str = "identifier is not an image";
    pub const NOT_LAYER: &str = "identifier is not a layer";
    pub const NOT_ANYTHING: &str = "identifier is not a layer, image, or container";
    pub const DUPLICATE_ID: &str = "that ID is already in use";
    pub const DUPLICATE_NAME: &str = "that name is already in use";
    pub const HAS_CHILDREN: &str = "layer has children";
    pub const USED_BY_IMAGE: &str = "layer is in use by an image";
    pub const USED_BY_CONTAINER: &str = "layer is in use by a container";
    pub const IMAGE_USED: &str = "image is in use by a container";
    pub const PARENT_IS_CONTAINER: &str = "would-be parent layer is a container";
    pub const READ_ONLY_MOUNT: &str =
        "mounting read/only store images is not allowed: called a write method on a read-only store";
    pub const NOT_MOUNTED: &str = "layer is not mounted";
    pub const NO_SIZE: &str = "size is not known";
    pub const NO_DIGEST: &str = "could not compute digest of item";
    pub const BAD_ITEM_NAME: &str = "not a valid name for a big data item";
    pub const BAD_DIGEST: &str = "invalid checksum digest format";
    pub const BAD_DIGEST_LENGTH: &str = "invalid checksum digest length";
    pub const BAD_ALGORITHM: &str = "unsupported digest algorithm";
    pub const NO_FILE: &str = "file does not exist";
    pub const NOT_PARTIAL: &str = "partial images are disabled";
    pub const NOT_SUPPORTED: &str = "driver not supported";
    pub const INVALID_MAPS: &str = "invalid mappings specified";
    pub const INCOMPLETE: &str = "missing necessary StoreOptions";
}

/// What the reference says where the library says `error`; the library's own words with their causes where the
/// reference knows no such thing.
pub fn text(error: &Error) -> String {
    match error {
        Error::Lookup(LookupError::NotFound { kind, .. } | LookupError::Ambiguous { kind, .. }) => {
            not_known(kind).to_owned()
        }
        // The reference looks only where it can write.
        Error::InOtherStore { kind, .. } => not_known(kind).to_owned(),
        Error::Create(CreateError::ParentOfContainer { .. }) => known::PARENT_IS_CONTAINER.to_owned(),
        Error::Create(CreateError::IdInUse { .. } | CreateError::IdIsName { .. }) => {
            known::DUPLICATE_ID.to_owned()
        }
        Error::Meta(MetaError::NameInUse { .. }) => known::DUPLICATE_NAME.to_owned(),
        Error::InUse(error) => in_use(error),
        error => report::line(error),
    }
}

/// What is wrong with a digest that cannot be read.
pub fn of_digest(text: &str) -> &'static str {
    let Some((algorithm, hex)) = text.split_once(':') else { return known::BAD_DIGEST };
    let is_word = |word: &str, more: &[u8]| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
    };
    if !is_word(algorithm, b"+._-") || !is_word(hex, b"=_-") {
        return known::BAD_DIGEST;
    }
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return known::BAD_ALGORITHM,
    };
    if hex.len() == length { known::BAD_DIGEST } else { known::BAD_DIGEST_LENGTH }
}

fn not_known(kind: &str) -> &'static str {
    match kind {
        "container" => known::CONTAINER,
        "image" => known::IMAGE,
        "layer" => known::LAYER,
        _ => known::NOT_ANYTHING,
    }
}

fn in_use(error: &InUseError) -> String {
    match error {
        InUseError::LayerHasChild { child, .. } => format!("used by layer {child}: {}", known::HAS_CHILDREN),
        InUseError::LayerOfImage { layer, image } => {
            format!("layer {layer} used by image {image}: {}", known::USED_BY_IMAGE)
        }
        InUseError::LayerOfContainer { layer, container } => {
            format!("layer {layer} used by container {container}: {}", known::USED_BY_CONTAINER)
        }
        InUseError::ImageOfContainer { container, .. } => {
            format!("image used by {}: {}", bare_id(container), known::IMAGE_USED)
        }
        error => error.to_string(),
    }
}

/// The id in `name (id)`.
fn bare_id(shown: &str) -> &str {
    match shown.rsplit_once(" (") {
        Some((_, rest)) => rest.strip_suffix(')').unwrap_or(rest),
        None => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(error: impl Into<Error>) -> String {
        text(&error.into())
    }

    #[test]
    fn errors_have_the_texts_that_scripts_look_for() {
        let missing = |kind| LookupError::NotFound { kind, key: "x".into() };
        assert_eq!(of(missing("layer")), "layer not known");
        assert_eq!(of(missing("image")), "image not known");
        assert_eq!(of(missing("container")), "container not known");
        assert_eq!(of(CreateError::IdInUse { kind: "layer", id: "x".into() }), "that ID is already in use");
        let parent = CreateError::ParentOfContainer { layer: "l".into(), container: "c".into() };
        assert_eq!(of(parent), "would-be parent layer is a container");
        let name = MetaError::NameInUse { kind: "layer", name: "n".into(), holder: "x".into() };
        assert_eq!(of(name), "that name is already in use");
        let (layer, child) = ("l".to_owned(), "c".to_owned());
        assert_eq!(
            of(InUseError::LayerHasChild { layer: layer.clone(), child }),
            "used by layer c: layer has children"
        );
        assert_eq!(
            of(InUseError::LayerOfImage { layer: layer.clone(), image: "i".into() }),
            "layer l used by image i: layer is in use by an image"
        );
        assert_eq!(
            of(InUseError::LayerOfContainer { layer, container: "c".into() }),
            "layer l used by container c: layer is in use by a container"
        );
        for container in ["c", "web (c)"] {
            let error = InUseError::ImageOfContainer { image: "i".into(), container: container.into() };
            assert_eq!(of(error), "image used by c: image is in use by a container");
        }
    }

    #[test]
    fn digests_are_wrong_in_several_ways() {
        let hex = "a".repeat(64);
        assert_eq!(of_digest("junk"), known::BAD_DIGEST);
        assert_eq!(of_digest("sha256:"), known::BAD_DIGEST);
        assert_eq!(of_digest(&format!("sha256:{}", hex.to_uppercase())), known::BAD_DIGEST);
        assert_eq!(of_digest("sha256:x"), known::BAD_DIGEST_LENGTH);
        assert_eq!(of_digest(&format!("sha512:{hex}")), known::BAD_DIGEST_LENGTH);
        assert_eq!(of_digest(&format!("md5:{hex}")), known::BAD_ALGORITHM);
    }

    #[test]
    fn other_errors_are_told_with_their_causes() {
        let source = io::Error::other("deep");
        let error = Error::Io { action: "read", path: "/x".into(), source };
        assert_eq!(of(error), "cannot read /x: deep");
    }
}
