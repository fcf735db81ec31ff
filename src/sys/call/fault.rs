//! A plan of one fault: the n-th call that this process, or this thread, makes from now on fails.
//!
//! Where every thread counts, a process in which a fault is planned does nothing else meanwhile: the tests start one for
//! each operation. A fault of one thread strikes the same call each time, whatever others do.

use std::cell::RefCell;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

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

thread_local!(static PLAN_HERE: RefCell<Option<Plan>> = const { RefCell::new(None) });

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

/// As [`during`], where the calls of this thread alone count.
pub(crate) fn during_here<T>(at: usize, fault: Fault, work: impl FnOnce() -> T) -> Outcome<T> {
    PLAN_HERE.set(Some(Plan::new(at, fault)));
    let value = work();
    Outcome::new(value, PLAN_HERE.take())
}

/// Counts a call, and lets it fail if it is its turn.
pub(super) fn strike(call: Call) -> io::Result<()> {
    PLAN_HERE.with_borrow_mut(|plan| plan.as_mut().map_or(Ok(()), |plan| plan.strike(call)))?;
    plan().as_mut().map_or(Ok(()), |plan| plan.strike(call))
}

/// How much of `length` the call that was just counted moves.
pub(super) fn shortened(call: Call, length: usize) -> usize {
    let shortens = |plan: &Option<Plan>| plan.as_ref().is_some_and(|plan| plan.shortens(call));
    if PLAN_HERE.with_borrow(shortens) || shortens(&plan()) { length.div_ceil(2) } else { length }
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
