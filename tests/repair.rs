//! Every kind of damage is mended with what it needs, and left as it is without.

use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};

use layerstore::oci::{LoadOptions, SaveOptions, Source};
use layerstore::{
    CheckLevel, ContainerOptions, Error, Finding, InUseError, MountOptions, Progress, Remedy, RepairError,
    RepairOptions, RepairReport, Store, UnmountMode,
};
use layerstore_schema::record::{KeptBlobRecord, LayerContent};
use layerstore_schema::table;

use crate::support::damage::{CASES, Case, Fixture, Needs, findings, image, load, open, overwrite, quietly};
use crate::support::oci::{Image, Layer};
use crate::support::tar::Member;
use crate::support::{database, machine};

fn repair<'s>(store: &Store, change: impl FnOnce(&mut RepairOptions<'s>)) -> RepairReport {
    let mut options = RepairOptions::default();
    change(&mut options);
    store.repair(&options).unwrap()
}

/// What was done to what, or would be.
fn deeds(report: &RepairReport) -> Vec<(&'static str, &str)> {
    let mut deeds: Vec<_> = report.repaired.iter().map(|one| (one.code, one.thing.as_str())).collect();
    deeds.sort_unstable();
    deeds
}

fn codes(report: &RepairReport) -> Vec<&'static str> {
    report.repaired.iter().map(|one| one.code).collect()
}

/// What went wrong with one case, if anything.
fn try_case(case: &Case) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expect = |right: bool, what: &str, report: &RepairReport| {
        if !right {
            let list =
                |findings: &[Finding]| -> Vec<String> { findings.iter().map(ToString::to_string).collect() };
            let failed: Vec<_> =
                report.failed.iter().map(|one| format!("{} {:?}", one.thing, one.error)).collect();
            let done: Vec<_> = report.repaired.iter().map(ToString::to_string).collect();
            let left = list(&report.left);
            wrong.push(format!(
                "{}: {what}\n  done {done:#?}\n  failed {failed:#?}\n  left {left:#?}",
                case.name
            ));
        }
    };
    let fixture = Fixture::new();
    if case.needs == Needs::Source || case.needs == Needs::Force {
        fixture.store.drop_blobs(None).unwrap();
    }
    (case.make)(&fixture);
    let before = fixture.store.change_counter();
    let planned = repair(&fixture.store, |options| options.dry_run = true);
    expect(fixture.store.change_counter() == before, "a dry run changes nothing", &planned);

    let report = repair(&fixture.store, |_| {});
    // With the record of bytes, it is not known that they have chunks.
    let is_hidden = case.name == "the record of a manifest's bytes";
    expect(
        is_hidden || deeds(&planned) == deeds(&report),
        &format!("what was planned is done: {planned:#?}"),
        &report,
    );
    match case.needs {
        Needs::Nothing | Needs::Blobs => {
            expect(report.is_complete(), "it is mended", &report);
            expect(planned.is_complete(), "it was promised to be mended", &planned);
            expect(!report.repaired.is_empty() && report.failed.is_empty(), "it says how", &report);
        }
        Needs::Source | Needs::Force | Needs::Somebody => {
            expect(!report.is_complete() && !planned.is_complete(), "it is left", &report);
        }
    }
    if case.needs == Needs::Source {
        let source = fixture.source();
        let report = repair(&fixture.store, |options| options.sources.push(&source));
        expect(report.is_complete(), "it is mended from outside", &report);
    }
    if case.needs == Needs::Force {
        let removes = |finding: &Finding| !finding.remedy.removes().is_empty();
        expect(report.left.iter().all(removes), "it says what would go", &report);
        let planned = repair(&fixture.store, |options| (options.force, options.dry_run) = (true, true));
        let report = repair(&fixture.store, |options| options.force = true);
        expect(
            deeds(&planned) == deeds(&report),
            &format!("what was planned is removed: {planned:#?}"),
            &report,
        );
        expect(report.is_complete(), "it is removed", &report);
        expect(report.repaired.iter().any(|one| one.code == "removed"), "it says what went", &report);
    }
    if case.needs != Needs::Somebody {
        let after = findings(&fixture.store, CheckLevel::Deep);
        expect(after.is_empty(), &format!("the store is clean: {after:?}"), &report);
    }
    wrong
}

