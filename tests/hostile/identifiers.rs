//! Digests, ids, names and keys that are paths, too long, or nearly another's: at each entrance they are refused, or they
//! are text like any other and never become a path.

use layerstore::oci::{Descriptor, Reference};
use layerstore::{
    ContainerId, ContainerOptions, Digest, ImageId, ImageOptions, LayerId, LayerOptions, LeaseId,
    LookupError, Name, NewItem, OciError, ValueError,
};

use super::scene::{Scene, in_each_mode, in_each_mode_within};
use super::*;
use crate::support::store::assert_whole;

/// For a hundred and fifty commands.
const COMMANDS_CPU: Duration = Duration::from_secs(30);

/// What no digest is, each for another reason.
fn no_digests() -> Vec<String> {
    let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let mut bad: Vec<String> = [
        "",
        ":",
        "sha256",
        "sha256:",
        "sha256:../../x",
        "../../x",
        "/etc/passwd",
        "sha256:/etc/passwd",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709",
    ]
    .map(str::to_owned)
    .to_vec();
    bad.extend([
        format!("sha256:{}", hex.to_uppercase()),
        format!("SHA256:{hex}"),
        format!("sha256:{}", &hex[1..]),
        format!("sha256:{hex}0"),
        format!("sha256:{hex}\0"),
        format!("sha256:{hex}\n"),
        format!(" sha256:{hex}"),
        format!("sha512:{hex}"),
        format!("blake3:{hex}"),
        format!("sha384:{hex}{}", &hex[..32]),
        format!("sha256+b64:{hex}"),
        format!("sha256:{}", "../".repeat(21) + "x"),
        format!("sha256:{}", "0".repeat(4096)),
        format!("sha256:{}g", &hex[1..]),
    ]);
    bad
}

/// What is no id, each for another reason.
fn no_ids() -> Vec<String> {
    let mut bad: Vec<String> = [
        "",
        ".",
        "..",
        "/",
        "../../victim",
        "/victim",
        "a/b",
        "a/../b",
        "a\0b",
        "\0",
        "a b",
        "a\n",
        ".hidden",
        "-rf",
        "_x",
        "\u{e4}",
        "a:b",
        "a\\b",
        "a,b",
        "%2e%2e",
    ]
    .map(str::to_owned)
    .to_vec();
    bad.extend([129, 256, 4096].map(|length| "a".repeat(length)));
    bad
}

#[test]
fn what_is_no_digest_is_refused_everywhere() {
    const TEST: &str = "hostile::identifiers::what_is_no_digest_is_refused_everywhere";
    in_each_mode_within(TEST, COMMANDS_CPU, |mode| {
        let scene = Scene::new(mode);
        let store = scene.open();
        for text in no_digests() {
            let refused = text.parse::<Digest>();
            assert!(
                matches!(&refused, Err(ValueError::Digest(shown)) if shown.len() <= 303),
                "{text:?}: {refused:?}"
            );
            // An argument of a command that takes a digest.
            if !text.contains('\0') {
                for arguments in [
                    &["inspect", "--"][..],
                    &["rmi", "--"],
                    &["create-image", "--name", "new", "--digest"],
                    &["put-layer", "--digest"],
                ] {
                    let arguments = [arguments, &[&text]].concat();
                    let told = scene.dir.layerstore(arguments).assert_failure();
                    assert!(!told.contains("panicked"), "{told}");
                }
            }
            // The tag of a reference.
            let reference: Result<Reference, _> = format!("docker-archive:a.tar:name@{text}").parse();
            assert!(matches!(reference, Err(OciError::Reference { .. })), "{text:?}: {reference:?}");
            // Whatever names an image finds none.
            assert!(
                matches!(store.image(&text), Err(Error::Lookup(LookupError::NotFound { .. }))),
                "{text:?}"
            );
        }
        assert_whole(&store);
    });
}

/// The lists of docker archives name files as paths, and blobs by their digests.
#[test]
fn names_in_a_docker_archive_stay_inside() {
    in_each_mode("hostile::identifiers::names_in_a_docker_archive_stay_inside", |mode| {
        let mut scene = Scene::new(mode);
        scene.change_victim(|victim| std::fs::write(victim.join("hello"), "{}").unwrap());
        let victim = scene.victim().join("hello").to_str().unwrap().to_owned();
        let store = scene.open();
        let mut names = vec!["../victim/hello".to_owned(), victim.clone(), "a/../../victim/hello".to_owned()];
        names.extend(no_digests().iter().map(|digest| format!("blobs/{}", digest.replacen(':', "/", 1))));
        for name in names {
            for (config, layer) in [(name.as_str(), "layer"), ("config", name.as_str())] {
                let list = serde_json::json!([{ "Config": config, "RepoTags": ["a:1"], "Layers": [layer] }]);
                let config = serde_json::json!({
                    "architecture": "amd64",
                    "os": "linux",
                    "rootfs": { "type": "layers", "diff_ids": [digest(b"")] },
                });
                let archive = crate::support::tar::archive(&[
                    Member::file("manifest.json", list.to_string()),
                    Member::file("config", config.to_string()),
                    Member::symlink("link", &victim),
                ]);
                let path = scene.dir.write("docker.tar", &archive);
                // A link out is refused before any name is looked at; without it, the names are.
                let without = crate::support::tar::archive(&[
                    Member::file("manifest.json", list.to_string()),
                    Member::file("config", config.to_string()),
                ]);
                for archive in [archive, without] {
                    std::fs::write(&path, archive).unwrap();
                    let reference = Reference::new(Transport::DockerArchive, &path, None).unwrap();
                    let error = Source::open(&reference, store.root())
                        .map_err(Error::from)
                        .and_then(|source| store.load(&source, &LoadOptions::default()))
                        .unwrap_err();
                    let told = matches!(
                        &error,
                        Error::Oci(
                            OciError::Member { .. }
                                | OciError::MemberMissing { .. }
                                | OciError::Malformed { .. }
                        )
                    );
                    assert!(told, "{name:?}: {error:?}");
                }
            }
        }
        assert_whole(&store);
    });
}

