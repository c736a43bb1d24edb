//! Every bound in one place: queues, buffers, windows, frames, deadlines. Bytes and milliseconds are in the names.

/// Bytes of one batch body, as stored (compressed or not).
pub const BATCH_BODY_BYTES_MAX: u32 = 4 << 20;
/// Bytes of one batch body once decompressed; bounds what a reader must allocate.
pub const BATCH_UNCOMPRESSED_BYTES_MAX: u32 = 32 << 20;
/// Records in one batch.
pub const BATCH_RECORDS_MAX: u32 = 1 << 18;
/// Key, value and headers of one record together.
pub const RECORD_BYTES_MAX: u32 = 2 << 20;
/// Headers of one record.
pub const RECORD_HEADERS_MAX: u32 = 1024;

/// A batch of this size or more is received into, written from and forwarded from one buffer, never copied. Well below the
/// sizes that producers gather to, so that their nearly full batches count, too.
pub const UNCOPIED_BODY_BYTES_MIN: u32 = 128 << 10;
/// Small batches of a range log are coalesced into one flush of at most this size, headers included.
pub const FLUSH_BYTES_MAX: u32 = 1 << 20;
/// Bytes of flushes in flight per shard.
pub const FLUSH_IN_FLIGHT_BYTES_MAX: u32 = 16 << 20;
/// What a flush takes of these at least, however small it is: with many logs, fewer and larger flushes cost less. A log whose
/// flush finds no room gathers entries until it does (docs/decisions/0011-turns-of-logs.md).
pub const FLUSH_CHARGE_BYTES_MIN: u64 = 512 << 10;
/// Bytes appended to one range log but not yet durable; past it, producers of that range wait.
pub const UNDURABLE_BYTES_MAX: u32 = 8 << 20;
/// Indexes of entries and numbers of flushes: at one a nanosecond, enough for 292 years. What a disk or a peer says is held
/// to it, so that counting on from there never overflows.
pub const LOG_INDEX_MAX: u64 = i64::MAX as u64;
/// Direct I/O happens at multiples of this.
pub const BLOCK_BYTES: u32 = 4096;

/// Smallest segment file.
pub const SEGMENT_BYTES_MIN: u64 = 8 << 20;
/// Largest segment file.
pub const SEGMENT_BYTES_MAX: u64 = 256 << 20;
/// Segment files grow to this unless said otherwise. Large enough that footers cost little, small enough that files come
/// back for their next use soon, and that a start after a crash, which scans one a range, is short.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;
/// One read of a catch-up fetch.
pub const READ_BYTES_MAX: u32 = 1 << 20;
/// What is read ahead at once for a sequential reader.
pub const READ_AHEAD_CHUNK_BYTES: u32 = 2 << 20;
/// Chunks of one reader that may wait for it, the one being read included.
pub const READ_AHEAD_CHUNKS: usize = 2;
/// Memory of what is read ahead, all readers of a shard together.
pub const READ_AHEAD_BYTES_MAX: u64 = 32 << 20;
/// Two extents nearer than this are fetched by one read.
pub const READ_GAP_BYTES_MAX: u32 = 16 << 10;

