//! Any bytes as a tar archive. `cargo +nightly fuzz run tar`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| layerstore::fuzzing::fuzz_tar(bytes));
