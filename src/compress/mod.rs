//! Compression formats: detect, decode, encode. Knows nothing of tar.