/// Entries of one partition nearer than this in a flush share one extent of the index.
pub const EXTENT_GAP_BYTES_MAX: u32 = READ_GAP_BYTES_MAX;
/// Extents of one segment's index; past it, the log rolls.
pub const SEGMENT_EXTENTS_MAX: u32 = 1 << 17;
/// Flushes of one segment's index; past it, the log rolls.
pub const SEGMENT_FLUSHES_MAX: u32 = 1 << 16;
/// Dead bytes that are worth a hole in a sealed segment.
pub const FREED_RUN_BYTES_MIN: u64 = 64 << 10;
/// A sealed segment of which more and more dies is left alone for so long: dead as a whole it can be recycled, with holes it
/// cannot.
pub const PUNCH_PATIENCE_MS: i64 = 60_000;
/// Freed runs of one segment; past it, only its whole death frees more.
pub const FREED_RUNS_MAX: usize = 1024;
/// Dead bytes in the active segment that are worth ending it, when they are half of it.
pub const FREE_BY_ROLLING_BYTES_MIN: u64 = 1 << 20;
/// Snapshot of a range's state in a footer.
pub const SNAPSHOT_BYTES_MAX: u64 = 64 << 20;
/// Reads of one catch-up fetch in flight.
pub const READS_IN_FLIGHT_MAX: usize = 8;
/// Recently written flushes that a shard keeps for its readers.
pub const RECENT_BYTES_DEFAULT: u64 = 64 << 20;
/// Footers of sealed segments that a shard keeps loaded.
pub const FOOTER_CACHE_BYTES_DEFAULT: u64 = 16 << 20;
/// Zeros written at once into a segment file that is not in use yet.
pub const ZERO_AHEAD_BYTES: u64 = 1 << 20;
/// Files of the smallest size that a shard keeps ready, written ahead.
pub const SEGMENT_STOCK_FILES: usize = 8;
/// Segment files that a shard keeps for recycling.
pub const SEGMENT_POOL_BYTES_DEFAULT: u64 = 2 << 30;
/// One slot of a promise file; room for all ranges of ten rings.
pub const PROMISE_SLOT_BYTES_MAX: usize = 16 << 20;
/// Disk space that no new segment may take.
pub const DISK_RESERVE_BYTES_DEFAULT: u64 = 1 << 30;

/// Findings about one range or file that the inspection of a data directory lists; more are counted.
pub const INSPECT_FINDINGS_MAX: usize = 1_000;

/// Memory of a shard, split among receive buffers, flush buffers and recent data.
pub const SHARD_MEMORY_BYTES_DEFAULT: u64 = 256 << 20;

/// Message fields of a frame (everything but batch bodies and fetched entries).
pub const FRAME_HEAD_BYTES_MAX: u32 = 16 << 20;
/// Fields of one request a client may send to a shard, batch body excluded.
pub const REQUEST_HEAD_BYTES_MAX: u32 = 1 << 20;
/// Entry bytes of one fetch reply. One entry always fits.
pub const FETCH_BYTES_MAX: u32 = 16 << 20;
/// Partitions asked for by one fetch or list-offsets request.
pub const REQUEST_PARTITIONS_MAX: u32 = 10_000;
/// Longest wait of a produce request for its commit.
pub const PRODUCE_TIMEOUT_MS_MAX: u32 = 60_000;
/// Longest wait of a fetch.
pub const FETCH_WAIT_MS_MAX: u32 = 30_000;

/// Requests in flight on one connection; the broker stops reading past it.
pub const CONNECTION_IN_FLIGHT_MAX: u32 = 1024;
/// Request bytes in flight on one connection.
pub const CONNECTION_IN_FLIGHT_BYTES_MAX: u32 = 32 << 20;
/// Reply bytes queued on one connection; a client that does not read is not read from either.
pub const CONNECTION_REPLY_BYTES_MAX: u32 = 32 << 20;
/// Connections to one shard.
pub const CONNECTIONS_MAX: u32 = 10_000;
/// From accept to a complete hello.
pub const HELLO_DEADLINE_MS: u64 = 10_000;
/// From the first byte of a frame to its last.
pub const FRAME_DEADLINE_MS: u64 = 30_000;
/// Without any frame, a connection is closed.
pub const IDLE_DEADLINE_MS: u64 = 600_000;
/// A reply must leave within this.
pub const WRITE_DEADLINE_MS: u64 = 30_000;
/// After the last request of a connection, its replies must be ready and gone within this.
pub const FINISH_DEADLINE_MS: u64 = 5_000;
/// After an error that closes a connection, input is discarded for so long, so that the reply is not lost to a reset.
pub const LINGER_MS: u64 = 1_000;
/// Input discarded at most while lingering.
pub const LINGER_BYTES_MAX: u32 = 32 << 20;
/// Connection deadlines are looked at this often; it is also their precision.
pub const DEADLINE_SWEEP_MS: u64 = 500;
/// Head of a hello: anything longer is no hello.
pub const HELLO_HEAD_BYTES_MAX: u32 = 4 << 10;
/// Connections that the kernel completes and holds for a shard that is busy.
pub const LISTEN_BACKLOG: u32 = 1024;

