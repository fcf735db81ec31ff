//! Where files are cut into chunks.
//!
//! The places follow from the content: a checksum rolls over the last 64 bytes, and where its lower bits are all ones a
//! chunk ends, every 64 KiB on average. So after a change in the middle of a file, the chunks before and behind are the ones
//! that they were. Runs of zeros are chunks of their own. Checksum (that of bup and perkeep), number of bits and
//! threshold are those of containers/storage, so that both cut equal files into equal chunks.

use std::io;

/// The bytes that a checksum is of.
const WINDOW: usize = 64;
/// Added to each byte, so that zeros count.
const OFFSET: u32 = 31;
/// The bits of the checksum that have to be ones.
const MASK: u32 = (1 << 16) - 1;
/// The shortest run of zeros that is a chunk of its own.
const HOLE: u64 = 1024;
/// As many zeros as are written at once.
const ZEROS: [u8; 4096] = [0; 4096];

/// What a file is cut into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Piece<'p> {
    /// More of a chunk.
    Data(&'p [u8]),
    /// More of a chunk of zeros.
    Zeros(&'p [u8]),
    /// The end of a chunk, if anything was in it.
    Cut,
}

/// Cuts a file that comes in pieces of any size. Memory is bounded.
pub(super) struct Chunker {
    window: [u8; WINDOW],
    at: usize,
    s1: u32,
    s2: u32,
    /// Data that was not given on yet.
    pending: Vec<u8>,
    /// Zeros that were seen since, not yet known to be a hole.
    zeros: u64,
}

/// How much data is collected before it is given on.
const PENDING: usize = 32 * 1024;

impl Chunker {
    pub(super) fn new() -> Self {
        let window = u32::try_from(WINDOW).unwrap_or_default();
        Chunker {
            window: [0; WINDOW],
            at: 0,
            s1: window.wrapping_mul(OFFSET),
            s2: window.wrapping_mul(window.wrapping_sub(1)).wrapping_mul(OFFSET),
            pending: Vec::with_capacity(PENDING),
            zeros: 0,
        }
    }

    /// Takes more of the file.
    pub(super) fn push(
        &mut self,
        mut bytes: &[u8],
        out: &mut impl FnMut(Piece<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            let zeros = bytes.iter().position(|&byte| byte != 0).unwrap_or(bytes.len());
            self.zeros = self.zeros.saturating_add(zeros as u64);
            bytes = bytes.get(zeros..).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            self.end_zeros(out)?;
            let data = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
            self.data(bytes.get(..data).unwrap_or_default(), out)?;
            bytes = bytes.get(data..).unwrap_or_default();
        }
        Ok(())
    }

    /// The file ends here, and with it the last chunk.
    pub(super) fn finish(mut self, out: &mut impl FnMut(Piece<'_>) -> io::Result<()>) -> io::Result<()> {
        self.end_zeros(out)?;
        self.flush(out)?;
        out(Piece::Cut)
    }

    fn end_zeros(&mut self, out: &mut impl FnMut(Piece<'_>) -> io::Result<()>) -> io::Result<()> {
        let mut left = std::mem::take(&mut self.zeros);
        if left < HOLE {
            let zeros = usize::try_from(left).ok().and_then(|left| ZEROS.get(..left)).unwrap_or_default();
            return self.data(zeros, out);
        }
        self.flush(out)?;
        out(Piece::Cut)?;
        // When the window is full of zeros, more of them change nothing.
        for _ in 0..WINDOW {
            self.roll(0);
        }
        while left > 0 {
            let now = ZEROS.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            out(Piece::Zeros(ZEROS.get(..now).unwrap_or_default()))?;
            left = left.saturating_sub(now as u64);
        }
        out(Piece::Cut)
    }

    fn data(&mut self, bytes: &[u8], out: &mut impl FnMut(Piece<'_>) -> io::Result<()>) -> io::Result<()> {
        for &byte in bytes {
            self.roll(byte);
            self.pending.push(byte);
            let cut = self.s2 & MASK == MASK;
            if cut || self.pending.len() == PENDING {
                self.flush(out)?;
            }
            if cut {
                out(Piece::Cut)?;
            }
        }
        Ok(())
    }

    fn flush(&mut self, out: &mut impl FnMut(Piece<'_>) -> io::Result<()>) -> io::Result<()> {
        if !self.pending.is_empty() {
            out(Piece::Data(&self.pending))?;
            self.pending.clear();
        }
        Ok(())
    }

    fn roll(&mut self, byte: u8) {
        let window = u32::try_from(WINDOW).unwrap_or_default();
        let Some(slot) = self.window.get_mut(self.at) else { return };
        let dropped = u32::from(std::mem::replace(slot, byte));
        self.s1 = self.s1.wrapping_add(u32::from(byte)).wrapping_sub(dropped);
        self.s2 =
            self.s2.wrapping_add(self.s1).wrapping_sub(window.wrapping_mul(dropped.wrapping_add(OFFSET)));
        self.at = self.at.wrapping_add(1) % WINDOW;
    }
}
