//! Media types of image documents and layers, OCI's and docker's.

use super::document::Document;
use crate::compress::Compression;
use crate::error::OciError;

/// Image index, OCI.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Image manifest, OCI.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Image config, OCI.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Layer, OCI: the compression follows as a suffix.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Manifest list, docker's index.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Image manifest, docker.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Image config, docker.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Layer, docker: the compression follows as a suffix.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

const OCI_FOREIGN_LAYER: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
const DOCKER_FOREIGN_LAYER: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";

/// Whether the media type is that of an index.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_INDEX)
}

/// Whether the media type is that of an image manifest.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
}

/// Whether the media type is that of an image config.
pub fn is_config(media_type: &str) -> bool {
    matches!(media_type, OCI_CONFIG | DOCKER_CONFIG)
}

/// The media type of a manifest whose bytes are all that is kept: what it says itself, else OCI's, which need not say.
///
/// Returns [`OciError::Malformed`] if the document is no JSON object.
pub(super) fn of_manifest(document: &Document) -> Result<String, OciError> {
    let value = document.value()?;
    Ok(value.get("mediaType").and_then(|text| text.as_str()).unwrap_or(OCI_MANIFEST).to_owned())
}

/// What the media type of a layer says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LayerType {
    /// The compression. The content may say otherwise, and bzip2 and xz are in docker archives alone.
    pub compression: Compression,
    /// Whether the layer must not be pushed elsewhere ("nondistributable", docker's "foreign").
    pub nondistributable: bool,
}

impl LayerType {
    /// Reads the media type of the layer `digest`.
    ///
    /// Returns [`OciError::Encrypted`] if the layer is encrypted, and [`OciError::UnknownLayerType`] if it is no tar
    /// or its compression is unknown.
    pub fn parse(media_type: &str, digest: &str) -> Result<LayerType, OciError> {
        if media_type.ends_with("+encrypted") {
            return Err(OciError::Encrypted { digest: digest.to_owned(), media_type: media_type.to_owned() });
        }
        let prefixes = [OCI_LAYER, OCI_FOREIGN_LAYER, DOCKER_LAYER, DOCKER_FOREIGN_LAYER];
        let found = prefixes.iter().find_map(|prefix| Some((*prefix, media_type.strip_prefix(prefix)?)));
        let compression = match found.map(|(_, suffix)| suffix) {
            Some("") => Compression::None,
            // Docker puts a dot before the compression, and some tools mix the two up.
            Some("+gzip" | ".gzip") => Compression::Gzip,
            Some("+zstd" | ".zstd") => Compression::Zstd,
            Some("+bzip2") => Compression::Bzip2,
            Some("+xz") => Compression::Xz,
            _ => {
                let (digest, media_type) = (digest.to_owned(), media_type.to_owned());
                return Err(OciError::UnknownLayerType { digest, media_type });
            }
        };
        let foreign = [OCI_FOREIGN_LAYER, DOCKER_FOREIGN_LAYER];
        Ok(LayerType {
            compression,
            nondistributable: found.is_some_and(|(prefix, _)| foreign.contains(&prefix)),
        })
    }

    /// The media type that OCI has for such a layer.
    pub fn oci(self) -> String {
        let prefix = if self.nondistributable { OCI_FOREIGN_LAYER } else { OCI_LAYER };
        let suffix = match self.compression {
            Compression::None => "",
            Compression::Gzip => "+gzip",
            Compression::Zstd | Compression::ZstdChunked => "+zstd",
            Compression::Bzip2 => "+bzip2",
            Compression::Xz => "+xz",
        };
        format!("{prefix}{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_types_of_both_families() {
        let parse = |text: &str| LayerType::parse(text, "sha256:0");
        let gzip = parse("application/vnd.docker.image.rootfs.diff.tar.gzip").unwrap();
        assert_eq!(gzip.oci(), "application/vnd.oci.image.layer.v1.tar+gzip");
        let foreign = parse("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip").unwrap();
        assert!(foreign.nondistributable);
        assert_eq!(foreign.oci(), "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
        let zstd = parse("application/vnd.oci.image.layer.v1.tar+zstd").unwrap();
        assert_eq!(zstd.compression, Compression::Zstd);
        assert_eq!(parse(OCI_LAYER).unwrap().compression, Compression::None);
    }

    #[test]
    fn other_layers_are_named() {
        let parse = |text: &str| LayerType::parse(text, "sha256:0").unwrap_err();
        assert!(matches!(
            parse("application/vnd.oci.image.layer.v1.tar+gzip+encrypted"),
            OciError::Encrypted { .. }
        ));
        let error = parse("application/vnd.oci.image.layer.squashfs");
        assert!(matches!(error, OciError::UnknownLayerType { .. }));
        assert!(error.to_string().contains("squashfs"));
        assert!(matches!(
            parse("application/vnd.oci.image.layer.v1.tar+br"),
            OciError::UnknownLayerType { .. }
        ));
    }
}
