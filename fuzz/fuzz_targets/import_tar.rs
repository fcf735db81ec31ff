//! Any bytes as a layer, loaded into a store with a tree beside it that must not change. `cargo +nightly fuzz run import_tar`
//!
//! What has to hold stands at `layerstore::fuzzing::fuzz_import_tar`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| layerstore::fuzzing::fuzz_import_tar(bytes));
