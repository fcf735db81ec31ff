//! Any bytes as what a zstd:chunked blob has, or as an archive that becomes one. `cargo +nightly fuzz run chunked`
//!
//! What has to hold stands at `layerstore::fuzzing::fuzz_chunked`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| layerstore::fuzzing::fuzz_chunked(bytes));
