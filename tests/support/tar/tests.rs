//! What the builder says is what another reader reads.

use super::*;

#[test]
fn members_read_back_with_another_reader() {
    let long = "d/".repeat(80) + "file";
    let bytes = archive(&[
        Member::directory("d").mode(0o1777),
        Member::file(&long, b"content").mtime(-1, 750_000_000).xattr("user.k", b"v=w").owner(1000, 1001),
        Member::hard_link("hard", &long),
        Member::char_device("dev", 1, 3),
        Member::whiteout("etc/passwd"),
        Member::file("../escape", b""),
    ]);
    let mut reader = tar::Archive::new(&bytes[..]);
    let mut seen = Vec::new();
    for entry in reader.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut records = Vec::new();
        if let Some(extensions) = entry.pax_extensions().unwrap() {
            for record in extensions {
                let record = record.unwrap();
                records.push((record.key_bytes().to_vec(), record.value_bytes().to_vec()));
            }
        }
        let link = entry.link_name_bytes().map(|name| name.into_owned());
        seen.push((entry.path_bytes().into_owned(), entry.size(), link, records));
    }
    let paths: Vec<_> = seen.iter().map(|(path, ..)| path.escape_ascii().to_string()).collect();
    assert_eq!(paths, ["d", &long, "hard", "dev", "etc/.wh.passwd", "../escape"]);
    assert_eq!(seen[1].1, 7);
    assert!(seen[1].3.contains(&(b"mtime".to_vec(), b"-0.250000000".to_vec())));
    assert!(seen[1].3.contains(&(b"SCHILY.xattr.user.k".to_vec(), b"v=w".to_vec())));
    assert_eq!(seen[2].2.as_deref(), Some(long.as_bytes()));
}

#[test]
fn pax_lengths_count_their_own_digits() {
    for value in [0, 1, 5, 90, 95, 100, 990, 1000] {
        let mut record = Vec::new();
        pax_record(&mut record, b"key", &vec![b'x'; value]);
        let length = std::str::from_utf8(record.split(|byte| *byte == b' ').next().unwrap()).unwrap();
        assert_eq!(length.parse::<usize>().unwrap(), record.len());
    }
}

#[test]
fn every_sparse_form_says_the_same_map() {
    // The other reader wants all but the last in whole blocks.
    let map = [(0, 512), (1024, 512), (5120, 512), (6144, 512), (7168, 1), (8000, 0)];
    let content: Vec<u8> = (0..2049_u32).map(|at| b'a' + (at / 512) as u8).collect();
    for sparse in Sparse::every_form(&map, 8000) {
        let holes = Member::file("holes", &content).sparse(sparse.clone());
        let bytes = archive(&[holes, Member::file("after", b"x")]);
        assert_eq!(bytes.len() % BLOCK_BYTES, 0, "{sparse:?}");
        let mut reader = tar::Archive::new(&bytes[..]);
        let names: Vec<_> =
            reader.entries().unwrap().map(|entry| entry.unwrap().path_bytes().into_owned()).collect();
        assert_eq!(names, [&b"holes"[..], b"after"], "{sparse:?}");
    }
    // It knows the first form alone.
    let bytes = archive(&[Member::file("holes", &content).sparse(Sparse::gnu(map, 8000))]);
    let mut reader = tar::Archive::new(&bytes[..]);
    let mut entry = reader.entries().unwrap().next().unwrap().unwrap();
    let mut whole = Vec::new();
    std::io::Read::read_to_end(&mut entry, &mut whole).unwrap();
    assert_eq!(whole.len(), 8000);
    assert_eq!([0, 511, 512, 1024, 5120, 7168, 7169].map(|at| whole[at]), *b"aa\0bce\0");
}

#[test]
fn fields_hold_what_they_are_told() {
    let header = |member: Member| {
        let bytes: [u8; BLOCK_BYTES] = member.to_bytes()[..BLOCK_BYTES].try_into().unwrap();
        Header::from_byte_slice(&bytes).clone()
    };
    let file = || Member::file("f", b"");
    assert_eq!(header(file().base256(Field::Uid, -1)).as_bytes()[Field::Uid.range()], [0xff; 8]);
    assert_eq!(header(file().base256(Field::Uid, 1 << 32)).uid().unwrap(), 1 << 32);
    assert_eq!(
        header(file().base256(Field::Size, -2)).as_bytes()[124..136],
        *b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"
    );
    assert_eq!(header(file().field(Field::Mode, octal(8, 0o4755))).mode().unwrap(), 0o4755);
    assert_eq!(header(file().format(Format::Gnu)).as_bytes()[Field::Magic.range()], *b"ustar  \0");
    assert!(header(file().format(Format::Old)).as_bytes()[257..].iter().all(|byte| *byte == 0));
    for (checksum, right) in
        [(Checksum::Unsigned, true), (Checksum::Wrong, false), (Checksum::Bytes(*b"0000000\0"), false)]
    {
        let header = header(file().checksum(checksum));
        let mut again = header.clone();
        again.set_cksum();
        assert_eq!(again.cksum().unwrap() == header.cksum().unwrap(), right);
    }
    // A byte above 127 counts 256 less.
    let sums = [Checksum::Unsigned, Checksum::Signed]
        .map(|checksum| header(Member::file(b"\xff", b"").checksum(checksum)).cksum().unwrap());
    assert_eq!(sums[0] - sums[1], 256);
    let long = Member::file("f", b"").long(b'L', b"long\0").pax("size", "0").to_bytes();
    let types: Vec<_> = long.chunks(BLOCK_BYTES).map(|block| block[156]).collect();
    assert_eq!(types, [b'x', 0, b'L', 0, b'0']);
}
