//! The calls of the protocol: each is one of the snapshotter, in a thread that may wait.

use std::vec;

use layerstore::snapshotter::{CommitOptions, Info, SnapshotError, Snapshotter};
use tokio::task;
use tonic::{Request, Response, Status};

use super::convert;
use super::protocol::snapshots as proto;
use super::protocol::snapshots::snapshots_server::{Snapshots, SnapshotsServer};
use super::threads::{Threads, Work};

/// How many snapshots one message of a list has; containerd itself sends as many.
const BATCH: usize = 100;

/// The largest message, in bytes, that containerd sends and takes. gRPC itself would refuse requests above 4 MiB.
const MESSAGE_MAX: usize = 16 << 20;

/// The calls, on one store.
#[derive(Clone, Debug)]
pub struct Service {
    snapshotter: Snapshotter,
    threads: Threads,
}

impl Service {
    /// The calls on this snapshotter, as many at a time as there are permits.
    pub fn new(snapshotter: Snapshotter, threads: Threads) -> Self {
        Service { snapshotter, threads }
    }

    /// The service, to be connected.
    pub fn server(self) -> SnapshotsServer<Self> {
        SnapshotsServer::new(self)
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX)
    }

    /// Does `work` in a thread of its own. Once begun, it is done to its end also if the caller went away.
    async fn wait<T: Send + 'static>(
        &self,
        call: &'static str,
        kind: Work,
        work: impl FnOnce(&Snapshotter) -> Result<T, SnapshotError> + Send + 'static,
    ) -> Result<T, Status> {
        let Service { snapshotter, threads } = self.clone();
        let failed = |error: &dyn std::error::Error| Status::internal(format!("{call}: {error}"));
        let permit = threads.permit(kind).await.map_err(|error| failed(&error))?;
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
        let mounts = convert::mounts(self.wait("Prepare", Work::Long, work).await?)?;
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
        let mounts = convert::mounts(self.wait("View", Work::Long, work).await?)?;
        Ok(Response::new(proto::ViewSnapshotResponse { mounts }))
    }

    async fn mounts(
        &self,
        request: Request<proto::MountsRequest>,
    ) -> Result<Response<proto::MountsResponse>, Status> {
        let key = request.into_inner().key;
        let entries = self.wait("Mounts", Work::Look, move |snapshotter| snapshotter.mounts(&key)).await?;
        Ok(Response::new(proto::MountsResponse { mounts: convert::mounts(entries)? }))
    }

    async fn commit(&self, request: Request<proto::CommitSnapshotRequest>) -> Result<Response<()>, Status> {
        let request = request.into_inner();
        let mut options = CommitOptions::default();
        options.labels = request.labels.into_iter().collect();
        options.parent = convert::parent(request.parent);
        let work = move |snapshotter: &Snapshotter| snapshotter.commit(&request.name, &request.key, &options);
        self.wait("Commit", Work::Long, work).await.map(Response::new)
    }

    async fn remove(&self, request: Request<proto::RemoveSnapshotRequest>) -> Result<Response<()>, Status> {
        let key = request.into_inner().key;
        self.wait("Remove", Work::Long, move |snapshotter| snapshotter.remove(&key)).await.map(Response::new)
    }

    async fn stat(
        &self,
        request: Request<proto::StatSnapshotRequest>,
    ) -> Result<Response<proto::StatSnapshotResponse>, Status> {
        let key = request.into_inner().key;
        let info = self.wait("Stat", Work::Look, move |snapshotter| snapshotter.stat(&key)).await?;
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
        let info = self.wait("Update", Work::Long, work).await?;
        Ok(Response::new(proto::UpdateSnapshotResponse { info: Some(convert::info(info)) }))
    }

    type ListStream = Batches;

    async fn list(
        &self,
        request: Request<proto::ListSnapshotsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let filters = request.into_inner().filters;
        // All of it before the first message: whoever reads slowly, or not at all, holds memory and not a thread.
        let batches = self.wait("List", Work::Look, move |snapshotter| list(snapshotter, &filters)).await?;
        Ok(Response::new(tokio_stream::iter(batches)))
    }

    async fn usage(
        &self,
        request: Request<proto::UsageRequest>,
    ) -> Result<Response<proto::UsageResponse>, Status> {
        let key = request.into_inner().key;
        let usage = self.wait("Usage", Work::Long, move |snapshotter| snapshotter.usage(&key)).await?;
        Ok(Response::new(convert::usage(usage)))
    }

    async fn cleanup(&self, _: Request<proto::CleanupRequest>) -> Result<Response<()>, Status> {
        self.wait("Cleanup", Work::Long, |snapshotter| snapshotter.cleanup()).await.map(Response::new)
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
mod tests;
