//! Any bytes as the request for a mount, planned and written as options. `cargo +nightly fuzz run overlay_options`
//!
//! What has to hold stands at `layerstore::fuzzing::fuzz_overlay_options`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| layerstore::fuzzing::fuzz_overlay_options(bytes));
