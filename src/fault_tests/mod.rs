//! Every operation, with every system call of it failing once.
//!
//! An operation is run without a fault first, and its calls are counted. Then it runs again for each call and each
//! fault that can befall it, on a fresh copy of a store, and afterwards the store must be whole: what the operation
//! acknowledged is there, what it did not is not, the handle goes on working, a fresh one finds the same, and the
//! operation can be done again.
//!
//! Each operation has a process of its own: a fault counts the calls of all threads, and descriptors are counted too.
//! As a rule a part of the faults is tried, always the same ones; `LAYERSTORE_FAULTS=all` tries all, and
//! `LAYERSTORE_FAULTS_SYNC=records` or `off` lets every operation sync less, and `LAYERSTORE_FAULTS_DIR` says where stores
//! lie: where files can share their space, dedup has more calls.

mod facades;
mod operations;
mod place;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use crate::error::Error;
use crate::sys::call::Call;
use crate::sys::call::fault::{Fault, Outcome, during};
use crate::{CheckLevel, CheckOptions, Store};

use facades::FACADES;
use operations::{OPERATIONS, Operation, Start};
use place::{Place, describe, descriptors};

/// How many faults of an operation are tried when not all are.
const TRIED: usize = 20;

/// Set in the process of one operation.
const CHILD: &str = "LAYERSTORE_FAULTS_CHILD";

/// One fault of an operation.
#[derive(Clone, Copy, Debug)]
struct Planned {
    at: usize,
    call: Call,
    fault: Fault,
}

macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            test(stringify!($name));
        })+

        #[test]
        fn every_operation_is_tested() {
            let named: BTreeSet<_> = [$(stringify!($name)),+].into();
            assert_eq!(named, operations().map(|operation| operation.name).collect());
        }
    };
}

tests!(
    create_store,
    open_store,
    open_run_root,
    load_image,
    load_known_layers,
    load_archive,
    create_container,
    create_layer,
    put_layer,
    stage_chunked,
    apply_diff,
    apply_diff_to_writable,
    seal,
    seal_settled,
    settle,
    unseal,
    seal_onto_a_parent,
    begin_removing_layer,
    unseal_shared,
    compare,
    create_image,
    create_layer_like_a_sealed_one,
    create_layer_like_a_writable_one,
    stage_and_apply,
    stage_and_put,
    seal_like_another,
    mount_unsealed,
    image_directory,
    run_directory,
    create_container_with_ids,
    copy_for_a_map,
    set_flag_and_metadata,
    move_name,
    lease,
    end_lease,
    backup,
    compact,
    sync,
    watch,
    shutdown,
    load_into_separate,
    put_layer_into_separate,
    apply_diff_in_separate,
    seal_in_separate,
    unseal_in_separate,
    create_image_in_separate,
    create_container_on_separate,
    remove_image_of_separate,
    write_to_both,
    wipe_both,
    create_transient,
    create_transient_again,
    remove_transient,
    directory_of_transient,
    write_beside_transient,
    wipe_transient,
    load_records,
    put_layer_records,
    unseal_records,
    create_container_off,
    apply_diff_off,
    container_directory,
    write_container_file,
    mount_first,
    mount,
    unmount,
    changes,
    diff,
    commit,
    save_layout,
    save_archive,
    set_names,
    put_item,
    remove_container,
    remove_image,
    remove_regardless,
    wipe,
    lock_digest,
    drop_blobs,
    gc,
    check,
    repair_by_a_blob,
    repair_by_a_file,
    repair_by_force,
    repair_rows,
    prepare_snapshot,
    view_snapshot,
    commit_snapshot,
    commit_snapshot_onto_a_parent,
    remove_snapshot,
    remove_snapshot_and_clean_up,
    update_snapshot,
    mount_with_composefs,
    load_with_dedup,
    remove_mounted_by_driver,
);

fn operations() -> impl Iterator<Item = &'static Operation> {
    OPERATIONS.iter().chain(FACADES)
}

fn test(name: &str) {
    if std::env::var_os(CHILD).is_some() {
        let operation = operations().find(|operation| operation.name == name).unwrap();
        return try_faults(operation);
    }
    let path = format!("{}::{name}", module_path!().split_once("::").unwrap().1);
    let output = Command::new(std::env::current_exe().unwrap())
        .args([&path, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}{wrong}");
    eprintln!("{wrong}");
}

/// In the operation's own process: tries its faults one after the other.
fn try_faults(operation: &Operation) {
    place::settle_down();
    if operation.mounts && !place::can_mount(operation.variant) {
        eprintln!("skipped: {} needs the right to make such mounts", operation.name);
        return;
    }
    let template = Place::template(operation.variant.or_as_told());
    let mut trial = Trial::new(&template, operation);
    let clean = trial.run(usize::MAX - 1, Fault::Broken);
    clean.value.unwrap();
    trial.store.get_or_insert_with(|| trial.place.open());
    let after = trial.state();
    drop(trial);
    let all: Vec<_> = (clean.calls.iter().enumerate())
        .flat_map(|(at, &call)| Fault::of(call).into_iter().map(move |fault| Planned { at, call, fault }))
        .collect();
    let chosen = choose(&all, operation.name);
    eprintln!("{}: {} calls, {} of {} faults", operation.name, clean.calls.len(), chosen.len(), all.len());
    let (tried, mut struck, mut failures) = (chosen.len(), 0, Vec::new());
    for planned in chosen {
        let survived = catch_unwind(AssertUnwindSafe(|| try_fault(&template, operation, planned, &after)));
        match survived {
            Ok(as_planned) => struck += usize::from(as_planned),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                failures.push(format!("{planned:?}: {}", text.unwrap_or_default()));
            }
        }
    }
    assert!(failures.is_empty(), "{} faults are not survived:\n{}", failures.len(), failures.join("\n"));
    // Threads take turns as they like, the more so the busier the machine is; but many calls come where they came the
    // first time.
    assert!(struck * 2 >= tried, "only {struck} of {tried} faults struck the call they were meant for");
}

