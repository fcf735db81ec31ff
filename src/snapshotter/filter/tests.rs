use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use super::*;
use crate::snapshotter::Kind;

fn info(kind: Kind, name: &str, parent: Option<&str>, labels: &[(&str, &str)]) -> Info {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Info {
        kind,
        name: name.to_owned(),
        parent: parent.map(str::to_owned),
        labels: labels.collect::<BTreeMap<_, _>>(),
        created: UNIX_EPOCH,
        updated: UNIX_EPOCH,
    }
}

#[track_caller]
fn is_let_through(filters: &[&str], info: &Info) -> bool {
    Filters::parse(filters).unwrap().let_through(info)
}

/// As in Go, whose expressions they are.
#[test]
fn digits_of_expressions_are_ascii() {
    let filter = r"labels.n~=/^\d+$/";
    for (value, is_number) in [("42", true), ("\u{664}\u{662}", false)] {
        assert_eq!(is_let_through(&[filter], &info(Kind::Active, "web", None, &[("n", value)])), is_number);
    }
}

#[test]
fn selectors_look_at_fields() {
    let base =
        info(Kind::Committed, "default/1/base", None, &[("role", "base"), ("a.b", "c"), ("empty", "")]);
    let web = info(Kind::Active, "web", Some("default/1/base"), &[]);
    for (filter, of_base, of_web) in [
        ("", true, true),
        ("kind==committed", true, false),
        ("kind!=committed", false, true),
        ("name==web", false, true),
        ("name~=/^default/", true, false),
        ("name~=|1/b|", true, false),
        ("name~=web", false, true),
        (r"name~=/t\/1/", true, false),
        ("parent", true, true),
        (r#"parent=="""#, true, false),
        ("parent==default/1/base", false, true),
        ("labels", false, false),
        ("labels.role", true, false),
        ("labels.role==base", true, false),
        ("labels.role!=base", false, true),
        ("labels.a.b==c", true, false),
        (r#"labels."a.b"==c"#, true, false),
        (r#""labels"."a.b"=="c""#, true, false),
        ("labels.none", false, false),
        ("labels.none!=x", true, true),
        ("labels.empty", true, false),
        (r#"labels.none!="""#, false, false),
        ("unknown", false, false),
        (" kind == committed , labels.role ~= ^b ", true, false),
        ("kind==committed,name==web", false, false),
    ] {
        assert_eq!(
            (is_let_through(&[filter], &base), is_let_through(&[filter], &web)),
            (of_base, of_web),
            "{filter}"
        );
    }
    assert!(is_let_through(&["kind==view", "kind==active"], &web));
    assert!(!is_let_through(&["kind==view", "kind==committed"], &web));
    assert!(is_let_through(&[], &web));
}

#[test]
fn containerd_asks_for_the_target_of_an_unpacking() {
    let target = "sha256:0123";
    let found = info(
        Kind::Committed,
        "default/2/x",
        Some("default/1/\"base\""),
        &[("containerd.io/snapshot.ref", target)],
    );
    let filter = format!(r#"labels."containerd.io/snapshot.ref"=={target},parent=="default/1/\"base\"""#);
    assert!(is_let_through(&[&filter], &found));
    assert!(!is_let_through(&[&filter.replace("0123", "0124")], &found));
}

#[test]
fn quoted_values_have_escapes() {
    for (quoted, value) in [
        (r#""\n\t\\\"""#, "\n\t\\\""),
        (r#""\x41\101\u00e4\U0001f600""#, "AA\u{e4}\u{1f600}"),
        (r#""\xc3\xa4""#, "\u{e4}"),
        (r#""a, b""#, "a, b"),
    ] {
        assert!(
            is_let_through(&[&format!("name=={quoted}")], &info(Kind::View, value, None, &[])),
            "{quoted}"
        );
    }
}

#[test]
fn what_is_no_filter_is_refused() {
    for bad in [
        ",",
        "name=",
        "name==",
        "name=x",
        "name==a b",
        "name~=(",
        "=",
        "==a",
        ".a",
        "a.",
        "a..b",
        "name==a,",
        "name,,name",
        r#"name=="a"#,
        r#"name=="\q""#,
        r#"name=="\xff""#,
        r#"name=="\u12""#,
        r#"name=="\400""#,
        "name~=/a",
        "name==\"a\nb\"",
        "a-b",
        "name<a",
    ] {
        let error = Filters::parse(&["name", bad]).unwrap_err();
        assert!(matches!(error, SnapshotError::InvalidArgument { .. }), "{bad}: {error}");
    }
}
