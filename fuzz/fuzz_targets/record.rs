//! Any bytes as a record, a header or a manifest of the store's database. `cargo +nightly fuzz run record`
//!
//! What has to hold stands at `layerstore::fuzzing::fuzz_record`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| layerstore::fuzzing::fuzz_record(bytes));
