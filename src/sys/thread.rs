//! Threads of one call. They end with a scope, or with who holds their handle, and what they log belongs to where their maker is: its span, and the subscriber
//! that it has for itself, if it has one; their time counts where the maker's does. In tests what is planned for their maker's
//! system calls follows the work, too.

use std::io;
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

use tracing::{Span, dispatcher};

use crate::timing;

/// Starts a thread that does `work`. Of its name the kernel shows 15 bytes.
///
/// Returns the error of making it.
pub(crate) fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    Builder::new().name(name.to_owned()).spawn_scoped(scope, taking_along(work))
}

/// The same, of a thread that has all that it needs: whoever holds the handle joins it before the call ends.
///
/// Returns the error of making it.
pub(crate) fn start_own<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    Builder::new().name(name.to_owned()).spawn(taking_along(work))
}

/// Does `work` with what this thread has for it.
fn taking_along<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let (subscriber, span) = (dispatcher::get_default(Clone::clone), Span::current());
    let work = timing::follow(work);
    #[cfg(any(test, feature = "__fuzzing"))]
    let work = super::call::fault::follow(work);
    #[cfg(test)]
    let acts = super::moment::acts();
    move || {
        #[cfg(test)]
        super::moment::share(acts);
        dispatcher::with_default(&subscriber, || span.in_scope(work))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::sys::call::fault::{Fault, Strike, during_here};
    use crate::sys::call::{Call, call};

    /// Does `work`, and returns what it logged: lines that begin with the names of the spans they are in.
    pub(crate) fn logged(work: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Log(Arc<Mutex<Vec<u8>>>);

        impl Write for Log {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        let log = Log::default();
        let to = log.clone();
        let lines = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).without_time();
        let lines = lines.with_ansi(false).with_level(false).with_target(false);
        tracing::subscriber::with_default(lines.with_writer(move || to.clone()).finish(), work);
        let bytes = std::mem::take(&mut *log.0.lock().unwrap());
        String::from_utf8(bytes).unwrap()
    }

    /// Also of a thread that such a thread makes.
    #[test]
    fn what_a_thread_logs_is_in_the_span_of_its_maker() {
        let log = logged(|| {
            let _span = tracing::info_span!("outer").entered();
            std::thread::scope(|scope| {
                let work = || {
                    tracing::info!("here");
                    std::thread::scope(|scope| {
                        start(scope, "inner", || tracing::info!("further")).unwrap().join().unwrap();
                    });
                };
                start(scope, "test", work).unwrap().join().unwrap();
            });
        });
        assert_eq!(log, "outer: here\nouter: further\n");
    }

    fn write() -> bool {
        call(Call::Write, || Ok::<_, io::Error>(())).is_ok()
    }

    /// A call of each: of this thread, of one that it starts, of one that this starts, and of a stranger.
    fn writes() -> [bool; 4] {
        std::thread::scope(|scope| {
            let stranger = scope.spawn(write);
            let inner = || std::thread::scope(|scope| start(scope, "inner", write).unwrap().join().unwrap());
            let outer = start(scope, "outer", move || (write(), inner())).unwrap();
            let (outer, inner) = outer.join().unwrap();
            [write(), outer, inner, stranger.join().unwrap()]
        })
    }

    #[test]
    fn a_fault_follows_the_work() {
        for (thread, succeed) in [
            (0, [false, true, true, true]),
            (1, [true, false, true, true]),
            (2, [true, true, false, true]),
            (3, [true, true, true, true]),
        ] {
            let outcome = during_here(Strike { thread, at: 0, fault: Fault::Broken }, writes);
            assert_eq!(outcome.value, succeed, "a fault in thread {thread}");
            assert_eq!(outcome.struck, (thread < 3).then_some(Call::Write));
        }
        assert_eq!(writes(), [true; 4], "a plan was left");
    }
}
