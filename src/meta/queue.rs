//! Waiting for a lock on the database file, in the kernel's queue and no longer than is wanted.

use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use crate::sys::file::File;
use crate::sys::range_lock;
use crate::timing::{self, Stage};

/// Waits in the kernel's fair queue, up to `timeout`; `false` if the time is over.
///
/// The queue cannot be left early but by a signal with a handler, and handlers are the program's and not a library's. So
/// a thread stands in it. After a timeout it stays until its turn comes, and then gives the lock straight back. To ask
/// again and again instead would let everyone else go first.
pub(super) fn wait_in_queue(
    file: &Arc<File>,
    start: Bound<u64>,
    end: Bound<u64>,
    exclusive: bool,
    timeout: Duration,
) -> io::Result<bool> {
    timing::spanned(Stage::LockWait, || queue(file, (start, end), exclusive, timeout))
}

fn queue(
    file: &Arc<File>,
    (start, end): (Bound<u64>, Bound<u64>),
    exclusive: bool,
    timeout: Duration,
) -> io::Result<bool> {
    let (sender, receiver) = mpsc::channel();
    let given_up = Arc::new(Mutex::new(false));
    let waiter = {
        let (file, given_up) = (Arc::clone(file), Arc::clone(&given_up));
        move || {
            let result = range_lock::lock_range(&file, start, end, exclusive);
            let given_up = given_up.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if *given_up && result.is_ok() {
                if let Err(error) = range_lock::unlock_range(&file, start, end) {
                    tracing::warn!(%error, "cannot give up a lock that came too late");
                }
            } else if sender.send(result).is_err() {
                tracing::warn!("nobody waits for the lock any more");
            }
        }
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "it may go on after this call, and does nothing for it then"
    )]
    let waiter = std::thread::Builder::new().name("lock-wait".into()).spawn(waiter)?;
    // The thread has the file open until it ends, which it does when it has told.
    let told = |result: io::Result<()>| {
        drop(waiter.join());
        result.map(|()| true)
    };
    if let Ok(result) = receiver.recv_timeout(timeout) {
        return told(result);
    }
    let mut flag = given_up.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    *flag = true;
    // The lock may have come between the end of the time and this line.
    match receiver.try_recv() {
        Ok(result) => {
            drop(flag);
            told(result)
        }
        Err(_) => Ok(false),
    }
}
