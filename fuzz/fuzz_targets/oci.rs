//! Any bytes as the documents of an image. `cargo +nightly fuzz run oci`
//!
//! What has to hold stands at `layerstore::fuzzing::fuzz_oci`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| layerstore::fuzzing::fuzz_oci(bytes));
