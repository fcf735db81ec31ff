//! The whole public interface against a model of plain maps: random operations by two handles, by other processes, and
//! by processes that are killed in the middle. After each step everything that the store shows is compared.
//!
//! A few seconds here; `just model 500` runs more cases. A case that fails is shrunk, and its seed is kept in
//! `tests/model/regressions.txt`.

mod action;
mod compare;
mod images;
mod op;
mod predict;
mod process;
mod state;
mod world;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use self::world::World;
use crate::support::machine;

/// How many cases are run if nobody says otherwise.
const CASES: u32 = 12;

fn config() -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let default = ProptestConfig::default();
    let cases = if asked { default.cases } else { CASES };
    let regressions = FileFailurePersistence::Direct("tests/model/regressions.txt");
    ProptestConfig {
        cases,
        max_shrink_iters: 400,
        failure_persistence: Some(Box::new(regressions)),
        ..default
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_store_is_what_the_model_says(steps in op::steps(machine::is_root())) {
        let mut world = World::new();
        for step in &steps {
            world.step(step).map_err(TestCaseError::fail)?;
        }
        world.finish().map_err(TestCaseError::fail)?;
    }
}
