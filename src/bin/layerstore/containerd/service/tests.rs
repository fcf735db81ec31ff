//! The calls, as messages and without a connection.

use layerstore::snapshotter::SnapshotterOptions;
use layerstore::{Store, StoreOptions, SyncMode};
use tokio::runtime;
use tokio_stream::StreamExt;
use tonic::body::Body;
use tonic::codegen::{Service as _, http};

use super::*;

/// A service on a store of its own.
struct Fixture {
    _dir: tempfile::TempDir,
    snapshotter: Snapshotter,
    service: Service,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions::at(dir.path().join("root")).sync(SyncMode::Off).reserve(0);
        let store = Store::open(&options.run_root(dir.path().join("run"))).unwrap();
        let snapshotter = Snapshotter::new(store, SnapshotterOptions::default()).unwrap();
        let service = Service::new(snapshotter.clone(), Threads::new(1));
        Fixture { _dir: dir, service, snapshotter }
    }

    fn prepare(&self, keys: impl IntoIterator<Item = String>) {
        for key in keys {
            self.snapshotter.prepare(&key, None, &[].into()).unwrap();
        }
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn list(filters: &[&str]) -> Request<proto::ListSnapshotsRequest> {
    let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
    Request::new(proto::ListSnapshotsRequest { snapshotter: "layerstore".to_owned(), filters })
}

#[test]
fn lists_come_in_parts() {
    let fixture = Fixture::new();
    fixture.prepare((0..2 * BATCH + 5).map(|number| format!("{number:03}")));
    let parts = block_on(async {
        let stream = fixture.service.list(list(&[])).await.unwrap().into_inner();
        stream.map(|part| part.unwrap().info).collect::<Vec<_>>().await
    });
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [BATCH, BATCH, 5]);
    let mut names: Vec<_> = parts.concat().into_iter().map(|info| info.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 2 * BATCH + 5);
}

#[test]
fn a_list_is_filtered_and_a_wrong_filter_is_refused() {
    let fixture = Fixture::new();
    fixture.prepare(["a".to_owned(), "b".to_owned()]);
    let found = block_on(async {
        let stream = fixture.service.list(list(&["name==b"])).await.unwrap().into_inner();
        stream.collect::<Vec<_>>().await
    });
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].as_ref().unwrap().info[0].name, "b");
    let refused = block_on(fixture.service.list(list(&["name==\""]))).err().unwrap();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
}

/// Else a few who do not read would keep all others waiting.
#[test]
fn a_list_that_nobody_reads_holds_no_thread() {
    let fixture = Fixture::new();
    fixture.prepare((0..6 * BATCH).map(|number| number.to_string()));
    block_on(async {
        let unread = fixture.service.list(list(&[])).await.unwrap().into_inner();
        // There is one thread.
        let stat = proto::StatSnapshotRequest { key: "1".to_owned(), ..Default::default() };
        fixture.service.stat(Request::new(stat)).await.unwrap();
        assert_eq!(unread.collect::<Vec<_>>().await.len(), 6);
    });
}

/// Else some large commits would stop who only looks, and every container with them.
#[test]
fn long_calls_do_not_keep_those_that_look() {
    let fixture = Fixture::new();
    fixture.prepare(["1".to_owned()]);
    block_on(async {
        let Fixture { service, .. } = &fixture;
        let _commit = service.threads.permit(Work::Long).await.unwrap();
        let stat = proto::StatSnapshotRequest { key: "1".to_owned(), ..Default::default() };
        service.stat(Request::new(stat)).await.unwrap();
        let mounts = proto::MountsRequest { key: "1".to_owned(), ..Default::default() };
        service.mounts(Request::new(mounts)).await.unwrap();
        assert_eq!(service.list(list(&[])).await.unwrap().into_inner().collect::<Vec<_>>().await.len(), 1);
        // Other long ones wait, and so does the end.
        let remove = proto::RemoveSnapshotRequest { key: "1".to_owned(), ..Default::default() };
        tokio::select! {
            biased;
            _ = service.remove(Request::new(remove)) => panic!("removed"),
            _ = service.threads.all_done() => panic!("done"),
            () = task::yield_now() => {}
        }
    });
}

