//! What a broker tells, in words. `docs/METRICS.md` is written from here.

use minikafka_metrics::{Chapter, definitions};

definitions! { THROUGHPUT:
    counter PRODUCE_RECORDS "minikafka_produce_records_total" ["shard"] "Records acknowledged to producers.";
    counter PRODUCE_BYTES "minikafka_produce_bytes_total" ["shard"] "Batch body bytes acknowledged to producers, as produced (compressed).";
    counter FETCH_RECORDS "minikafka_fetch_records_total" ["shard"] "Records in batches sent to consumers.";
    counter FETCH_BYTES "minikafka_fetch_bytes_total" ["shard"] "Entry bytes sent to consumers, as stored.";
    counter REPLICATE_RECORDS "minikafka_replicate_records_total" ["shard"] "Records that came from other members of their chains, copies included.";
    counter REPLICATE_BYTES "minikafka_replicate_bytes_total" ["shard"] "Batch body bytes of them.";
    counter TOPIC_PRODUCE_RECORDS "minikafka_topic_produce_records_total" ["topic_id"] "Records acknowledged, by topic. Each shard gives a series to the topics it serves first (50 unless --metrics-topics says otherwise), the others share topic_id=\"other\". The gateway's minikafka_topic_info tells names.";
    counter TOPIC_PRODUCE_BYTES "minikafka_topic_produce_bytes_total" ["topic_id"] "Batch body bytes acknowledged, by topic; series as above.";
    counter TOPIC_FETCH_BYTES "minikafka_topic_fetch_bytes_total" ["topic_id"] "Entry bytes sent to consumers, by topic; series as above.";
    counter NETWORK_BYTES "minikafka_network_bytes_total" ["direction"] "Bytes on the connections that others opened to the shards, received and sent: clients, other members, controllers.";
}

definitions! { LATENCY:
    histogram PRODUCE "minikafka_produce_seconds" [] "A produce request from its head being read until its answer is queued; of all whose body was good, whatever the answer.";
    histogram PRODUCE_STAGE "minikafka_produce_stage_seconds" ["stage"] "Stages of a batch. receive: until its body is in memory, waiting for memory included. checksum: checking body and columns. durable: from the append until it is on stable storage here, on every member of its chain. successor: from the append until the successor acknowledged it, on every member that has one; it goes on at the same time as durable. reply: from the first queued reply of a connection until its queue has left, fetches included.";
    histogram FETCH "minikafka_fetch_seconds" [] "A fetch request from its arrival until its reply is queued, the wait for new records included.";
    histogram FETCH_STAGE "minikafka_fetch_stage_seconds" ["stage"] "Stages of a fetch. memory: waiting for its part of the fetch budget. read: reading entries from memory or disk. wait: waiting for new records, as its client asked for. room: waiting until the client took earlier replies.";
}

definitions! { WAITING:
    gauge REQUESTS_WAITING "minikafka_requests_waiting" [] "Requests that wait for a commit or for a change of a chain.";
    gauge BUDGET_USED "minikafka_budget_used_bytes" ["budget"] "Memory taken by batches being produced, by fetches until they have left, and by entries from other members until they are appended.";
    gauge BUDGET_LIMIT "minikafka_budget_limit_bytes" ["budget"] "Most that each of these budgets gives out.";
    gauge APPEND_BACKLOG "minikafka_append_backlog_bytes" [] "Bytes appended and not written yet.";
    counter WINDOW_STALLS "minikafka_window_stalls_total" ["window"] "How often a connection was not read for a while. requests: too many of its requests are in flight. replies: its peer does not read its replies. quota: its produce quota is used up.";
    gauge CONNECTIONS "minikafka_connections" ["shard"] "Connections open.";
    counter CONNECTIONS_TOTAL "minikafka_connections_total" ["outcome"] "Connections taken (accepted), sent away because there were too many (refused), failed to accept (failed), and ended in the middle of something (broken).";
    counter DEADLINES "minikafka_deadlines_total" ["deadline"] "Connections ended because a deadline passed.";
    counter REQUESTS "minikafka_requests_total" [] "Well-formed frames received.";
    counter ERRORS "minikafka_errors_total" ["code"] "Error replies, by code (docs/PROTOCOL.md). not_owner, stale and their like are part of every change of a chain; range_failed, data_damaged and corrupt_batch are not.";
    counter PRODUCE_THROTTLED "minikafka_produce_throttled_total" [] "Batches refused because their topic's quota is used up.";
    counter PRODUCE_TIMEOUTS "minikafka_produce_timeouts_total" [] "Produce requests answered timed_out because their commit did not come in time.";
    counter GROUP_HEARTBEATS "minikafka_group_heartbeats_total" [] "Heartbeats of members of consumer groups.";
    counter GROUP_COMMITS "minikafka_group_commits_total" [] "Commits of consumer groups.";
}