/// As [`try_case`], where the blobs were dropped before: it is left, and mended from outside.
fn try_without_blobs(case: &Case) -> Vec<String> {
    let fixture = Fixture::new();
    fixture.store.drop_blobs(None).unwrap();
    (case.make)(&fixture);
    let mut wrong = Vec::new();
    let report = repair(&fixture.store, |_| {});
    if !report.left.iter().any(|finding| !finding.remedy.wanted().is_empty()) {
        wrong.push(format!("{}: it is left without blobs: {report:#?}", case.name));
    }
    let source = fixture.source();
    let report = repair(&fixture.store, |options| options.sources.push(&source));
    let after = findings(&fixture.store, CheckLevel::Deep);
    if !report.is_complete() || !after.is_empty() {
        wrong.push(format!("{}: it is mended from outside: {report:#?} {after:#?}", case.name));
    }
    wrong
}

/// Runs the cases that a test is about, side by side.
fn try_all(try_case: fn(&Case) -> Vec<String>, wanted: impl Fn(&Case) -> bool) {
    let cases: Vec<&Case> = CASES.iter().filter(|case| wanted(case)).collect();
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let halves: Vec<_> = cases.chunks(cases.len().div_ceil(2)).collect();
        let tried: Vec<_> = halves
            .into_iter()
            .map(|half| scope.spawn(move || half.iter().flat_map(|case| try_case(case)).collect::<Vec<_>>()))
            .collect();
        tried.into_iter().flat_map(|one| one.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_the_store_itself_can_mend_is_mended() {
    try_all(try_case, |case| case.needs == Needs::Nothing);
}

#[test]
fn what_kept_blobs_can_mend_is_mended() {
    try_all(try_case, |case| case.needs == Needs::Blobs);
}

#[test]
fn what_kept_blobs_could_mend_is_mended_from_outside() {
    try_all(try_without_blobs, |case| case.needs == Needs::Blobs);
}

#[test]
fn what_needs_more_is_left_until_there_is_more() {
    try_all(try_case, |case| matches!(case.needs, Needs::Source | Needs::Force | Needs::Somebody));
}

/// A copy of a file in another layer is as good as the blob.
#[test]
fn an_equal_file_of_another_layer_is_taken() {
    let fixture = Fixture::new();
    let twin = Image::new([Layer::new([Member::file("copy", vec![7; 600_000])])]);
    load(&fixture.dir, &fixture.store, &twin, "twin");
    fixture.store.drop_blobs(None).unwrap();
    let large = fixture.base().join("large");
    quietly(&large, |path| std::fs::write(path, vec![8; 600_000]).unwrap());
    let found = findings(&fixture.store, CheckLevel::Deep);
    assert!(found[0].remedy.from().is_some_and(|from| from.ends_with("/copy")), "{found:?}");
    let report = repair(&fixture.store, |_| {});
    assert!(report.is_complete() && codes(&report) == ["restore-file"], "{report:?}");
    assert_eq!(std::fs::read(fixture.base().join("large")).unwrap(), vec![7; 600_000]);
    assert!(!large.exists(), "the old directory is gone");
    assert!(fixture.store.gc(true).unwrap().removed.is_empty(), "nothing is left behind");
}

#[test]
fn a_damaged_copy_is_not_taken() {
    let fixture = Fixture::new();
    let twin = Image::new([Layer::new([Member::file("copy", vec![7; 600_000])])]);
    load(&fixture.dir, &fixture.store, &twin, "twin");
    fixture.store.drop_blobs(None).unwrap();
    for path in fixture.below("diffs") {
        for name in ["large", "copy"] {
            let path = path.join(name);
            if path.exists() {
                quietly(&path, |path| std::fs::write(path, vec![8; 600_000]).unwrap());
            }
        }
    }
    let before = findings(&fixture.store, CheckLevel::Deep);
    let report = repair(&fixture.store, |_| {});
    assert!(report.repaired.is_empty() && report.left == before, "{report:?}");
    let source = fixture.source();
    assert!(repair(&fixture.store, |options| options.sources.push(&source)).is_complete());
}

#[test]
fn archives_are_sources_too() {
    for form in ["oci-archive", "docker-archive"] {
        let fixture = Fixture::new();
        let archive = format!("{form}:{}", fixture.dir.join("archive.tar").display());
        let tagged = format!("{archive}:demo:1").parse().unwrap();
        fixture.store.save(&fixture.image.id, &tagged, &SaveOptions::default()).unwrap();
        fixture.store.drop_blobs(None).unwrap();
        std::fs::remove_dir_all(fixture.base()).unwrap();
        let source = Source::open(&archive.parse().unwrap(), fixture.dir.path()).unwrap();
        let report = repair(&fixture.store, |options| options.sources.push(&source));
        assert!(report.is_complete() && codes(&report) == ["unpack-layer"], "{form}: {report:?}");
    }
}

#[test]
fn a_kept_blob_comes_back_from_outside() {
    let fixture = Fixture::new();
    for path in fixture.below("blobs") {
        std::fs::remove_file(path).unwrap();
    }
    let source = fixture.source();
    let report = repair(&fixture.store, |options| options.sources.push(&source));
    assert!(report.is_complete() && codes(&report) == ["restore-blob"; 2], "{report:?}");
    assert_eq!(fixture.below("blobs").len(), 2);
}

/// The layer lacks nothing without it, and the image its digest: both is said before and after.
#[test]
fn a_kept_blob_that_is_forgotten_costs_the_digest_until_the_image_is_loaded_again() {
    let fixture = Fixture::new();
    let out = |name: &str| format!("oci:{}:x", fixture.dir.join(name).display()).parse().unwrap();
    let save = |name| fixture.store.save(&fixture.image.id, &out(name), &SaveOptions::default()).unwrap();
    assert!(save("before").unchanged);
    for path in fixture.below("blobs") {
        quietly(&path, |path| std::fs::write(path, "not the blob").unwrap());
    }
    let found = findings(&fixture.store, CheckLevel::Deep);
    assert!(found.iter().all(|finding| finding.remedy == Remedy::ForgetBlob), "{found:?}");
    assert!(found[0].remedy.to_string().contains("a save gives the image another digest"), "{found:?}");
    let report = repair(&fixture.store, |_| {});
    assert!(report.is_complete() && codes(&report) == ["forget-blob"; 2], "{report:?}");
    assert!(report.repaired[0].what.contains("the image gets another digest"), "{report:?}");
    let saved = save("after");
    assert_eq!((saved.unchanged, saved.compressed_anew), (false, 2));
    fixture.store.load(&fixture.source(), &LoadOptions::default()).unwrap();
    let saved = save("again");
    assert_eq!((saved.unchanged, saved.compressed_anew), (true, 0));
}

/// The image that is given holds another layer than the one that is wanted.
#[test]
fn a_wrong_source_changes_nothing() {
    let fixture = Fixture::new();
    fixture.store.drop_blobs(None).unwrap();
    std::fs::remove_file(fixture.base().join("large")).unwrap();
    let other = Image::new([Layer::new([Member::file("large", vec![7; 600_001])])]);
    let other = other.write(fixture.dir.join("other"), "other");
    let source = Source::open(&other.reference().parse().unwrap(), fixture.dir.path()).unwrap();
    let before = findings(&fixture.store, CheckLevel::Deep);
    let report = repair(&fixture.store, |options| options.sources.push(&source));
    assert!(report.repaired.is_empty() && report.left == before, "{report:?}");
}

#[test]
fn only_what_was_asked_for_is_mended() {
    let fixture = Fixture::new();
    std::fs::remove_file(fixture.base().join("large")).unwrap();
    let top = fixture.top_layer().parse().unwrap();
    let report = repair(&fixture.store, |options| options.layer = Some(top));
    assert!(report.is_complete() && report.repaired.is_empty(), "{report:?}");
    let image = fixture.image.id.clone();
    let report = repair(&fixture.store, |options| options.image = Some(image));
    assert_eq!(codes(&report), ["unpack-layer"], "{report:?}");
}

#[test]
fn what_force_removes_is_told_before() {
    let fixture = Fixture::new();
    fixture.store.drop_blobs(None).unwrap();
    std::fs::remove_file(fixture.base().join("large")).unwrap();
    let report = repair(&fixture.store, |_| {});
    let removes: Vec<_> = report.left.iter().flat_map(|finding| finding.remedy.removes()).collect();
    for text in ["the container web", "all that was written into it", "the image demo"] {
        assert!(removes.iter().any(|one| one.contains(text)), "{text}: {removes:?}");
    }
    assert_eq!(fixture.store.containers().unwrap().len(), 1);
    let report = repair(&fixture.store, |options| options.force = true);
    assert!(report.is_complete(), "{report:?}");
    assert!(fixture.store.containers().unwrap().is_empty() && fixture.store.images().unwrap().is_empty());
    for which in ["diffs", "blobs", "work", "trash"] {
        assert!(fixture.below(which).is_empty(), "{which}");
    }
}

/// A byte of a file was overwritten, and the time of the file with it.
#[test]
fn force_removes_what_the_dry_run_said() {
    let fixture = Fixture::new();
    fixture.store.drop_blobs(None).unwrap();
    overwrite(&fixture.base().join("large"));
    for dry_run in [true, false] {
        let report = repair(&fixture.store, |options| options.dry_run = dry_run);
        assert!(report.repaired.is_empty() && report.left.len() == 2, "{report:#?}");
        for finding in &report.left {
            let remedy = finding.remedy.to_string();
            let (from, force) = (remedy.contains("--from oci:DIR"), remedy.contains("the container web"));
            assert!(from && force && !finding.remedy.wanted().is_empty(), "{remedy}");
        }
    }
    let planned = repair(&fixture.store, |options| (options.force, options.dry_run) = (true, true));
    assert_eq!(fixture.store.containers().unwrap().len(), 1);
    assert!(
        planned.repaired.iter().any(|one| one.what.contains("would remove the container web")),
        "{planned:#?}"
    );
    let report = repair(&fixture.store, |options| options.force = true);
    assert!(report.is_complete() && deeds(&report) == deeds(&planned), "{planned:#?} {report:#?}");
}

/// There seemed to be something to mend it with: what nobody was told of is not removed.
#[test]
fn a_repair_that_fails_is_no_leave_to_remove() {
    let fixture = Fixture::new();
    fixture.store.drop_blobs(None).unwrap();
    std::fs::remove_file(fixture.base().join("large")).unwrap();
    let source = fixture.source();
    let blobs = fixture.dir.join("layout-demo/blobs/sha256");
    let blob = fixture.layer_record(&fixture.base_layer()).blobs[0].digest.clone();
    let blob = blobs.join(blob.trim_start_matches("sha256:"));
    let length = std::fs::metadata(&blob).unwrap().len();
    std::fs::write(&blob, vec![0; length as usize]).unwrap();
    let planned = repair(&fixture.store, |options| {
        options.sources.push(&source);
        (options.force, options.dry_run) = (true, true);
    });
    assert_eq!(codes(&planned), ["unpack-layer"], "{planned:#?}");
    let report = repair(&fixture.store, |options| {
        options.sources.push(&source);
        options.force = true;
    });
    assert!(!report.is_complete() && report.repaired.is_empty() && !report.failed.is_empty(), "{report:#?}");
    assert_eq!(fixture.store.containers().unwrap().len(), 1);
}

/// It was not there when the repair looked what would go.
#[test]
fn a_container_that_came_later_is_not_removed() {
    let fixture = Fixture::new();
    let Fixture { store, image, .. } = &fixture;
    store.drop_blobs(None).unwrap();
    std::fs::remove_file(fixture.base().join("large")).unwrap();
    let checks = AtomicUsize::new(0);
    let progress = |progress: &Progress<'_>| {
        if matches!(progress, Progress::Checked { done: 1, .. })
            && checks.fetch_add(1, Ordering::Relaxed) == 1
        {
            store.create_container(&image.id, &ContainerOptions::named("late")).unwrap();
        }
    };
    let report = repair(store, |options| {
        options.progress = Some(&progress);
        options.force = true;
    });
    let failed: Vec<_> = report.failed.iter().map(|one| &one.error).collect();
    assert!(matches!(failed[..], [Error::Repair(RepairError::NotAnnounced { .. })]), "{report:#?}");
    assert!(!report.is_complete() && report.repaired.is_empty(), "{report:#?}");
    assert_eq!(store.containers().unwrap().len(), 2);
    assert!(repair(store, |options| options.force = true).is_complete());
}

/// The store is lost while the last check reads it.
#[test]
fn what_was_done_is_told_when_the_last_check_fails() {
    let fixture = Fixture::new();
    std::fs::remove_file(fixture.base().join("large")).unwrap();
    let checks = AtomicUsize::new(0);
    let progress = |progress: &Progress<'_>| {
        if matches!(progress, Progress::Checked { done: 1, .. })
            && checks.fetch_add(1, Ordering::Relaxed) == 1
        {
            std::fs::remove_file(fixture.dir.root().join("store.redb")).unwrap();
        }
    };
    let report = repair(&fixture.store, |options| options.progress = Some(&progress));
    assert_eq!(codes(&report), ["unpack-layer"], "{report:#?}");
    assert!(matches!(report.ended, Some(Error::Meta(_))) && !report.is_complete(), "{report:#?}");
}

