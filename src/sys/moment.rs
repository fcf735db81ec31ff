//! Moments at which a process can die, named for the tests: one that is told to dies there as by `kill -9`. Or others do
//! something just then.

/// Says that the process has come to a moment. Nothing but a test can make it the last one.
#[cfg(not(test))]
pub(crate) fn pass(_name: &str) {}

#[cfg(test)]
type Act = Box<dyn FnOnce()>;

#[cfg(test)]
thread_local! {
    static MEANWHILE: std::cell::RefCell<Vec<(&'static str, Act)>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// When this thread comes to a moment the next time, `act` happens, as if another process were faster.
#[cfg(test)]
pub(crate) fn meanwhile(name: &'static str, act: impl FnOnce() + 'static) {
    MEANWHILE.with_borrow_mut(|acts| acts.push((name, Box::new(act))));
}

/// As above; the variable `LAYERSTORE_DIE_AT` names the moment, and after a colon how often it passes first.
#[cfg(test)]
pub(crate) fn pass(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    static LAST: OnceLock<Option<(String, usize)>> = OnceLock::new();
    static PASSED: AtomicUsize = AtomicUsize::new(0);
    if let Some(act) = MEANWHILE.with_borrow_mut(|acts| {
        let position = acts.iter().position(|(moment, _)| *moment == name)?;
        Some(acts.remove(position).1)
    }) {
        act();
    }
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
