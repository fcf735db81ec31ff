//! Following what other processes commit: in order, each change once, whatever happens to the writers.
//!
//! The other processes are this test binary, run again for one test with a role in its environment, or the program.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use layerstore::{
    ContainerId, ContainerOptions, Error, Event, EventKind, Store, StoreOptions, Subject, SyncMode, ThingId,
    Watch, WatchError, WatchOptions,
};

use crate::support::Dir;

/// What a process that runs a test again is told: who it is.
const ROLE: &str = "LAYERSTORE_WATCH_ROLE";
/// And where the store is.
const PLACE: &str = "LAYERSTORE_WATCH_PLACE";

/// How many operations each writer does.
const OPERATIONS: usize = 200;

/// Long enough for every machine: reaching it is a failure.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(120));

fn options(place: &Path) -> StoreOptions {
    StoreOptions::at(place.join("root")).run_root(place.join("run")).sync(SyncMode::Off).reserve(0)
}

fn open(dir: &Dir) -> Store {
    Store::open(&options(dir.path())).unwrap()
}

/// The role of this process, and its store.
fn role() -> Option<(String, Store, std::path::PathBuf)> {
    let role = std::env::var(ROLE).ok()?;
    let place = std::path::PathBuf::from(std::env::var_os(PLACE).unwrap());
    Some((role, Store::open(&options(&place)).unwrap(), place))
}

/// A process that does not outlive its test.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // It has ended by itself, as a rule.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Runs this binary again for `test`, in a role.
fn again(test: &str, role: &str, dir: &Dir) -> Guarded {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(ROLE, role)
        .env(PLACE, dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    Guarded(child)
}

fn wait(mut process: Guarded) -> ExitStatus {
    process.0.wait().unwrap()
}

fn next(watch: &mut Watch) -> Event {
    watch.next(PATIENCE).unwrap().expect("no event came")
}

fn container(event: &Event) -> Option<&ContainerId> {
    match event.subject.thing() {
        Some(ThingId::Container(id)) => Some(id),
        _ => None,
    }
}

/// Half of the operations create and remove; the others change, and say so in a file while they hold the write lock:
/// its lines are in the order of the commits.
fn write_operations(role: &str, store: &Store, log: &Path) {
    for round in 0..OPERATIONS / 4 {
        let mut options = ContainerOptions::named(format!("{role}-{round}"));
        options.id = Some(format!("{role}-{round}").parse().unwrap());
        let container = store.create_container(None, &options).unwrap();
        let note = |what: &str| {
            let mut file = std::fs::File::options().append(true).create(true).open(log).unwrap();
            writeln!(file, "{role}-{round} {what}").unwrap();
        };
        let renamed = format!("{role}-{round}-renamed").parse().unwrap();
        store
            .write(|txn| {
                note("names");
                txn.set_names(&container, &[renamed])
            })
            .unwrap();
        store
            .write(|txn| {
                note("items");
                txn.put_item(&container, "key", role.as_bytes())
            })
            .unwrap();
        store.remove_container(&container.id).unwrap();
    }
}

#[test]
fn two_writers_are_told_in_the_order_of_their_commits() {
    if let Some((role, store, place)) = role() {
        return write_operations(&role, &store, &place.join("log"));
    }
    let dir = Dir::new("watch-two");
    let store = open(&dir);
    let mut watch = store.watch(&WatchOptions::default()).unwrap();
    let test = "watch::two_writers_are_told_in_the_order_of_their_commits";
    let writers = ["a", "b"].map(|role| again(test, role, &dir));
    // Creating and removing a container is also creating and removing its layer.
    let expected = 2 * (OPERATIONS + 2 * OPERATIONS / 4);
    let events: Vec<_> = (0..expected).map(|_| next(&mut watch)).collect();
    for writer in writers {
        assert!(wait(writer).success());
    }
    assert_eq!(watch.try_next().unwrap(), None);

    let sequences: Vec<_> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, (1..=expected as u64).collect::<Vec<_>>());
    let changed = events.iter().filter(|event| event.kind == EventKind::Changed);
    let changed: Vec<_> =
        changed.map(|event| format!("{} {}", event.subject, event.aspects[0].word())).collect();
    let log = std::fs::read_to_string(dir.join("log")).unwrap();
    assert_eq!(changed, log.lines().collect::<Vec<_>>());
    for role in ["a", "b"] {
        let mut own =
            events.iter().filter(|event| container(event).is_some_and(|id| id.as_str().starts_with(role)));
        for round in 0..OPERATIONS / 4 {
            for kind in [EventKind::Created, EventKind::Changed, EventKind::Changed, EventKind::Removed] {
                let event = own.next().unwrap();
                assert_eq!(event.subject.to_string(), format!("{role}-{round}"));
                assert_eq!(event.kind, kind, "{event:?}");
            }
        }
        assert_eq!(own.next(), None);
    }

    // Whoever comes later reads the same, from any position.
    for position in [0, 1, expected as u64 / 2, expected as u64] {
        let mut late = store.watch(&WatchOptions::since(position)).unwrap();
        let rest: Vec<_> = std::iter::from_fn(|| late.try_next().unwrap()).collect();
        assert_eq!(rest, events[position as usize..]);
        assert_eq!(late.position(), expected as u64);
    }
}

