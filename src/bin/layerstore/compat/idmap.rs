//! Id maps, as flags give them.

use layerstore::{IdExtent, IdMaps};

use super::call::Call;
use super::failure::{Failure, known};
use super::golang::{call_failed, quoted};
use super::table::{GID_MAP, HOST_GID_MAP, HOST_UID_MAP, SUB_GID_MAP, SUB_UID_MAP, UID_MAP};

/// The maps that the flags of a command give; empty if they give none.
///
/// Returns [`Failure::Text`] if they contradict each other, are malformed, or name nobody.
pub fn given(call: &Call<'_>) -> Result<IdMaps, Failure> {
    let flags = &call.flags;
    let (uid_map, gid_map) = (flags.text(&UID_MAP), flags.text(&GID_MAP));
    let (user, group) = (flags.text(&SUB_UID_MAP), flags.text(&SUB_GID_MAP));
    let is_given = |text: Option<&str>, name: Option<&str>| text.is_some() || name.is_some();
    if flags.is(&HOST_UID_MAP) && is_given(uid_map, user) {
        return Err(Failure::new("host uid map specified along with UID mapping"));
    }
    if flags.is(&HOST_GID_MAP) && is_given(gid_map, group) {
        return Err(Failure::new("host gid map specified along with GID mapping"));
    }
    // Of names, one stands for both; of maps it does not.
    let (of_user, of_group) = match (user.or(group), group.or(user)) {
        (Some(user), Some(group)) => (ranges("user", user)?, ranges("group", group)?),
        _ => Default::default(),
    };
    let parsed = |what, text: Option<&str>| text.map_or(Ok(Vec::new()), |text| parse(what, text));
    let mut maps = IdMaps { uids: parsed("uid", uid_map)?, gids: parsed("gid", gid_map)? };
    maps.uids.extend(of_user);
    maps.gids.extend(of_group);
    if flags.is(&HOST_UID_MAP) {
        maps.uids.clear();
    }
    if flags.is(&HOST_GID_MAP) {
        maps.gids.clear();
    }
    Ok(maps)
}

/// The maps that a new layer keeps: those that flags give, or else those of its parent. Layers have the owners that came in,
/// whoever looks at them; so the reference does where mounts can map them, and keeps only maps that are in pieces.
pub fn of_layer(call: &Call<'_>, given: IdMaps, uids: &[IdExtent], gids: &[IdExtent]) -> IdMaps {
    let mut maps = given;
    if maps.uids.is_empty() && !call.flags.is(&HOST_UID_MAP) {
        maps.uids = uids.to_vec();
    }
    if maps.gids.is_empty() && !call.flags.is(&HOST_GID_MAP) {
        maps.gids = gids.to_vec();
    }
    if is_one_piece(&maps.uids) && is_one_piece(&maps.gids) { IdMaps::default() } else { maps }
}

/// Whether the ids of a map follow each other without a gap, on either side.
fn is_one_piece(map: &[IdExtent]) -> bool {
    [|run: &IdExtent| run.inside, |run: &IdExtent| run.outside].iter().all(|side| {
        let mut runs: Vec<_> = map.iter().map(|run| (u64::from(side(run)), u64::from(run.count))).collect();
        runs.sort_unstable();
        runs.iter()
            .zip(runs.iter().skip(1))
            .all(|((first, count), (next, _))| first.checked_add(*count) == Some(*next))
    })
}

/// The maps as a container needs them: where only users or only groups are mapped, the others are who they are.
///
/// Returns [`Failure::Text`] if an id is mapped twice.
pub fn complete(mut maps: IdMaps) -> Result<IdMaps, Failure> {
    let mut wrong = conflicts(&maps.uids);
    for run in conflicts(&maps.gids) {
        if !wrong.contains(&run) {
            wrong.push(run);
        }
    }
    let texts: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    let (ending, verb) = if texts.len() == 1 { ("", "conflicts") } else { ("s", "conflict") };
    if !texts.is_empty() {
        return Err(Failure::Text(format!(
            "the specified UID and/or GID mapping{ending} {} {verb} with other mappings: {}",
            texts.join(", "),
            known::INVALID_MAPS
        )));
    }
    if maps.uids.is_empty() != maps.gids.is_empty() {
        let (map, file) = match maps.uids.is_empty() {
            true => (&mut maps.uids, OWN_USERS),
            false => (&mut maps.gids, OWN_GROUPS),
        };
        *map = everyone(file)?;
    }
    Ok(maps)
}

/// The maps of a container as they were given: without those that only say that everyone is who he is.
pub fn shown(maps: &IdMaps) -> Result<IdMaps, Failure> {
    let unless_everyone = |map: &Vec<IdExtent>, file| {
        Ok::<_, Failure>(if *map == everyone(file)? { Vec::new() } else { map.clone() })
    };
    Ok(IdMaps {
        uids: unless_everyone(&maps.uids, OWN_USERS)?,
        gids: unless_everyone(&maps.gids, OWN_GROUPS)?,
    })
}

const OWN_USERS: &str = "/proc/self/uid_map";
const OWN_GROUPS: &str = "/proc/self/gid_map";

