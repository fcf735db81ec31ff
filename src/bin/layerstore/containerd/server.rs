//! Begin, serve, end.

use std::io;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use layerstore::snapshotter::Snapshotter;
use tokio::net;
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::sleep;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use super::manager;
use super::service::Service;
use super::socket::Socket;
use super::threads::Threads;
use crate::failure::Failure;

/// How long an answer waits to be read, after a signal has said to end and all calls are done.
const UNREAD: Duration = Duration::from_secs(5);

/// Answers calls until a signal says to end. `open` makes the socket, `start` what answers, and `ready` is called when calls are
/// answered. Whoever calls between the first two waits.
///
/// With the first SIGTERM or SIGINT no more connections are taken and the calls that were begun are finished; who has not read
/// the answer a little later does not get it. With the second one they are left where they are, which is as good as a kill.
pub fn serve(
    open: impl FnOnce() -> Result<Socket, Failure>,
    start: impl FnOnce() -> Result<Snapshotter, Failure>,
    ready: impl FnOnce(&str),
) -> Result<(), Failure> {
    let failed = |source| Failure::Serve { source };
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(Threads::MAX)
        .thread_name("snapshots")
        .build()
        .map_err(failed)?;
    // Before there is a socket: whoever finds it may send a signal at once.
    let signals = {
        let _entered = runtime.enter();
        Signals::new().map_err(failed)?
    };
    let socket = open()?;
    let shown = socket.shown();
    // The name lasts until the last call is answered; the socket itself is closed when no more calls are taken.
    let Socket { listener, name: _name } = socket;
    let snapshotter = start()?;
    let served = runtime.block_on(run(snapshotter, listener, signals, || ready(&shown)));
    // Threads that are still at work are those of a hurried end.
    runtime.shutdown_background();
    served.map_err(failed)
}

async fn run(
    snapshotter: Snapshotter,
    listener: UnixListener,
    mut signals: Signals,
    ready: impl FnOnce(),
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let calls = UnixListenerStream::new(net::UnixListener::from_std(listener)?);
    let threads = Threads::default();
    let service = Service::new(snapshotter, threads.clone()).server();
    let (stop, stopped) = oneshot::channel();
    let serving = Server::builder().serve_with_incoming_shutdown(service, calls, async {
        // An error would be that there is no sender, and so nobody who waits.
        stopped.await.ok();
    });
    let finished = async {
        serving.await.map_err(io::Error::other)?;
        threads.all_done().await
    };
    let unread = async {
        threads.all_done().await?;
        sleep(UNREAD).await;
        // What was asked meanwhile, through connections that were there.
        threads.all_done().await
    };
    tokio::pin!(finished);
    ready();
    manager::tell("READY=1")?;
    tokio::select! {
        result = &mut finished => return result,
        () = signals.any() => {}
    }
    stop.send(()).ok();
    // From here on it is all the same whether anybody hears it.
    manager::tell("STOPPING=1").ok();
    tokio::select! {
        result = &mut finished => result,
        result = unread => result,
        () = signals.any() => Ok(()),
    }
}

/// The signals that say to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one.
    async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