#[test]
fn killed_writers_are_told_as_far_as_they_committed() {
    if let Some((role, store, _)) = role() {
        if role == "inside" {
            let web = store.container("web").unwrap();
            let done: Result<(), Error> = store.write(|txn| {
                txn.set_metadata(&web, "never committed")?;
                std::process::abort();
            });
            return done.unwrap();
        }
        // Not beyond the death of the one that would kill it.
        let parent = rustix::process::getppid();
        while rustix::process::getppid() == parent {
            let container = store.create_container(None, &ContainerOptions::default()).unwrap();
            store.write(|txn| txn.put_item(&container, "key", b"value")).unwrap();
            if container.id.as_str().as_bytes()[0] % 2 == 0 {
                store.remove_container(&container.id).unwrap();
            }
        }
        return;
    }
    let test = "watch::killed_writers_are_told_as_far_as_they_committed";
    let dir = Dir::new("watch-killed");
    let store = open(&dir);
    store.create_container(None, &ContainerOptions::named("web")).unwrap();
    let mut watch = store.watch(&WatchOptions::oldest()).unwrap();
    let mut known = BTreeSet::new();
    let follow = |event: &Event, known: &mut BTreeSet<String>| {
        let Subject::Thing(id) = &event.subject else { return };
        let fresh = match event.kind {
            EventKind::Created => known.insert(id.as_str().to_owned()),
            EventKind::Removed => known.remove(id.as_str()),
            _ => known.contains(id.as_str()),
        };
        assert!(fresh, "told twice or out of order: {event:?}");
    };
    for round in 1..10 {
        let mut writer = again(test, "endless", &dir);
        for _ in 0..round * 7 {
            follow(&next(&mut watch), &mut known);
        }
        writer.0.kill().unwrap();
        wait(writer);
        while let Some(event) = watch.try_next().unwrap() {
            follow(&event, &mut known);
        }
        let containers = store.containers().unwrap().into_iter().map(|container| container.id.to_string());
        let layers = store.layers().unwrap().into_iter().map(|layer| layer.id.to_string());
        assert_eq!(known, containers.chain(layers).collect());
    }
    assert!(!wait(again(test, "inside", &dir)).success());
    assert_eq!(watch.next(Some(Duration::ZERO)).unwrap(), None);
    let web = store.container("web").unwrap();
    store.write(|txn| txn.set_metadata(&web, "after it")).unwrap();
    assert_eq!(next(&mut watch).subject.thing(), Some(&ThingId::from(&web)));
}

#[test]
fn a_store_that_is_kept_open_sees_every_commit_at_once() {
    let dir = Dir::new("watch-open");
    let store = open(&dir);
    assert!(store.containers().unwrap().is_empty());
    for round in 0..20 {
        let name = format!("web-{round}");
        let before = store.change_counter();
        dir.layerstore(["create-container", "--name", &name]).assert_success();
        assert_ne!(store.change_counter(), before);
        let container = store.container(&name).unwrap();
        assert_eq!(store.containers().unwrap().len(), round + 1);
        dir.layerstore(["item", "put", &name, "key"]).stdin(name.clone()).assert_success();
        assert_eq!(store.item(&container, "key").unwrap(), name.as_bytes());
        let renamed = format!("other-{round}");
        dir.layerstore(["names", &name, "--set", &renamed]).assert_success();
        assert!(store.container(&name).is_err());
        assert_eq!(store.container(&renamed).unwrap().id, container.id);
        let before = store.change_counter();
        dir.layerstore(["containers", "-q"]).assert_success();
        assert_eq!(store.change_counter(), before, "reading is no change");
    }
}

/// Changes 65 times 64 containers: more than the journal keeps.
fn outrun_the_journal(store: &Store) {
    let containers: Vec<_> =
        (0..64).map(|_| store.create_container(None, &ContainerOptions::default()).unwrap()).collect();
    for round in 0..65 {
        let text = round.to_string();
        store
            .write(|txn| containers.iter().try_for_each(|container| txn.set_metadata(container, &text)))
            .unwrap();
    }
}

