//! The reading half of an import: a layer blob goes through its digest, its decompression and the digest of what
//! comes out, each on a thread of its own, to the one that parses it.
//!
//! ```text
//! blob -> [digest] -> [decompress] -+-> [digest: the diffID]      own thread
//!        this thread    confined    +-> [parser]                  confined
//!                      own thread                                own thread
//! ```
//!
//! A blob that is not compressed is its own diff: its SHA-256 is both digests, and its bytes go straight to the parser.
//!
//! What belongs to the caller is read on the caller's thread, which has nothing else to do. The threads that make something of bytes of
//! strangers are confined: the decompressors, of which some are C, to nothing at all, and the parser to where it writes. The
//! queues between them are short, so memory stays bounded whatever the speeds are.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::{iter, thread};

use crate::compress::{Compression, Decoder};
use crate::disk::Confinement;
use crate::sys::moment;
use crate::sys::thread::start;
use crate::timing::{self, Stage};
use crate::types::{Algorithm, Budget, DiffId, Digest, Hasher};

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
/// digests of both streams. `consume` has a thread that is confined to `reach`; `blob` is read on this one.
///
/// An error of the blob reaches `consume` as an error of its reader; so does a stream of which more comes than is granted.
pub(crate) fn read_layer<T: Send, E: From<io::Error> + Send>(
    (name, mut blob): (&str, impl Read),
    algorithm: Algorithm,
    budget: &Budget,
    reach: Confinement,
    consume: impl FnOnce(&mut dyn Read) -> Result<T, E> + Send,
) -> Result<(T, Streams), E> {
    let mut memory = Pieces::default();
    let first = timing::spanned(Stage::Read, || memory.read(&mut blob));
    let is_plain = first.as_ref().is_ok_and(|piece| Compression::detect(piece) == Compression::None);
    let pieces = iter::once(first).chain(iter::from_fn(|| Some(memory.read(&mut blob))));
    if is_plain && algorithm == Algorithm::Sha256 {
        return read_plain((name, pieces), budget, reach, consume);
    }
    let (to_decoder, from_blob) = sync_channel::<io::Result<Piece>>(QUEUE);
    let (to_parser, from_decoder) = sync_channel::<io::Result<Piece>>(QUEUE);
    let (to_hasher, for_hasher) = sync_channel::<Piece>(QUEUE);
    thread::scope(|scope| {
        let hasher = start(scope, "hash", move || timing::spanned(Stage::Hash, || hash(&for_hasher)))?;
        let decode = move || decode((name, &mut from_blob.into()), budget, &to_parser, &to_hasher);
        let decode = || timing::spanned(Stage::Decompress, decode);
        let decoder = Confinement::to_nothing().start(scope, "decompress", decode)?;
        // A parser that gives up leaves its queue, and the decoder stops at the next piece, and so the reading.
        let parse = move || consume(&mut PieceReader::from(from_decoder));
        let parse = || timing::spanned(Stage::Unpack, parse);
        let parser = reach.start(scope, "unpack", parse)?;
        let (blob_digest, blob_size) = timing::spanned(Stage::Read, || feed(pieces, algorithm, &to_decoder));
        drop(to_decoder);
        let (consumed, decoded, hashed) = wait(|| (parser.join(), decoder.join(), hasher.join()));
        let consumed = consumed.map_err(|_| io::Error::other("the unpacking thread died"))?;
        let decoded = decoded.map_err(|_| io::Error::other("the decompression thread died"))?;
        let (diff_id, diff_size) = hashed.map_err(|_| io::Error::other("the hashing thread died"))?;
        let value = consumed?;
        let compression = decoded?;
        Ok((value, Streams { blob_digest, blob_size, compression, diff_id, diff_size }))
    })
}

/// Waits for another thread.
fn wait<T>(until: impl FnOnce() -> T) -> T {
    timing::spanned(Stage::QueueWait, until)
}

/// The same of a blob that is a layer as it is.
fn read_plain<T: Send, E: From<io::Error> + Send>(
    (name, pieces): (&str, impl Iterator<Item = io::Result<Piece>>),
    budget: &Budget,
    reach: Confinement,
    consume: impl FnOnce(&mut dyn Read) -> Result<T, E> + Send,
) -> Result<(T, Streams), E> {
    let (to_parser, from_blob) = sync_channel::<io::Result<Piece>>(QUEUE);
    let granted = |piece: Piece| {
        budget.take_unpacked(u64::try_from(piece.len()).unwrap_or(u64::MAX), name)?;
        Ok(piece)
    };
    thread::scope(|scope| {
        let parse = move || consume(&mut PieceReader::from(from_blob));
        let parser = reach.start(scope, "unpack", || timing::spanned(Stage::Unpack, parse))?;
        let pieces = pieces.map(|piece| piece.and_then(granted));
        let (digest, size) = timing::spanned(Stage::Read, || feed(pieces, Algorithm::Sha256, &to_parser));
        drop(to_parser);
        let value = wait(|| parser.join()).map_err(|_| io::Error::other("the unpacking thread died"))??;
        let (diff_id, compression) = (DiffId(digest.clone()), Compression::None);
        let streams = Streams { blob_digest: digest, blob_size: size, compression, diff_id, diff_size: size };
        Ok((value, streams))
    })
}

