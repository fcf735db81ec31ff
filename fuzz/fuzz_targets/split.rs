//! Any bytes as a tar-split. `cargo +nightly fuzz run split`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| layerstore::fuzzing::fuzz_split(bytes));
