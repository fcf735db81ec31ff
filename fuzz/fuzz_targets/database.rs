//! A damaged database file, opened, read, written, copied and compacted. `cargo +nightly fuzz run database`
//!
//! What has to hold stands at `layerstore::fuzzing::fuzz_database`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| layerstore::fuzzing::fuzz_database(bytes));