/// Hands the pieces of the blob on to its end, or for as long as somebody wants them, and returns the digest and the number of the bytes
/// that were.
fn feed(
    pieces: impl Iterator<Item = io::Result<Piece>>,
    algorithm: Algorithm,
    to: &SyncSender<io::Result<Piece>>,
) -> (Digest, u64) {
    let mut hasher = Hasher::new(algorithm);
    let mut count = 0u64;
    for piece in pieces {
        if piece.as_ref().is_ok_and(|piece| piece.is_empty()) {
            break;
        }
        let failed = piece.is_err();
        // The next thread has it while it is hashed.
        let kept = piece.as_ref().map(Arc::clone).unwrap_or_default();
        if wait(|| to.send(piece)).is_err() || failed {
            break;
        }
        timing::during(Stage::Hash, || hasher.update(&kept));
        count = count.saturating_add(kept.len() as u64);
    }
    (hasher.finish(), count)
}

/// Gives out the memory of pieces again that everybody has done with: to get it anew, the kernel zeroes it.
#[derive(Default)]
struct Pieces {
    /// Those that were read, oldest first.
    given: VecDeque<Piece>,
}

impl Pieces {
    fn read(&mut self, from: &mut impl Read) -> io::Result<Piece> {
        let oldest = self.given.pop_front_if(|piece| Arc::strong_count(piece) == 1);
        let memory = oldest.and_then(Arc::into_inner).unwrap_or_default();
        let piece = read_piece(memory, from)?;
        self.given.push_back(Arc::clone(&piece));
        Ok(piece)
    }
}

/// Reads a piece with as few calls as the reader lets: `read_to_end` would begin anew with small ones in each.
fn read_piece(mut piece: Vec<u8>, from: &mut impl Read) -> io::Result<Piece> {
    piece.resize(PIECE, 0);
    let mut filled = 0usize;
    while let Some(rest) = piece.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(count) => filled = filled.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    piece.truncate(filled);
    Ok(Piece::new(piece))
}

fn decode(
    blob: (&str, &mut PieceReader),
    budget: &Budget,
    to_parser: &SyncSender<io::Result<Piece>>,
    to_hasher: &SyncSender<Piece>,
) -> io::Result<Compression> {
    decode_pieces(blob, budget, to_parser, to_hasher).map_err(|error| {
        let copy = io::Error::new(error.kind(), error.to_string());
        // The parser takes the error itself, with its source; if it has gone, it has one of its own.
        match wait(|| to_parser.send(Err(error))) {
            Ok(()) | Err(_) => copy,
        }
    })
}

fn decode_pieces(
    (name, blob): (&str, &mut PieceReader),
    budget: &Budget,
    to_parser: &SyncSender<io::Result<Piece>>,
    to_hasher: &SyncSender<Piece>,
) -> io::Result<Compression> {
    moment::pass("decompression begins");
    let mut decoder = Decoder::new(&mut *blob, budget.limits())?.called(name).within(budget);
    let compression = decoder.compression();
    let mut memory = Pieces::default();
    loop {
        let piece = memory.read(&mut decoder)?;
        if piece.is_empty() {
            break;
        }
        let parser_left = wait(|| to_parser.send(Ok(Arc::clone(&piece)))).is_err();
        if parser_left || wait(|| to_hasher.send(piece)).is_err() {
            return Err(io::Error::other("the layer's reader gave up"));
        }
    }
    drop(decoder);
    // What stands behind the compressed stream belongs to the blob and its digest.
    wait(|| blob.pieces.iter().try_for_each(|piece| piece.map(drop)))?;
    Ok(compression)
}

