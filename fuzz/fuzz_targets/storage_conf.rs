//! Any bytes as the configuration of a machine. `cargo +nightly fuzz run storage_conf`
//!
//! What has to hold stands at `layerstore::fuzzing::fuzz_storage_conf`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| layerstore::fuzzing::fuzz_storage_conf(bytes));
