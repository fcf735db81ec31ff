//! What a store says about itself: its format version and feature flags, before any record is read.
//!
//! The header is the row `header` of the table `meta`, 48 bytes: format version (u32), reserved zero (u32),
//! the three flag sets (u64 each), the store's UUID (16 bytes), all little-endian.
//!
//! A build opens a store by the rule of ext4: an unknown *incompatible* flag forbids every access, an
//! unknown *read-only compatible* flag forbids writing, an unknown *compatible* flag forbids nothing.

/// The format version that this build writes.
pub const FORMAT: u32 = 1;

/// The key of the header's row.
pub const HEADER_KEY: &str = "header";

/// Flags that an older build may ignore.
pub const KNOWN_COMPATIBLE: u64 = 0;
/// Flags that an older build may ignore as long as it only reads.
pub const KNOWN_READ_ONLY_COMPATIBLE: u64 = 0;
/// Flags that change what the rest means.
pub const KNOWN_INCOMPATIBLE: u64 = incompatible::USER_XATTRS;

/// The incompatible flags.
pub mod incompatible {
    /// Overlay's own xattrs in the diff directories are `user.overlay.*`: the store belongs to user namespaces.
    pub const USER_XATTRS: u64 = 1;
}

/// A store's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The format version of tables and records.
    pub format: u32,
    /// Flags that may be ignored.
    pub compatible: u64,
    /// Flags that may be ignored by readers.
    pub read_only_compatible: u64,
    /// Flags that must be known.
    pub incompatible: u64,
    /// Names this store, for ever.
    pub uuid: [u8; 16],
}

/// What a build may do with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// All.
    ReadWrite,
    /// Reading only: a read-only compatible flag is unknown.
    ReadOnly,
    /// Nothing before the migrations from this version on have run.
    Migrate(u32),
}

/// Why a store cannot be opened by this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The row is not a header.
    #[error("the header is {0} bytes long and not 48")]
    Length(usize),
    /// The format is newer than this build.
    #[error("the store has format {found}, this build knows formats up to {FORMAT}")]
    Newer {
        /// The store's format.
        found: u32,
    },
    /// An incompatible flag is not known.
    #[error("the store needs features that this build does not have (flags {0:#x})")]
    Features(u64),
}

impl Header {
    /// A header for a new store.
    pub fn new(uuid: [u8; 16], incompatible: u64) -> Self {
        Header { format: FORMAT, compatible: 0, read_only_compatible: 0, incompatible, uuid }
    }

    /// The bytes of the row.
    pub fn encode(&self) -> [u8; 48] {
        let mut out = [0; 48];
        let (numbers, uuid) = out.split_at_mut(32);
        let parts = [
            u64::from(self.format).to_le_bytes(),
            self.compatible.to_le_bytes(),
            self.read_only_compatible.to_le_bytes(),
            self.incompatible.to_le_bytes(),
        ];
        numbers.copy_from_slice(&parts.concat());
        uuid.copy_from_slice(&self.uuid);
        out
    }

    /// Reads the bytes of the row.
    ///
    /// Returns [`HeaderError::Length`] if there are not 48 of them, and [`HeaderError::Newer`] if the version is
    /// beyond what any header can hold.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let array: &[u8; 48] = bytes.try_into().map_err(|_| HeaderError::Length(bytes.len()))?;
        let (numbers, uuid) = array.split_at(32);
        let mut words = numbers.chunks_exact(8).map(|chunk| {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            u64::from_le_bytes(word)
        });
        let mut next = || words.next().unwrap_or_default();
        let version = next();
        let format = u32::try_from(version).map_err(|_| HeaderError::Newer { found: u32::MAX })?;
        let mut id = [0; 16];
        id.copy_from_slice(uuid);
        Ok(Header {
            format,
            compatible: next(),
            read_only_compatible: next(),
            incompatible: next(),
            uuid: id,
        })
    }

    /// What this build may do.
    ///
    /// Returns [`HeaderError::Newer`] or [`HeaderError::Features`] if it may do nothing.
    pub fn access(&self) -> Result<Access, HeaderError> {
        if self.format > FORMAT {
            return Err(HeaderError::Newer { found: self.format });
        }
        let unknown = self.incompatible & !KNOWN_INCOMPATIBLE;
        if unknown != 0 {
            return Err(HeaderError::Features(unknown));
        }
        if self.format < FORMAT {
            return Ok(Access::Migrate(self.format));
        }
        let read_only = self.read_only_compatible & !KNOWN_READ_ONLY_COMPATIBLE != 0;
        Ok(if read_only { Access::ReadOnly } else { Access::ReadWrite })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_comes_back() {
        let header = Header { compatible: 1, read_only_compatible: 2, ..Header::new([9; 16], 3) };
        assert_eq!(Header::decode(&header.encode()), Ok(header));
        assert_eq!(Header::decode(&[0; 47]), Err(HeaderError::Length(47)));
    }

    #[test]
    fn flags_decide_as_in_ext4() {
        let header = Header::new([0; 16], incompatible::USER_XATTRS);
        assert_eq!(header.access(), Ok(Access::ReadWrite));
        assert_eq!(Header { compatible: 1 << 60, ..header }.access(), Ok(Access::ReadWrite));
        assert_eq!(Header { read_only_compatible: 1 << 60, ..header }.access(), Ok(Access::ReadOnly));
        let unknown = Header { incompatible: 1 << 60, ..header };
        assert_eq!(unknown.access(), Err(HeaderError::Features(1 << 60)));
        assert_eq!(Header { format: 2, ..header }.access(), Err(HeaderError::Newer { found: 2 }));
        assert_eq!(Header { format: 0, ..header }.access(), Ok(Access::Migrate(0)));
    }
}