#[test]
fn who_is_too_far_behind_lists_anew() {
    let dir = Dir::new("watch-behind");
    let store = open(&dir);
    let mut watch = store.watch(&WatchOptions::default()).unwrap();
    outrun_the_journal(&store);
    let newest = 64 * 2 + 64 * 65;
    let found = watch.next(PATIENCE);
    let Err(Error::Watch(WatchError::Lost { since: 0, lost, newest: named })) = found else {
        panic!("{found:?}");
    };
    assert_eq!((lost, named), (newest, newest));
    assert_eq!(store.containers().unwrap().len(), 64);
    assert_eq!(watch.next(Some(Duration::ZERO)).unwrap(), None);

    let error = dir.layerstore(["events", "--since", "0"]).assert_exit(1);
    assert!(error.contains("list anew and go on from 4288"), "{error}");
    assert_eq!(dir.layerstore(["events", "--since", "4288"]).stdout(), "");
    assert_eq!(dir.layerstore(["events"]).stdout().lines().count(), 4096);
    let error = dir.layerstore(["events", "--since", "5000"]).assert_exit(1);
    assert!(error.contains("the journal ends at 4288"), "{error}");
}

/// `layerstore events` with its output in a pipe.
struct Follower {
    process: Guarded,
    lines: BufReader<std::process::ChildStdout>,
}

impl Follower {
    fn start(dir: &Dir, arguments: &[&str]) -> Self {
        let mut child = Command::new(crate::support::command::binary())
            .arg("--root")
            .arg(dir.root())
            .arg("--runroot")
            .arg(dir.run_root())
            .arg("events")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Follower { process: Guarded(child), lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line
    }

    /// Stops reading, waits for its end, and returns how it ended and what it said of it.
    fn end(mut self) -> (ExitStatus, String) {
        drop(self.lines);
        let mut said = String::new();
        self.process.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (wait(self.process), said)
    }
}

#[test]
fn the_program_follows_and_brings_each_line_out() {
    let dir = Dir::new("events-follow");
    let store = open(&dir);
    let mut follower =
        Follower::start(&dir, &["--follow", "--since", "oldest", "--json", "--filter", "kind=container"]);
    for name in ["one", "two"] {
        let container = store.create_container(None, &ContainerOptions::named(name)).unwrap();
        let event: serde_json::Value = serde_json::from_str(&follower.line()).unwrap();
        assert_eq!(event["event"], "created");
        assert_eq!(event["id"], container.id.as_str());
        assert_eq!(event["names"], serde_json::json!([name]));
        assert_eq!(event["changed"], serde_json::json!([]));
        store.write(|txn| txn.put_item(&container, "key", b"value")).unwrap();
        let event: serde_json::Value = serde_json::from_str(&follower.line()).unwrap();
        assert_eq!(event["changed"], serde_json::json!(["items"]));
    }
    // A signal ends it, and leaves nothing half written. (What runs in the background may ignore SIGINT.)
    let id = rustix::process::Pid::from_child(&follower.process.0);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert_eq!(follower.line(), "");
    let (status, said) = follower.end();
    assert_eq!(status.signal(), Some(15));
    assert_eq!(said, "");
}

/// Puts a copy of the database in its place, as the documentation says.
fn restore(dir: &Dir) {
    let copy = dir.join("copy");
    dir.layerstore(["backup", "copy"]).assert_success();
    std::fs::copy(copy, dir.root().join("store.redb.new")).unwrap();
    std::fs::rename(dir.root().join("store.redb.new"), dir.root().join("store.redb")).unwrap();
}

#[test]
fn a_database_that_is_replaced_ends_a_watch() {
    let dir = Dir::new("watch-replaced");
    let store = open(&dir);
    store.create_container(None, &ContainerOptions::named("before")).unwrap();
    let mut watch = store.watch(&WatchOptions::default()).unwrap();
    assert_eq!(watch.try_next().unwrap(), None);
    // Nothing is said to the one that follows but by the path.
    restore(&dir);
    let replaced = watch.next(PATIENCE);
    assert!(matches!(replaced, Err(Error::Watch(WatchError::Replaced { .. }))), "{replaced:?}");
    let replaced = watch.try_next();
    assert!(matches!(replaced, Err(Error::Watch(WatchError::Replaced { .. }))), "{replaced:?}");
    let mut watch = open(&dir).watch(&WatchOptions::default()).unwrap();
    open(&dir).create_container(None, &ContainerOptions::named("after")).unwrap();
    assert_eq!(next(&mut watch).kind, EventKind::Created);
}

#[test]
fn the_program_ends_when_the_database_is_replaced() {
    let dir = Dir::new("events-replaced");
    let store = open(&dir);
    store.create_container(None, &ContainerOptions::named("web")).unwrap();
    let mut follower = Follower::start(&dir, &["--follow", "--since", "oldest", "--timeout", "60"]);
    assert!(follower.line().contains(" layer created "));
    assert!(follower.line().contains(" container created "));
    restore(&dir);
    assert_eq!(follower.line(), "");
    let (status, said) = follower.end();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("was replaced") && said.contains("list anew"), "{said}");
}

