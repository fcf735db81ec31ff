//! What stands on stores that are not given, or have lost it.

use super::*;

/// Everything that misses something, as a check tells it, after a repair with and without force has left it.
fn left_alone(store: &Store) -> Vec<String> {
    let found = |store: &Store| store.check(&CheckOptions::default()).unwrap().findings;
    let before = found(store);
    for (force, dry_run) in [(false, true), (true, true), (false, false), (true, false)] {
        let mut options = RepairOptions::default();
        (options.force, options.dry_run) = (force, dry_run);
        let report = store.repair(&options).unwrap();
        assert!(report.repaired.is_empty() && report.failed.is_empty(), "{report:?}");
        assert_eq!(report.left, before, "force {force}, dry run {dry_run}");
    }
    assert_eq!(found(store), before);
    assert!(before.iter().all(|finding| finding.remedy.code() == "leave"), "{before:?}");
    let texts: Vec<String> = before.iter().map(ToString::to_string).collect();
    assert!(
        texts.iter().all(|text| text.contains("a repair leaves it: open with --image-store")),
        "{texts:?}"
    );
    texts
}

#[test]
fn what_stands_on_a_store_that_is_not_given_is_left_alone() {
    let dir = Dir::new("store-not-given");
    let image = load(&Store::open(&at(&dir, "other")).unwrap(), &dir, "base", &["one\n"]);
    let with = || at(&dir, "own").image_store(dir.join("other"));
    let (web, layer, named) = {
        let store = Store::open(&with()).unwrap();
        let web = store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
        let layer = store.create_layer(image.top_layer.as_ref(), &LayerOptions::named("above")).unwrap();
        store.add_names(&image.id, &[name("mine")]).unwrap();
        (web, layer, store.image("mine").unwrap())
    };
    let alone = Store::open(&at(&dir, "own")).unwrap();
    let texts = left_alone(&alone);
    let flag = format!("--image-store {}", dir.join("other").display());
    assert!(texts.iter().all(|text| text.contains(&flag)), "{texts:?}");
    for thing in [format!("layer {}", layer.id), format!("image {}", named.id)] {
        assert!(texts.iter().any(|text| text.starts_with(&thing)), "{thing}: {texts:?}");
    }
    // Given again, under whatever path, nothing is missing and nothing was forgotten.
    let store = Store::open(&with()).unwrap();
    is_clean(&store);
    assert_eq!(store.container("web").unwrap().image, Some(image.id.clone()));
    drop(store);
    std::fs::rename(dir.join("other"), dir.join("moved")).unwrap();
    is_clean(&Store::open(&at(&dir, "own").image_store(dir.join("moved"))).unwrap());
    // Who can do without it removes what needs it.
    alone.remove_container(&web.id).unwrap();
    alone.remove_layer(&layer.id).unwrap();
    alone.remove_image(&named.id).unwrap();
    is_clean(&alone);
}

#[test]
fn what_stands_on_a_separate_store_that_is_not_given_is_left_alone() {
    let dir = Dir::new("images-not-given");
    let with = at(&dir, "own").image_store_root(dir.join("images"));
    let image = {
        let store = Store::open(&with).unwrap();
        let image = load(&store, &dir, "base", &[]);
        store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
        image
    };
    let texts = left_alone(&Store::open(&at(&dir, "own")).unwrap());
    let flag = format!("--image-store-root {}", dir.join("images").display());
    assert!(!texts.is_empty() && texts.iter().all(|text| text.contains(&flag)), "{texts:?}");
    let store = Store::open(&with).unwrap();
    is_clean(&store);
    assert_eq!(store.container("web").unwrap().image, Some(image.id));
}

#[test]
fn what_a_store_that_is_given_has_lost_is_repaired() {
    let dir = Dir::new("given-and-lost");
    let image = load(&Store::open(&at(&dir, "other")).unwrap(), &dir, "base", &[]);
    let store = Store::open(&at(&dir, "own").image_store(dir.join("other"))).unwrap();
    store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
    Store::open(&at(&dir, "other")).unwrap().wipe().unwrap();
    let mut options = RepairOptions::default();
    options.force = true;
    assert!(store.repair(&options).unwrap().is_complete());
    is_clean(&store);
    assert!(store.containers().unwrap().is_empty());
}