#[test]
fn a_layer_that_force_removes_is_reported() {
    let fixture = Fixture::new();
    fixture.store.drop_blobs(None).unwrap();
    std::fs::remove_file(fixture.base().join("large")).unwrap();
    let layer = fixture.base_layer().parse().unwrap();
    let report = repair(&fixture.store, |options| (options.layer, options.force) = (Some(layer), true));
    assert!(report.is_complete() && codes(&report).contains(&"removed"), "{report:?}");
    assert!(fixture.store.layers().unwrap().is_empty());
}

#[test]
fn what_others_can_be_made_again_from_stays_when_one_is_removed() {
    let fixture = Fixture::new();
    let twin = Image::new([Layer::new([Member::file("copy", vec![9; 1000])])]);
    let twin = load(&fixture.dir, &fixture.store, &twin, "twin");
    let chain = fixture.store.layer_chain(fixture.image.top_layer.as_ref().unwrap()).unwrap();
    let blobs: Vec<_> =
        chain.iter().flat_map(|layer| layer.blobs.iter().map(|blob| blob.digest.clone())).collect();
    fixture.store.drop_blobs(Some(&blobs)).unwrap();
    let id = twin.top_layer.unwrap().to_string();
    fixture.edit(|txn| drop(txn.open_table(table::LAYERS).unwrap().remove(id.as_str()).unwrap()));
    std::fs::remove_file(fixture.base().join("large")).unwrap();
    repair(&fixture.store, |options| {
        options.layer = Some(fixture.base_layer().parse().unwrap());
        options.force = true;
    });
    let rest = repair(&fixture.store, |_| {});
    assert!(rest.is_complete(), "{rest:?}");
    assert!(fixture.store.layer(&id).is_ok() && findings(&fixture.store, CheckLevel::Deep).is_empty());
}

