//! The comparison with other programs, `benches/peers`, runs by hand on a quiet machine. What it computes and writes is
//! tested here, where tests run.
#![allow(dead_code, unused_imports, reason = "the benchmark uses all of it")]

use crate::support::machine::repository;

#[path = "../benches/peers/figures.rs"]
mod figures;
#[path = "../benches/peers/measure.rs"]
mod measure;
#[path = "../benches/peers/plot.rs"]
mod plot;
#[path = "../benches/peers/report.rs"]
mod report;
#[path = "../benches/peers/results.rs"]
mod results;

/// The rest of the page is figures, which come from a machine that does nothing else.
#[test]
fn the_page_describes_how_it_is_measured_now() {
    let read = |name: &str| std::fs::read_to_string(repository().join(name)).unwrap();
    let (page, method) = (read("docs/performance.md"), read("benches/peers/method.md"));
    assert!(page.contains(method.trim()), "benches/peers.sh --report makes docs/performance.md anew");
}