/// A receive buffer to begin with.
pub const RECEIVE_BUFFER_BYTES_MIN: u32 = 16 << 10;
/// A receive buffer under load; only a single longer frame makes one larger.
pub const RECEIVE_BUFFER_BYTES_MAX: u32 = 256 << 10;
/// Receive buffers that a shard keeps for the next connection that needs one, and as many for what other members send.
pub const SPARE_BUFFERS_BYTES_MAX: u32 = 8 << 20;
/// Bytes that one connection handles before others of its shard get their turn.
pub const CONNECTION_TURN_BYTES_MAX: u32 = 1 << 20;
/// Lines that the connections of a shard may log per second; the rest is only counted.
pub const CONNECTION_LOG_LINES_PER_SECOND_MAX: u32 = 10;

/// Batches of one producer and partition that may be in flight, and whose outcome the broker remembers.
pub const PRODUCER_IN_FLIGHT_MAX: u32 = 8;
/// Producers remembered per partition; the least recently used is forgotten.
pub const PRODUCERS_PER_PARTITION_MAX: u32 = 1024;
/// Producers remembered per range.
pub const PRODUCERS_PER_RANGE_MAX: u32 = 16_384;

/// Letters of a group's name, and of a member's instance name.
pub const GROUP_NAME_BYTES_MAX: usize = 249;
/// Members of a group.
pub const GROUP_MEMBERS_MAX: usize = 1_024;
/// Groups of a range.
pub const GROUPS_PER_RANGE_MAX: usize = 10_000;
/// Partitions of a group: those its members subscribe to, and those it has commits of. A member that owns all of them says
/// so in one request.
pub const GROUP_PARTITIONS_MAX: usize = 65_536;
/// Topics that a member subscribes to.
pub const GROUP_TOPICS_MAX: usize = 4_096;
/// Partitions of one commit.
pub const COMMIT_PARTITIONS_MAX: usize = 10_000;
/// What a commit says besides its offset.
pub const COMMIT_METADATA_BYTES_MAX: usize = 256;
/// What the log keeps of a range's groups, as a snapshot has it.
pub const GROUPS_STATE_BYTES_MAX: u64 = 32 << 20;
/// What a coordinator knows of its members besides.
pub const GROUPS_MEMORY_BYTES_MAX: u64 = 64 << 20;
/// Requests about groups that wait in one range.
pub const GROUP_REQUESTS_WAITING_MAX: usize = 16_384;
/// Partitions whose owner changes by one entry; more take several.
pub const OWNERS_ENTRY_PARTITIONS_MAX: usize = 16_384;
/// Commits that go into one entry, in bytes, unless one request alone has more.
pub const COMMIT_ENTRY_BYTES_MAX: usize = 256 << 10;
/// Processes of a group whose instance name went to another one, that are remembered by its coordinator.
pub const FENCED_MEMBERS_REMEMBERED_MAX: usize = 1_024;
/// Members of a range's groups that left or were expelled, of which their coordinator remembers what it heard last.
pub const DEPARTED_MEMBERS_REMEMBERED_MAX: usize = 16_384;
/// Shortest time after which a silent member is expelled.
pub const SESSION_TIMEOUT_MS_MIN: u32 = 1_000;
/// The same unless its user says otherwise.
pub const SESSION_TIMEOUT_MS_DEFAULT: u32 = 10_000;
/// The same at most.
pub const SESSION_TIMEOUT_MS_MAX: u32 = 600_000;
/// Longest wait of a heartbeat for something new; never more than a third of its session time-out.
pub const HEARTBEAT_WAIT_MS_MAX: u32 = 3_000;
/// How long a member may keep a partition that it was asked to give back.
pub const REVOCATION_TIMEOUT_MS: u64 = 60_000;
/// Between two computations of who should have what.
pub const REBALANCE_PAUSE_MS: u64 = 50;
/// What a balanced assignment may cost: subscriptions looked at. Past it, what was reached counts: complete, but perhaps
/// not balanced among members of different subscriptions.
pub const ASSIGNMENT_WORK_MAX: usize = 4_000_000;
/// A group without members and without an entry for so long is deleted.
pub const GROUP_KEPT_MS: i64 = 7 * 24 * 3_600_000;
/// How often a coordinator looks for such groups.
pub const GROUP_EXPIRY_LOOK_MS: u64 = 60_000;
/// A coordinator that is not told of time for longer was not there: nobody is silent meanwhile.
pub const COORDINATOR_GAP_MS_MAX: u64 = 5 * TICK_MS;
/// Groups in one answer to a group-list, in bytes; the ranges that do not fit are asked for again.
pub const GROUP_LIST_BYTES_MAX: usize = 8 << 20;

