//! The one table of wire errors: number, name, whether a client may try again, and one line of advice.

use std::fmt;

macro_rules! error_codes {
    ($($number:literal $variant:ident $name:literal $retriable:literal $advice:literal;)*) => {
        /// An error as it travels on the wire. The table is the same in every language.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum ErrorCode {
            $(#[doc = $advice] $variant = $number,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code of a number from the wire; unknown numbers are `None` and must be treated as not retriable.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The name used in documentation, logs and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whether the same request may succeed later, after a map refresh where the code says so.
            pub const fn is_retriable(self) -> bool {
                match self { $(Self::$variant => $retriable,)* }
            }

            /// One line that tells what to do.
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$variant => $advice,)* }
            }
        }
    };
}

error_codes! {
    1 NotOwner "not_owner" true "This shard does not own the range: refresh the map and send to the owner it names.";
    2 Stale "stale" true "The range has moved to another epoch: refresh the map and send again.";
    3 PartitionNotReady "partition_not_ready" true "The partition is being created: wait a little and send again.";
    4 BeyondCommitted "beyond_committed" true "The offset is not committed yet: ask again; do not reset the position.";
    5 OutOfOrder "out_of_order" true "An earlier batch of this producer has not arrived: send again from that batch on.";
    6 Overloaded "overloaded" true "The broker is at a limit: wait for retry_after_ms and send again.";
    7 DiskFull "disk_full" true "The broker's disk is nearly full: free space or shorten retention; writes resume by themselves.";
    8 BelowMinInSync "below_min_in_sync" true "Too few members of the chain are alive: bring a node back; writes resume by themselves.";
    9 ShuttingDown "shutting_down" true "The broker is stopping: refresh the map and connect again.";
    10 TimedOut "timed_out" true "The deadline passed with the outcome unknown: send again with the same sequence.";
    11 CoordinatorUnavailable "coordinator_unavailable" true "The coordinator does not answer: produce and fetch go on; try the change again later.";
    12 NotController "not_controller" true "Another gateway is the controller: send to the one it names.";
    13 RangeFailed "range_failed" true "A durable write of this range failed, or entries of it are damaged: it is taken over, or waits for a restart or a repair; see the broker's log.";
    14 CorruptBatch "corrupt_batch" true "The batch body does not match its checksum: it was damaged on the way; send it again.";
    15 UnknownPartition "unknown_partition" true "The range does not hold this partition: refresh the topic and its partition count.";
    16 Throttled "throttled" true "The topic's produce quota of this shard is used up: wait for retry_after_ms and send again, or raise the quota.";
    17 CatchingUp "catching_up" true "The member is copying what it lacks: ask again; the reply tells how far it is.";

    100 MalformedFrame "malformed_frame" false "The bytes are not a frame of this protocol, or were damaged: the connection is closed; check the client.";
    101 UnknownApi "unknown_api" false "This server does not know the request: upgrade the server or use an older client.";
    102 UnsupportedVersion "unsupported_version" false "No protocol version in common: upgrade the older side.";
    103 FrameTooLarge "frame_too_large" false "The frame is over the limit told in the hello: send smaller requests.";
    104 HelloRequired "hello_required" false "The first frame of a connection must be a hello.";
    105 NotAuthorized "not_authorized" false "This request needs a connection that proved the cluster secret: check --secret-file.";
    106 WrongCluster "wrong_cluster" false "The peer belongs to another cluster: check --coordinator and the data directory.";
    107 Misdirected "misdirected" false "This request belongs to the other kind of server: shards take data, gateways take topics and maps.";
    110 InvalidBatch "invalid_batch" false "The batch header or its columns contradict each other: fix the encoder; nothing was written.";
    111 RecordTooLarge "record_too_large" false "A record is over the limit told in the hello: split it or store it elsewhere.";
    112 BatchTooLarge "batch_too_large" false "The batch is over the topic's or the server's limit: send smaller batches.";
    120 UnknownTopic "unknown_topic" false "No topic of this name or id: create it, or check the spelling.";
    121 TopicExists "topic_exists" false "A topic of this name exists: choose another name or use it as it is.";
    122 InvalidTopicName "invalid_topic_name" false "Topic names are 1 to 249 letters, digits, '.', '_' or '-', and not '.' or '..'.";
    123 InvalidArgument "invalid_argument" false "A field is outside its range; the message names it.";
    124 OffsetOutOfRange "offset_out_of_range" false "The offset is below the log start or beyond the end: seek to earliest or latest.";
    125 Moved "moved" false "Older offsets of this partition lie in the range that the reply names: fetch them there.";
    126 Unsupported "unsupported" false "This server cannot do that yet; the message says what it can.";
    130 DuplicateSequence "duplicate_sequence" false "The batch was stored before and its offset is no longer remembered: count it as stored.";
    131 UnknownProducer "unknown_producer" false "The broker has forgotten this producer: start again with a new producer id.";
    132 ProducerFenced "producer_fenced" false "A newer instance of this producer exists: stop this one.";
    133 NotAssigned "not_assigned" false "The partition does not belong to this member of the group: drop it; whoever has it commits.";
    134 MemberFenced "member_fenced" false "Another process uses this instance name: stop this one, or give it another name.";
    135 UnknownMember "unknown_member" false "The group does not know this member (any more): drop what it had, and join anew.";
    136 UnknownGroup "unknown_group" false "No group of this name: check the spelling.";
    137 GroupNotEmpty "group_not_empty" false "The group has members that own this: stop them first.";
    140 DataDamaged "data_damaged" false "The stored bytes are damaged, the broker's log names file and place: go on behind them, or repair from a neighbour or a backup.";
    150 Internal "internal" false "The server has a defect: its log has the details; please report it.";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_retriable_ones_are_below_100() {
        for &code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(code as u16), Some(code));
            assert_eq!(code.is_retriable(), (code as u16) < 100, "{code}");
            assert!(!code.advice().is_empty());
        }
        assert_eq!(ErrorCode::from_number(0), None);
    }
}
