//! What an additional layer store knows of a layer.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::LayerBlob;
use crate::compress::Compression;
use crate::types::{DiffId, Digest};
use layerstore_schema::record::OWNERS_KEPT;

/// What an additional layer store says of a layer. Nobody has checked it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdditionalLayerInfo {
    /// The digest of the table of contents.
    pub toc_digest: Option<Digest>,
    /// The digest of the blob as delivered.
    pub blob_digest: Option<Digest>,
    /// Its length in bytes.
    pub blob_size: Option<u64>,
    /// How it is compressed.
    pub compression: Option<Compression>,
    /// The digest of the uncompressed tar.
    pub diff_id: Option<DiffId>,
    /// The length of that, or of the files in it: stores differ.
    pub diff_size: Option<u64>,
    /// The users that own something in it, ascending; at most the lowest 4096.
    pub uids: Vec<u32>,
    /// The groups.
    pub gids: Vec<u32>,
    /// Flags: name and JSON value.
    pub flags: Vec<(String, String)>,
}

/// The file as it stands there. It is a layer's record as other programs have it, of which this is a part.
#[derive(Deserialize)]
struct Document {
    #[serde(rename = "toc-digest")]
    toc_digest: Option<String>,
    #[serde(rename = "compressed-diff-digest")]
    blob_digest: Option<String>,
    #[serde(rename = "compressed-size")]
    blob_size: Option<i64>,
    #[serde(rename = "diff-digest")]
    diff_id: Option<String>,
    #[serde(rename = "diff-size")]
    diff_size: Option<i64>,
    compression: Option<u8>,
    uidset: Option<Vec<u32>>,
    gidset: Option<Vec<u32>>,
    flags: Option<BTreeMap<String, serde_json::Value>>,
}

impl AdditionalLayerInfo {
    /// Reads the file. The error says what is wrong with it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let document: Document = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let digest = |text: Option<String>| match text.as_deref() {
            None | Some("") => Ok(None),
            Some(text) => text.parse::<Digest>().map(Some).map_err(|error| error.to_string()),
        };
        let size = |what: &str, size: Option<i64>| match size.map(u64::try_from) {
            None => Ok(None),
            Some(Ok(size)) => Ok(Some(size)),
            Some(Err(_)) => Err(format!("{what} is below zero")),
        };
        Ok(AdditionalLayerInfo {
            toc_digest: digest(document.toc_digest)?,
            blob_digest: digest(document.blob_digest)?,
            blob_size: size("compressed-size", document.blob_size)?,
            diff_id: digest(document.diff_id)?.map(DiffId),
            diff_size: size("diff-size", document.diff_size)?,
            compression: document.compression.map(compression).transpose()?,
            uids: lowest(document.uidset),
            gids: lowest(document.gidset),
            flags: flags(document.flags.unwrap_or_default())?,
        })
    }

    /// The blob, if the store knows it.
    pub(crate) fn blob(&self) -> Option<LayerBlob> {
        let suffix = match self.compression {
            None | Some(Compression::None) => "",
            Some(Compression::Gzip) => "+gzip",
            Some(Compression::Zstd | Compression::ZstdChunked) => "+zstd",
            Some(Compression::Bzip2) => "+bzip2",
            Some(Compression::Xz) => "+xz",
        };
        Some(LayerBlob {
            digest: self.blob_digest.clone()?,
            size: self.blob_size?,
            media_type: format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
        })
    }
}

fn compression(number: u8) -> Result<Compression, String> {
    Ok(match number {
        0 => Compression::None,
        1 => Compression::Bzip2,
        2 => Compression::Gzip,
        3 => Compression::Xz,
        4 => Compression::Zstd,
        _ => return Err(format!("there is no compression {number}")),
    })
}

fn lowest(owners: Option<Vec<u32>>) -> Vec<u32> {
    let mut owners = owners.unwrap_or_default();
    owners.sort_unstable();
    owners.dedup();
    owners.truncate(OWNERS_KEPT);
    owners
}

fn flags(flags: BTreeMap<String, serde_json::Value>) -> Result<Vec<(String, String)>, String> {
    if flags.contains_key("") {
        return Err("a flag has no name".to_owned());
    }
    Ok(flags.into_iter().map(|(name, value)| (name, value.to_string())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_says_is_read() {
        let (toc, blob, diff) = (Digest::sha256(b"toc"), Digest::sha256(b"blob"), Digest::sha256(b"diff"));
        let text = format!(
            r#"{{"id": "ignored", "toc-digest": "{toc}", "compressed-diff-digest": "{blob}", "compressed-size": 7,
               "diff-digest": "{diff}", "diff-size": 9, "compression": 2, "uidset": [5, 0, 5], "gidset": [1],
               "flags": {{"b": [1], "a": true}}, "created": 1}}"#
        );
        let info = AdditionalLayerInfo::parse(text.as_bytes()).unwrap();
        assert_eq!(info.blob().unwrap().media_type, "application/vnd.oci.image.layer.v1.tar+gzip");
        let flags = [("a", "true"), ("b", "[1]")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let expected = AdditionalLayerInfo {
            toc_digest: Some(toc),
            blob_digest: Some(blob),
            blob_size: Some(7),
            compression: Some(Compression::Gzip),
            diff_id: Some(DiffId(diff)),
            diff_size: Some(9),
            uids: vec![0, 5],
            gids: vec![1],
            flags: flags.to_vec(),
        };
        assert_eq!(info, expected);
        assert_eq!(AdditionalLayerInfo::parse(b"{}").unwrap(), AdditionalLayerInfo::default());
        assert_eq!(AdditionalLayerInfo::default().blob(), None);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            "",
            "[]",
            "{",
            "{} {}",
            r#"{"diff-size": -1}"#,
            r#"{"compressed-size": 18446744073709551615}"#,
            r#"{"compressed-size": "1"}"#,
            r#"{"diff-digest": "sha256:0"}"#,
            r#"{"diff-digest": "../../etc"}"#,
            r#"{"compression": 5}"#,
            r#"{"uidset": [4294967296]}"#,
            r#"{"flags": {"": 1}}"#,
            r#"{"toc-digest": "", "toc-digest": ""}"#,
        ] {
            assert!(AdditionalLayerInfo::parse(text.as_bytes()).is_err(), "{text}");
        }
        let many = format!(r#"{{"uidset": {:?}}}"#, (0..10_000).rev().collect::<Vec<u32>>());
        let info = AdditionalLayerInfo::parse(many.as_bytes()).unwrap();
        assert_eq!(info.uids, (0..4096).collect::<Vec<u32>>());
    }
}