definitions! { CHAINS:
    gauge RANGES "minikafka_ranges" ["role"] "Ranges open here, by what this node is to them: head, middle, tail or alone in a chain that acts; learning; changing, between seal and activate; idle; failed after a failed durable write.";
    gauge RANGE_EPOCH "minikafka_range_epoch" ["ring", "range"] "Highest epoch promised for a range. Of the ranges that hold something, 256 at most.";
    gauge RANGE_ROLE "minikafka_range_role" ["ring", "range", "role"] "1 for what this node is to a range, in the words of minikafka_ranges; of the same ranges.";
    gauge RANGE_LAG "minikafka_range_member_lag_entries" ["ring", "range"] "Entries appended here and not acknowledged by the successor; of the same ranges, where this node has a successor.";
    gauge LARGEST_LAG "minikafka_member_lag_entries" ["shard"] "The largest of these over all ranges of a shard, those without a series included.";
    gauge LARGEST_LAG_SECONDS "minikafka_member_lag_seconds" ["shard"] "For how long the oldest entry waits that a successor has not acknowledged, over all ranges of a shard.";
    counter CHANGES "minikafka_chain_changes_total" [] "Epochs promised here: changes of chains in which this node was asked.";
    counter COMPLAINTS "minikafka_complaints_total" ["reason"] "Complaints about neighbours, and about itself, left for the controller.";
    counter LINKS_LOST "minikafka_links_lost_total" [] "Links to other members that ended.";
}

definitions! { DISK:
    gauge LOG_BYTES "minikafka_log_bytes" ["what"] "What the logs take. entries: live, or dead and not freed. files: sizes of the segment files, holes included. holes: freed inside them.";
    gauge SEGMENTS "minikafka_segments" [] "Segment files in logs.";
    gauge POOL_BYTES "minikafka_pool_bytes" [] "Segment files waiting for their next use.";
    counter SEGMENTS_TAKEN "minikafka_segments_taken_total" ["source"] "Segment files that logs took: recycled ones, and new ones because none was there.";
    counter FREED_BYTES "minikafka_freed_bytes_total" ["how"] "Space given back: segments dropped whole, holes punched into others.";
    counter LOG_STARTS_MOVED "minikafka_log_starts_moved_total" [] "Log starts that retention moved.";
    counter RETENTION_FAILURES "minikafka_retention_failures_total" [] "Rounds of retention that failed for a range.";
    gauge DISK_FREE "minikafka_disk_free_bytes" [] "Free on the file system of the data directory, for this process.";
    gauge DISK_SIZE "minikafka_disk_size_bytes" [] "Size of that file system.";
    counter DURABLE_WRITE_ERRORS "minikafka_durable_write_errors_total" [] "Durable writes that failed. Such a range acknowledges nothing more here until the process is started again.";
    counter SCRUBBED_BYTES "minikafka_scrubbed_bytes_total" [] "Entry bytes read only to see whether they can be.";
    gauge DAMAGED_ENTRIES "minikafka_damaged_entries" [] "Entries that were durable here and cannot be read: rot that is not mended.";
    gauge DAMAGED_RANGES "minikafka_damaged_ranges" [] "Ranges with rot that is not mended, entries or not.";
    counter MENDED_ENTRIES "minikafka_mended_entries_total" [] "Entries that had rotted and were copied from another member.";
    counter MENDED_BYTES "minikafka_mended_bytes_total" [] "Bytes copied from other members to mend rot.";
    counter DAMAGED_READS "minikafka_damaged_reads_total" [] "Partitions of fetches answered data_damaged.";
}

definitions! { PROCESS_STATE:
    gauge BROKER_INFO "minikafka_broker_info" ["node", "rack", "version"] "1; who this is.";
    gauge SHARDS "minikafka_shards" [] "Shards of this node.";
    gauge SHARDS_SILENT "minikafka_shards_silent" [] "Shards that did not tell their figures within a second, which are missing above then.";
    histogram LOOP_DELAY "minikafka_event_loop_delay_seconds" [] "How much later than asked for a shard's timer of 20 ms fired: how long its event loop kept others waiting.";
    counter LOOP_STALLS "minikafka_event_loop_stalls_total" ["shard"] "How often that was 100 ms and more.";
    gauge COORDINATOR_CONNECTED "minikafka_coordinator_connected" [] "1 while the coordinator session works. Without it data goes on, but chains do not change.";
    counter COORDINATOR_SESSIONS "minikafka_coordinator_sessions_total" ["event"] "What became of coordinator sessions: started, suspended, expired.";
}

/// The chapters of the reference.
pub const CHAPTERS: [Chapter; 6] = [
    Chapter {
        title: "Broker: throughput",
        about: "Bytes of batches are counted as they are on the wire and on disk; nothing is decompressed to be counted.",
        definitions: THROUGHPUT,
    },
    Chapter {
        title: "Broker: latency",
        about: "Durations are measured by the broker; what the network and a client's own queue take is not in them.",
        definitions: LATENCY,
    },
    Chapter {
        title: "Broker: requests and what waits",
        about: "Every queue has a bound; these tell how near it is.",
        definitions: WAITING,
    },
    Chapter {
        title: "Broker: chains",
        about: "What this node knows of its ranges. Which chains are too short, only gateways know.",
        definitions: CHAINS,
    },
    Chapter { title: "Broker: disk", about: "Sizes are of all shards together.", definitions: DISK },
    Chapter { title: "Broker: process", about: "", definitions: PROCESS_STATE },
];
