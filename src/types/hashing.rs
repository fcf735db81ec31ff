//! Digests of what passes by on its way.

use std::io::{self, Read, Write};

use super::{Algorithm, Digest, Hasher};

/// Hashes and counts what is read from, or written to, what it wraps.
#[derive(Debug)]
pub(crate) struct Hashing<T> {
    inner: T,
    hasher: Hasher,
    count: u64,
}

impl<T> Hashing<T> {
    /// Begins with nothing passed by.
    pub(crate) fn new(inner: T, algorithm: Algorithm) -> Self {
        Hashing { inner, hasher: Hasher::new(algorithm), count: 0 }
    }

    /// What it wrapped, and digest and number of the bytes that passed by.
    pub(crate) fn finish(self) -> (T, Digest, u64) {
        (self.inner, self.hasher.finish(), self.count)
    }

    fn passed(&mut self, bytes: &[u8], count: usize) {
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        self.count = self.count.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        self.passed(out, read);
        Ok(read)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.passed(bytes, written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes and gives three bytes at the most.
    struct Slow<'a>(&'a [u8], Vec<u8>);

    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let most = out.len().min(3);
            self.0.read(&mut out[..most])
        }
    }

    impl Write for Slow<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.write(&bytes[..bytes.len().min(3)])
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_passes_counts_and_nothing_else() {
        let text = b"in more than one piece";
        let mut read = Hashing::new(Slow(text, Vec::new()), Algorithm::Sha256);
        assert_eq!(io::copy(&mut read, &mut io::sink()).unwrap(), 22);
        let (_, digest, count) = read.finish();
        assert_eq!((digest, count), (Digest::sha256(text), 22));
        let mut written = Hashing::new(Slow(b"", Vec::new()), Algorithm::Sha256);
        written.write_all(text).unwrap();
        let (slow, digest, count) = written.finish();
        assert_eq!((slow.1.as_slice(), digest, count), (&text[..], Digest::sha256(text), 22));
    }
}
