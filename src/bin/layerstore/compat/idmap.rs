//! Id maps, as flags give them.

use layerstore::{IdExtent, IdMaps};

use super::call::Call;
use super::failure::Failure;
use super::golang::{call_failed, quoted};
use super::table::{GID_MAP, HOST_GID_MAP, HOST_UID_MAP, SUB_GID_MAP, SUB_UID_MAP, UID_MAP};

/// The maps that the flags of a command give; empty if they give none.
///
/// Returns [`Failure::Text`] if they contradict each other, are malformed, or name nobody.
pub fn given(call: &Call<'_>) -> Result<IdMaps, Failure> {
    let flags = &call.flags;
    let (uid_map, gid_map) = (flags.text(&UID_MAP), flags.text(&GID_MAP));
    if flags.is(&HOST_UID_MAP) && uid_map.is_some() {
        return Err(Failure::new("host uid map specified along with UID mapping"));
    }
    if flags.is(&HOST_GID_MAP) && gid_map.is_some() {
        return Err(Failure::new("host gid map specified along with GID mapping"));
    }
    let (user, group) = (flags.text(&SUB_UID_MAP), flags.text(&SUB_GID_MAP));
    let subordinate = |file, name: Option<&str>| match name {
        Some(name) => ranges_of(file, &read(file)?, name),
        None => Ok(Vec::new()),
    };
    let mut maps = IdMaps {
        uids: subordinate("/etc/subuid", user.or(group))?,
        gids: subordinate("/etc/subgid", group.or(user))?,
    };
    // One stands for both.
    if let Some(text) = uid_map.or(gid_map) {
        maps.uids = parse("uid", text)?;
    }
    if let Some(text) = gid_map.or(uid_map) {
        maps.gids = parse("gid", text)?;
    }
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
        runs.iter().zip(runs.iter().skip(1)).all(|((first, count), (next, _))| first + count == *next)
    })
}

/// Reads `CONTAINER:HOST:SIZE`, with further triples behind it.
fn parse(what: &str, text: &str) -> Result<Vec<IdExtent>, Failure> {
    let malformed = || {
        Failure::Text(format!(
            "initializing ID mappings: {what} setting is malformed expected [\"uint32:uint32:uint32\"]: [{}]",
            quoted(text.as_bytes())
        ))
    };
    let numbers: Vec<u32> =
        text.split(':').map(str::parse).collect::<Result<_, _>>().map_err(|_| malformed())?;
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

/// The ranges of a user in lines of `NAME:FIRST:COUNT`, one behind the other from 0 on.
fn ranges_of(file: &str, lines: &str, name: &str) -> Result<Vec<IdExtent>, Failure> {
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
    if ranges.is_empty() {
        let text = format!("initializing ID mappings: no ranges found for \"{name}\" in {file}");
        return Err(Failure::Text(text));
    }
    Ok(ranges)
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
        for bad in ["junk", "", "0:1", "0:1:2:3", "0:-1:2", "0:1:4294967296"] {
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
        assert_eq!(ranges_of("f", lines, "web").unwrap(), [extent(0, 100_000, 10), extent(10, 200_000, 5)]);
        assert!(ranges_of("f", lines, "nobody").unwrap_err().text().contains("\"nobody\""));
    }
}
