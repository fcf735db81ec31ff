//! What records say, and what none may.

use proptest::prelude::*;

use super::*;

#[test]
fn records_are_read() {
    let body = b"19 path=a/b/c/d/e/f\n20 mtime=1350244992.5\n".as_slice();
    assert!(Records::parse(body).is_err(), "a wrong length");
    let body = b"20 path=a/b/c/d/e/f\n22 mtime=1350244992.5\n11 comment=\n".as_slice();
    assert!(Records::parse(body).is_err(), "a wrong length");
    let body = b"20 path=a/b/c/d/e/f\n22 mtime=1350244992.5\n12 comment=\n".as_slice();
    let records = Records::parse(body).unwrap();
    assert_eq!(records.path.as_deref(), Some(&b"a/b/c/d/e/f"[..]));
    assert_eq!(records.mtime.as_deref(), Some(&b"1350244992.5"[..]));
}

#[test]
fn malformed_records_are_refused() {
    for bad in [
        &b"8 path=a\n"[..],
        b"99 path=a\n",
        b"9 path=a ",
        b"path=a\n",
        b" path=a\n",
        b"9 path=a\n\0",
        b"9 path.a\n",
        b"5 =a\n",
        b"0 path=a\n",
        b"-9 path=a\n",
        b"18446744073709551616 path=a\n",
        b"4294967305 path=a\n",
    ] {
        assert!(Records::parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
    }
    assert!(Records::parse(b"9 path=a\n").is_ok());
}

#[test]
fn keys_given_twice_must_agree() {
    assert!(Records::parse(b"9 size=1\n9 size=1\n").is_ok());
    assert_eq!(Records::parse(b"9 size=1\n9 size=2\n"), Err(CONTRADICTION));
    let mut body = Vec::new();
    put_record(&mut body, b"SCHILY.xattr.user.a", b"\0binary\n");
    put_record(&mut body, b"LIBARCHIVE.xattr.user%2Ea", b"AGJpbmFyeQo");
    let records = Records::parse(&body).unwrap();
    assert_eq!(records.xattrs, [(b"user.a".to_vec(), b"\0binary\n".to_vec())]);
    put_record(&mut body, b"SCHILY.xattr.user.a", b"other");
    assert_eq!(Records::parse(&body), Err(CONTRADICTION));
}

#[test]
fn values_with_newlines_hide_no_records() {
    for bad in [
        &b"24 comment=x\n10 path=b\n\n"[..],
        b"24 comment=x\n10 size=0\ny\n",
        b"25 comment=x\n+11 path=b\n\n",
        b"26 comment=x\n+012 path=b\n\n",
        b"32 SCHILY.xattr.user.a\n9 path=b\n",
        b"34 SCHILY.xattr.user.a\n+11 path=b\n",
    ] {
        assert!(Records::parse(bad).is_err(), "{}", bad.escape_ascii());
    }
    let size = |body: &[u8]| Records::parse(body).unwrap().size_after_newline;
    assert!(size(b"15 comment=x\ny\n9 size=1\n"));
    assert!(size(b"15 comment\nx=y\n9 size=1\n"));
    assert!(!size(b"9 size=1\n15 comment=x\ny\n"));
    assert!(!size(b"13 comment=x\n9 size=1\n"));
    // What a file can have comes back all the same.
    for (name, value) in [
        ("user.a", "x\n10 path=b\n"),
        ("user.a", "x\n+11 path=b\n"),
        ("user.a\n9 path", "b"),
        ("user.a\n10 path", "b\nc"),
        ("user.a\n+11 path", "b"),
    ] {
        let mut body = Vec::new();
        put_xattr_record(&mut body, name.as_bytes(), value.as_bytes());
        assert_eq!(Records::parse(&body).unwrap().xattrs, [(name.into(), value.into())]);
    }
}

#[test]
fn xattrs_no_file_can_have_are_refused() {
    for name in [&b""[..], b"user.\0", &[b'x'; 256]] {
        let mut body = Vec::new();
        put_record(&mut body, &[b"SCHILY.xattr.", name].concat(), b"");
        assert!(Records::parse(&body).is_err(), "{name:?}");
    }
    for (length, good) in [(65536, true), (65537, false)] {
        let mut body = Vec::new();
        put_xattr_record(&mut body, b"user.a", &vec![0; length]);
        assert_eq!(Records::parse(&body).is_ok(), good);
    }
    for bad in [&b"LIBARCHIVE.xattr.user%2"[..], b"LIBARCHIVE.xattr.user%zz"] {
        let mut body = Vec::new();
        put_record(&mut body, bad, b"AA");
        assert!(Records::parse(&body).is_err());
    }
    for bad in [&b"A"[..], b"AA===", b"A=A", b"A-AA"] {
        let mut body = Vec::new();
        put_record(&mut body, b"LIBARCHIVE.xattr.user.a", bad);
        assert!(Records::parse(&body).is_err());
    }
}

#[test]
fn global_headers_may_not_speak_of_one_member() {
    let mut globals = Records::default();
    for bad in [&b"9 path=a\n"[..], b"9 size=0\n", b"22 SCHILY.xattr.a.b=c\n", b"22 GNU.sparse.major=1\n"] {
        assert!(globals.merge_global(Records::parse(bad).unwrap()).is_err());
    }
    globals.merge_global(Records::parse(b"8 uid=7\n8 gid=8\n").unwrap()).unwrap();
    globals.merge_global(Records::parse(b"8 gid=9\n").unwrap()).unwrap();
    assert_eq!((globals.uid, globals.gid), (Some(b"7".to_vec()), Some(b"9".to_vec())));
}

proptest! {
    #[test]
    fn records_come_back(key in "[a-z.]{1,40}", value in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut body = Vec::new();
        put_record(&mut body, key.as_bytes(), &value);
        let mut input = body.as_slice();
        let record = take_record(&mut input).unwrap();
        prop_assert_eq!(key_and_value(record), Ok((key.as_bytes(), value.as_slice())));
        prop_assert!(input.is_empty());
    }

    #[test]
    fn xattrs_come_back(
        name in prop::collection::vec(1u8.., 1..255),
        value in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut body = Vec::new();
        put_xattr_record(&mut body, &name, &value);
        prop_assert_eq!(Records::parse(&body).unwrap().xattrs, [(name, value)]);
    }

    #[test]
    fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Records::parse(&body).is_ok() || Records::parse(&body).is_err());
    }
}
