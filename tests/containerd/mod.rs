//! The program as a snapshotter of containerd: alone, and with Debian's containerd and runc.

mod alone;
mod images;
mod kills;
mod others;
