//! What is granted to whoever made an image.

use crate::error::{ConfigError, Limit, LimitError};

/// Makes the struct, its defaults and the access by name from one list.
macro_rules! limits {
    ($($(#[$doc:meta])+ $field:ident: $limit:ident = $default:expr;)+) => {
        /// How much is granted to what comes in from outside: layers, image documents, archives, tables of contents. Whoever made
        /// them decides what they say; this bounds the memory, the disk and the time that it costs.
        ///
        /// No real image meets a default. What does is refused before the work is done, with a [`LimitError`] that names
        /// the limit, and leaves nothing in the store. A value that is met exactly passes. What the store itself keeps is not measured
        /// again, and takes nothing from what is granted to an image that stands on it; what it reads at an additional layer store is.
        ///
        /// # Examples
        ///
        /// ```
        /// use layerstore::{Limits, StoreOptions};
        ///
        /// let mut limits = Limits::default();
        /// limits.entries = 100_000;
        /// let limits = limits.with("unpacked_bytes", 10 << 30)?;
        /// let options = StoreOptions::at("/var/lib/demo").limits(limits);
        /// # Ok::<(), layerstore::ConfigError>(())
        /// ```
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[non_exhaustive]
        pub struct Limits {
            $($(#[$doc])+ pub $field: u64,)+
        }

        impl Limits {
            /// What is granted unless somebody says otherwise.
            pub const DEFAULT: Limits = Limits { $($field: $default,)+ };

            /// No limit at all: for what the caller has made itself.
            pub const NONE: Limits = Limits { $($field: u64::MAX,)+ };

            /// How much is granted: no more than [can be](Limit::maximum).
            pub fn get(&self, limit: Limit) -> u64 {
                let value = match limit {
                    $(Limit::$limit => self.$field,)+
                };
                value.min(limit.maximum())
            }

            /// Grants another amount.
            ///
            /// Returns [`ConfigError::Limit`] if that is more than [can be granted](Limit::maximum).
            pub fn set(&mut self, limit: Limit, value: u64) -> Result<(), ConfigError> {
                if let Some(reason) = limit.refuses(value) {
                    return Err(ConfigError::Limit { text: format!("{limit}={value}"), reason });
                }
                match limit {
                    $(Limit::$limit => self.$field = value,)+
                }
                Ok(())
            }
        }
    };
}

limits! {
    /// Members of a layer's archive, and directories that they only imply. 4 194 304, in all layers of an image that are unpacked for
    /// it together: large images have some hundreds of thousands of files, the largest a million or two. Each takes up to 640 bytes
    /// of memory while its layer is sealed and 375 until the image is whole, whatever it says.
    entries: Entries = 4 << 20;
    /// Bytes in the path, or the link target, of one member. 16 KiB: four times what Linux takes in one call.
    path_bytes: PathBytes = 16 << 10;
    /// Bytes in the paths and link targets of all members, in all layers of an image that are unpacked for it together: they are
    /// in memory. Directories that are only implied count as well, and hard links once more when a layer is sealed, as its manifest has
    /// them. 512 MiB: 128 bytes for each of the [`entries`](Self::entries), which bound short ones.
    all_path_bytes: AllPathBytes = 512 << 20;
    /// Bytes in the paths of directories that a layer has no members for, and only implies, each layer by itself; a part of less than 32 bytes counts for 32.
    /// 64 MiB: the path of one member implies a directory for each of its parts, whose paths together are as long as its square, and
    /// the kernel looks at each part of them again and again. A hundred thousand directories have twenty parts each.
    implied_path_bytes: ImpliedPathBytes = 64 << 20;
    /// Bytes in one extension header: a long name, or the PAX records of one member with all its xattrs. 1 MiB.
    pax_bytes: PaxBytes = 1 << 20;
    /// Bytes in the xattrs of one member, names and values. 512 KiB: most filesystems keep no more than 64 KiB.
    xattr_bytes: XattrBytes = 512 << 10;
    /// Bytes in the xattrs of all members, in all layers of an image that are unpacked for it together: they are in memory. An xattr of
    /// less than 64 bytes counts for 64, as it takes about 260 however short it is; those that an implied directory has from a layer
    /// below count as well. 256 MiB: a signature for each of 900 000 files.
    all_xattr_bytes: AllXattrBytes = 256 << 20;
    /// The parts of one sparse file that are no holes. 262 144.
    sparse_extents: SparseExtents = 1 << 18;
    /// Bytes of holes in all sparse files of a layer, and of zeros in a compressed stream that do not count for its
    /// [`expansion`](Self::expansion): those of a run beyond its first 256 KiB. 32 GiB of each, in all layers of an image that are
    /// unpacked for it together: they take nothing in the blob, nothing on the disk, where they are holes, and some time to hash.
    hole_bytes: HoleBytes = 32 << 30;
    /// Bytes that a layer's blob, or a compressed image archive, decompresses to; end blocks and what follows them too. 1 TiB, in all
    /// layers of an image that are unpacked for it together: one that it names again is not, where it has the same files.
    unpacked_bytes: UnpackedBytes = 1 << 40;
    /// How many times its own size a compressed stream may decompress to, at any place of it, once it is beyond
    /// [`expansion_floor`](Self::expansion_floor). Long runs of zeros count when there are more than
    /// [`hole_bytes`](Self::hole_bytes). 200: layers expand two to ten times, text some tens of times, bombs a thousand times and more.
    expansion: Expansion = 200;
    /// Bytes that a compressed stream may decompress to whatever its own size is: below that, `expansion` has no effect. 1 GiB: logs
    /// and databases have parts that say one thing again and again. What is beyond `expansion` in several layers of an image may be as
    /// much together; a blob that has to be unpacked a second time for it is beyond it with all its bytes.
    expansion_floor: ExpansionFloor = 1 << 30;
    /// Bytes of memory that a zstd frame may ask for its window, or an xz stream for its dictionary. 128 MiB, as the
    /// programs grant it. For zstd it is rounded down to a power of two.
    window_bytes: WindowBytes = 128 << 20;
    /// Layers of one image. 500: an overlay mount takes no more. Docker makes images of 127 at the most.
    layers: Layers = 500;
    /// Bytes in one document of an image: index, manifest, config. 4 MiB: what registries take.
    manifest_bytes: ManifestBytes = 4 << 20;
    /// How deep indexes may be nested below that of a layout. 4.
    index_depth: IndexDepth = 4;
    /// How many indexes one image may be looked up in. 64.
    indexes: Indexes = 64;
    /// How many descriptors all these indexes may list. 10 000.
    index_entries: IndexEntries = 10_000;
    /// Members of an image archive. 100 000: real ones have some for each layer.
    archive_members: ArchiveMembers = 100_000;
    /// Bytes in the names and link targets of all members of an image archive, which are in memory while it is read. 16 MiB: each
    /// takes some eighty.
    archive_path_bytes: ArchivePathBytes = 16 << 20;
    /// Names of one image in a docker archive. 1024: each is a row of the store; real images have a few.
    names: Names = 1024;
    /// Bytes in a table of contents, or in a tar-split, of a blob that is fetched in parts, compressed or not. 150 MiB: what
    /// containers-storage grants.
    toc_bytes: TocBytes = 150 << 20;
    /// Entries of a table of contents, chunks included. 1 048 576.
    toc_entries: TocEntries = 1 << 20;
    /// Bytes of contents that are here, beyond one of each, in a layer that is fetched in parts: a table names one again and
    /// again for a few bytes. 32 GiB.
    copied_bytes: CopiedBytes = 32 << 30;
    /// Bytes in what an additional layer store says of a layer. 8 MiB.
    layer_info_bytes: LayerInfoBytes = 8 << 20;
}

impl Default for Limits {
    fn default() -> Self {
        Limits::DEFAULT
    }
}

impl Limits {
    /// These with another amount for the limit that is called `name`, as the command line calls it.
    ///
    /// Returns [`ConfigError::Limit`] if there is none of this name, or it is more than [can be granted](Limit::maximum).
    pub fn with(mut self, name: &str, value: u64) -> Result<Self, ConfigError> {
        self.set(name.parse()?, value)?;
        Ok(self)
    }

    /// Those that are not the default, with what is granted.
    pub fn changed(&self) -> impl Iterator<Item = (Limit, u64)> {
        let changed = |limit: &Limit| self.get(*limit) != Limits::DEFAULT.get(*limit);
        Limit::ALL.iter().copied().filter(changed).map(|limit| (limit, self.get(limit)))
    }

    /// Refuses what is more than is granted. `subject` names it.
    pub(crate) fn check<S: Into<String>>(
        &self,
        limit: Limit,
        found: u64,
        subject: impl FnOnce() -> S,
    ) -> Result<(), LimitError> {
        let value = self.get(limit);
        if found > value { Err(LimitError::new(subject(), limit, value, Some(found))) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use layerstore_schema::manifest::{ENTRY_COUNTS, MEMORY_MAX, XATTR_COUNTS};

    use super::*;

    #[test]
    fn each_limit_has_a_name_and_a_field_of_its_own() {
        let shown = format!("{:?}", Limits::DEFAULT);
        for (number, limit) in Limit::ALL.iter().enumerate() {
            let value = 10_000_019 + number as u64;
            let changed = Limits::DEFAULT.with(limit.name(), value).unwrap();
            assert_eq!(changed.changed().collect::<Vec<_>>(), [(*limit, value)]);
            assert!(shown.contains(&format!(" {}: ", limit.name())), "{limit} is no field");
        }
        assert_eq!(Limits::default().changed().count(), 0);
        let error = Limits::DEFAULT.with("entires", 1).unwrap_err().to_string();
        assert!(error.contains("\"entires\"") && error.contains("entries, path_bytes"), "{error}");
    }

    /// A layer with more could be read, and not be sealed.
    #[test]
    fn no_more_is_granted_than_the_format_has() {
        for (limit, most, shown) in [
            (Limit::Entries, MEMORY_MAX / ENTRY_COUNTS, "11184810"),
            (Limit::AllPathBytes, MEMORY_MAX, "2GiB"),
            (Limit::AllXattrBytes, MEMORY_MAX, "2GiB"),
        ] {
            assert_eq!(limit.maximum(), most);
            let limits = Limits::DEFAULT.with(limit.name(), most).unwrap();
            let error = limits.with(limit.name(), most + 1).unwrap_err().to_string();
            assert!(error.contains(limit.name()) && error.contains(shown), "{error}");
            assert_eq!(Limits::NONE.get(limit), most);
            let error = Limits::NONE.check(limit, most + 1, || "a").unwrap_err();
            assert_eq!((error.value, error.found), (most, Some(most + 1)));
        }
    }

    /// Whatever comes in under the defaults can be sealed, if one layer has all of it.
    #[test]
    fn what_the_defaults_grant_fits_into_a_manifest() {
        let granted = |limit| Limits::DEFAULT.get(limit);
        // An xattr that counts for no more than the least takes most beyond what it counts for.
        let xattrs = granted(Limit::AllXattrBytes) / 64;
        let counted = granted(Limit::Entries) * ENTRY_COUNTS
            + granted(Limit::AllPathBytes)
            + xattrs * (XATTR_COUNTS + 64);
        assert!(counted <= MEMORY_MAX, "{counted}");
    }

    #[test]
    fn an_error_says_which_and_how_much() {
        let error = Limits::DEFAULT.check(Limit::IndexDepth, 5, || "sha256:00").unwrap_err();
        let text = "sha256:00 goes beyond the limit index_depth: 5 indexes inside of one another were met, and 4 are granted";
        assert_eq!(error.to_string(), text);
        assert!(Limits::DEFAULT.check(Limit::IndexDepth, 4, || "x").is_ok());
        let wrapped = std::io::Error::other(std::io::Error::from(error.clone()));
        assert_eq!(LimitError::inside(&wrapped), Some(&error));
    }
}
