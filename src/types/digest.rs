//! Digests that carry their algorithm, as the OCI image specification writes them
//! (`descriptor.md`, "Digests").

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256, Sha512};

use crate::error::{ValueError, shown};

/// A hash algorithm that a [`Digest`] can carry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Algorithm {
    /// SHA-256: what every registry writes.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// The name as it stands before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }
}

/// The digest of some bytes, in the form `sha256:<hex>`.
///
/// # Examples
///
/// ```
/// use layerstore::Digest;
///
/// let digest = Digest::sha256(b"hello");
/// assert_eq!(digest, digest.to_string().parse()?);
/// assert!("sha256:../../etc".parse::<Digest>().is_err());
/// # Ok::<(), layerstore::ValueError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

impl Digest {
    /// The SHA-256 digest of `bytes`.
    pub fn sha256(bytes: &[u8]) -> Self {
        Digest::of(Algorithm::Sha256, bytes)
    }

    /// The digest of `bytes`.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The lower-case hex digits without the algorithm.
    pub fn hex(&self) -> &str {
        &self.hex
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}:{}", self.algorithm.name(), self.hex))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Digest {
    type Err = ValueError;

    /// Returns [`ValueError::Digest`] if the algorithm is unknown or the digits are not lower-case hex of its length.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = || ValueError::Digest(shown(text));
        let (name, hex) = text.split_once(':').ok_or_else(error)?;
        let (algorithm, length) = match name {
            "sha256" => (Algorithm::Sha256, 64),
            "sha512" => (Algorithm::Sha512, 128),
            _ => return Err(error()),
        };
        let digits = hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if hex.len() != length || !digits {
            return Err(error());
        }
        Ok(Digest { algorithm, hex: hex.into() })
    }
}

/// Computes a [`Digest`] of bytes that come in pieces.
#[derive(Clone, Debug)]
pub struct Hasher(State);

#[derive(Clone, Debug)]
enum State {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl Hasher {
    /// Starts a digest of no bytes yet.
    pub fn new(algorithm: Algorithm) -> Self {
        Hasher(match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Box::default()),
        })
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of everything added.
    pub fn finish(self) -> Digest {
        let (algorithm, bytes) = match self.0 {
            State::Sha256(state) => (Algorithm::Sha256, state.finalize().to_vec()),
            State::Sha512(state) => (Algorithm::Sha512, state.finalize().to_vec()),
        };
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Digest { algorithm, hex: hex.into() }
    }
}

impl std::io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The digest of a layer's **uncompressed** tar stream.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct DiffId(pub Digest);

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The digest that names a stack of layers: the bottom one's is its diffID, the next is the SHA-256 of
/// `"<chainID below> <diffID>"` (OCI image specification, `config.md`, "Layer ChainID").
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ChainId(pub Digest);

impl ChainId {
    /// The chain ID of `diff_id` on top of `parent`.
    pub fn of(parent: Option<&ChainId>, diff_id: &DiffId) -> Self {
        match parent {
            None => ChainId(diff_id.0.clone()),
            Some(parent) => ChainId(Digest::sha256(format!("{} {diff_id}", parent.0).as_bytes())),
        }
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standard() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::sha256(b"").to_string(), empty);
        assert!(Hasher::new(Algorithm::Sha512).finish().to_string().starts_with("sha512:cf83e1357eefb8bd"));
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        let good = format!("sha256:{}", "0".repeat(64));
        assert!(good.parse::<Digest>().is_ok());
        for bad in ["", "sha256", "sha256:", "sha256:../../x", "md5:00", &good.to_uppercase(), &good[..70]] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        assert!(format!("sha256:{}", "A".repeat(64)).parse::<Digest>().is_err());
    }

    #[test]
    fn a_chain_is_named_by_what_is_below() {
        let base = DiffId(Digest::sha256(b"base"));
        let chain = ChainId::of(None, &base);
        assert_eq!(chain.0, base.0);
        let top = DiffId(Digest::sha256(b"top"));
        let expected = Digest::sha256(format!("{} {}", base.0, top.0).as_bytes());
        assert_eq!(ChainId::of(Some(&chain), &top).0, expected);
    }
}
