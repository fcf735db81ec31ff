//! A plan of one fault: the n-th call that this process makes from now on fails.
//!
//! Every thread counts, so a process in which a fault is planned does nothing else meanwhile: the tests start one for
//! each operation.

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

fn plan() -> MutexGuard<'static, Option<Plan>> {
    PLAN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What came of a plan.
#[derive(Debug)]
pub(crate) struct Outcome<T> {
    /// What the work returned.
    pub(crate) value: T,
    /// Every call that it made.
    pub(crate) calls: Vec<Call>,
    /// The call that was struck; `None` if there were fewer, or if the fault cannot befall it.
    pub(crate) struck: Option<Call>,
}

/// Does `work` while `fault` strikes call number `at`, from 0.
pub(crate) fn during<T>(at: usize, fault: Fault, work: impl FnOnce() -> T) -> Outcome<T> {
    *plan() = Some(Plan { seen: Vec::new(), at, fault, struck: None });
    let value = work();
    let Plan { seen, struck, .. } = plan().take().unwrap();
    Outcome { value, calls: seen, struck }
}

/// Counts a call, and lets it fail if it is its turn.
pub(super) fn strike(call: Call) -> io::Result<()> {
    let mut plan = plan();
    let Some(plan) = plan.as_mut() else { return Ok(()) };
    plan.seen.push(call);
    let strikes = plan.seen.len() == plan.at + 1 && Fault::of(call).contains(&plan.fault);
    if !strikes {
        return Ok(());
    }
    plan.struck = Some(call);
    match plan.fault {
        Fault::Broken => Err(io::Error::from_raw_os_error(libc::EIO)),
        Fault::Full => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
        Fault::Interrupted => Err(io::Error::from_raw_os_error(libc::EINTR)),
        // Comes about when the call asks how much it may move.
        Fault::Short => Ok(()),
    }
}

/// How much of `length` the call that was just counted moves.
pub(super) fn shortened(call: Call, length: usize) -> usize {
    match &*plan() {
        Some(plan)
            if plan.fault == Fault::Short && plan.struck == Some(call) && plan.seen.len() == plan.at + 1 =>
        {
            length.div_ceil(2)
        }
        _ => length,
    }
}