/// Every id that there is here, as itself.
fn everyone(file: &str) -> Result<Vec<IdExtent>, Failure> {
    let lines = read(file)?;
    let run = |line: &str| {
        let mut fields = line.split_whitespace().map(str::parse::<u32>);
        let (inside, count) = (fields.next()?.ok()?, fields.nth(1)?.ok()?);
        Some(IdExtent { inside, outside: inside, count })
    };
    Ok(lines.lines().filter_map(run).collect())
}

/// The runs that have an id in common with one that begins before them, on either side.
fn conflicts(map: &[IdExtent]) -> Vec<IdExtent> {
    let mut found = Vec::new();
    let sides: [fn(&IdExtent) -> u32; 2] = [|run| run.inside, |run| run.outside];
    for first in sides {
        let mut sorted = map.to_vec();
        sorted.sort_by_key(first);
        let mut end = 0;
        for run in sorted {
            let start = u64::from(first(&run));
            if start < end && !found.contains(&run) {
                found.push(run);
            }
            end = end.max(start.saturating_add(run.count.into()));
        }
    }
    found
}

/// Reads `CONTAINER:HOST:SIZE`, with further triples behind it.
fn parse(what: &str, text: &str) -> Result<Vec<IdExtent>, Failure> {
    let malformed = || {
        Failure::Text(format!(
            "initializing ID mappings: {what} setting is malformed expected [\"uint32:uint32:uint32\"]: [{}]",
            quoted(text.as_bytes())
        ))
    };
    let number = |text: &str| if text.starts_with('+') { None } else { text.parse::<u32>().ok() };
    let numbers: Vec<u32> = text.split(':').map(number).collect::<Option<_>>().ok_or_else(malformed)?;
    let (triples, rest) = numbers.as_chunks::<3>();
    if triples.is_empty() || !rest.is_empty() {
        return Err(malformed());
    }
    Ok(triples
        .iter()
        .map(|[inside, outside, count]| IdExtent { inside: *inside, outside: *outside, count: *count })
        .collect())
}

fn read(file: &str) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|error| Failure::Text(call_failed("open", file, &error)))
}

/// The subordinate ids of a user or a group.
fn ranges(kind: &str, name: &str) -> Result<Vec<IdExtent>, Failure> {
    let (file, what) = if kind == "user" { ("/etc/subuid", "subuid") } else { ("/etc/subgid", "subgid") };
    let ranges = ranges_of(&read(file)?, name);
    if ranges.is_empty() {
        return Err(Failure::Text(format!("no {what} ranges found for {kind} \"{name}\" in {file}")));
    }
    Ok(ranges)
}

/// The ranges of a name in lines of `NAME:FIRST:COUNT`, one behind the other from 0 on.
fn ranges_of(lines: &str, name: &str) -> Vec<IdExtent> {
    let mut ranges: Vec<IdExtent> = Vec::new();
    let mut inside = 0u32;
    for line in lines.lines() {
        let mut fields = line.trim().split(':');
        let is_of = fields.next() == Some(name);
        let mut number = || fields.next().and_then(|field| field.parse::<u32>().ok());
        if let (true, Some(outside), Some(count)) = (is_of, number(), number()) {
            ranges.push(IdExtent { inside, outside, count });
            inside = inside.saturating_add(count);
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(inside: u32, outside: u32, count: u32) -> IdExtent {
        IdExtent { inside, outside, count }
    }

    #[test]
    fn maps_are_triples() {
        assert_eq!(parse("uid", "0:100000:65536").unwrap(), [extent(0, 100_000, 65536)]);
        assert_eq!(parse("uid", "0:1:2:2:10:20").unwrap(), [extent(0, 1, 2), extent(2, 10, 20)]);
        for bad in ["junk", "", "0:1", "0:1:2:3", "0:-1:2", "+0:1:2", "0:1:4294967296"] {
            let expected = format!(
                "initializing ID mappings: gid setting is malformed expected [\"uint32:uint32:uint32\"]: [\"{bad}\"]"
            );
            assert_eq!(parse("gid", bad).unwrap_err().text(), expected);
        }
    }

    #[test]
    fn a_map_is_in_one_piece_on_either_side_or_not() {
        for (map, one) in [
            ("", true),
            ("0:1000:10", true),
            ("0:1000:10 10:1010:5", true),
            ("10:1000:10 0:1010:10", true),
            ("0:1000:10 10:2000:5", false),
            ("0:1000:10 20:1010:5", false),
        ] {
            let map: Vec<IdExtent> = map.split_whitespace().map(|run| run.parse().unwrap()).collect();
            assert_eq!(is_one_piece(&map), one, "{map:?}");
        }
    }

    #[test]
    fn subordinate_ranges_follow_each_other() {
        let lines = "# web\n#web:7:7\n\nweb:100000:10\nother:1:1\n  web:200000:5\nweb:x:1\nweb\n";
        assert_eq!(ranges_of(lines, "web"), [extent(0, 100_000, 10), extent(10, 200_000, 5)]);
        assert!(ranges_of(lines, "nobody").is_empty());
    }

    #[test]
    fn what_is_mapped_twice_is_named() {
        let of = |text| {
            conflicts(&parse("uid", text).unwrap()).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(of("0:100:5:5:200:5"), [""; 0]);
        assert_eq!(of("0:0:1:0:1:1"), ["0:1:1"]);
        assert_eq!(of("0:0:5:7:3:1"), ["7:3:1"]);
        assert_eq!(of("0:0:5:4:30:1:3:1:1"), ["3:1:1", "4:30:1"]);
    }
}
