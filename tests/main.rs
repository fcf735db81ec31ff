//! The integration tests: one binary, one module per subject, named by behaviour.
//!
//! What a machine lacks (root, a namespace, the Debian image, a tool) is found out at run time; such
//! a test says why it did nothing, with `skip!`, and passes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test stops at the first thing that is not as it should be; clippy knows only functions marked #[test]"
)]

#[macro_use]
mod support;

mod additional;
mod backing;
mod calls;
mod check;
mod chunked;
mod cli;
mod compat;
mod composefs;
mod containerd;
mod debian;
mod dedup;
mod depth;
mod force_mask;
mod foreign_mounts;
mod format;
mod gc;
mod graphdriver;
mod hostile;
mod id_maps;
mod image_stores;
mod layering;
mod layers;
mod limits;
mod model;
mod mount_program;
mod mounted_over;
mod mounts;
mod new_directories;
mod peers;
mod power_cut;
mod privilege;
mod quota;
mod read_only;
mod repair;
mod roundtrip;
mod scripts;
mod sealing;
mod snapshotter;
mod syncs;
mod things;
mod torture;
mod transient;
mod unsynced;
mod watch;
mod withheld;
mod written;
