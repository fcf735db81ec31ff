//! The program as a snapshotter of containerd: a proxy plugin, which containerd calls with gRPC over a unix socket.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`protocol`] | the messages and the server, made from the definitions of containerd |
//! | [`convert`] | those messages and the library's types, each as the other |
//! | [`service`] | the calls: each is one of [`Snapshotter`](layerstore::snapshotter::Snapshotter) |
//! | [`threads`] | how many calls are worked on at a time |
//! | [`socket`] | the socket that is listened to, and its name in the filesystem |
//! | [`manager`] | what a service manager gives, and what it wants to hear |
//! | [`server`] | begin, serve, end |
//!
//! There is no state between two calls: what a call has said is done is in the store. So this process may be killed at
//! any moment, several may serve one store, and other commands work on it meanwhile.

mod convert;
mod manager;
mod protocol;
mod server;
mod service;
mod socket;
mod threads;

pub use server::serve;
pub use socket::Socket;
