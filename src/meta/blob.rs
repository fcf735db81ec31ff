//! Bytes kept in the database: data items, manifests, tar-splits. Equal bytes are kept once, counted by their
//! users, cut into chunks. What is slow about them, hashing and compressing, happens before the transaction.

use std::io::{self, Read, Seek};

use layerstore_schema::record::{BlobRecord, Record, RecordError};
use layerstore_schema::{manifest, table};

use super::txn::missing;
use super::{Query, ReadTxn, Tables, WriteTxn};
use crate::error::MetaError;
use crate::sys::file::File;

/// Shorter bytes are stored as they are.
const COMPRESS_FROM: usize = 512;

/// Shorter files are read into memory: one image can have hundreds, and a process not many descriptors.
const IN_MEMORY: u64 = 64 * 1024;

/// The level for bytes compressed here: they are small, and read often.
const ZSTD_LEVEL: i32 = 3;

/// What bytes are that are read as a whole: it says how many they can be. The row of the bytes says how many they are, and may have
/// been written by anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlobKind {
    Item,
    Manifest,
}

impl BlobKind {
    fn word(self) -> &'static str {
        match self {
            BlobKind::Item => "data item",
            BlobKind::Manifest => "manifest",
        }
    }

    /// How many bytes there can be.
    pub(crate) fn most(self) -> u64 {
        match self {
            BlobKind::Item => table::ITEM_BYTES_MAX,
            BlobKind::Manifest => manifest::BYTES_MAX,
        }
    }

    /// Returns [`MetaError::TooLarge`] if there are more: nobody would read them back.
    pub(super) fn check(self, blob: &PreparedBlob) -> Result<(), MetaError> {
        let (size, most) = (blob.size, self.most());
        if size > most { Err(MetaError::TooLarge { kind: self.word(), size, most }) } else { Ok(()) }
    }
}

/// Bytes ready to be stored.
#[derive(Debug)]
pub(crate) struct PreparedBlob {
    hash: [u8; 32],
    size: u64,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Plain(Vec<u8>),
    Compressed(Vec<u8>),
    /// The rest of a file, stored as it is.
    File(File),
}

impl PreparedBlob {
    /// Hashes `bytes`, and compresses them if that makes them smaller.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let hash = *blake3::hash(bytes).as_bytes();
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let compressed = (bytes.len() >= COMPRESS_FROM)
            .then(|| zstd::bulk::compress(bytes, ZSTD_LEVEL).ok())
            .flatten()
            .filter(|compressed| compressed.len() < bytes.len());
        let body = compressed.map_or_else(|| Body::Plain(bytes.to_vec()), Body::Compressed);
        PreparedBlob { hash, size, body }
    }

    /// Hashes a file of bytes that are compressed already. Returns the error of reading it.
    pub(crate) fn from_file(mut file: File) -> io::Result<Self> {
        file.rewind()?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&mut file)?;
        let size = file.stream_position()?;
        file.rewind()?;
        let body = if size <= IN_MEMORY {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Body::Plain(bytes)
        } else {
            Body::File(file)
        };
        Ok(PreparedBlob { hash: *hasher.finalize().as_bytes(), size, body })
    }

    /// The BLAKE3 hash of the bytes: the key they will have.
    pub(crate) fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// Length in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

impl WriteTxn {
    /// Stores the bytes, or counts one user more if they are stored.
    pub(crate) fn put_blob(&self, blob: &PreparedBlob) -> Result<[u8; 32], MetaError> {
        if self.blob(&blob.hash)?.is_some() {
            self.share_blob(&blob.hash)?;
            return Ok(blob.hash);
        }
        let number = self.next_blob_number()?;
        let stored = match &blob.body {
            Body::Plain(bytes) | Body::Compressed(bytes) => self.put_chunks(number, &mut bytes.as_slice())?,
            Body::File(file) => {
                let mut reader = file;
                reader.rewind().map_err(MetaError::Input)?;
                self.put_chunks(number, &mut reader)?
            }
        };
        let compressed = matches!(blob.body, Body::Compressed(_));
        let record = BlobRecord { number, size: blob.size, stored, compressed, users: 1 };
        self.add_usage(table::usage::BLOB_BYTES, stored.cast_signed())?;
        self.put_blob_record(&blob.hash, &record)?;
        Ok(blob.hash)
    }

    /// Counts one user more of bytes that are stored.
    pub(crate) fn share_blob(&self, hash: &[u8; 32]) -> Result<(), MetaError> {
        let name = blake3::Hash::from_bytes(*hash);
        let mut record = self.blob(hash)?.ok_or_else(|| missing("blob", name))?;
        record.users = record.users.saturating_add(1);
        self.put_blob_record(hash, &record)
    }

    /// Counts one user less, and removes the bytes with the last one.
    pub(crate) fn release_blob(&self, hash: &[u8; 32]) -> Result<(), MetaError> {
        let name = blake3::Hash::from_bytes(*hash);
        let mut record = self.blob(hash)?.ok_or_else(|| missing("blob", name))?;
        if record.users > 1 {
            record.users = record.users.saturating_sub(1);
            return self.put_blob_record(hash, &record);
        }
        self.remove_chunks(record.number)?;
        self.open(table::BLOBS)?.remove(hash)?;
        self.add_usage(table::usage::BLOB_BYTES, record.stored.cast_signed().wrapping_neg())
    }

