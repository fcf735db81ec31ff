//! Moments at which a process can die, named for the tests: one that is told to dies there as by `kill -9`.

/// Says that the process has come to a moment. Nothing but a test can make it the last one.
#[cfg(not(test))]
pub(crate) fn pass(_name: &str) {}

/// As above; the variable `LAYERSTORE_DIE_AT` names the moment, and after a colon how often it passes first.
#[cfg(test)]
pub(crate) fn pass(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    static LAST: OnceLock<Option<(String, usize)>> = OnceLock::new();
    static PASSED: AtomicUsize = AtomicUsize::new(0);
    let last = LAST.get_or_init(|| {
        let text = std::env::var("LAYERSTORE_DIE_AT").ok()?;
        let (name, times) = text.split_once(':').unwrap_or((&text, "0"));
        Some((name.to_owned(), times.parse().unwrap_or_default()))
    });
    if let Some((last, times)) = last
        && last == name
        && PASSED.fetch_add(1, Ordering::SeqCst) == *times
    {
        nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL).unwrap();
        loop {
            std::thread::park();
        }
    }
}
