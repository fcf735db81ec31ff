//! The calls of the protocol: each is one of the snapshotter, in a thread that may wait.

use std::sync::Arc;
use std::vec;

use layerstore::snapshotter::{CommitOptions, Info, SnapshotError, Snapshotter};
use tokio::sync::Semaphore;
use tokio::task;
use tonic::{Request, Response, Status};

use super::convert;
use super::protocol::snapshots as proto;
use super::protocol::snapshots::snapshots_server::Snapshots;

/// How many snapshots one message of a list has; containerd itself sends as many.
const BATCH: usize = 100;

/// The calls, on one store.
#[derive(Clone, Debug)]
pub struct Service {
    snapshotter: Snapshotter,
    /// Each thread at work has a permit: when all of them are there, none is.
    threads: Arc<Semaphore>,
}

impl Service {
    /// The calls on this snapshotter, as many at a time as there are permits.
    pub fn new(snapshotter: Snapshotter, threads: Arc<Semaphore>) -> Self {
        Service { snapshotter, threads }
    }

    /// Does `work` in a thread of its own. Once begun, it is done to its end also if the caller went away.
    async fn wait<T: Send + 'static>(
        &self,
        call: &'static str,
        work: impl FnOnce(&Snapshotter) -> Result<T, SnapshotError> + Send + 'static,
    ) -> Result<T, Status> {
        let Service { snapshotter, threads } = self.clone();
        let failed = |error: &dyn std::error::Error| Status::internal(format!("{call}: {error}"));
        let permit = threads.acquire_owned().await.map_err(|error| failed(&error))?;
        let work = move || {
            let done = work(&snapshotter);
            drop(permit);
            done
        };
        match task::spawn_blocking(work).await {
            Ok(done) => done.map_err(|error| told(call, &error)),
            Err(error) => Err(failed(&error)),
        }
    }
}

/// The failure for the caller; what containerd expects every now and then, such as a missing snapshot, is no news to others.
fn told(call: &'static str, error: &SnapshotError) -> Status {
    let status = convert::status(error);
    match status.code() {
        tonic::Code::Unknown | tonic::Code::ResourceExhausted => {
            tracing::error!(call, error = status.message(), "a call failed");
        }
        code => tracing::debug!(call, ?code, error = status.message(), "a call was refused"),
    }
    status
}

#[tonic::async_trait]
impl Snapshots for Service {
    async fn prepare(
        &self,
        request: Request<proto::PrepareSnapshotRequest>,
    ) -> Result<Response<proto::PrepareSnapshotResponse>, Status> {
        let request = request.into_inner();
        let (parent, labels) = (convert::parent(request.parent), request.labels.into_iter().collect());
        let work =
            move |snapshotter: &Snapshotter| snapshotter.prepare(&request.key, parent.as_deref(), &labels);
        let mounts = convert::mounts(self.wait("Prepare", work).await?)?;
        Ok(Response::new(proto::PrepareSnapshotResponse { mounts }))
    }

    async fn view(
        &self,
        request: Request<proto::ViewSnapshotRequest>,
    ) -> Result<Response<proto::ViewSnapshotResponse>, Status> {
        let request = request.into_inner();
        let (parent, labels) = (convert::parent(request.parent), request.labels.into_iter().collect());
        let work =
            move |snapshotter: &Snapshotter| snapshotter.view(&request.key, parent.as_deref(), &labels);
        let mounts = convert::mounts(self.wait("View", work).await?)?;
        Ok(Response::new(proto::ViewSnapshotResponse { mounts }))
    }

    async fn mounts(
        &self,
        request: Request<proto::MountsRequest>,
    ) -> Result<Response<proto::MountsResponse>, Status> {
        let key = request.into_inner().key;
        let entries = self.wait("Mounts", move |snapshotter| snapshotter.mounts(&key)).await?;
        Ok(Response::new(proto::MountsResponse { mounts: convert::mounts(entries)? }))
    }

    async fn commit(&self, request: Request<proto::CommitSnapshotRequest>) -> Result<Response<()>, Status> {
        let request = request.into_inner();
        let mut options = CommitOptions::default();
        options.labels = request.labels.into_iter().collect();
        options.parent = convert::parent(request.parent);
        let work = move |snapshotter: &Snapshotter| snapshotter.commit(&request.name, &request.key, &options);
        self.wait("Commit", work).await.map(Response::new)
    }

