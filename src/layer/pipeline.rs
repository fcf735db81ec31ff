//! The reading half of an import: a layer blob goes through its digest, its decompression and the digest of what
//! comes out, each on a thread of its own, while the caller parses.
//!
//! ```text
//! blob -> [digest] -> [decompress] -+-> [digest: the diffID]      own thread
//!          own thread               +-> the caller's parser       this thread, or one that the caller makes
//! ```
//!
//! The queues between them are short, so memory stays bounded whatever the speeds are.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crate::compress::{Compression, Decoder};
use crate::sys::thread::start;
use crate::types::{Algorithm, DiffId, Digest, Hasher, Hashing, Limits};

/// The size of the pieces that go from thread to thread.
const PIECE: usize = 128 * 1024;

/// How many pieces wait in a queue at the most.
const QUEUE: usize = 8;

/// What was learned about a layer's streams while they were read.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    /// The digest of the blob as delivered.
    pub(crate) blob_digest: Digest,
    /// The length of the blob.
    pub(crate) blob_size: u64,
    /// How the blob is compressed.
    pub(crate) compression: Compression,
    /// The digest of the uncompressed stream.
    pub(crate) diff_id: DiffId,
    /// The length of the uncompressed stream.
    pub(crate) diff_size: u64,
}

type Piece = Arc<Vec<u8>>;

/// Feeds the decompressed `blob`, which errors call `name`, to `consume`, which must read to the end, and returns what it returns, with the
/// digests of both streams.
///
/// An error of the blob reaches `consume` as an error of its reader; so does a stream of which more comes than is granted.
pub(crate) fn read_layer<T, E: From<io::Error>>(
    (name, blob): (&str, impl Read + Send),
    algorithm: Algorithm,
    limits: &Limits,
    consume: impl FnOnce(&mut (dyn Read + Send)) -> Result<T, E>,
) -> Result<(T, Streams), E> {
    let (to_parser, from_decoder) = sync_channel::<io::Result<Piece>>(QUEUE);
    let (to_hasher, for_hasher) = sync_channel::<Piece>(QUEUE);
    thread::scope(|scope| {
        let hasher = start(scope, "hash", move || hash(&for_hasher))?;
        let decode = move || decode((name, blob), algorithm, limits, &to_parser, &to_hasher);
        let decoder = start(scope, "decompress", decode)?;
        let mut reader = PieceReader { pieces: from_decoder, piece: Piece::default(), at: 0 };
        let consumed = consume(&mut reader);
        // A parser that gave up leaves its queue, and the decoder stops at the next piece.
        drop(reader);
        let decoded = decoder.join().map_err(|_| io::Error::other("the decompression thread died"))?;
        let (diff_id, diff_size) = hasher.join().map_err(|_| io::Error::other("the hashing thread died"))?;
        let value = consumed?;
        let DecodedBlob { digest: blob_digest, size: blob_size, compression } = decoded?;
        Ok((value, Streams { blob_digest, blob_size, compression, diff_id, diff_size }))
    })
}

/// What was learned about a blob.
struct DecodedBlob {
    digest: Digest,
    size: u64,
    compression: Compression,
}

fn decode(
    (name, blob): (&str, impl Read),
    algorithm: Algorithm,
    limits: &Limits,
    to_parser: &SyncSender<io::Result<Piece>>,
    to_hasher: &SyncSender<Piece>,
) -> io::Result<DecodedBlob> {
    let mut blob = Hashing::new(blob, algorithm);
    match decode_pieces((name, &mut blob), limits, to_parser, to_hasher) {
        Ok(compression) => {
            let (_, digest, size) = blob.finish();
            Ok(DecodedBlob { digest, size, compression })
        }
        Err(error) => {
            let copy = io::Error::new(error.kind(), error.to_string());
            // The parser takes the error itself, with its source; if it has gone, it has one of its own.
            match to_parser.send(Err(error)) {
                Ok(()) | Err(_) => Err(copy),
            }
        }
    }
}

fn decode_pieces(
    (name, blob): (&str, &mut Hashing<impl Read>),
    limits: &Limits,
    to_parser: &SyncSender<io::Result<Piece>>,
    to_hasher: &SyncSender<Piece>,
) -> io::Result<Compression> {
    let mut decoder = Decoder::new(&mut *blob, limits)?.called(name);
    let compression = decoder.compression();
    let limit = u64::try_from(PIECE).unwrap_or(u64::MAX);
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        decoder.by_ref().take(limit).read_to_end(&mut piece)?;
        if piece.is_empty() {
            break;
        }
        let piece = Piece::new(piece);
        let parser_left = to_parser.send(Ok(Arc::clone(&piece))).is_err();
        if parser_left || to_hasher.send(piece).is_err() {
            return Err(io::Error::other("the layer's reader gave up"));
        }
    }
    drop(decoder);
    // What stands behind the compressed stream belongs to the blob and its digest.
    io::copy(blob, &mut io::sink())?;
    Ok(compression)
}

fn hash(pieces: &Receiver<Piece>) -> (DiffId, u64) {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut count = 0u64;
    for piece in pieces {
        hasher.update(&piece);
        count = count.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
    }
    (DiffId(hasher.finish()), count)
}

/// Reads the pieces of a queue as one stream.
struct PieceReader {
    pieces: Receiver<io::Result<Piece>>,
    piece: Piece,
    at: usize,
}

impl Read for PieceReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.piece.len() {
            match self.pieces.recv() {
                Ok(piece) => (self.piece, self.at) = (piece?, 0),
                Err(_) => return Ok(0),
            }
        }
        let rest = self.piece.get(self.at..).unwrap_or_default();
        let count = rest.len().min(out.len());
        let (to, from) = (out.get_mut(..count).unwrap_or_default(), rest.get(..count).unwrap_or_default());
        to.copy_from_slice(from);
        self.at = self.at.saturating_add(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(blob: &[u8]) -> Result<(Vec<u8>, Streams), io::Error> {
        read_layer(("it", blob), Algorithm::Sha256, &Limits::DEFAULT, |input| {
            let mut out = Vec::new();
            input.read_to_end(&mut out)?;
            Ok(out)
        })
    }

    #[test]
    fn both_streams_are_digested() {
        let plain: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
        let blob = zstd::bulk::compress(&plain, 1).unwrap();
        let (out, streams) = read_all(&blob).unwrap();
        assert_eq!(out, plain);
        assert_eq!(streams.blob_digest, Digest::sha256(&blob));
        assert_eq!((streams.blob_size, streams.compression), (blob.len() as u64, Compression::Zstd));
        assert_eq!(streams.diff_id.0, Digest::sha256(&plain));
        assert_eq!(streams.diff_size, plain.len() as u64);
    }

    #[test]
    fn a_cut_blob_is_an_error() {
        let blob = zstd::bulk::compress(&vec![1; 1 << 20], 1).unwrap();
        assert!(read_all(&blob[..blob.len() - 1]).is_err());
    }

    #[test]
    fn a_parser_that_gives_up_ends_all_threads() {
        let blob = zstd::bulk::compress(&vec![1; 64 << 20], 1).unwrap();
        let result: Result<((), _), io::Error> =
            read_layer(("it", blob.as_slice()), Algorithm::Sha256, &Limits::DEFAULT, |_| {
                Err(io::Error::other("enough"))
            });
        assert_eq!(result.unwrap_err().to_string(), "enough");
    }
}
