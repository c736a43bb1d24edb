// Package errorcode is the protocol's one table of errors (docs/PROTOCOL.md section 6, docs/GROUPS.md section 5): number,
// name, whether a client may try again, and one line of advice. The table is the same in every language.
package errorcode

import "strconv"

// Code is an error as it travels on the wire; 0 is none. It is an error itself, so that errors.Is(err, code) works.
type Code uint16

// The codes below 100 are retriable, the others are not.
const (
	None                   Code = 0
	NotOwner               Code = 1
	Stale                  Code = 2
	PartitionNotReady      Code = 3
	BeyondCommitted        Code = 4
	OutOfOrder             Code = 5
	Overloaded             Code = 6
	DiskFull               Code = 7
	BelowMinInSync         Code = 8
	ShuttingDown           Code = 9
	TimedOut               Code = 10
	CoordinatorUnavailable Code = 11
	NotController          Code = 12
	RangeFailed            Code = 13
	CorruptBatch           Code = 14
	UnknownPartition       Code = 15
	Throttled              Code = 16

	MalformedFrame     Code = 100
	UnknownAPI         Code = 101
	UnsupportedVersion Code = 102
	FrameTooLarge      Code = 103
	HelloRequired      Code = 104
	NotAuthorized      Code = 105
	WrongCluster       Code = 106
	Misdirected        Code = 107
	InvalidBatch       Code = 110
	RecordTooLarge     Code = 111
	BatchTooLarge      Code = 112
	UnknownTopic       Code = 120
	TopicExists        Code = 121
	InvalidTopicName   Code = 122
	InvalidArgument    Code = 123
	OffsetOutOfRange   Code = 124
	Moved              Code = 125
	Unsupported        Code = 126
	DuplicateSequence  Code = 130
	UnknownProducer    Code = 131
	ProducerFenced     Code = 132
	NotAssigned        Code = 133
	MemberFenced       Code = 134
	UnknownMember      Code = 135
	UnknownGroup       Code = 136
	GroupNotEmpty      Code = 137
	DataDamaged        Code = 140
	Internal           Code = 150
)

// retriableBelow is where the table's retriable part ends; a code of a newer release above it is not retriable.
const retriableBelow = 100

type description struct {
	name   string
	advice string
}