fn hash(pieces: &Receiver<Piece>) -> (DiffId, u64) {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut count = 0u64;
    while let Ok(piece) = wait(|| pieces.recv()) {
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

impl From<Receiver<io::Result<Piece>>> for PieceReader {
    fn from(pieces: Receiver<io::Result<Piece>>) -> Self {
        PieceReader { pieces, piece: Piece::default(), at: 0 }
    }
}

impl Read for PieceReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.piece.len() {
            match wait(|| self.pieces.recv()) {
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
    use crate::types::Limits;

    fn read_all(blob: &[u8]) -> Result<(Vec<u8>, Streams), io::Error> {
        read_layer(
            ("it", blob),
            Algorithm::Sha256,
            &Budget::new(&Limits::DEFAULT),
            Confinement::to_nothing(),
            |input| {
                let mut out = Vec::new();
                input.read_to_end(&mut out)?;
                Ok(out)
            },
        )
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
    fn what_is_not_compressed_has_one_digest() {
        let plain: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
        for length in [0, 1, PIECE, plain.len()] {
            let blob = &plain[..length];
            let (out, streams) = read_all(blob).unwrap();
            assert_eq!(out, blob);
            assert_eq!((streams.compression, streams.blob_size), (Compression::None, length as u64));
            assert_eq!(streams.blob_digest, Digest::sha256(blob));
            assert_eq!((streams.diff_id.0, streams.diff_size), (streams.blob_digest, length as u64));
        }
    }

    /// Nobody has a byte more than was granted.
    #[test]
    fn what_is_not_compressed_is_limited_too() {
        let limits = Limits { unpacked_bytes: PIECE as u64, ..Limits::DEFAULT };
        let read = |length: usize| {
            let (blob, reach) = (vec![1; length], Confinement::to_nothing());
            let mut given = Vec::new();
            let result =
                read_layer(("it", &*blob), Algorithm::Sha256, &Budget::new(&limits), reach, |input| {
                    io::copy(input, &mut given).map(drop)
                });
            (result.map(drop).map_err(|error| error.to_string()), given.len())
        };
        assert_eq!(read(PIECE), (Ok(()), PIECE));
        let (result, given) = read(PIECE + 1);
        assert!(result.unwrap_err().contains("it goes beyond the limit unpacked_bytes"));
        assert_eq!(given, PIECE);
    }

    #[test]
    fn a_cut_blob_is_an_error() {
        let blob = zstd::bulk::compress(&vec![1; 1 << 20], 1).unwrap();
        assert!(read_all(&blob[..blob.len() - 1]).is_err());
    }

    #[test]
    fn a_parser_that_gives_up_ends_all_threads() {
        let blob = zstd::bulk::compress(&vec![1; 64 << 20], 1).unwrap();
        let (blob, reach) = (("it", blob.as_slice()), Confinement::to_nothing());
        let result: Result<((), _), io::Error> =
            read_layer(blob, Algorithm::Sha256, &Budget::new(&Limits::DEFAULT), reach, |_| {
                Err(io::Error::other("enough"))
            });
        assert_eq!(result.unwrap_err().to_string(), "enough");
    }

    #[test]
    fn what_stands_behind_the_stream_belongs_to_the_blob() {
        let plain = vec![1; 1 << 20];
        let blob = [zstd::bulk::compress(&plain, 1).unwrap(), vec![0; 4 << 20]].concat();
        let (out, streams) = match read_all(&blob) {
            Ok(read) => read,
            // Whether it is allowed is the decoder's to say.
            Err(error) => return assert_ne!(error.to_string(), "the layer's reader gave up"),
        };
        assert_eq!((out, streams.blob_size), (plain, blob.len() as u64));
        assert_eq!(streams.blob_digest, Digest::sha256(&blob));
    }

    /// Keeps what it finds at each read: the thread, and whether a file can be opened there.
    struct Telling<'t>(&'t [u8], Vec<(thread::ThreadId, bool)>);

    impl Read for &mut Telling<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.1.push((thread::current().id(), can_open()));
            self.0.read(out)
        }
    }

    fn can_open() -> bool {
        std::fs::File::open("/").is_ok()
    }

    /// A caller may do anything in a reader, and a decompressor can do nothing.
    #[test]
    fn blobs_are_read_on_the_callers_thread_and_decompressed_where_nothing_can_be_opened() {
        let blob = zstd::bulk::compress(&[1; 1000], 1).unwrap();
        let mut telling = Telling(&blob, Vec::new());
        let (decompressing, opened) = std::sync::mpsc::channel();
        moment::meanwhile("decompression begins", move || decompressing.send(can_open()).unwrap());
        let read = |input: &mut dyn Read| io::copy(input, &mut io::sink()).map(|_| can_open());
        let (blob, reach) = (("it", &mut telling), Confinement::to_nothing());
        let (parsing, _) =
            read_layer(blob, Algorithm::Sha256, &Budget::new(&Limits::DEFAULT), reach, read).unwrap();
        let here = (thread::current().id(), true);
        assert!(!telling.1.is_empty() && telling.1.iter().all(|told| *told == here));
        if let Some(why) = crate::sys::landlock::against() {
            return eprintln!("skipped: {why}");
        }
        assert_eq!((opened.recv().unwrap(), parsing), (false, false));
    }
}