/// All of them, or always the same few.
fn choose(all: &[Planned], seed: &str) -> Vec<Planned> {
    if all.len() <= TRIED || std::env::var_os("LAYERSTORE_FAULTS").is_some_and(|which| which == "all") {
        return all.to_vec();
    }
    // One at random of each stretch: early and late calls get their share.
    let mut state = blake3::hash(seed.as_bytes());
    let pick = |part: usize| {
        let (from, to) = (part * all.len() / TRIED, (part + 1) * all.len() / TRIED);
        state = blake3::hash(state.as_bytes());
        all[from + usize::from(state.as_bytes()[0]) % (to - from)]
    };
    (0..TRIED).map(pick).collect()
}

/// Returns whether the fault struck the call that it was meant for.
fn try_fault(template: &Place, operation: &Operation, planned: Planned, after: &[String]) -> bool {
    let mut trial = Trial::new(template, operation);
    // A store that is there at all is an empty one.
    let before = if operation.start == Start::Nothing { after.to_vec() } else { trial.before.clone() };
    let outcome = trial.run(planned.at, planned.fault);
    let result = &outcome.value;
    let unknown = matches!(result, Err(error) if error.is_outcome_unknown());

    // The handle that saw the fault goes on.
    if trial.store.is_none() {
        trial.store = Some(trial.place.open());
    }
    let found = trial.state();
    let is = |state: &[String]| found == state;
    match result {
        Ok(()) => assert!(is(after), "acknowledged, but\n{}", difference(after, &found)),
        Err(_) if operation.in_steps => {}
        Err(_) if unknown || operation.may_be_done => {
            assert!(is(&before) || is(after), "neither done nor not: {}", difference(after, &found))
        }
        Err(error) => assert!(is(&before), "it said {}, but\n{}", chain(error), difference(&before, &found)),
    }

    // So does everybody else.
    let fresh = trial.place.open();
    assert_eq!(describe(&trial.place, &fresh), found);
    // A collection would take what a repair has not found yet.
    if !operation.mends || result.is_ok() {
        whole(&fresh, result);
    }
    if result.is_err() && (is(&before) || operation.in_steps) {
        let store = trial.store.take().unwrap();
        let store = if operation.start == Start::Open { Some(store) } else { None };
        if let Err(error) = (operation.run)(&trial.place, store.as_ref()) {
            panic!("the second time: {}; the first time: {result:?}", chain(&error));
        }
        assert_eq!(describe(&trial.place, &fresh), after, "done again");
        whole(&fresh, result);
    }
    outcome.struck == Some(planned.call)
}

/// Garbage can be collected, then there is none, and nothing is damaged.
fn whole(store: &Store, of: &impl Debug) {
    let report = store.gc(false).unwrap();
    assert!(report.left.is_empty(), "{report:?}");
    let again = store.gc(true).unwrap();
    assert!(again.removed.is_empty(), "{again:?}");
    // Before the collection, a check would wait for the garbage to go.
    let findings =
        store.check(&CheckOptions { level: CheckLevel::Deep, ..CheckOptions::default() }).unwrap().findings;
    assert!(findings.is_empty(), "{findings:?} after {of:?}");
}

/// One run of an operation on a store of its own.
struct Trial<'o> {
    place: Place,
    store: Option<Store>,
    operation: &'o Operation,
    before: Vec<String>,
    descriptors: usize,
}

impl<'o> Trial<'o> {
    fn new(template: &Place, operation: &'o Operation) -> Self {
        let place = template.copy();
        let mut trial = Trial { place, store: None, operation, before: Vec::new(), descriptors: 0 };
        (operation.prepare)(&trial.place);
        if operation.start != Start::Nothing {
            trial.store = Some(trial.place.open());
            trial.before = trial.state();
        }
        if operation.start == Start::Closed {
            trial.store = None;
        }
        trial.descriptors = descriptors();
        trial
    }

    fn run(&mut self, at: usize, fault: Fault) -> Outcome<Result<(), Error>> {
        let outcome = during(at, fault, || (self.operation.run)(&self.place, self.store.as_ref()));
        // The first transient container opens the rows of all for the handle.
        let kept = if self.operation.variant.transient { 2 } else { 0 };
        assert!(descriptors() <= self.descriptors + kept, "{:?} leaked descriptors", outcome.value);
        outcome
    }

    fn state(&self) -> Vec<String> {
        describe(&self.place, self.store.as_ref().unwrap())
    }
}

fn difference(expected: &[String], found: &[String]) -> String {
    let missing = expected.iter().filter(|line| !found.contains(line)).map(|line| format!("- {line}"));
    let added = found.iter().filter(|line| !expected.contains(line)).map(|line| format!("+ {line}"));
    missing.chain(added).collect::<Vec<_>>().join("\n")
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}