    pub(super) fn put_blob_record(&self, hash: &[u8; 32], record: &BlobRecord) -> Result<(), MetaError> {
        let bytes = record.encode().map_err(MetaError::Encode)?;
        self.open(table::BLOBS)?.insert(hash, bytes.as_slice())?;
        Ok(())
    }

    fn next_blob_number(&self) -> Result<u64, MetaError> {
        let chunks = self.open(table::BLOB_CHUNKS)?;
        let last = chunks.last()?.map_or(0, |(key, _)| key.value().0);
        // What has the last number there is has it by hand, and would be written over.
        last.checked_add(1).ok_or_else(|| {
            let source = RecordError { kind: "blob", reason: "no number comes after it".to_owned() };
            MetaError::Record { kind: "blob", key: format!("number {last}"), source }
        })
    }

    /// Returns how many bytes there were. An empty blob has one empty chunk, so that its number is taken.
    fn put_chunks(&self, number: u64, input: &mut impl Read) -> Result<u64, MetaError> {
        let mut chunks = self.open(table::BLOB_CHUNKS)?;
        let mut stored = 0u64;
        let mut chunk = Vec::with_capacity(table::CHUNK);
        for position in 0..=u32::MAX {
            chunk.clear();
            let limit = u64::try_from(table::CHUNK).unwrap_or(u64::MAX);
            let read = input.take(limit).read_to_end(&mut chunk).map_err(MetaError::Input)?;
            if read == 0 && position > 0 {
                break;
            }
            chunks.insert((number, position), chunk.as_slice())?;
            stored = stored.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        }
        Ok(stored)
    }
}

/// Reads bytes kept in the database, chunk by chunk, and fails at their end if they do not have their hash.
pub(crate) fn open_blob<'t>(txn: &'t ReadTxn, hash: &[u8; 32]) -> Result<BlobReader<'t>, MetaError> {
    let name = blake3::Hash::from_bytes(*hash).to_string();
    let record = txn.blob(hash)?.ok_or_else(|| missing("blob", &name))?;
    let chunks = ChunkReader { txn, number: record.number, position: 0, chunk: Vec::new(), at: 0 };
    let body: Box<dyn Read + 't> = if record.compressed {
        Box::new(zstd::stream::read::Decoder::new(chunks).map_err(MetaError::Input)?)
    } else {
        Box::new(chunks)
    };
    Ok(BlobReader { body, hasher: blake3::Hasher::new(), name, size: record.size, expected: *hash })
}

/// Reads whole bytes kept in the database.
///
/// Returns [`MetaError::BlobSize`] if they are said to be more than what they are can have, and [`MetaError::Blob`] if they do not have
/// their hash.
pub(crate) fn read_blob(txn: &ReadTxn, hash: &[u8; 32], kind: BlobKind) -> Result<Vec<u8>, MetaError> {
    let mut reader = open_blob(txn, hash)?;
    let (size, most) = (reader.size, kind.most());
    if size > most {
        return Err(MetaError::BlobSize { kind: kind.word(), key: reader.name, size, most });
    }
    // As long as what comes out, and not as what is said. The reader ends what is longer.
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(|_| MetaError::Blob { key: reader.name.clone() })?;
    Ok(bytes)
}

/// The bytes of one blob.
pub(crate) struct BlobReader<'t> {
    body: Box<dyn Read + 't>,
    hasher: blake3::Hasher,
    name: String,
    size: u64,
    expected: [u8; 32],
}

impl std::fmt::Debug for BlobReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobReader")
            .field("name", &self.name)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.body.read(out)?;
        self.hasher.update(out.get(..read).unwrap_or_default());
        let is_end = read == 0 && !out.is_empty();
        let is_whole =
            || self.hasher.count() == self.size && *self.hasher.finalize().as_bytes() == self.expected;
        // What is too long is not read to its end: it is compressed, and may be without end.
        if self.hasher.count() > self.size || (is_end && !is_whole()) {
            let damaged = MetaError::Blob { key: self.name.clone() };
            return Err(io::Error::new(io::ErrorKind::InvalidData, damaged));
        }
        Ok(read)
    }
}

struct ChunkReader<'t> {
    txn: &'t ReadTxn,
    number: u64,
    position: u32,
    chunk: Vec<u8>,
    at: usize,
}

impl Read for ChunkReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.chunk.len() {
            let next = self.txn.chunk(self.number, self.position).map_err(io::Error::other)?;
            let Some(next) = next else { return Ok(0) };
            (self.chunk, self.at) = (next, 0);
            self.position = self.position.saturating_add(1);
        }
        let rest = self.chunk.get(self.at..).unwrap_or_default();
        let count = rest.len().min(out.len());
        for (to, from) in out.iter_mut().zip(rest) {
            *to = *from;
        }
        self.at = self.at.saturating_add(count);
        Ok(count)
    }
}

impl ReadTxn {
    fn chunk(&self, number: u64, position: u32) -> Result<Option<Vec<u8>>, MetaError> {
        let chunks = self.open(table::BLOB_CHUNKS)?;
        Ok(chunks.get((number, position))?.map(|row| row.value().to_vec()))
    }
}
