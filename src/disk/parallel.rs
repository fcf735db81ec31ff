//! Many independent pieces of work on all processors.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};

use crate::sys::thread::start;
use crate::timing::{self, Stage};

/// How many threads are worth having for `items` pieces of work, if one thread does not mind `each` of them.
pub(crate) fn workers(items: usize, each: usize) -> usize {
    match items.div_ceil(each) {
        few @ ..=1 => few,
        many => many.min(processors()),
    }
}

/// How many processors this process may use. It asks once, and not before it has to: that takes two dozen system calls.
pub(crate) fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| thread::available_parallelism().map_or(1, usize::from))
}

/// Runs `work` on up to `workers` threads at once, the calling one included, until all have ended.
pub(crate) fn together(workers: usize, work: impl Fn() + Sync) {
    thread::scope(|scope| {
        // Fewer do as well, where a limit of processes refuses more.
        let spawned: Vec<_> = (1..workers).map_while(|_| start(scope, "worker", &work).ok()).collect();
        work();
        for helper in spawned {
            join(helper);
        }
    });
}

/// Waits for a thread, and goes on with its panic.
fn join<T>(helper: ScopedJoinHandle<'_, T>) -> T {
    let ended = timing::spanned(Stage::QueueWait, || helper.join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Runs `work` for each item on up to `workers` threads, the calling one included; the results are in the order of the
/// items. `scratch` makes what each thread has for itself, such as a buffer.
///
/// Returns the first error; the other threads stop at their next item.
pub(crate) fn each<T: Sync, S, R: Send, E: Send>(
    items: &[T],
    workers: usize,
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    each_beside(items, workers, scratch, work, || Ok(())).map(|((), results)| results)
}

/// The same, and the calling thread does `first` before it takes part in the work.
pub(crate) fn each_beside<T: Sync, S, R: Send, E: Send, F>(
    items: &[T],
    workers: usize,
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &T) -> Result<R, E> + Sync,
    first: impl FnOnce() -> Result<F, E>,
) -> Result<(F, Vec<R>), E> {
    let next = AtomicUsize::new(0);
    let stop = || next.store(items.len(), Ordering::Relaxed);
    let run = || -> Result<Vec<(usize, R)>, E> {
        let (mut own, mut results) = (scratch(), Vec::new());
        loop {
            let position = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(position) else { return Ok(results) };
            results.push((position, work(&mut own, item).inspect_err(|_| stop())?));
        }
    };
    let helpers = workers.min(items.len()).saturating_sub(1);
    let (first, results) = thread::scope(|scope| {
        // Fewer do as well, where a limit of processes refuses more.
        let spawned: Vec<_> = (0..helpers).map_while(|_| start(scope, "worker", run).ok()).collect();
        let first = first().inspect_err(|_| stop());
        let own = run();
        let all: Vec<_> = std::iter::once(own).chain(spawned.into_iter().map(join)).collect();
        (first, all)
    });
    let first = first?;
    let mut all = Vec::with_capacity(items.len());
    for result in results {
        all.extend(result?);
    }
    all.sort_unstable_by_key(|(position, _)| *position);
    Ok((first, all.into_iter().map(|(_, result)| result).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_have_the_order_of_the_items() {
        let items: Vec<u32> = (0..100).collect();
        let doubled = each(&items, 4, || (), |(), item| Ok::<_, ()>(item * 2));
        assert_eq!(doubled.unwrap(), items.iter().map(|item| item * 2).collect::<Vec<_>>());
    }

    #[test]
    fn all_have_ended_in_the_end() {
        let (begun, ended) = (std::sync::Barrier::new(3), AtomicUsize::new(0));
        together(3, || {
            begun.wait();
            ended.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ended.into_inner(), 3);
    }

    #[test]
    fn an_error_stops_all() {
        let items: Vec<u32> = (0..100).collect();
        let failed = each(&items, 4, || (), |(), item| if *item == 7 { Err(*item) } else { Ok(()) });
        assert_eq!(failed, Err(7));
    }

    #[test]
    fn what_comes_first_is_done_beside_the_work_and_its_error_stops_all() {
        let items: Vec<u32> = (0..100).collect();
        let (said, heard) = std::sync::mpsc::channel();
        let work = |_: &mut (), item: &u32| {
            said.send(()).unwrap();
            Ok::<_, &str>(*item)
        };
        let first = || Ok(heard.recv_timeout(std::time::Duration::from_secs(60)).is_ok());
        assert_eq!(each_beside(&items, 2, || (), work, first), Ok((true, items.clone())));
        let done = AtomicUsize::new(0);
        let count = |_: &mut (), _: &u32| Ok(done.fetch_add(1, Ordering::Relaxed));
        assert_eq!(each_beside(&items, 1, || (), count, || Err::<(), _>("first")), Err("first"));
        assert_eq!(done.into_inner(), 0);
    }
}
