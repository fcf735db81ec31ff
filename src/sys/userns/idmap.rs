//! Id maps in the form of `/proc/<pid>/uid_map`.

use std::io;
use std::path::Path;

use crate::sys::path;

/// A run of ids: `inside`, `inside + 1`, ... are known outside as `outside`, `outside + 1`, ...
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdExtent {
    /// The first id inside the namespace, or on disk for a mount.
    pub inside: u32,
    /// The first id outside.
    pub outside: u32,
    /// How many ids.
    pub count: u32,
}

/// How users and groups are mapped.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct IdMaps {
    /// The users.
    pub uids: Vec<IdExtent>,
    /// The groups.
    pub gids: Vec<IdExtent>,
}

/// The map in the text that the kernel takes.
pub(super) fn text(map: &[IdExtent]) -> String {
    map.iter().map(|extent| format!("{} {} {}\n", extent.inside, extent.outside, extent.count)).collect()
}

/// Reads a map of the kernel; empty if none has been written.
pub(super) fn read(file: &Path) -> io::Result<Vec<IdExtent>> {
    Ok(path::read_to_string(file)?.lines().filter_map(parse_line).collect())
}

fn parse_line(line: &str) -> Option<IdExtent> {
    let mut numbers = line.split_whitespace().map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some(IdExtent { inside: next()?, outside: next()?, count: next()? })
}