#[test]
fn what_is_mounted_is_left_until_it_is_not() {
    let fixture = Fixture::new();
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    match fixture.store.mount(&fixture.container, &MountOptions::default()) {
        Err(Error::Mount(error)) => skip!("cannot mount: {error}"),
        mounted => drop(mounted.unwrap()),
    }
    let base = fixture.base();
    std::fs::remove_file(base.join("large")).unwrap();
    for dry_run in [true, false] {
        let report = repair(&fixture.store, |options| options.dry_run = dry_run);
        assert!(matches!(report.failed[0].error, Error::InUse(InUseError::Mounted { .. })), "{report:?}");
        assert!(report.failed[0].error.to_string().contains("the container web"), "{report:?}");
        assert!(!report.is_complete() && report.repaired.is_empty() && base.exists(), "{report:?}");
    }
    fixture.store.drop_blobs(None).unwrap();
    for dry_run in [true, false] {
        let report = repair(&fixture.store, |options| (options.force, options.dry_run) = (true, dry_run));
        assert!(report.failed[0].error.to_string().contains("the container web"), "{report:?}");
        assert!(!report.is_complete() && report.repaired.is_empty() && base.exists(), "{report:?}");
    }
    let report = repair(&fixture.store, |options| options.force = true);
    assert!(!report.is_complete() && base.exists(), "{report:?}");
    fixture.store.unmount(&fixture.container, UnmountMode::Plain).unwrap();
    let source = fixture.source();
    assert!(repair(&fixture.store, |options| options.sources.push(&source)).is_complete());
}

