//! The messages and the server of `containerd.services.snapshots.v1`, made by `just protocol` from the definitions in
//! `proto/`, which are containerd's and under the Apache licence 2.0.
#![allow(
    dead_code,
    missing_docs,
    clippy::allow_attributes_without_reason,
    clippy::all,
    reason = "made by a program; what of it is used depends on us, and how it looks on that program"
)]

pub mod snapshots;
pub mod types;
