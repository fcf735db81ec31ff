//! Moments at which a process can die, named for the tests: one that is told to dies there as by `kill -9`. Or others do
//! something just then.

/// Says that the process has come to a moment. Nothing but a test can make it the last one.
#[cfg(not(test))]
pub(crate) fn pass(_name: &str) {}

#[cfg(test)]
type Act = Box<dyn FnOnce() + Send>;

/// What is to happen at which moment.
#[cfg(test)]
pub(crate) type Acts = std::sync::Arc<std::sync::Mutex<Vec<(&'static str, Act)>>>;

#[cfg(test)]
thread_local! {
    static MEANWHILE: std::cell::RefCell<Acts> = std::cell::RefCell::default();
}

/// When this thread, or one that it makes, comes to a moment the next time, `act` happens, as if another process were faster.
#[cfg(test)]
pub(crate) fn meanwhile(name: &'static str, act: impl FnOnce() + Send + 'static) {
    acts().lock().unwrap().push((name, Box::new(act)));
}

/// What is to happen at the moments of this thread.
#[cfg(test)]
pub(crate) fn acts() -> Acts {
    MEANWHILE.with_borrow(Acts::clone)
}

/// Gives this thread the acts of the one that made it.
#[cfg(test)]
pub(crate) fn share(acts: Acts) {
    MEANWHILE.set(acts);
}

/// As above; the variable `LAYERSTORE_DIE_AT` names the moment, and after a colon how often it passes first.
#[cfg(test)]
pub(crate) fn pass(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    static LAST: OnceLock<Option<(String, usize)>> = OnceLock::new();
    static PASSED: AtomicUsize = AtomicUsize::new(0);
    let act = {
        let acts = acts();
        let mut acts = acts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        acts.iter().position(|(moment, _)| *moment == name).map(|position| acts.remove(position).1)
    };
    if let Some(act) = act {
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
