//! What the integration tests share: temporary stores, the program, made-up images, whole trees.
#![allow(dead_code, unused_imports, reason = "a kit: not every part is in use at every time")]

/// Ends the running test as passed, and says so in a way that the test harness does not swallow.
///
/// `skip!("needs root")`
macro_rules! skip {
    ($($why:tt)*) => {{
        $crate::support::machine::note_skip(&format!($($why)*));
        return;
    }};
}

pub mod command;
pub mod compressed;
pub mod containerd;
pub mod damage;
pub mod database;
pub mod dir;
pub mod disk;
pub mod documented;
pub mod machine;
pub mod mounter;
pub mod oci;
pub mod random;
pub mod source;
pub mod store;
pub mod tar;
pub mod transcript;
pub mod tree;
#[path = "../../src/sys/without.rs"]
pub mod without;

pub use command::TestCommand;
pub use dir::Dir;