#[test]
fn the_program_ends_when_nobody_reads() {
    let dir = Dir::new("events-pipe");
    let store = open(&dir);
    store.create_container(None, &ContainerOptions::named("web")).unwrap();
    let mut follower = Follower::start(&dir, &["--follow", "--since", "oldest"]);
    assert!(follower.line().contains(" layer created "));
    assert!(follower.line().contains(" container created "));
    // It has nothing more to say, and sees all the same that the other side has gone.
    let (status, said) = follower.end();
    assert!(status.success(), "{status:?}");
    assert_eq!(said, "");
}

#[test]
fn the_program_ends_with_its_time() {
    let dir = Dir::new("events-timeout");
    open(&dir).create_container(None, &ContainerOptions::named("web")).unwrap();
    let events = dir.layerstore(["events", "-f", "--timeout", "0.05"]).stdout();
    assert_eq!(events, "", "it begins now");
    dir.layerstore(["events", "--timeout", "1"]).assert_exit(2);
}

#[test]
fn the_program_lists_what_people_read() {
    let dir = Dir::new("events-list");
    dir.layerstore(["create-container", "--name", "web", "--id", "0123456789abcdef"]).assert_success();
    dir.layerstore(["names", "web", "--add", "second"]).assert_success();
    dir.layerstore(["rm", "web"]).assert_success();
    let list = |arguments: &[&str]| {
        let all = [&["events"], arguments].concat();
        dir.layerstore(all).stdout().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let of_containers: Vec<_> = list(&["--filter", "kind=container"])
        .iter()
        .map(|line| line.split_once(' ').unwrap().1.to_owned())
        .collect();
    assert_eq!(
        of_containers,
        [
            "2 container created 0123456789ab web",
            "3 container changed 0123456789ab web, second (names)",
            "4 container removed 0123456789ab web, second",
        ]
    );
    assert_eq!(list(&["--since", "3"]).len(), 2);
    assert_eq!(list(&["--filter", "event=created", "--filter", "event=removed"]).len(), 4);
    assert_eq!(
        list(&["--filter", "event=created", "--filter", "kind=container", "-q"]),
        ["0123456789abcdef"]
    );
    assert_eq!(list(&["--filter", "name=second"]).len(), 2);
    assert_eq!(list(&["--filter", "id=0123", "--filter", "changed=names"]).len(), 1);
    dir.layerstore(["events", "--filter", "kind=volume"]).assert_exit(2);
}

#[test]
fn loading_committing_and_removing_an_image_is_told() {
    use crate::support::oci::{Image, Layer};
    use crate::support::tar::Member;
    let dir = Dir::new("events-image");
    let image = Image::new([Layer::new([Member::file("a", b"a")]), Layer::new([Member::file("b", b"b")])]);
    let written = image.write(dir.join("layout"), "1");
    let told = |position: u64| -> (Vec<String>, u64) {
        let lines = dir.layerstore(["events", "--json", "--since", &position.to_string()]).stdout();
        let events: Vec<serde_json::Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let shown = |event: &serde_json::Value| {
            let changed = event["changed"].as_array().unwrap();
            let changed: Vec<_> = changed.iter().map(|aspect| aspect.as_str().unwrap()).collect();
            format!(
                "{} {} {}",
                event["kind"].as_str().unwrap(),
                event["event"].as_str().unwrap(),
                changed.join("+")
            )
        };
        let last = events.last().map_or(position, |event| event["sequence"].as_u64().unwrap());
        (events.iter().map(shown).collect(), last)
    };
    dir.layerstore(["load", &written.reference(), "--name", "base"]).assert_success();
    let (load, position) = told(0);
    assert_eq!(
        load,
        ["layer created ", "layer created ", "blob created ", "blob created ", "image created "]
    );
    dir.layerstore(["load", &written.reference(), "--name", "base"]).assert_success();
    let (again, position) = told(position);
    assert_eq!(again, Vec::<String>::new(), "nothing is another than before");
    dir.layerstore(["create-container", "base", "--name", "web"]).assert_success();
    let (_, position) = told(position);
    dir.layerstore(["commit", "web", "--name", "base"]).assert_success();
    let (commit, position) = told(position);
    assert_eq!(commit, ["layer created ", "image changed names", "image created "]);
    dir.layerstore(["prune", "--blobs"]).assert_success();
    let (prune, position) = told(position);
    assert_eq!(prune, ["blob removed "; 2]);
    dir.layerstore(["rm", "web"]).assert_success();
    dir.layerstore(["rmi", "base"]).assert_success();
    let (removed, _) = told(position);
    let expected = ["container removed ", "layer removed ", "image removed ", "layer removed "];
    assert_eq!(removed, expected);
}
