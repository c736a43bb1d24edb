//! What a gateway tells, in words. `docs/METRICS.md` is written from here.

use minikafka_metrics::{Chapter, definitions};

definitions! { CLUSTER:
    gauge BROKERS "minikafka_cluster_brokers" ["state"] "Brokers. live: registered. away: in the chain of some range and not registered.";
    gauge RING_RANGES "minikafka_ring_ranges" ["ring", "state"] "Ranges of a ring. total; under_replicated: fewer live members than copies wanted; below_min: too few live members to take writes; pending: a change of the chain is under way; never_active: never had a chain.";
    gauge RANGE_UNDER_REPLICATED "minikafka_range_under_replicated" ["ring", "range"] "1 for a range with fewer live members than copies wanted, and no series for others; 50 at most.";
    gauge RANGE_BELOW_MIN "minikafka_range_below_min" ["ring", "range"] "1 for a range with too few live members to take writes, and no series for others; 50 at most.";
    gauge OPERATIONS "minikafka_operations_running" [] "Operations of the operator (drain, move, rebalance) that have not ended.";
    gauge TOPIC_INFO "minikafka_topic_info" ["topic", "topic_id", "ring"] "Number of partitions; gives names to the topic_id of brokers' metrics. 500 topics at most, by name.";
    gauge TOPICS "minikafka_topics" [] "Topics.";
}

definitions! { CONTROLLER:
    gauge ELECTED "minikafka_controller_elected" [] "1 on the gateway that is the controller.";
    gauge CONTROLLER_KNOWN "minikafka_controller_known" [] "1 while this gateway knows a controller, itself included.";
    counter ACTIONS "minikafka_controller_actions_total" ["action"] "What the controller did. seal, reconcile, activate, learn: messages to shards, each for many ranges. cas_won, cas_lost, cas_unknown: changes of a ring's record.";
    gauge ALERTS "minikafka_controller_alert_ranges" [] "Ranges that wait for a node or an operator; only the controller knows, others say 0.";
    gauge LEARNERS "minikafka_controller_learners" [] "Copies of ranges that are being filled; only the controller knows.";
}

definitions! { GROUPS:
    gauge GROUP_LAG "minikafka_group_lag_records" ["group", "topic"] "Records committed to the log and not by the group, over all partitions of the topic in which it ever committed. Told by the controller, which asks every ten seconds; the 200 pairs with the largest lag.";
    gauge GROUP_LAG_SECONDS "minikafka_group_lag_seconds" ["group", "topic"] "How old the oldest record is that the group has not committed, the worst partition of the topic: reckoned from where the partition ended at earlier rounds, so to about ten seconds; what is older than the controller's memory (about 20 minutes at most) counts as that old.";
    gauge GROUPS_SEEN "minikafka_groups" [] "Groups with a commit; only the controller knows.";
    gauge GROUP_ROUND_AGE "minikafka_group_lag_age_seconds" [] "Since the last round of questions that succeeded; no series on gateways that do not control.";
}

definitions! { GATEWAY:
    gauge GATEWAY_INFO "minikafka_gateway_info" ["version"] "1; which release this is.";
    counter CONNECTIONS "minikafka_gateway_connections_total" ["outcome"] "Connections on the native port: accepted; closed at once because there were too many (refused), for bytes that are no frame (malformed), because a deadline passed (too_slow).";
    counter REQUESTS "minikafka_gateway_requests_total" [] "Requests on the native port.";
    gauge COORDINATOR_CONNECTED "minikafka_gateway_coordinator_connected" [] "1 while the coordinator session works. Without it clients get the map as it was, and no chain changes.";
    counter COORDINATOR_SESSIONS "minikafka_gateway_coordinator_sessions_total" ["event"] "What became of coordinator sessions: started, suspended, expired.";
}

/// The chapters of the reference.
pub const CHAPTERS: [Chapter; 4] = [
    Chapter {
        title: "Gateway: cluster",
        about: "From the map, on every gateway alike; add up none of these over gateways, take the maximum.",
        definitions: CLUSTER,
    },
    Chapter { title: "Gateway: controller", about: "", definitions: CONTROLLER },
    Chapter {
        title: "Gateway: consumer groups",
        about: "A group's commits and a partition's end are at different brokers, so the lag is reckoned by the one process that looks at both.",
        definitions: GROUPS,
    },
    Chapter { title: "Gateway: itself", about: "", definitions: GATEWAY },
];