var table = map[Code]description{
	NotOwner:               {"not_owner", "This shard does not own the range: refresh the map and send to the owner it names."},
	Stale:                  {"stale", "The range has moved to another epoch: refresh the map and send again."},
	PartitionNotReady:      {"partition_not_ready", "The partition is being created: wait a little and send again."},
	BeyondCommitted:        {"beyond_committed", "The offset is not committed yet: ask again; do not reset the position."},
	OutOfOrder:             {"out_of_order", "An earlier batch of this producer has not arrived: send again from that batch on."},
	Overloaded:             {"overloaded", "The broker is at a limit: wait for retry_after_ms and send again."},
	DiskFull:               {"disk_full", "The broker's disk is nearly full: free space or shorten retention; writes resume by themselves."},
	BelowMinInSync:         {"below_min_in_sync", "Too few members of the chain are alive: bring a node back; writes resume by themselves."},
	ShuttingDown:           {"shutting_down", "The broker is stopping: refresh the map and connect again."},
	TimedOut:               {"timed_out", "The deadline passed with the outcome unknown: send again with the same sequence."},
	CoordinatorUnavailable: {"coordinator_unavailable", "The coordinator does not answer: produce and fetch go on; try the change again later."},
	NotController:          {"not_controller", "Another gateway is the controller: send to the one it names."},
	RangeFailed:            {"range_failed", "A durable write of this range failed, or entries of it are damaged: it is taken over, or waits for a restart or a repair; see the broker's log."},
	CorruptBatch:           {"corrupt_batch", "The batch body does not match its checksum: it was damaged on the way; send it again."},
	UnknownPartition:       {"unknown_partition", "The range does not hold this partition: refresh the topic and its partition count."},
	Throttled:              {"throttled", "The topic's produce quota of this shard is used up: wait for retry_after_ms and send again, or raise the quota."},
	MalformedFrame:         {"malformed_frame", "The bytes are not a frame of this protocol, or were damaged: the connection is closed; check the client."},
	UnknownAPI:             {"unknown_api", "This server does not know the request: upgrade the server or use an older client."},
	UnsupportedVersion:     {"unsupported_version", "No protocol version in common: upgrade the older side."},
	FrameTooLarge:          {"frame_too_large", "The frame is over the limit told in the hello: send smaller requests."},
	HelloRequired:          {"hello_required", "The first frame of a connection must be a hello."},
	NotAuthorized:          {"not_authorized", "This request needs a connection that proved the cluster secret: check --secret-file."},
	WrongCluster:           {"wrong_cluster", "The peer belongs to another cluster: check --coordinator and the data directory."},
	Misdirected:            {"misdirected", "This request belongs to the other kind of server: shards take data, gateways take topics and maps."},
	InvalidBatch:           {"invalid_batch", "The batch header or its columns contradict each other: fix the encoder; nothing was written."},
	RecordTooLarge:         {"record_too_large", "A record is over the limit told in the hello: split it or store it elsewhere."},
	BatchTooLarge:          {"batch_too_large", "The batch is over the topic's or the server's limit: send smaller batches."},
	UnknownTopic:           {"unknown_topic", "No topic of this name or id: create it, or check the spelling."},
	TopicExists:            {"topic_exists", "A topic of this name exists: choose another name or use it as it is."},
	InvalidTopicName:       {"invalid_topic_name", "Topic names are 1 to 249 letters, digits, '.', '_' or '-', and not '.' or '..'."},
	InvalidArgument:        {"invalid_argument", "A field is outside its range; the message names it."},
	OffsetOutOfRange:       {"offset_out_of_range", "The offset is below the log start or beyond the end: seek to earliest or latest."},
	Moved:                  {"moved", "Older offsets of this partition lie in the range that the reply names: fetch them there."},
	Unsupported:            {"unsupported", "This server cannot do that yet; the message says what it can."},
	DuplicateSequence:      {"duplicate_sequence", "The batch was stored before and its offset is no longer remembered: count it as stored."},
	UnknownProducer:        {"unknown_producer", "The broker has forgotten this producer: start again with a new producer id."},
	ProducerFenced:         {"producer_fenced", "A newer instance of this producer exists: stop this one."},
	NotAssigned:            {"not_assigned", "The partition does not belong to this member of the group: drop it; whoever has it commits."},
	MemberFenced:           {"member_fenced", "Another process uses this instance name: stop this one, or give it another name."},
	UnknownMember:          {"unknown_member", "The group does not know this member (any more): drop what it had, and join anew."},
	UnknownGroup:           {"unknown_group", "No group of this name: check the spelling."},
	GroupNotEmpty:          {"group_not_empty", "The group has members that own this: stop them first."},
	DataDamaged:            {"data_damaged", "The stored bytes are damaged, the broker's log names file and place: go on behind them, or repair from a neighbour or a backup."},
	Internal:               {"internal", "The server has a defect: its log has the details; please report it."},
}

// All lists every code that this release knows, in no particular order.
func All() []Code {
	codes := make([]Code, 0, len(table))
	for code := range table {
		codes = append(codes, code)
	}
	return codes
}

// Name is the name used in documentation, logs and metrics.
func (code Code) Name() string {
	if known, ok := table[code]; ok {
		return known.name
	}
	return "error_" + strconv.Itoa(int(code))
}

// Error makes a code an error, which it is for errors.Is.
func (code Code) Error() string { return code.Name() }

// Retriable tells whether the same request may succeed later. A code of a newer release is not retriable.
func (code Code) Retriable() bool {
	_, known := table[code]
	return known && code < retriableBelow
}

// Advice is one line that tells what to do.
func (code Code) Advice() string {
	if known, ok := table[code]; ok {
		return known.advice
	}
	return "This release does not know the error: upgrade the client."
}
