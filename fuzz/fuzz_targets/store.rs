//! Any bytes as operations on a store, with faults. `cargo +nightly fuzz run store`
//!
//! What has to hold stands at `layerstore::fuzzing::fuzz_store`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| layerstore::fuzzing::fuzz_store(bytes));
