//! Any bytes as the manifest of a layer. `cargo +nightly fuzz run manifest`
//!
//! What has to hold stands at `layerstore::fuzzing::fuzz_manifest`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| layerstore::fuzzing::fuzz_manifest(bytes));
