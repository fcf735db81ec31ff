//! Any bytes as paths of an archive, and what they mean. `cargo +nightly fuzz run whiteout`
//!
//! What has to hold stands at `layerstore::fuzzing::fuzz_whiteout`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| layerstore::fuzzing::fuzz_whiteout(bytes));
