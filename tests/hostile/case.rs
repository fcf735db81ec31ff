//! One attack as a row of a table: its name, its layers, what must come of it, and what a mount then shows.

use std::fmt::Debug;
use std::time::Duration;

use serde_json::Value;

use super::process::CPU;
use crate::support::oci::Layer;
use crate::support::tar::Member;

/// What has to become of an attack.
#[derive(Clone, Copy, Debug)]
pub enum Expected {
    /// Refused with an error that has this text in it: the member's name in its quotes, or what is wrong.
    Refused(&'static str),
    /// Loaded, since it does no harm.
    Harmless,
    /// Loaded, or refused with an error that has this text in it: it depends on the filesystem, or on the mode.
    Either(&'static str),
}

/// What a path of the mounted image is. One row checks one respect; a path may have several.
#[derive(Clone, Debug)]
pub enum Seen {
    Absent,
    Directory,
    File(&'static [u8]),
    /// The same, of bytes that a test makes.
    Content(Vec<u8>),
    /// A file of so many bytes, whatever they are.
    Size(u64),
    Symlink(String),
    Fifo,
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Mode(u32),
    Owner(u32, u32),
    Mtime(i64, u32),
    Xattr(String, &'static [u8]),
    NoXattr(String),
    /// Another name of the file at this path.
    SameFileAs(&'static str),
}

/// A row.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    /// From the bottom up.
    pub layers: Vec<Layer>,
    /// Whether it is also tried above the layer that is full of links to everywhere.
    pub above_base: bool,
    pub wanted: Wanted,
}

/// What must come of an attack, besides what holds of all of them.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub expected: Expected,
    pub seen: Vec<(String, Seen)>,
    /// The processor's time that the load may take.
    pub cpu: Duration,
}

impl Wanted {
    #[track_caller]
    pub fn new(expected: Expected) -> Self {
        // A path or another sentence of the error has such a word by chance.
        if let Expected::Refused(text) | Expected::Either(text) = expected {
            assert!(!text.bytes().all(|byte| byte.is_ascii_lowercase()), "any error may have {text:?} in it");
        }
        Self { expected, seen: Vec::new(), cpu: CPU }
    }
}

/// An attack of one layer, which is also tried as a second layer.
pub fn case(name: impl Into<String>, members: impl AsRef<[Member]>, expected: Expected) -> Case {
    Case { above_base: true, ..layered(name, [members], expected) }
}

/// An attack of these layers and no others.
pub fn layered<M: AsRef<[Member]>>(
    name: impl Into<String>,
    layers: impl IntoIterator<Item = M>,
    expected: Expected,
) -> Case {
    of_layers(name, layers.into_iter().map(Layer::new), expected)
}

/// The same, of layers that are no lists of members.
pub fn of_layers(
    name: impl Into<String>,
    layers: impl IntoIterator<Item = Layer>,
    expected: Expected,
) -> Case {
    let layers = layers.into_iter().collect();
    Case { name: name.into(), layers, above_base: false, wanted: Wanted::new(expected) }
}

impl Case {
    /// What a mount shows at a path, if the attack was loaded and this process may mount.
    pub fn shows(mut self, path: impl Into<String>, seen: Seen) -> Self {
        self.wanted.seen.push((path.into(), seen));
        self
    }

    /// The processor's time that the load may take, of an attack that is large.
    pub fn within(mut self, cpu: Duration) -> Self {
        self.wanted.cpu = cpu;
        self
    }
}

impl Seen {
    /// Compares with what [`described`](super::loader::described) says of a tree. `None` if it is as it should be.
    pub fn problem(&self, tree: &Value, path: &str) -> Option<String> {
        let node = &tree[path];
        let is = |key: &str, wanted: Value| node[key] == wanted;
        let right = match self {
            Seen::Absent => node.is_null(),
            Seen::Directory => is("kind", "directory".into()),
            Seen::File(bytes) => is("kind", described_file(bytes).into()),
            Seen::Content(bytes) => is("kind", described_file(bytes).into()),
            Seen::Size(size) => {
                node["kind"].as_str().is_some_and(|kind| kind.starts_with(&format!("file of {size} bytes ")))
            }
            Seen::Symlink(target) => is("kind", format!("symlink to {target}").into()),
            Seen::Fifo => is("kind", "fifo".into()),
            Seen::CharDevice(major, minor) => is("kind", format!("character device {major}:{minor}").into()),
            Seen::BlockDevice(major, minor) => is("kind", format!("block device {major}:{minor}").into()),
            Seen::Mode(mode) => is("mode", (*mode).into()),
            Seen::Owner(uid, gid) => is("owner", [*uid, *gid].as_slice().into()),
            Seen::Mtime(seconds, nanoseconds) => is("mtime", format!("{seconds}.{nanoseconds:09}").into()),
            Seen::Xattr(name, value) => {
                node["xattrs"][name].as_str().is_some_and(|shown| value.escape_ascii().to_string() == shown)
            }
            Seen::NoXattr(name) => node["xattrs"][name].is_null() && !node.is_null(),
            Seen::SameFileAs(other) => !node["links"].is_null() && node["links"] == tree[*other]["links"],
        };
        (!right).then(|| format!("a mount should show {path:?} as {self:?}, and shows {node}"))
    }
}

/// The description of a regular file.
fn described_file(bytes: &[u8]) -> String {
    format!("file of {} bytes ({})", bytes.len(), &blake3::hash(bytes).to_hex()[..16])
}