#[test]
fn repairs_run_beside_each_other_and_beside_writers() {
    let fixture = Fixture::new();
    std::fs::remove_file(fixture.base().join("large")).unwrap();
    fixture.edit(|txn| drop(txn.open_table(table::USAGE).unwrap().insert("sins", 7).unwrap()));
    let other = Image::new([Layer::new([Member::file("file", "x")])]);
    std::thread::scope(|scope| {
        let repairs: Vec<_> = (0..3).map(|_| scope.spawn(|| repair(&fixture.store, |_| {}))).collect();
        for round in 0..5 {
            let image = load(&fixture.dir, &fixture.store, &other, &format!("churn-{round}"));
            fixture.store.create_container(&image.id, &ContainerOptions::default()).unwrap();
        }
        repairs.into_iter().for_each(|one| drop(one.join().unwrap()));
    });
    assert_eq!(findings(&fixture.store, CheckLevel::Deep), []);
    assert!(fixture.store.gc(true).unwrap().removed.is_empty(), "nothing is left behind");
}

#[test]
fn the_documents_of_an_image_are_not_overwritten() {
    let fixture = Fixture::new();
    let Fixture { store, image, .. } = &fixture;
    let config = format!("sha256:{}", image.id);
    let manifest = format!("manifest-{}", image.digests[0]);
    for key in ["manifest", &manifest, &config] {
        let put = store.write(|txn| txn.put_item(image, key, b"{}"));
        assert!(matches!(put, Err(Error::InUse(InUseError::DocumentOfImage { .. }))), "{key}");
        let removed = store.write(|txn| txn.remove_item(image, key));
        assert!(matches!(removed, Err(Error::InUse(InUseError::DocumentOfImage { .. }))), "{key}");
        let same = store.item(image, key).unwrap();
        store.write(|txn| txn.put_item(image, key, &same)).unwrap();
    }
    store.write(|txn| txn.put_item(image, "notes", b"mine")).unwrap();
    store.write(|txn| txn.remove_item(image, "notes")).unwrap();
    assert_eq!(findings(store, CheckLevel::Deep), []);
}