/// Records that a consumer handed out and whose acknowledgement it waits for; then it hands out no others.
pub const ACKNOWLEDGEMENTS_OUTSTANDING_MAX: usize = 65_536;
/// Commits that an application asked for and that are not answered, of one consumer.
pub const COMMITS_WAITING_MAX: usize = 1_024;

/// Letters of a topic name.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;
/// Partitions of one topic.
pub const TOPIC_PARTITIONS_MAX: u32 = 10_000;
/// Bytes of any short text on the wire (names, addresses, versions).
pub const TEXT_BYTES_MAX: usize = 1024;
/// Ranges of a ring unless said otherwise; a power of two.
pub const RANGES_DEFAULT: u32 = 256;
/// Ranges of a ring at most.
pub const RANGES_MAX: u32 = 65_536;
/// Ranges that share one coordinator record, hence one compare-and-set.
pub const RANGES_PER_CHUNK: u32 = 256;
/// Members of a chain.
pub const CHAIN_MAX: usize = 7;
/// Stages that one hop of an explanation has; what comes beyond that is added to the last one of its kind.
pub const EXPLAIN_STAGES_MAX: usize = 16;
/// Entries of a range whose stages are watched at the same time, because who produced them asked; others are not told.
pub const EXPLAINED_ENTRIES_MAX: usize = 64;
/// Buckets among which topic records are spread in the coordinator.
pub const TOPIC_BUCKETS: u32 = 256;

/// Value of one coordinator key: below ZooKeeper's own limit of 1 MiB a packet.
pub const COORDINATOR_VALUE_BYTES_MAX: usize = 1_000_000;
/// Requests waiting in the embedded coordinator; past it, it answers `Unavailable`.
pub const COORDINATOR_REQUESTS_MAX: usize = 16_384;
/// Requests that share one durable write of the embedded coordinator.
pub const COORDINATOR_BATCH_MAX: usize = 256;
/// Changed paths that one listener may leave untaken before they collapse into "something below".
pub const COORDINATOR_EVENTS_MAX: usize = 1024;