#[test]
fn what_is_no_id_is_refused_everywhere() {
    const TEST: &str = "hostile::identifiers::what_is_no_id_is_refused_everywhere";
    in_each_mode_within(TEST, COMMANDS_CPU, |mode| {
        let scene = Scene::new(mode);
        let store = scene.open();
        // Whatever is asked, nothing is made anywhere beside the store either.
        let beside = || {
            let entries = std::fs::read_dir(scene.dir.path()).unwrap();
            entries.map(|entry| entry.unwrap().file_name()).collect::<std::collections::BTreeSet<_>>()
        };
        let before = beside();
        for text in no_ids() {
            let refused = [
                text.parse::<LayerId>().err(),
                text.parse::<ImageId>().err(),
                text.parse::<ContainerId>().err(),
                text.parse::<LeaseId>().err(),
            ];
            assert!(
                refused.iter().all(|error| matches!(error, Some(ValueError::Id(_)))),
                "{text:?}: {refused:?}"
            );
            let found = store.thing(&text);
            assert!(matches!(found, Err(Error::Lookup(LookupError::NotFound { .. }))), "{text:?}: {found:?}");
            if text.contains('\0') {
                continue;
            }
            for arguments in [
                &["create-container", "--id"][..],
                &["create-layer", "--id"],
                &["rm", "--"],
                &["rmi", "--"],
                &["mount", "--"],
                &["inspect", "--"],
            ] {
                let told = scene.dir.layerstore([arguments, &[&text]].concat()).assert_failure();
                assert!(!told.contains("panicked"), "{arguments:?} {text:?}: {told}");
            }
        }
        assert_eq!(store.layers().unwrap(), []);
        assert_eq!(store.containers().unwrap(), []);
        assert_eq!(beside(), before);
        assert_whole(&store);
    });
}

/// Names and keys are free text: they are in the database, and in no directory.
#[test]
fn names_and_keys_never_become_paths() {
    in_each_mode("hostile::identifiers::names_and_keys_never_become_paths", |mode| {
        let scene = Scene::new(mode);
        let store = scene.open();
        let long = "n".repeat(1024);
        let absolute = scene.victim().join("hello").to_str().unwrap().to_owned();
        let names = [
            "..",
            "/",
            ".",
            "../../victim/hello",
            &absolute,
            "a\\b",
            "-rf",
            &long,
            "sha256:../../x",
            "a,b:c",
        ];
        for name in names {
            let name: Name = name.parse().unwrap();
            let mut options = LayerOptions::default();
            options.names = vec![name.to_string()];
            let layer = store.create_layer(None, &options).unwrap();
            let mut options = ImageOptions::named(name.as_str());
            options.top_layer = Some(layer.id.clone());
            let items = ["..", "/", "../../victim/hello", absolute.as_str(), "sha256:../../x"];
            options.items = items.iter().map(|key| NewItem::new(*key, "value")).collect();
            let image = store.create_image(&options).unwrap();
            let container =
                store.create_container(&image.id, &ContainerOptions::named(name.as_str())).unwrap();
            assert_eq!(store.layer(name.as_str()).unwrap().id, layer.id);
            assert_eq!(store.image(name.as_str()).unwrap().id, image.id);
            assert_eq!(store.container(name.as_str()).unwrap().id, container.id);
            for key in items {
                assert_eq!(store.item(&image, key).unwrap(), b"value", "{key}");
            }
            for path in ["..", "../x", "a/../../x", "/..", ""] {
                let written = store.write_container_file(&container.id, path, b"x");
                assert!(written.is_err(), "{path}");
            }
            store.remove_container(&container.id).unwrap();
            store.remove_image(&image.id).unwrap();
        }
        for bad in ["", " ", "a\0b", "a\nb", "a ", &"n".repeat(1025), &"n".repeat(4096)] {
            assert!(matches!(bad.parse::<Name>(), Err(ValueError::Name(_))), "{bad:?}");
        }
        assert_whole(&store);
    });
}

#[test]
fn an_id_that_begins_like_another_is_itself() {
    in_each_mode("hostile::identifiers::an_id_that_begins_like_another_is_itself", |mode| {
        let scene = Scene::new(mode);
        let store = scene.open();
        let make = |id: &str, name: &str| {
            let mut options = ContainerOptions::named(name);
            options.id = Some(id.parse().unwrap());
            store.create_container(None, &options).unwrap()
        };
        let (short, long) = (make("abc", "short"), make("abcdef", "long"));
        // Called what another's id begins with.
        let named = make("f00", "abcd");
        for (key, expected) in
            [("abc", &short), ("abcdef", &long), ("abcd", &named), ("abcde", &long), ("f", &named)]
        {
            assert_eq!(&store.container(key).unwrap(), expected, "{key}");
        }
        let refused = store.container("ab");
        assert!(matches!(refused, Err(Error::Lookup(LookupError::Ambiguous { .. }))), "{refused:?}");
        store.remove_container(&short.id).unwrap();
        assert_eq!(store.container("abcdef").unwrap(), long);
    });
}

#[test]
fn descriptors_are_made_of_digests_alone() {
    // The only way to a descriptor is a digest that was proven.
    let descriptor = Descriptor::new("application/octet-stream", Digest::sha256(b""), 0);
    assert_eq!(descriptor.raw["digest"], digest(b""));
}
