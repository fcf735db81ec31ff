//! Images outside the store: OCI image layouts, and archives of OCI's and docker's form, in and out.
//!
//! [`Source`] reads and [`Sink`] writes; a [`Reference`] says where. Documents keep the bytes they came with,
//! and are changed through types that leave unknown fields as they are. Everything that is read is hostile:
//! sizes and depths are bounded, digests are checked while the bytes pass, and no name from a document
//! becomes a path without having been a digest or a member of the archive.

mod archive;
mod archive_writer;
mod blob;
mod commit;
mod config;
mod dir;
mod docker_archive;
mod document;
mod layout;
mod layout_writer;
mod load;
mod manifest;
pub mod media_type;
mod platform;
mod reference;
mod save;
mod sink;
mod source;
mod tar_index;
#[cfg(test)]
mod tests;

pub use blob::{BlobReader, Extent, ExtentReader, VerifyReader};
pub use commit::CommitOptions;
pub use config::{History, ImageConfig};
pub use document::Document;
pub use load::LoadOptions;
pub(crate) use load::{MANIFEST_ITEM, blob_input};
pub use manifest::{Annotations, CONTAINERD_NAME, Descriptor, Index, Manifest, REF_NAME};
pub use media_type::{LayerCompression, LayerType};
pub use platform::Platform;
pub use reference::{Reference, Transport};
pub use save::{SaveOptions, SavedImage};
pub use sink::{BlobWriter, Sink, SinkImage};
pub use source::{ResolvedImage, ResolvedLayer, Selection, Source};

/// Runs every reader of documents over `bytes`: for the fuzzer, which looks for panics.
#[doc(hidden)]
pub fn parse_documents(bytes: &[u8]) -> usize {
    let mut read = 0;
    for media_type in [media_type::OCI_INDEX, media_type::DOCKER_MANIFEST, media_type::OCI_MANIFEST] {
        let document = Document::new(bytes.to_vec(), media_type);
        read += usize::from(Index::parse(&document, "index").is_ok());
        if let Ok(mut manifest) = Manifest::parse(&document, "manifest") {
            read += 1 + usize::from(manifest.convert_to_oci().is_ok());
            manifest.replace_layer(0, &Descriptor::of(&document));
            manifest.annotate("a", "b");
            read += usize::from(Manifest::parse(&manifest.to_document(), "edited").is_ok());
        }
    }
    let document = Document::new(bytes.to_vec(), media_type::OCI_CONFIG);
    if let Ok(mut config) = ImageConfig::parse(&document, "config") {
        config.push_layer(crate::types::DiffId(document.digest), History::default());
        config.set_run_field("Cmd", serde_json::Value::Null);
        read += usize::from(ImageConfig::parse(&config.to_document(), "edited").is_ok());
    }
    read += usize::from(docker_archive::is_list(bytes));
    if let Ok(text) = std::str::from_utf8(bytes) {
        read += usize::from(text.parse::<Reference>().is_ok());
        read += usize::from(text.parse::<Platform>().is_ok());
        read += usize::from(reference::docker_name(text).is_ok());
    }
    read
}