/// Longest wait of the controller for seal replies, before it decides with those that came.
pub const SEAL_WAIT_MS: u64 = 2_000;
/// How often a member of a chain is told that time passes, in milliseconds; the machine counts these.
pub const TICK_MS: u64 = 100;
/// Ticks after which an idle stream gives a sign of life.
pub const HEARTBEAT_TICKS: u32 = 2;
/// Ticks after which a successor that acknowledges nothing of what was sent is complained about (R8).
pub const STALL_TICKS_MAX: u32 = 30;
/// Ticks without a word from a neighbour after which it is complained about (R8): several signs of life, and little enough
/// that a chain with a member that was cut off without a trace is changed within two seconds.
pub const SUSPICION_TICKS: u32 = 10;
/// Ticks without a word from chain or controller after which a member stops serving reads (R4).
pub const SILENCE_TICKS_MAX: u32 = 50;
/// Ticks after which a complaint is said again while its reason lasts: complaints are hints, and may be lost (R8).
pub const COMPLAINT_REPEAT_TICKS: u32 = SILENCE_TICKS_MAX;
/// Ticks between two attempts to open a stream or to ask a source again.
pub const PEER_RETRY_TICKS: u32 = 2;
/// Requests to a source that never answered after which a member that is to be reconciled says that it cannot reach it.
pub const COPY_REQUESTS_LOST_MAX: u32 = 2;
/// Most entries that a learner may lack of what its source knows to be committed when it is taken into the chain (R7).
pub const LEARN_GAP_MAX: u64 = 128;
/// How often a learner, and a member that is being reconciled, is asked how far it is.
pub const PROGRESS_POLL_MS: u64 = 200;
/// Ticks after which a member complains about a predecessor that it cannot reach, unless a new stream came (R8). About one
/// whose connection worked and broke it complains at once.
pub const LINK_LOST_TICKS: u32 = 2 * PEER_RETRY_TICKS;
/// Ticks after which a damaged member that could not be mended asks the others again.
pub const MEND_RETRY_TICKS: u32 = 20;
/// Ticks between two looks at a log in use of which everything that could be mended was.
pub const MEND_PAUSE_TICKS: u32 = 5;
/// What is read at once by who looks for damage.
pub const SCRUB_READ_BYTES: usize = 256 << 10;
/// What is read for that in a second, by each shard, unless said otherwise: 340 GB a day.
pub const SCRUB_BYTES_PER_SECOND: u64 = 4 << 20;
/// Ticks before it is looked again whether what no entries make up for can be mended after all.
pub const MEND_HOPELESS_TICKS: u32 = 6_000;
/// Ticks between two attempts to read lists of freed entries that the disk did not give at the start.
pub const SIDECAR_RETRY_TICKS: u32 = 300;
/// How long a fetch that met damage waits for it to be mended before it is answered `catching_up`.
pub const MEND_READ_WAIT_MS: u64 = 2_000;
/// Longest wait for one answer of another member while a log is mended.
pub const MEND_ANSWER_WAIT_MS: u64 = 1_000;
/// Copied entries that a sealed member remembers one by one, so that it goes on serving reads; past it, it stops (R4).
pub const COPIED_ENTRIES_TRACKED_MAX: usize = 16_384;
/// Repeated seals of one range that wait for the same report; past it, the oldest is refused.
pub const SEALS_WAITING_MAX: usize = 8;
/// How long a learner, or a member that is being reconciled, may answer nothing at all before it is given up.
pub const PROGRESS_SILENCE_MS: u64 = 5_000;
/// Changes made without a learner, because it did not promise, after which it is left out for a while.
pub const LEARNER_SEALS_MISSED_MAX: u32 = 2;
/// Longest wait for the seal replies of members that were complained about.
pub const SUSPECT_WAIT_MS: u64 = 250;
/// Most bytes of entries in one copy reply, unless one entry alone is longer.
pub const COPY_BYTES_MAX: usize = 1 << 20;
/// Most bytes sent to a successor and not acknowledged, for each range.
pub const STREAM_WINDOW_BYTES: u64 = 16 << 20;
/// What a message between members counts for besides its entries, so that many small ones have a bound, too.
pub const PEER_MESSAGE_CHARGE_BYTES: u64 = 256;
/// Messages from other members that wait for a range to take them: a stream's window, and what a copy brings.
pub const PEER_INBOX_BYTES_MAX: u64 = 2 * STREAM_WINDOW_BYTES;
/// Most bytes of entries in one message between members: what is read at once, or one entry alone.
pub const PEER_ENTRIES_BYTES_MAX: u32 = READ_BYTES_MAX + BATCH_BODY_BYTES_MAX;
/// Entries that wait to be sent on one link; behind them, ranges wait for room instead of reading more.
pub const LINK_ENTRIES_BYTES_MAX: usize = 16 << 20;
/// Everything that waits to be sent on one link; past it the link is dropped, and what it carried is lost.
pub const LINK_QUEUE_BYTES_MAX: usize = 2 * LINK_ENTRIES_BYTES_MAX;
/// Longest wait for a link to another shard, hello and proof included.
pub const LINK_OPEN_WAIT_MS: u64 = 1_000;
/// A link on which something waits and nothing leaves for so long is dropped.
pub const LINK_STALL_MS: u64 = 3_000;
/// How often links look for stalls.
pub const LINK_LOOK_MS: u64 = 500;
/// Memory of entries that came from other shards and are not appended yet, for each shard; behind it, links wait.
pub const PEER_BUDGET_BYTES: u64 = 64 << 20;
/// A complaint that reached no controller for so long is forgotten: by then the chain complains again, or does not have to.
pub const COMPLAINT_KEPT_MS: u64 = 10_000;
/// Complaints of a broker that wait for the controller; more are dropped.
pub const COMPLAINTS_WAITING_MAX: usize = 4 * COMPLAINTS_MAX;
/// Longest wait for the answer to complaints.
pub const COMPLAIN_WAIT_MS: u64 = 1_000;
/// Complaints in one message to the controller.
pub const COMPLAINTS_MAX: usize = 1_000;
/// Copy requests that a range answers at the same time; more are refused, and come again.
pub const COPIES_ANSWERED_MAX: usize = 8;
/// Longest wait for a learner's turn under a copy rate before its request is refused, and comes again: less than it waits
/// for an answer (`STALL_TICKS_MAX`).
pub const COPY_TURN_MS_MAX: u64 = 1_000;
/// Least that a copy rate can be, so that a hundred ranges get their turn before their learners look for other sources.
pub const COPY_BYTES_PER_SECOND_MIN: u64 = 1 << 20;
/// How long a member that was complained about again and again stays out of its chains at first; doubles.
pub const EJECT_MS_MIN: u64 = 10_000;
/// The same, at most.
pub const EJECT_MS_MAX: u64 = 600_000;
/// Longest wait for one answer to reconcile; it is asked again and again, and says how far it is.
pub const RECONCILE_ANSWER_WAIT_MS: u64 = 2_000;
/// Longest wait for one answer to learn.
pub const LEARN_ANSWER_WAIT_MS: u64 = 2_000;
/// Longest wait for reconcile replies, copying included; then the change starts over under a higher epoch.
pub const RECONCILE_WAIT_MS: u64 = 60_000;
/// Longest wait for activate replies; then they are sent again.
pub const ACTIVATE_WAIT_MS: u64 = 2_000;
/// Before the first retry of a change; doubles with each failure.
pub const CHANGE_RETRY_MS_MIN: u64 = 20;
/// Between retries of a change, at most.
pub const CHANGE_RETRY_MS_MAX: u64 = 5_000;
/// How long a change that another controller began meanwhile may take before it counts as orphaned.
pub const ORPHAN_WAIT_MS: u64 = 1_000;
/// Requests in flight on one connection to a gateway.
pub const GATEWAY_IN_FLIGHT_MAX: u32 = 64;
/// Topics that the controller creates or deletes at the same time; the others wait.
pub const TOPICS_IN_WORK_MAX: usize = 64;
/// Control entries in one message to a shard.
pub const CONTROL_ENTRIES_MAX: usize = 1_000;
/// Longest wait for the answer to control entries; then they are sent again, which does no harm.
pub const CONTROL_WAIT_MS: u64 = 10_000;
/// Longest wait for a connection to a shard, hello and proof included.
pub const SHARD_CONNECT_WAIT_MS: u64 = 1_000;
/// Before something that failed in the background is tried again; doubles with each failure.
pub const BACKGROUND_RETRY_MS_MIN: u64 = 20;
/// Between background retries, at most.
pub const BACKGROUND_RETRY_MS_MAX: u64 = 1_000;
/// How long a request about a topic waits unless it says how long.
pub const TOPIC_WAIT_MS_DEFAULT: u32 = 30_000;
/// Longest wait of a request about a topic.
pub const TOPIC_WAIT_MS_MAX: u32 = 600_000;
/// Ranges that one operation moves at the same time, unless it says how many: each copies as fast as it can, and foreground
/// traffic has to live beside it.
pub const MOVES_AT_ONCE_DEFAULT: u16 = 4;
/// Ranges that one operation moves at the same time, at most.
pub const MOVES_AT_ONCE_MAX: u16 = 256;
/// Moves that the record of one operation lists; what a drain needs beyond that is listed when these are done.
pub const OPERATION_MOVES_MAX: usize = 4_096;
/// Operations that are kept, ended ones included; the oldest ended ones make room for new ones.
pub const OPERATIONS_MAX: usize = 64;
/// Between two writes of how far an operation is.
pub const OPERATION_WRITE_MS: u64 = 1_000;
/// How long a drain waits for a node that it moves a range to before it chooses another.
pub const MOVE_TARGET_WAIT_MS: u64 = 30_000;
/// Longest wait for shards to tell how much ranges hold.
pub const MEASURE_WAIT_MS: u64 = 2_000;
/// How fast a range is reckoned to be copied when a plan says how long it takes; nothing is held to it.
pub const COPY_BYTES_PER_SECOND_ASSUMED: u64 = 50 << 20;
/// Connections to a gateway's HTTP port.
pub const HTTP_CONNECTIONS_MAX: u32 = 256;
/// From the head of an HTTP request to its answer.
pub const HTTP_REQUEST_DEADLINE_MS: u64 = 30_000;
/// Body of an HTTP request.
pub const HTTP_BODY_BYTES_MAX: usize = 64 << 10;
/// Body of a push over HTTP, base64 included.
pub const HTTP_PUSH_BYTES_MAX: usize = 1 << 20;
/// Longest wait of a pull over HTTP, below [`HTTP_REQUEST_DEADLINE_MS`].
pub const QUEUE_WAIT_MS_MAX: u64 = 20_000;
/// Longest lease of a record that was pulled over HTTP.
pub const QUEUE_LEASE_MS_MAX: u64 = 600_000;
/// Records that one gateway has out with a lease.
pub const QUEUE_LEASES_MAX: usize = 1_024;
/// Without a pull for so long, a gateway leaves the queue's group: others get what it would hold back.
pub const QUEUE_IDLE_MS: u64 = 10_000;
/// Ranges in one HTTP answer; the rest is asked for by number.
pub const HTTP_RANGES_MAX: u32 = 4_096;
/// How often retention looks at the partitions of a range, unless said otherwise.
pub const RETENTION_CHECK_MS: u64 = 10_000;
/// Log starts that retention appends to a range before it waits for their commit.
pub const RETENTION_ENTRIES_MAX: usize = 256;
/// Partitions that retention looks at before others of its shard get their turn.
pub const RETENTION_TURN_PARTITIONS_MAX: usize = 64;
/// Deleted topics that a head remembers, so that a message on its way does not open a partition of one again.
pub const DELETED_TOPICS_REMEMBERED_MAX: usize = 1024;
/// Longest wait that a throttled producer is told; then it asks again.
pub const THROTTLE_WAIT_MS_MAX: u32 = 2_000;
/// A connection that is over its quota looks this often whether it has ended or the shard stops.
pub const QUOTA_LOOK_MS: u64 = 100;
/// How long a resolve waits for the topics that it creates; then it answers with their state.
pub const AUTO_CREATE_WAIT_MS: u32 = 2_000;