#[test]
fn a_directory_that_lost_its_row_is_no_garbage_to_a_repair() {
    let fixture = Fixture::new();
    fixture.store.drop_blobs(None).unwrap();
    let base = fixture.base();
    let LayerContent::Sealed(tree) = fixture.layer_record(&fixture.base_layer()).content else { panic!() };
    fixture.edit(|txn| drop(txn.open_table(table::DIFFS).unwrap().remove(&tree).unwrap()));
    // After a boot, the first write through any other handle collects what no row names.
    std::fs::remove_file(fixture.dir.root().join("collected")).unwrap();
    let report = repair(&open(&fixture.dir), |_| {});
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(codes(&report)[0], "rebuild-manifest");
    assert!(base.exists());
    assert!(fixture.below("locks").is_empty());
    let collected = fixture.store.gc(false).unwrap();
    assert!(collected.removed.is_empty(), "{collected:?}");
}

#[test]
fn a_directory_that_somebody_fills_or_removes_is_left_to_them() {
    let fixture = Fixture::new();
    fixture.store.drop_blobs(None).unwrap();
    let LayerContent::Sealed(tree) = fixture.layer_record(&fixture.base_layer()).content else { panic!() };
    fixture.edit(|txn| drop(txn.open_table(table::DIFFS).unwrap().remove(&tree).unwrap()));
    let locks = fixture.dir.root().join("locks");
    std::fs::create_dir_all(&locks).unwrap();
    let lock = File::create(locks.join(fixture.base().file_name().unwrap())).unwrap();
    hold(&lock);
    assert!(!repair(&fixture.store, |_| {}).is_complete());
    // Its holder has died.
    drop(lock);
    assert!(repair(&fixture.store, |_| {}).is_complete());
    fixture.store.gc(false).unwrap();
    assert_eq!(findings(&fixture.store, CheckLevel::Deep), []);
}

