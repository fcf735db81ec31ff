//! The one way in which every system call is made: again, when a signal interrupts it. In the unit tests and
//! under a fuzzer any of them can be made to fail (`fault`).

#[cfg(any(test, feature = "__fuzzing"))]
pub(crate) mod fault;

use std::io;

/// What a system call does, as far as it matters for how it can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    Allocate,
    Confine,
    CopyRange,
    Create,
    Duplicate,
    FreeSpace,
    GetXattr,
    List,
    Lock,
    MakeDirectory,
    MakeLink,
    MakeNode,
    Map,
    MapExtents,
    Mount,
    Namespace,
    Open,
    Quota,
    Random,
    Read,
    ReadLink,
    Remove,
    Rename,
    Run,
    Seek,
    SetLength,
    SetMode,
    SetOwner,
    SetTime,
    SetXattr,
    Share,
    Stat,
    Sync,
    TryLock,
    Verity,
    Write,
}

/// Makes a call, and makes it again for as long as a signal interrupts it.
pub(crate) fn call<T, E: Into<io::Error>>(
    kind: Call,
    mut make: impl FnMut() -> Result<T, E>,
) -> io::Result<T> {
    loop {
        match strike(kind).and_then(|()| make().map_err(E::into)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// As [`call`], for a read or write of up to `length` bytes, of which it may move fewer: `make` is told how many.
pub(crate) fn transfer<E: Into<io::Error>>(
    kind: Call,
    length: usize,
    mut make: impl FnMut(usize) -> Result<usize, E>,
) -> io::Result<usize> {
    call(kind, || make(shortened(kind, length)).map_err(E::into))
}

/// Where a call can be made to fail; for calls that a dependency makes. It makes one again that a signal interrupts.
#[inline]
pub(crate) fn point(kind: Call) -> io::Result<()> {
    strike(kind).or_else(|error| if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) })
}

#[inline]
fn strike(kind: Call) -> io::Result<()> {
    #[cfg(any(test, feature = "__fuzzing"))]
    fault::strike(kind)?;
    #[cfg(not(any(test, feature = "__fuzzing")))]
    let _ = kind;
    Ok(())
}

#[inline]
fn shortened(kind: Call, length: usize) -> usize {
    #[cfg(any(test, feature = "__fuzzing"))]
    return fault::shortened(kind, length);
    #[cfg(not(any(test, feature = "__fuzzing")))]
    {
        let _ = kind;
        length
    }
}
