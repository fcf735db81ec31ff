//! Layers of members that meet each other, against a model. `cargo +nightly fuzz run members`
//!
//! What has to hold stands at `layerstore::fuzzing::fuzz_members`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| layerstore::fuzzing::fuzz_members(bytes));