/// What a call with a message of this length comes to. It has a field that nobody knows, and otherwise asks for nothing.
fn code_of_message(fixture: &Fixture, length: usize) -> tonic::Code {
    let field =
        |length: usize| format!("\x7a{}{}", char::from(u8::try_from(length).unwrap()), "a".repeat(length));
    let mut message = field(127).repeat(length / 129 - 1);
    let left = length - message.len();
    message += &(field(left / 2 - 2) + &field(left - left / 2 - 2));
    assert_eq!(message.len(), length);
    // The length as gRPC has it, the highest byte first.
    let mut prefix = u32::try_from(length).unwrap().to_le_bytes();
    prefix.reverse();
    let body = format!("\0{}{message}", std::str::from_utf8(&prefix).unwrap());
    let request = http::Request::builder()
        .method("POST")
        .uri("/containerd.services.snapshots.v1.Snapshots/Stat")
        .header("content-type", "application/grpc")
        .body(Body::new(body))
        .unwrap();
    let answer = block_on(fixture.service.clone().server().call(request)).unwrap();
    tonic::Status::from_header_map(answer.headers()).unwrap().code()
}

#[test]
fn messages_are_as_long_as_those_of_containerd() {
    let fixture = Fixture::new();
    for (mebibytes, code) in
        [(5, tonic::Code::NotFound), (16, tonic::Code::NotFound), (17, tonic::Code::OutOfRange)]
    {
        assert_eq!(code_of_message(&fixture, mebibytes << 20), code, "{mebibytes}");
    }
}

#[test]
fn an_update_changes_what_the_mask_names() {
    let fixture = Fixture::new();
    fixture.prepare(["a".to_owned()]);
    let update = |info, paths: &[&str]| {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let update_mask = Some(prost_types::FieldMask { paths });
        let request = proto::UpdateSnapshotRequest { snapshotter: String::new(), info, update_mask };
        block_on(fixture.service.update(Request::new(request)))
    };
    let labels = [("one", "1"), ("two", "2")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let info = proto::Info { name: "a".to_owned(), labels: labels.into(), ..proto::Info::default() };
    let updated = update(Some(info.clone()), &["labels.two"]).unwrap().into_inner().info.unwrap();
    assert_eq!(updated.labels.keys().collect::<Vec<_>>(), ["two"]);
    assert_eq!(updated.kind(), proto::Kind::Active);
    assert!(updated.updated_at.unwrap().seconds > 0);
    let updated = update(Some(info), &[]).unwrap().into_inner().info.unwrap();
    assert_eq!(updated.labels.len(), 2);
    assert_eq!(update(None, &[]).unwrap_err().code(), tonic::Code::InvalidArgument);
}

#[test]
fn a_snapshot_is_prepared_committed_moved_onto_a_parent_and_removed() {
    let fixture = Fixture::new();
    let service = &fixture.service;
    block_on(async {
        for (name, parent) in [("base", ""), ("top", "base")] {
            let request = proto::PrepareSnapshotRequest { key: "key".to_owned(), ..Default::default() };
            let mounts = service.prepare(Request::new(request)).await.unwrap().into_inner().mounts;
            assert_eq!(mounts[0].r#type, "bind");
            let (name, parent) = (name.to_owned(), parent.to_owned());
            let request =
                proto::CommitSnapshotRequest { name, key: "key".to_owned(), parent, ..Default::default() };
            service.commit(Request::new(request)).await.unwrap();
        }
        let stat = |key: &str| proto::StatSnapshotRequest { key: key.to_owned(), ..Default::default() };
        let info = service.stat(Request::new(stat("top"))).await.unwrap().into_inner().info.unwrap();
        assert_eq!((&*info.parent, info.kind()), ("base", proto::Kind::Committed));
        let error = service.stat(Request::new(stat("key"))).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::NotFound);
        let remove = |key: &str| proto::RemoveSnapshotRequest { key: key.to_owned(), ..Default::default() };
        let error = service.remove(Request::new(remove("base"))).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::FailedPrecondition);
        for key in ["top", "base"] {
            service.remove(Request::new(remove(key))).await.unwrap();
        }
        service.cleanup(Request::new(proto::CleanupRequest::default())).await.unwrap();
    });
}
