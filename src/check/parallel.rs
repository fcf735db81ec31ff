//! Many independent checks on all processors.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::error::Error;

/// Runs `check` for each item on up to `workers` threads; the results are in the order of the items.
///
/// Returns the first error; the others stop at their next item.
pub(super) fn each<T: Sync, R: Send>(
    items: &[T],
    workers: usize,
    check: impl Fn(&T) -> Result<R, Error> + Sync,
) -> Result<Vec<R>, Error> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, R)>, Error> {
        let mut results = Vec::new();
        loop {
            let position = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(position) else { return Ok(results) };
            match check(item) {
                Ok(result) => results.push((position, result)),
                Err(error) => {
                    next.store(items.len(), Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
    };
    let helpers = workers.min(items.len()).saturating_sub(1);
    let results: Vec<_> = thread::scope(|scope| {
        let spawned: Vec<_> =
            (0..helpers).filter_map(|_| thread::Builder::new().spawn_scoped(scope, work).ok()).collect();
        let own = work();
        let joined = spawned
            .into_iter()
            .map(|helper| helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        std::iter::once(own).chain(joined).collect()
    });
    let mut all = Vec::with_capacity(items.len());
    for result in results {
        all.extend(result?);
    }
    all.sort_unstable_by_key(|(position, _)| *position);
    Ok(all.into_iter().map(|(_, result)| result).collect())
}
