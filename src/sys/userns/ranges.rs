//! The id ranges that an administrator gives a user in `/etc/subuid` and `/etc/subgid`, and the set-id programs
//! that map them.

use std::io;
use std::path::{Path, PathBuf};

use super::IdExtent;
use crate::sys::{accounts, path, process};

/// The maps that the caller may have, and the programs that write them.
#[derive(Debug)]
pub(super) struct Ranges {
    uids: Vec<IdExtent>,
    gids: Vec<IdExtent>,
    newuidmap: PathBuf,
    newgidmap: PathBuf,
}

impl Ranges {
    /// The maps for the caller: own id as root, then every range of the files, one after the other.
    ///
    /// Returns, in words, why there are none.
    pub(super) fn of_caller(uid: u32, gid: u32) -> Result<Ranges, String> {
        let program =
            |name: &str| process::find(name).ok_or_else(|| format!("the program {name} is not installed"));
        let (newuidmap, newgidmap) = (program("newuidmap")?, program("newgidmap")?);
        let user = accounts::with_id(uid).map(|user| user.name);
        // Both files name the user, the one for groups too.
        let map = |file: &str, own: u32| {
            let text = path::read_to_string(Path::new(file))
                .map_err(|error| format!("cannot read {file}: {error}"))?;
            let ranges = parse(&text, user.as_deref(), Some(uid));
            if ranges.is_empty() {
                Err(format!("{file} has no range for user {uid}"))
            } else {
                Ok(map(own, &ranges))
            }
        };
        Ok(Ranges { uids: map("/etc/subuid", uid)?, gids: map("/etc/subgid", gid)?, newuidmap, newgidmap })
    }

    /// The maps alone: users, groups.
    pub(super) fn into_maps(self) -> (Vec<IdExtent>, Vec<IdExtent>) {
        (self.uids, self.gids)
    }

    /// Maps the ids of `process`. Groups first: if they fail, no user map has been written either, and the
    /// process can still map its single ids itself.
    ///
    /// Returns, in words, why it did not work.
    pub(super) fn write(&self, process: i32) -> Result<(), String> {
        run(&self.newgidmap, process, &self.gids)?;
        run(&self.newuidmap, process, &self.uids)
    }
}

fn run(program: &Path, pid: i32, map: &[IdExtent]) -> Result<(), String> {
    let numbers = map.iter().flat_map(|extent| [extent.inside, extent.outside, extent.count]);
    let arguments = std::iter::once(pid.to_string()).chain(numbers.map(|number| number.to_string()));
    let output = process::run(program, Path::new("/"), arguments)
        .map_err(|error| format!("cannot run {}: {error}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{} failed ({}): {}", program.display(), output.status, said.trim()))
}

/// The ranges that `/etc/subuid` and `/etc/subgid` give to the user `name`, as first id and count.
pub(crate) fn given_to(name: &str) -> io::Result<[Vec<(u32, u32)>; 2]> {
    let user = accounts::with_name(name).map(|user| user.uid);
    let read = |file| {
        let text = path::read_to_string(Path::new(file));
        let text = match text {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        Ok::<_, io::Error>(parse(&text, Some(name), user))
    };
    Ok([read("/etc/subuid")?, read("/etc/subgid")?])
}

/// The ranges of a user in lines such as `name:100000:65536` or `1000:100000:65536`.
fn parse(text: &str, name: Option<&str>, uid: Option<u32>) -> Vec<(u32, u32)> {
    let number = uid.map(|uid| uid.to_string());
    let owned = |owner: &str| Some(owner) == number.as_deref() || Some(owner) == name;
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (owner, first, count) =
            (fields.next()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (owned(owner) && count > 0 && fields.next().is_none()).then_some((first, count))
    });
    lines.collect()
}

/// Lays the ranges out behind root. A range that no longer fits into 32 bits is left out.
fn map(own: u32, ranges: &[(u32, u32)]) -> Vec<IdExtent> {
    let mut extents = vec![IdExtent { inside: 0, outside: own, count: 1 }];
    let mut inside: u32 = 1;
    for &(outside, count) in ranges {
        let Some(next) = inside.checked_add(count) else { continue };
        extents.push(IdExtent { inside, outside, count });
        inside = next;
    }
    extents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_a_user_by_name_and_number() {
        let text = "# comment\nann:100000:65536\nbob:1:2\n1000:300000:1000\nann:5:0\nann:x:1\nann:1:1:1\n";
        assert_eq!(parse(text, Some("ann"), Some(1000)), [(100_000, 65536), (300_000, 1000)]);
        assert_eq!(parse(text, None, Some(1000)), [(300_000, 1000)]);
        assert_eq!(parse(text, None, Some(7)), []);
        assert_eq!(parse(text, Some("bob"), None), [(1, 2)]);
    }

    #[test]
    fn the_caller_is_root_and_ranges_follow() {
        let extents = map(1000, &[(100_000, 65536), (1, u32::MAX), (300_000, 10)]);
        let plain: Vec<_> =
            extents.iter().map(|extent| (extent.inside, extent.outside, extent.count)).collect();
        assert_eq!(plain, [(0, 1000, 1), (1, 100_000, 65536), (65537, 300_000, 10)]);
    }
}
