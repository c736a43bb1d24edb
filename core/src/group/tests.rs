//! Coordinators and members together, over a network that delays, loses and repeats, with processes that die, freeze and
//! come back, and coordinators that follow each other: any order of events, drawn from a number.
//!
//! The simulator (`tests/sim`) does the same over chains that ship; here a release looks at hundreds of worlds a second (`PROPTEST_CASES=30000`).

mod world;

use proptest::prelude::*;
use proptest::test_runner::Config;
use world::World;

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    /// Nobody loses what it still reads without a cause, commits never go back, and a healed world shares fairly.
    #[test]
    fn a_group_keeps_its_promises_in_a_hostile_world(seed in any::<u64>()) {
        let mut world = World::new(seed);
        world.run(120_000);
        world.heal();
        world.run(30_000);
        world.check_shared_fairly();
    }
}
