//! Threads of one call. They end with a scope, and what they log belongs to where their maker is: its span, and the subscriber
//! that it has for itself, if it has one.

use std::io;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use tracing::{Span, dispatcher};

/// Starts a thread that does `work`. Of its name the kernel shows 15 bytes.
///
/// Returns the error of making it.
pub(crate) fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    let (subscriber, span) = (dispatcher::get_default(Clone::clone), Span::current());
    #[cfg(test)]
    let acts = super::moment::acts();
    Builder::new().name(name.to_owned()).spawn_scoped(scope, move || {
        #[cfg(test)]
        super::moment::share(acts);
        dispatcher::with_default(&subscriber, || span.in_scope(work))
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

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
}