/// Takes the lock that the library takes.
fn hold(file: &File) {
    let lock = nix::libc::flock {
        l_type: nix::libc::F_WRLCK as i16,
        l_whence: nix::libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    nix::fcntl::fcntl(file, nix::fcntl::FcntlArg::F_OFD_SETLK(&lock)).unwrap();
}

#[test]
fn what_something_else_has_the_number_of_stays() {
    let fixture = Fixture::new();
    let base = fixture.base();
    let number = base.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let layer = fixture.layer_record(&fixture.base_layer());
    let digest = layer.blobs[0].digest.clone();
    fixture.edit_record(table::KEPT_BLOBS, &digest, |record: &mut KeptBlobRecord| record.number = number);
    let report = repair(&fixture.store, |_| {});
    assert!(report.is_complete(), "{report:?}");
    // The blob, and that its number was not synced.
    assert_eq!(codes(&report), ["forget-blob", "forget"]);
    assert!(base.join("etc/passwd").exists());
}

/// Whoever loads an image again wants it whole, also where it is known.
#[test]
fn loading_again_brings_a_missing_directory_back() {
    let fixture = Fixture::new();
    let Fixture { dir, store, .. } = &fixture;
    for path in fixture.below("diffs") {
        std::fs::remove_dir_all(path).unwrap();
    }
    // The container's own directory is not the image's.
    store.remove_container(&fixture.container.id).unwrap();
    load(dir, store, &image(), "demo");
    assert_eq!(findings(store, CheckLevel::Deep), []);

    // A layer of the same archive elsewhere is not shared without its directory.
    let alone = || Layer::new([Member::directory("."), Member::file("alone", "x")]);
    let first = load(dir, store, &Image::new([alone()]), "first");
    let path = fixture.below("diffs").into_iter().find(|path| path.join("alone").exists()).unwrap();
    std::fs::remove_dir_all(path).unwrap();
    load(dir, store, &Image::new([Layer::new([Member::file("below", "y")]), alone()]), "twin");
    let layer = store.layer(first.top_layer.as_ref().unwrap().as_str()).unwrap();
    store.diff(&layer, std::io::sink()).unwrap();
    assert_eq!(findings(store, CheckLevel::Deep), []);
}

#[test]
fn what_a_power_cut_left_half_written_is_mended() {
    let fixture = Fixture::new();
    quietly(&fixture.base().join("large"), |path| {
        File::options().write(true).open(path).unwrap().set_len(9).unwrap()
    });
    database::reboot(&fixture.dir.root());
    let store = open(&fixture.dir);
    let refused = store
        .diff(&fixture.image, std::io::sink())
        .and(store.mount(&fixture.image, &MountOptions::default()).map(drop));
    assert!(matches!(refused, Err(Error::Unsynced(_))), "{refused:?}");
    let report = repair(&store, |_| {});
    assert!(report.is_complete(), "{report:?}");
    let layer = store.layer(&fixture.base_layer()).unwrap();
    open(&fixture.dir).diff(&layer, std::io::sink()).unwrap();
}
