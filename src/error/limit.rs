//! More than is granted to what comes from strangers.

use std::fmt;
use std::io;
use std::str::FromStr;

use layerstore_schema::manifest::{ENTRY_COUNTS, MEMORY_MAX};

use super::ConfigError;

/// Makes the enum and its tables from one list, so that no limit lacks a name or a unit.
macro_rules! limits {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal, $unit:literal;)+) => {
        /// What is limited. Each has a field of the same meaning in [`Limits`](crate::Limits), where its default is told.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[non_exhaustive]
        pub enum Limit {
            $($(#[$doc])+ $variant,)+
        }

        impl Limit {
            /// All of them, in the order of the documentation.
            pub const ALL: &[Limit] = &[$(Limit::$variant),+];

            /// The name: that of the field, and what the command line and the configuration call it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Limit::$variant => $name,)+
                }
            }

            /// What is counted, for messages.
            pub fn unit(self) -> &'static str {
                match self {
                    $(Limit::$variant => $unit,)+
                }
            }
        }
    };
}

limits! {
    /// Members of a layer's archive, and directories that they only imply.
    Entries = "entries", "members and implied directories";
    /// The path, or the link target, of one member.
    PathBytes = "path_bytes", "bytes in a path or link target";
    /// The paths and link targets of all members and implied directories.
    AllPathBytes = "all_path_bytes", "bytes in all paths and link targets";
    /// The paths of directories that a layer has no members for.
    ImpliedPathBytes = "implied_path_bytes", "bytes in the paths of directories that are only implied";
    /// One extension header: a long name, or the PAX records of one member.
    PaxBytes = "pax_bytes", "bytes in one extension header";
    /// The xattrs of one member, names and values.
    XattrBytes = "xattr_bytes", "bytes in the xattrs of one member";
    /// The xattrs of all members.
    AllXattrBytes = "all_xattr_bytes", "bytes in the xattrs of all members";
    /// The parts of one sparse file that are no holes.
    SparseExtents = "sparse_extents", "extents of one sparse file";
    /// The holes of all sparse files.
    HoleBytes = "hole_bytes", "bytes of holes in sparse files";
    /// What a layer's blob, or an image archive, decompresses to.
    UnpackedBytes = "unpacked_bytes", "bytes once decompressed";
    /// How many times its own size a compressed stream decompresses to.
    Expansion = "expansion", "times its compressed size";
    /// The bytes that a compressed stream may decompress to whatever its own size is.
    ExpansionFloor = "expansion_floor", "bytes before the expansion counts";
    /// The window of a zstd frame, or the dictionary of an xz stream.
    WindowBytes = "window_bytes", "bytes of memory for a decompressor's window";
    /// The layers of one image.
    Layers = "layers", "layers";
    /// A manifest, an index, or a config.
    ManifestBytes = "manifest_bytes", "bytes in one document";
    /// How deep indexes are nested.
    IndexDepth = "index_depth", "indexes inside of one another";
    /// The indexes that one image is looked up in.
    Indexes = "indexes", "indexes";
    /// What all these indexes list.
    IndexEntries = "index_entries", "descriptors in indexes";
    /// Members of an image archive.
    ArchiveMembers = "archive_members", "members of an image archive";
    /// The names and link targets of all members of an image archive.
    ArchivePathBytes = "archive_path_bytes", "bytes in the names and link targets of an image archive";
    /// The names of one image in a docker archive.
    Names = "names", "names of one image";
    /// A table of contents, or a tar-split, compressed or not.
    TocBytes = "toc_bytes", "bytes in a table of contents or tar-split";
    /// Entries of a table of contents, chunks included.
    TocEntries = "toc_entries", "entries of a table of contents";
    /// Contents that a table of contents names again, in files that are here.
    CopiedBytes = "copied_bytes", "bytes of contents that the table has again";
    /// What an additional layer store says of a layer.
    LayerInfoBytes = "layer_info_bytes", "bytes in what is said of a layer";
}

impl Limit {
    /// Whether bytes are counted, and not things.
    pub fn is_bytes(self) -> bool {
        self == Limit::ExpansionFloor || self.name().ends_with("_bytes")
    }

    /// The most that can be granted: what the format of the store has room for, else any amount.
    pub fn maximum(self) -> u64 {
        match self {
            Limit::Entries => MEMORY_MAX / ENTRY_COUNTS,
            Limit::AllPathBytes | Limit::AllXattrBytes => MEMORY_MAX,
            _ => u64::MAX,
        }
    }

    /// Why this much cannot be granted, if that is so.
    pub(crate) fn refuses(self, value: u64) -> Option<String> {
        let most =
            || format!("no more than {} can be granted, as a layer has no more", self.amount(self.maximum()));
        (value > self.maximum()).then(most)
    }

