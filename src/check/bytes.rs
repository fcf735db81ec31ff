//! Blobs: those kept as files, and bytes in the database.

use std::io::{self, Read};

use layerstore_schema::record::KeptBlobRecord;
use rustix::io::Errno;

use super::{CheckLevel, Damage, Part, chain, withheld};
use crate::disk::{DiffName, Subdirectory};
use crate::error::{Error, LayoutError, MetaError, RepairError};
use crate::meta::open_blob;
use crate::store::Store;
use crate::sys::file::File;
use crate::types::{Algorithm, Digest, Hasher};

/// A data item that some bytes are.
pub(super) struct ItemBytes<'r> {
    /// Kind and id of the thing it belongs to.
    pub(super) owner: String,
    /// Its key.
    pub(super) key: &'r str,
    /// Its SHA-256 digest.
    pub(super) digest: &'r str,
}

/// Compares a layer blob with its record, at the deepest level byte by byte.
pub(super) fn check_kept_blob(
    store: &Store,
    digest: &str,
    record: &KeptBlobRecord,
    level: CheckLevel,
    part: &mut Part,
) {
    part.checked.files = 1;
    let path = store.layout().entry_path(Subdirectory::Blobs, DiffName::Entry(record.number));
    let damaged = |reason| Damage::KeptBlobDamaged { digest: digest.to_owned(), path: path.clone(), reason };
    let opened = store.open_kept_blob(record.number);
    let file = match opened {
        Ok(file) => file,
        Err(Error::Layout(LayoutError::Io { source, .. })) if source.kind() == io::ErrorKind::NotFound => {
            part.damages.push(Damage::KeptBlobMissing { digest: digest.to_owned(), path: path.clone() });
            return;
        }
        Err(error) => {
            let thing = format!("kept blob {digest}");
            let told = withheld::unless_refused(thing, path.clone(), &error, |_, _| damaged(chain(&error)));
            part.damages.push(withheld::of_lost_mode(store, told, 0o600));
            return;
        }
    };
    match file.length() {
        Ok(size) if size != record.size => {
            part.damages.push(damaged(format!("it has {size} bytes instead of {}", record.size)));
        }
        Err(error) => part.damages.push(damaged(chain(&error))),
        Ok(size) if level == CheckLevel::Deep => {
            part.checked.bytes = size;
            part.damages.extend(blob_damage(file, digest).map(damaged));
        }
        Ok(_) => {}
    }
}

/// What is wrong with the bytes of a kept blob.
fn blob_damage(file: File, digest: &str) -> Option<String> {
    let Ok(expected) = digest.parse::<Digest>() else { return Some("its digest is none".to_owned()) };
    match digest_of(file, expected.algorithm()) {
        Ok(found) => (found != expected).then(|| format!("its digest is {found}")),
        Err(error) => Some(chain(&error)),
    }
}

/// Whether a kept blob is not there, has other bytes, or lies where the disk cannot be read. For who is about to forget
/// it, after a check has found it damaged: that may have been an error of a moment.
///
/// Returns any other error of reading it, which says nothing about the blob.
pub(crate) fn is_lost(store: &Store, digest: &str, record: &KeptBlobRecord) -> Result<bool, Error> {
    let Ok(expected) = digest.parse::<Digest>() else { return Ok(true) };
    let read = || -> Result<bool, Error> {
        let file = store.open_kept_blob(record.number)?;
        let found = digest_of(file, expected.algorithm()).map_err(RepairError::Io)?;
        Ok(found != expected)
    };
    match read() {
        Err(Error::Layout(LayoutError::Io { source, .. }) | Error::Repair(RepairError::Io(source)))
            if source.kind() == io::ErrorKind::NotFound
                || Errno::from_io_error(&source) == Some(Errno::IO) =>
        {
            Ok(true)
        }
        read => read,
    }
}

/// Reads a stream to its end through a hasher of its digest.
pub(crate) fn digest_of(mut reader: impl Read, algorithm: Algorithm) -> io::Result<Digest> {
    let mut hasher = Hasher::new(algorithm);
    io::copy(&mut reader, &mut hasher)?;
    Ok(hasher.finish())
}

/// Reads bytes in the database, and compares them with their hash and with the digests of the items that they are.
pub(super) fn check_stored(
    store: &Store,
    hash: &[u8; 32],
    items: &[ItemBytes<'_>],
    part: &mut Part,
) -> Result<(), Error> {
    let txn = store.database().begin_read()?;
    let mut reader = match open_blob(&txn, hash) {
        Ok(reader) => reader,
        // Found as missing, or as a damaged record, or gone since.
        Err(MetaError::Missing { .. } | MetaError::Record { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut digest = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                part.checked.bytes = part.checked.bytes.saturating_add(count as u64);
                digest.update(buffer.get(..count).unwrap_or_default());
            }
            Err(error) => {
                let hash = blake3::Hash::from_bytes(*hash).to_string();
                part.damages.push(Damage::BlobDamaged { hash, reason: chain(&error) });
                return Ok(());
            }
        }
    }
    let found = digest.finish().to_string();
    for item in items.iter().filter(|item| item.digest != found) {
        let (owner, key) = (item.owner.clone(), item.key.to_owned());
        part.damages.push(Damage::ItemDamaged { owner, key, what: "digest" });
    }
    Ok(())
}
