//! Files with holes whose maps lie.

use super::*;
use crate::support::tar::Sparse;

/// A file with so much content, and one behind it.
fn file(content: usize, sparse: Sparse) -> [Member; 2] {
    [Member::file("sparse", vec![7; content]).sparse(sparse), Member::file("next", b"n")]
}

/// A map of the old form stands in the header and in blocks behind it, of the others in records or in front of the content.
#[test]
fn sparse_files_with_bad_maps_are_refused() {
    let place = Place::new();
    let largest = i64::MAX.cast_unsigned();
    for (name, map, content, size) in [
        ("more than there is", vec![(100, 5)], 4, 1000),
        ("less than there is", vec![(100, 3)], 4, 1000),
        ("backwards", vec![(2048, 512), (0, 512)], 1024, 4096),
        ("overlapping", vec![(0, 512), (511, 512)], 1024, 4096),
        ("no whole blocks", vec![(0, 2), (100, 2)], 4, 1000),
        ("beyond its end", vec![(2000, 4)], 4, 1000),
        ("over its end", vec![(998, 4)], 4, 1000),
        ("beyond everything", vec![(largest, 4)], 4, 1000),
        ("8 EiB", vec![(0, 4)], 4, largest),
        ("8 EiB of holes", vec![(largest - 4, 4)], 4, largest),
    ] {
        for sparse in Sparse::every_form(&map, size) {
            let told = if size == largest { "hole_bytes" } else { "\"sparse\"" };
            place.all([case(format!("{name}: {sparse:?}"), file(content, sparse), Refused(told))]);
        }
    }
    let mut whole = vec![0; 1000];
    whole[100..612].fill(7);
    whole[700..704].fill(7);
    for sparse in Sparse::every_form(&[(100, 512), (700, 4)], 1000) {
        place.all([case(format!("right: {sparse:?}"), file(516, sparse), Harmless)
            .shows("sparse", Seen::Content(whole.clone()))
            .shows("next", Seen::File(b"n"))]);
    }
    let old = Member::file("sparse", b"data").entry_type(b'S');
    place.attack_twice("an old map without GNU's header", &[old], Refused("\"sparse\""));
}

#[test]
fn sparse_records_that_say_nothing_right_are_refused() {
    let place = Place::new();
    let sparse = |map: &str| {
        Member::file("sparse", b"data")
            .pax("GNU.sparse.major", "0")
            .pax("GNU.sparse.minor", "1")
            .pax("GNU.sparse.name", "sparse")
            .pax("GNU.sparse.size", "1000")
            .pax("GNU.sparse.map", map)
    };
    let mut whole = vec![0; 1000];
    whole[100..104].copy_from_slice(b"data");
    place.all([case("right", [sparse("100,4")], Harmless).shows("sparse", Seen::Content(whole))]);
    for map in ["18446744073709551615,4", "18446744073709551616,4", "-1,4", "x", "1", "", ",", "100,4,"] {
        place.all([case(format!("map {map:?}"), [sparse(map)], Refused("\"sparse\""))]);
    }
    let both = sparse("0,4").pax("GNU.sparse.realsize", "999");
    let neither = Member::file("sparse", b"").pax("GNU.sparse.name", "etc").pax("GNU.sparse.size", "9");
    place.all([
        case("two lengths", [both], Refused("\"sparse\"")),
        case("neither version nor map", [neither], Refused("\"etc\"")),
    ]);
    let front = |map: &str| {
        let mut body = map.as_bytes().to_vec();
        body.resize(body.len().next_multiple_of(512), 0);
        body.extend_from_slice(b"data");
        Member::file("sparse", body)
            .pax("GNU.sparse.major", "1")
            .pax("GNU.sparse.minor", "0")
            .pax("GNU.sparse.name", "sparse")
            .pax("GNU.sparse.realsize", "1000")
    };
    for (name, map) in [("no end", "9\n0\n"), ("no number", "x\n"), ("overflow", "99999999999999999999\n")] {
        place.all([case(name, [front(map)], Refused("\"sparse\""))]);
    }
}

/// A million regions: no form lets them cost memory, or time that grows with their square.
#[test]
fn a_million_regions_are_refused() {
    let place = Place::new();
    let million: Vec<(u64, u64)> = (0..1_000_000).map(|at| (at * 512, 512)).collect();
    let told = ["sparse_extents", "extension header", "extension header", "sparse_extents"];
    for (sparse, text) in Sparse::every_form(&million, 512_000_000).into_iter().zip(told) {
        let member = Member::file("sparse", b"").sparse(sparse);
        place
            .all([layered(format!("a million, {text}"), [[member]], Refused(text))
                .within(Duration::from_secs(20))]);
    }
}
