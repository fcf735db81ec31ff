//! A plan of one fault: the n-th call that this process makes from now on fails, or that of one thread of some work.
//!
//! Where every thread counts, a process in which a fault is planned does nothing else meanwhile: the tests start one for
//! each operation. A fault of some work is unknown to all threads but those that do it, which have numbers in the order in which
//! they are started. So it strikes the same call each time, whatever others do, unless two of these start threads at once.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::Call;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The disk, or whatever it is, does not do it (EIO).
    Broken,
    /// The disk is full (ENOSPC).
    Full,
    /// A signal came first (EINTR).
    Interrupted,
    /// Part of the bytes are read or written.
    Short,
}

impl Fault {
    /// Those that can befall a call.
    pub(crate) fn of(call: Call) -> Vec<Fault> {
        use Call::*;
        let mut faults = vec![Fault::Broken];
        if matches!(
            call,
            Allocate
                | CopyRange
                | Create
                | MakeDirectory
                | MakeLink
                | MakeNode
                | Rename
                | SetLength
                | SetXattr
                | Sync
                | Write
        ) {
            faults.push(Fault::Full);
        }
        if matches!(
            call,
            Allocate | CopyRange | Create | Lock | Open | Random | Read | SetLength | Sync | Write
        ) {
            faults.push(Fault::Interrupted);
        }
        if matches!(call, CopyRange | Read | Write) {
            faults.push(Fault::Short);
        }
        faults
    }
}

#[derive(Debug)]
struct Plan {
    seen: Vec<Call>,
    /// The number of the call that is struck, from 0.
    at: usize,
    fault: Fault,
    struck: Option<Call>,
}

static PLAN: Mutex<Option<Plan>> = Mutex::new(None);

/// Which call of some work is struck, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strike {
    /// The thread: 0 is the one that does the work, the others are numbered as they are started.
    pub(crate) thread: usize,
    /// The number of the call among those of the thread, from 0.
    pub(crate) at: usize,
    /// What happens to it.
    pub(crate) fault: Fault,
}

/// What the threads of some work share.
#[derive(Debug)]
struct Work {
    strike: Strike,
    threads: AtomicUsize,
    struck: OnceLock<Call>,
}

/// The part of a plan that is one thread's.
#[derive(Debug)]
struct Part {
    work: Arc<Work>,
    /// Only what has its turn is struck.
    plan: Plan,
}

thread_local!(static PART: RefCell<Option<Part>> = const { RefCell::new(None) });

fn plan() -> MutexGuard<'static, Option<Plan>> {
    PLAN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What came of a plan.
#[derive(Debug)]
pub(crate) struct Outcome<T> {
    /// What the work returned.
    pub(crate) value: T,
    /// Every call that it made.
    #[cfg_attr(not(test), expect(dead_code, reason = "only the tests go through all calls"))]
    pub(crate) calls: Vec<Call>,
    /// The call that was struck; `None` if there were fewer, or if the fault cannot befall it.
    pub(crate) struck: Option<Call>,
}

#[cfg(test)]
impl<T> Outcome<T> {
    fn new(value: T, plan: Option<Plan>) -> Self {
        let (calls, struck) = plan.map(|plan| (plan.seen, plan.struck)).unwrap_or_default();
        Outcome { value, calls, struck }
    }
}

/// Does `work` while `fault` strikes call number `at`, from 0.
#[cfg(test)]
pub(crate) fn during<T>(at: usize, fault: Fault, work: impl FnOnce() -> T) -> Outcome<T> {
    *plan() = Some(Plan::new(at, fault));
    let value = work();
    Outcome::new(value, plan().take())
}

/// Does `work` while a fault strikes a call of it, in whichever thread it is done.
pub(crate) fn during_here<T>(strike: Strike, work: impl FnOnce() -> T) -> Outcome<T> {
    let whole = Arc::new(Work { strike, threads: AtomicUsize::new(0), struck: OnceLock::new() });
    let value = Part::next(&whole).during(work);
    Outcome { value, calls: Vec::new(), struck: whole.struck.get().copied() }
}

/// Does `work`, which no fault strikes, and returns every call that this thread makes for it.
#[cfg(test)]
pub(crate) fn counted<T>(work: impl FnOnce() -> T) -> (T, Vec<Call>) {
    let strike = Strike { thread: usize::MAX, at: usize::MAX, fault: Fault::Broken };
    let whole = Arc::new(Work { strike, threads: AtomicUsize::new(0), struck: OnceLock::new() });
    PART.set(Some(Part::next(&whole)));
    let value = work();
    (value, PART.take().map(|part| part.plan.seen).unwrap_or_default())
}

/// `work` for a thread that is about to be started, with what is planned for the calls of this one.
pub(crate) fn follow<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let part = PART.with_borrow(|part| part.as_ref().map(|part| Part::next(&part.work)));
    move || match part {
        Some(part) => part.during(work),
        None => work(),
    }
}

/// Counts a call, and lets it fail if it is its turn.
pub(super) fn strike(call: Call) -> io::Result<()> {
    PART.with_borrow_mut(|part| part.as_mut().map_or(Ok(()), |part| part.strike(call)))?;
    plan().as_mut().map_or(Ok(()), |plan| plan.strike(call))
}

/// How much of `length` the call that was just counted moves.
pub(super) fn shortened(call: Call, length: usize) -> usize {
    let here = PART.with_borrow(|part| part.as_ref().is_some_and(|part| part.plan.shortens(call)));
    if here || plan().as_ref().is_some_and(|plan| plan.shortens(call)) { length.div_ceil(2) } else { length }
}

impl Part {
    /// Of the thread that is started next.
    fn next(work: &Arc<Work>) -> Self {
        let number = work.threads.fetch_add(1, Ordering::Relaxed);
        let Strike { thread, at, fault } = work.strike;
        let at = if number == thread { at } else { usize::MAX };
        Part { work: Arc::clone(work), plan: Plan::new(at, fault) }
    }

    fn during<T>(self, work: impl FnOnce() -> T) -> T {
        PART.set(Some(self));
        let value = work();
        PART.set(None);
        value
    }

    fn strike(&mut self, call: Call) -> io::Result<()> {
        let result = self.plan.strike(call);
        if let Some(struck) = self.plan.struck {
            self.work.struck.get_or_init(|| struck);
        }
        result
    }
}

impl Plan {
    fn new(at: usize, fault: Fault) -> Self {
        Plan { seen: Vec::new(), at, fault, struck: None }
    }

    fn strike(&mut self, call: Call) -> io::Result<()> {
        let reached = self.seen.len() == self.at;
        self.seen.push(call);
        if !reached || !Fault::of(call).contains(&self.fault) {
            return Ok(());
        }
        self.struck = Some(call);
        match self.fault {
            Fault::Broken => Err(io::Error::from_raw_os_error(libc::EIO)),
            Fault::Full => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            Fault::Interrupted => Err(io::Error::from_raw_os_error(libc::EINTR)),
            // Comes about when the call asks how much it may move.
            Fault::Short => Ok(()),
        }
    }

    fn shortens(&self, call: Call) -> bool {
        self.fault == Fault::Short
            && self.struck == Some(call)
            && self.seen.len().checked_sub(1) == Some(self.at)
    }
}