    /// At least this much, as people write it.
    fn amount(self, value: u64) -> String {
        let units =
            [(1 << 50, "PiB"), (1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let unit = units.into_iter().find(|(bytes, _)| self.is_bytes() && value >= *bytes);
        unit.map_or_else(|| value.to_string(), |(bytes, unit)| format!("{}{unit}", value.div_ceil(bytes)))
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Limit {
    type Err = ConfigError;

    /// The limit of this name.
    ///
    /// Returns [`ConfigError::Limit`], which lists the names there are.
    fn from_str(name: &str) -> Result<Self, ConfigError> {
        let found = Limit::ALL.iter().find(|limit| limit.name() == name);
        found.copied().ok_or_else(|| {
            let known: Vec<_> = Limit::ALL.iter().map(|limit| limit.name()).collect();
            let reason = format!("there is no such limit; there are {}", known.join(", "));
            ConfigError::Limit { text: name.to_owned(), reason }
        })
    }
}

/// Something that came from a stranger asks for more than is granted. Nothing of it is in the store.
///
/// [`Error::limit`](super::Error::limit) finds it in any error.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{subject} goes beyond the limit {limit}: {}", granted(*limit, *value, *found))]
#[non_exhaustive]
pub struct LimitError {
    /// What goes beyond it: the path of a member, the digest of a document, a file.
    pub subject: String,
    /// Which limit.
    pub limit: Limit,
    /// How much is granted.
    pub value: u64,
    /// What was met, as far as it was read; `None` where nobody tells.
    pub found: Option<u64>,
}

fn granted(limit: Limit, value: u64, found: Option<u64>) -> String {
    let unit = limit.unit();
    match found {
        Some(found) => format!("{found} {unit} were met, and {value} are granted"),
        None => format!("{value} {unit} are granted"),
    }
}

impl LimitError {
    /// `subject` has `found` of something, of which `value` is granted.
    pub(crate) fn new(subject: impl Into<String>, limit: Limit, value: u64, found: Option<u64>) -> Self {
        LimitError { subject: subject.into(), limit, value, found }
    }

    /// How more is granted; `None` if no more can be.
    pub(super) fn hint(&self) -> Option<String> {
        let (limit, amount) = (self.limit, self.larger_amount()?);
        let quote = if limit.is_bytes() { "\"" } else { "" };
        Some(format!(
            "if it comes from someone you trust, `--limit {limit}={amount}` grants more, and so does \
             `{limit} = {quote}{amount}{quote}` in the table storage.options.layerstore.limits of the configuration"
        ))
    }

    /// An amount that would do for what was met, with its unit. What was not read yet can ask for more again.
    fn larger_amount(&self) -> Option<String> {
        let value = self.value.saturating_mul(2).max(self.found.unwrap_or(1)).min(self.limit.maximum());
        (value > self.value).then(|| self.limit.amount(value))
    }

    /// Finds one that passed through a reader.
    pub(crate) fn inside(error: &io::Error) -> Option<&LimitError> {
        let mut next = error.get_ref();
        while let Some(current) = next {
            if let Some(found) = current.downcast_ref::<LimitError>() {
                return Some(found);
            }
            next = current.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        }
        None
    }
}

impl From<LimitError> for io::Error {
    fn from(error: LimitError) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_grant_would_do() {
        let grant = |limit: Limit, value, found| {
            let hint = LimitError::new("a", limit, value, found).hint()?;
            Some(hint.split('`').nth(1)?.strip_prefix("--limit ")?.to_owned())
        };
        assert_eq!(grant(Limit::Entries, 1_000_000, Some(1_000_001)).unwrap(), "entries=2000000");
        assert_eq!(grant(Limit::Expansion, 200, Some(1030)).unwrap(), "expansion=1030");
        assert_eq!(grant(Limit::WindowBytes, 128 << 20, None).unwrap(), "window_bytes=256MiB");
        assert_eq!(grant(Limit::PaxBytes, 1 << 20, Some((5 << 20) + 1)).unwrap(), "pax_bytes=6MiB");
        assert_eq!(grant(Limit::HoleBytes, 0, None).unwrap(), "hole_bytes=1");
        assert_eq!(grant(Limit::AllPathBytes, 700 << 20, None).unwrap(), "all_path_bytes=2GiB");
        let hint = LimitError::new("a", Limit::WindowBytes, 1 << 20, None).hint().unwrap();
        assert!(
            hint.contains("`window_bytes = \"2MiB\"` in the table storage.options.layerstore.limits"),
            "{hint}"
        );
        assert_eq!(grant(Limit::AllPathBytes, 2 << 30, Some((2 << 30) + 1)), None);
    }
}
