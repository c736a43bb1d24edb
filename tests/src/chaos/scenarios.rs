//! Every scenario, in order of what it would cost to be wrong.

use super::Scenario;

mod changes;
mod coordinator;
mod cuts;
mod disks;
mod freezes;
mod growth;
mod kills;

/// All of them.
pub fn all() -> &'static [Scenario] {
    &ALL
}

static ALL: [Scenario; 29] = [
    kills::EACH,
    kills::ALL_AT_ONCE,
    kills::TWO_AND_A_DISK,
    disks::ROT_ONE,
    disks::ROT_ALL,
    freezes::HEAD,
    changes::ROLLING_RESTART,
    changes::ROLLING_RESTART_DRAINED,
    cuts::FROM_PEERS,
    cuts::FROM_PEERS_THEN_KILLED,
    cuts::FROM_ZOOKEEPER,
    cuts::FROM_CLIENTS,
    cuts::TO_SUCCESSOR,
    cuts::FROM_SUCCESSOR,
    cuts::PARTIAL,
    cuts::HEAD_FROM_ALL,
    coordinator::ZOOKEEPER_DOWN,
    coordinator::GATEWAY_KILLED,
    coordinator::ALL_GATEWAYS_KILLED,
    coordinator::TWO_CONTROLLERS,
    freezes::FLAPPING,
    changes::DUPLICATE_NODE,
    cuts::SLOW_LINK,
    disks::SLOW_DISK,
    disks::FULL_DISK,
    changes::WIPED_DISK,
    growth::NODE_ADDED,
    growth::NODE_ADDED_AMID_DEATHS,
    kills::AT_RANDOM,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_differ_and_every_scenario_is_documented() {
        let names: BTreeSet<_> = all().iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), all().len());
        let path = crate::source::repository().join("docs/CHAOS.md");
        let text = std::fs::read_to_string(&path).expect("docs/CHAOS.md is there");
        for name in names {
            assert!(text.contains(&format!("`{name}`")), "docs/CHAOS.md does not tell of {name}");
        }
    }
}