const _: () = assert!(FLUSH_BYTES_MAX.is_multiple_of(BLOCK_BYTES) && UNCOPIED_BODY_BYTES_MIN < FLUSH_BYTES_MAX);
const _: () = assert!(HEARTBEAT_TICKS * 4 <= SUSPICION_TICKS && SUSPICION_TICKS < SILENCE_TICKS_MAX);
// 7 nodes of 10 digits, twice, and the words around them, in a record of a coordinator.
const _: () = assert!(OPERATION_MOVES_MAX * (2 * CHAIN_MAX * 11 + 80) < COORDINATOR_VALUE_BYTES_MAX);
// A footer has room for groups beside producers and partitions; a heartbeat for all of a group's partitions and topics.
const _: () = assert!(GROUPS_STATE_BYTES_MAX * 2 <= SNAPSHOT_BYTES_MAX);
const _: () = assert!(GROUP_PARTITIONS_MAX * 12 + GROUP_TOPICS_MAX * 12 + 4096 < REQUEST_HEAD_BYTES_MAX as usize);
const _: () = assert!(OWNERS_ENTRY_PARTITIONS_MAX * 12 < FLUSH_BYTES_MAX as usize);
const _: () = assert!(HEARTBEAT_WAIT_MS_MAX * 3 <= SESSION_TIMEOUT_MS_DEFAULT);
const _: () = assert!(RANGES_DEFAULT.is_power_of_two() && RANGES_PER_CHUNK.is_power_of_two());
const _: () = assert!(BATCH_BODY_BYTES_MAX < FETCH_BYTES_MAX && RECORD_BYTES_MAX < BATCH_BODY_BYTES_MAX);

/// Warnings and errors that one place in the code tells in a window; the others are counted, and the count is told.
pub const LOG_REPEATS_MAX: u32 = 10;
/// That window.
pub const LOG_WINDOW_MS: u64 = 10_000;

/// Topics that each shard counts by themselves, unless the operator says otherwise.
pub const METRIC_TOPICS_DEFAULT: u16 = 50;
/// Ranges of a shard that have metrics of their own.
pub const METRIC_RANGES_MAX: usize = 256;
/// Ranges with too few members that a gateway names.
pub const METRIC_TROUBLED_RANGES_MAX: usize = 50;
/// Groups whose lag a gateway asks for, and pairs of group and topic that it tells of.
pub const METRIC_GROUPS_MAX: usize = 200;