    async fn remove(&self, request: Request<proto::RemoveSnapshotRequest>) -> Result<Response<()>, Status> {
        let key = request.into_inner().key;
        self.wait("Remove", move |snapshotter| snapshotter.remove(&key)).await.map(Response::new)
    }

    async fn stat(
        &self,
        request: Request<proto::StatSnapshotRequest>,
    ) -> Result<Response<proto::StatSnapshotResponse>, Status> {
        let key = request.into_inner().key;
        let info = self.wait("Stat", move |snapshotter| snapshotter.stat(&key)).await?;
        Ok(Response::new(proto::StatSnapshotResponse { info: Some(convert::info(info)) }))
    }

    async fn update(
        &self,
        request: Request<proto::UpdateSnapshotRequest>,
    ) -> Result<Response<proto::UpdateSnapshotResponse>, Status> {
        let request = request.into_inner();
        let info = request.info.ok_or_else(|| Status::invalid_argument("an update of no snapshot"))?;
        let (wanted, mask) = (convert::wanted(info), request.update_mask.unwrap_or_default());
        let work = move |snapshotter: &Snapshotter| snapshotter.update(&wanted, &words(&mask.paths));
        let info = self.wait("Update", work).await?;
        Ok(Response::new(proto::UpdateSnapshotResponse { info: Some(convert::info(info)) }))
    }

    type ListStream = Batches;

    async fn list(
        &self,
        request: Request<proto::ListSnapshotsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let filters = request.into_inner().filters;
        // All of it before the first message: whoever reads slowly, or not at all, holds memory and not a thread.
        let batches = self.wait("List", move |snapshotter| list(snapshotter, &filters)).await?;
        Ok(Response::new(tokio_stream::iter(batches)))
    }

    async fn usage(
        &self,
        request: Request<proto::UsageRequest>,
    ) -> Result<Response<proto::UsageResponse>, Status> {
        let key = request.into_inner().key;
        let usage = self.wait("Usage", move |snapshotter| snapshotter.usage(&key)).await?;
        Ok(Response::new(convert::usage(usage)))
    }

    async fn cleanup(&self, _: Request<proto::CleanupRequest>) -> Result<Response<()>, Status> {
        self.wait("Cleanup", |snapshotter| snapshotter.cleanup()).await.map(Response::new)
    }
}

/// The messages of a list, which wait for their reader.
type Batches = tokio_stream::Iter<vec::IntoIter<Result<proto::ListSnapshotsResponse, Status>>>;

/// All snapshots that a filter lets through.
fn list(
    snapshotter: &Snapshotter,
    filters: &[String],
) -> Result<Vec<Result<proto::ListSnapshotsResponse, Status>>, SnapshotError> {
    let mut batches = Vec::new();
    let mut batch = Vec::new();
    snapshotter.walk(&words(filters), |info: Info| {
        batch.push(convert::info(info));
        if batch.len() == BATCH {
            batches.push(Ok(proto::ListSnapshotsResponse { info: std::mem::take(&mut batch) }));
        }
        Ok(())
    })?;
    if !batch.is_empty() {
        batches.push(Ok(proto::ListSnapshotsResponse { info: batch }));
    }
    Ok(batches)
}

fn words(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use layerstore::snapshotter::SnapshotterOptions;
    use layerstore::{Store, StoreOptions, SyncMode};
    use tokio::runtime;
    use tokio_stream::StreamExt;

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
            let service = Service::new(snapshotter.clone(), Arc::new(Semaphore::new(1)));
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
                let request = proto::CommitSnapshotRequest {
                    name,
                    key: "key".to_owned(),
                    parent,
                    ..Default::default()
                };
                service.commit(Request::new(request)).await.unwrap();
            }
            let stat = |key: &str| proto::StatSnapshotRequest { key: key.to_owned(), ..Default::default() };
            let info = service.stat(Request::new(stat("top"))).await.unwrap().into_inner().info.unwrap();
            assert_eq!((&*info.parent, info.kind()), ("base", proto::Kind::Committed));
            let error = service.stat(Request::new(stat("key"))).await.unwrap_err();
            assert_eq!(error.code(), tonic::Code::NotFound);
            let remove =
                |key: &str| proto::RemoveSnapshotRequest { key: key.to_owned(), ..Default::default() };
            let error = service.remove(Request::new(remove("base"))).await.unwrap_err();
            assert_eq!(error.code(), tonic::Code::FailedPrecondition);
            for key in ["top", "base"] {
                service.remove(Request::new(remove(key))).await.unwrap();
            }
            service.cleanup(Request::new(proto::CleanupRequest::default())).await.unwrap();
        });
    }
}
