package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"reflect"
	"runtime"
	"sort"
	"testing"

	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/vectors"
)

type vectorFrame struct {
	Name        string
	API         uint16
	Version     uint8
	Correlation uint64
	IsReply     bool `json:"is_reply"`
	Explain     bool
	Error       uint16
	Fields      json.RawMessage
	Head        vectors.Hex
	BulkBytes   uint32 `json:"bulk_bytes"`
	Frame       vectors.Hex
	Message     string
}

type vectorFile struct {
	Frames          []vectorFrame
	MalformedFrames []malformed `json:"malformed_frames"`
	MalformedHeads  []malformed `json:"malformed_heads"`
}

type malformed struct {
	Name, Message, Error string
	Frame, Head          vectors.Hex
}

func loadFrames(t testing.TB) (file vectorFile) {
	vectors.Load(t, "frames", &file)
	return file
}

type message interface{ AppendTo([]byte) []byte }

// decoded makes a decoder's result a message.
func decoded[T any, P interface {
	*T
	message
}](decode func([]byte) (T, error)) func([]byte) (message, error) {
	return func(head []byte) (message, error) {
		m, err := decode(head)
		return P(&m), err
	}
}

// decoders has every message that a client exchanges, by the name of its vector.
var decoders = map[string]func([]byte) (message, error){
	"hello":                 decoded[Hello](DecodeHello),
	"hello_reply":           decoded[HelloReply](DecodeHelloReply),
	"produce":               decoded[ProduceRequest](DecodeProduceRequest),
	"produce_reply":         decoded[ProduceReply](DecodeProduceReply),
	"fetch":                 decoded[FetchRequest](DecodeFetchRequest),
	"fetch_reply":           decoded[FetchReply](DecodeFetchReply),
	"produce_explain":       decoded[ProduceRequest](DecodeProduceRequest),
	"produce_explained":     decoded[ProduceExplained](DecodeProduceExplained),
	"fetch_explain":         decoded[FetchRequest](DecodeFetchRequest),
	"fetch_explained":       decoded[FetchExplained](DecodeFetchExplained),
	"list_offsets":          decoded[ListOffsetsRequest](DecodeListOffsetsRequest),
	"list_offsets_reply":    decoded[PartitionOffsetsReply](DecodePartitionOffsetsReply),
	"delete_records":        decoded[DeleteRecordsRequest](DecodeDeleteRecordsRequest),
	"delete_records_reply":  decoded[PartitionOffsetsReply](DecodePartitionOffsetsReply),
	"resolve":               decoded[ResolveRequest](DecodeResolveRequest),
	"resolve_reply":         decoded[ResolveReply](DecodeResolveReply),
	"create_topic":          decoded[CreateTopicRequest](DecodeCreateTopicRequest),
	"create_topic_reply":    decoded[TopicDescription](DecodeTopicDescription),
	"delete_topic":          decoded[DeleteTopicRequest](DecodeDeleteTopicRequest),
	"alter_topic":           decoded[AlterTopicRequest](DecodeAlterTopicRequest),
	"error_reply":           decoded[ErrorReply](DecodeErrorReply),
	"group_heartbeat":       decoded[HeartbeatRequest](DecodeHeartbeatRequest),
	"group_heartbeat_reply": decoded[HeartbeatReply](DecodeHeartbeatReply),
	"group_commit":          decoded[CommitRequest](DecodeCommitRequest),
	"group_commit_reply":    decoded[CommitReply](DecodeCommitReply),
	"group_offsets":         decoded[GroupOffsetsRequest](DecodeGroupOffsetsRequest),
	"group_offsets_reply":   decoded[GroupOffsetsReply](DecodeGroupOffsetsReply),
	"group_describe":        decoded[GroupRequest](DecodeGroupRequest),
	"group_describe_reply":  decoded[GroupDescription](DecodeGroupDescription),
	"group_list":            decoded[GroupListRequest](DecodeGroupListRequest),
	"group_list_reply":      decoded[GroupListReply](DecodeGroupListReply),
	"group_delete":          decoded[GroupRequest](DecodeGroupRequest),

	"group_heartbeat_leave":  decoded[HeartbeatRequest](DecodeHeartbeatRequest),
	"group_heartbeat_fenced": decoded[ErrorReply](DecodeErrorReply),
	"group_offsets_all":      decoded[GroupOffsetsRequest](DecodeGroupOffsetsRequest),
}

func (vector *vectorFrame) header() FrameHeader {
	return FrameHeader{
		API: API(vector.API), Version: vector.Version, IsReply: vector.IsReply, Explain: vector.Explain, Correlation: vector.Correlation,
		Error: errorcode.Code(vector.Error),
	}
}

// Every frame is read and written, also those whose messages only peers and controllers exchange.
func TestGoldenFrames(t *testing.T) {
	for _, vector := range loadFrames(t).Frames {
		header, err := DecodeFrameHeader(vector.Frame, ReplyLimits)
		if err != nil {
			t.Errorf("%s: %v", vector.Name, err)
			continue
		}
		if err := header.Verify(vector.Frame[:FrameHeaderBytes], vector.Head); err != nil {
			t.Errorf("%s: %v", vector.Name, err)
		}
		expected := vector.header()
		expected.HeadBytes, expected.BulkBytes, expected.crc = uint32(len(vector.Head)), vector.BulkBytes, header.crc
		if header != expected {
			t.Errorf("%s: %+v, want %+v", vector.Name, header, expected)
		}
		if written := AppendFrame(nil, vector.header(), vector.Head, int(vector.BulkBytes)); !bytes.Equal(written, vector.Frame) {
			t.Errorf("%s:\n got %x\nwant %x", vector.Name, written, vector.Frame)
		}
	}
}

// Every message that a client exchanges is read and written, byte by byte.
func TestGoldenMessages(t *testing.T) {
	found := 0
	for _, vector := range loadFrames(t).Frames {
		decode, ok := decoders[vector.Name]
		if !ok {
			if vector.API < 40 && vector.API != 2 {
				t.Errorf("%s: only what servers say to each other may be left out", vector.Name)
			}
			continue
		}
		found++
		m, err := decode(vector.Head)
		if err != nil {
			t.Errorf("%s: %v", vector.Name, err)
			continue
		}
		if written := m.AppendTo(nil); !bytes.Equal(written, vector.Head) {
			t.Errorf("%s:\n got %x\nwant %x", vector.Name, written, vector.Head)
		}
	}
	if found < 35 {
		t.Fatalf("only %d messages of a client have vectors", found)
	}
}

// Bytes that are the same both ways could still be read into the wrong fields: some are held against their values.
func TestFieldsOfGoldenMessages(t *testing.T) {
	heads := map[string]vectors.Hex{}
	for _, vector := range loadFrames(t).Frames {
		heads[vector.Name] = vector.Head
	}
	partition := PartitionKey{Topic: 81985529216486895, Partition: 3}
	other := PartitionKey{Topic: 81985529216486895, Partition: 4}
	inRange := RangeKey{Ring: 1, Range: 209}
	config := TopicConfig{RetentionMs: -1, RetentionBytes: 1 << 40, BatchBytesMax: 1 << 20, ProduceBytesPerSecond: 100_000_000}
	topic := TopicDescription{
		Name: "orders", Topic: 81985529216486895, Partitions: 8, Ring: 1, State: TopicReady, Config: config,
		Placement: []Placement{{Partition: 2, Range: 7}},
	}
	resume, thousand := uint64(23), uint64(1000)
	minusOne, zero := int64(-1), uint64(0)
	chain := RangeChain{Epoch: 5, Places: []ChainPlace{{Node: 1, Shard: 0}}}
	expected := map[string]message{
		"hello": &Hello{
			ProtocolMin: 1, ProtocolMax: 1, Role: 2, Nonce: [16]byte([]byte("0123456789abcdef")), ClientName: "vectors",
			ClientVersion: "1.2.3",
		},
		"hello_reply": &HelloReply{
			Protocol: 1, Nonce: [16]byte([]byte("fedcba9876543210")), Cluster: 42, Node: 1, Shard: GatewayShard,
			ServerVersion: "0.1.0", BatchBodyBytesMax: 4194304, RecordBytesMax: 2097152, InFlightMax: 1024, IdleDeadlineMs: 600000,
		},
		"produce_reply": &ProduceReply{BaseOffset: 1000000007, AppendTimestamp: 1790000000123},
		"fetch": &FetchRequest{
			WaitMsMax: 500, BytesMin: 1, BytesMax: 4194304,
			Partitions: []FetchPartition{{Range: inRange, Epoch: 5, Partition: partition, Offset: 17, BytesMax: 1048576}},
		},
		"fetch_reply": &FetchReply{Partitions: []FetchedPartition{
			{Partition: partition, Epoch: 6, LogStart: 10, CommittedEnd: 99, EntriesBytes: 272},
			{Partition: partition, Error: errorcode.Moved, Epoch: 6, LogStart: 10, CommittedEnd: 99, Previous: &inRange},
			{Partition: partition, Error: errorcode.DataDamaged, Epoch: 6, LogStart: 10, CommittedEnd: 99, Resume: &resume},
		}},
		"list_offsets": &ListOffsetsRequest{Partitions: []ListOffsetsPartition{
			{inRange, 5, partition, QueryEarliest, 0},
			{inRange, 5, partition, QueryLatest, 0},
			{inRange, 5, partition, QueryTime, 1790000000000},
		}},
		"resolve_reply": &ResolveReply{
			Cluster: 42, InternalRing: 1, Nodes: []NodeAddress{{Node: 1, Shards: []string{"127.0.0.1:19100"}}},
			Rings:  []RingMap{{Ring: 1, Replication: 1, Chains: []RangeChain{chain, chain}}},
			Topics: []TopicDescription{topic},
		},
		"create_topic": &CreateTopicRequest{Name: "orders", Partitions: 8, Config: config, TimeoutMs: 10000},
		"alter_topic": &AlterTopicRequest{
			Name: "orders", Change: TopicConfigChange{RetentionMs: &minusOne, ProduceBytesPerSecond: &zero}, TimeoutMs: 10000,
		},
		"group_heartbeat": &HeartbeatRequest{
			Range: inRange, Epoch: 5, Group: "billing", Member: 1229801703532086340, Sequence: 9, Generation: 17,
			Instance: "worker-3", ClientName: "vectors", SessionTimeoutMs: 10000, WaitMsMax: 3000,
			Subscribed: []SubscribedTopic{{partition.Topic, 8}}, Owned: []PartitionKey{partition, other},
		},
		"group_heartbeat_leave": &HeartbeatRequest{
			Range: inRange, Epoch: 5, Group: "billing", Member: 1229801703532086340, Sequence: 9, Generation: 18,
			Instance: "worker-3", ClientName: "vectors", SessionTimeoutMs: 10000, WaitMsMax: 3000, Intent: IntentLeave,
		},
		"group_heartbeat_reply": &HeartbeatReply{Generation: 18, Assigned: []AssignedPartition{{partition, nil}, {other, &thousand}}},
		"group_commit": &CommitRequest{
			Range: inRange, Epoch: 5, Group: "billing", Member: 1229801703532086340, Sequence: 10, Generation: 18,
			Offsets: []CommittedOffset{{other, 1001, ""}, {partition, 7, "note"}},
		},
		"group_commit_reply":  &CommitReply{[]PartitionResult{{other, 0}, {partition, errorcode.NotAssigned}}},
		"group_offsets":       &GroupOffsetsRequest{inRange, 5, "billing", []PartitionKey{partition}},
		"group_offsets_all":   &GroupOffsetsRequest{inRange, 5, "billing", nil},
		"group_offsets_reply": &GroupOffsetsReply{[]CommittedOffset{{partition, 7, "note"}}},
		"group_describe":      &GroupRequest{inRange, 5, "billing"},
		"group_describe_reply": &GroupDescription{18, GroupRebalancing, []DescribedMember{{
			1229801703532086340, "worker-3", "vectors", 1234, []TopicID{partition.Topic}, []PartitionKey{partition, other}, []PartitionKey{partition},
		}}},
		"group_list": &GroupListRequest{[]RangeEpoch{{inRange, 5}}},
		"group_list_reply": &GroupListReply{[]ListedRange{
			{inRange, errorcode.Stale, 6, []ListedGroup{}}, {inRange, 0, 5, []ListedGroup{{"billing", GroupStable, 3}}},
		}},
		"produce_explained": &ProduceExplained{ProduceReply{1000000007, 1790000000123}, []Hop{
			{1, 0, 448, []StageSpan{{1, 0, 20}, {2, 20, 5}, {3, 25, 10}, {4, 35, 200}, {5, 35, 410}, {6, 445, 3}}},
			{2, 3, 350, []StageSpan{{1, 0, 8}, {3, 8, 30}, {4, 38, 310}, {5, 38, 300}}},
			{4, 1, 0, []StageSpan{}},
		}},
		"error_reply": &ErrorReply{Epoch: 6, RetryAfterMs: 20, Message: "range 1/209 is at epoch 6"},
	}
	for name, want := range expected {
		got, err := decoders[name](heads[name])
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v (%v), want %+v", name, got, err, want)
		}
	}
}

func TestMalformedFramesAreRefusedByName(t *testing.T) {
	file := loadFrames(t)
	for _, vector := range file.MalformedFrames {
		header, err := DecodeFrameHeader(vector.Frame, RequestLimits)
		if err == nil {
			err = header.Verify(vector.Frame[:FrameHeaderBytes], vector.Frame[FrameHeaderBytes:])
		}
		var refusal *FrameError
		if !errors.As(err, &refusal) || refusal.Name != vector.Error {
			t.Errorf("%s: %v, want %s", vector.Name, err, vector.Error)
		}
	}
	refused := 0
	for _, vector := range file.MalformedHeads {
		decode, ok := decoders[vector.Message]
		if !ok {
			continue // a message between peers, or to a gateway: no client reads it
		}
		refused++
		_, err := decode(vector.Head)
		var refusal *DecodeError
		if !errors.As(err, &refusal) || refusal.Name != vector.Error {
			t.Errorf("%s: %v, want %s", vector.Name, err, vector.Error)
		}
	}
	if refused < 15 {
		t.Fatalf("only %d malformed heads are of a client's messages", refused)
	}
}

func TestGoldenEntryHeaders(t *testing.T) {
	var file struct {
		Log []struct {
			Name             string
			Unsealed, Sealed vectors.Hex
			RunningHash      uint64 `json:"running_hash"`
		}
		Malformed []struct {
			Name, Error, Field string
			Sealed             bool
			Bytes              vectors.Hex
		}
	}
	vectors.Load(t, "entries", &file)
	for _, vector := range file.Log {
		header, err := DecodeSealed(vector.Sealed)
		if err != nil {
			t.Errorf("%s: %v", vector.Name, err)
			continue
		}
		if header.RunningHash != vector.RunningHash || !bytes.Equal(header.AppendSealed(nil), vector.Sealed) {
			t.Errorf("%s: written as\n%x, want\n%x", vector.Name, header.AppendSealed(nil), vector.Sealed)
		}
		produced, err := DecodeUnsealed(vector.Unsealed)
		if err != nil || !bytes.Equal(produced.AppendUnsealed(nil), vector.Unsealed) {
			t.Errorf("%s (%v): written as\n%x, want\n%x", vector.Name, err, produced.AppendUnsealed(nil), vector.Unsealed)
		}
		if header.BodyBytes != produced.BodyBytes || header.PartitionKey() != produced.PartitionKey() {
			t.Errorf("%s: the two forms differ", vector.Name)
		}
	}
	for _, vector := range file.Malformed {
		decode := DecodeUnsealed
		if vector.Sealed {
			decode = DecodeSealed
		}
		_, err := decode(vector.Bytes)
		var refusal *EntryError
		if !errors.As(err, &refusal) || refusal.Name != vector.Error || refusal.Field != vector.Field {
			t.Errorf("%s: %v, want %s %s", vector.Name, err, vector.Error, vector.Field)
		}
	}
	if len(file.Log) < 3 || len(file.Malformed) < 20 {
		t.Fatal("vectors are missing")
	}
}

func TestGoldenChecksums(t *testing.T) {
	var file map[string]json.RawMessage
	vectors.Load(t, "checksums", &file)
	var checksums []struct {
		Bytes vectors.Hex
		CRC   uint32 `json:"crc32c"`
		IEEE  uint32 `json:"crc32_ieee"`
	}
	for name, raw := range file {
		if name == "about" || name == "running_hashes" {
			continue
		}
		if err := json.Unmarshal(raw, &checksums); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if len(checksums) == 0 {
		t.Fatal("no checksums")
	}
	for _, vector := range checksums {
		if CRC32C(vector.Bytes) != vector.CRC || crc32.ChecksumIEEE(vector.Bytes) != vector.IEEE {
			t.Errorf("%x: %d, %d", vector.Bytes, CRC32C(vector.Bytes), crc32.ChecksumIEEE(vector.Bytes))
		}
	}
}

// A count that lies must not make a reader take memory for it.
func TestListsTakeNoMoreMemoryThanWasSent(t *testing.T) {
	head := make([]byte, 16)
	binary.LittleEndian.PutUint32(head[12:], 1<<24) // partitions of a fetch, 38 bytes each
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := DecodeFetchRequest(head)
	runtime.ReadMemStats(&after)
	if err == nil || after.TotalAlloc-before.TotalAlloc > 1<<16 {
		t.Errorf("%d bytes are taken for a list of %d (%v)", after.TotalAlloc-before.TotalAlloc, len(head), err)
	}
}

func TestEveryFlippedBitOfAFrameIsNoticed(t *testing.T) {
	good := AppendFrame(nil, Request(APIFetch, 7), []byte("some head"), 1)
	for bit := range len(good) * 8 {
		bad := bytes.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		header, err := DecodeFrameHeader(bad, RequestLimits)
		if err == nil && int(header.HeadBytes) == len(bad)-FrameHeaderBytes {
			err = header.Verify(bad[:FrameHeaderBytes], bad[FrameHeaderBytes:])
			if err == nil {
				t.Fatalf("bit %d went unnoticed", bit)
			}
		}
	}
}

func TestGroupsLieWhereAllLanguagesSay(t *testing.T) {
	var file struct {
		Placements []struct {
			Group  string
			Token  uint64
			Ranges []struct {
				Of int
				Is RangeID
			}
		}
	}
	vectors.Load(t, "groups", &file)
	for _, placement := range file.Placements {
		if token := GroupToken(placement.Group); token != placement.Token {
			t.Errorf("%s: token %d, want %d", placement.Group, token, placement.Token)
		}
		for _, count := range placement.Ranges {
			if got := RangeOfToken(placement.Token, count.Of); got != count.Is {
				t.Errorf("%s: range %d of %d, want %d", placement.Group, got, count.Of, count.Is)
			}
		}
	}
	if len(file.Placements) < 6 {
		t.Fatal("vectors are missing")
	}
}

func TestTokens(t *testing.T) {
	held := make([]int, 256)
	for partition := range uint32(2560) {
		key := PartitionKey{Topic: 0x1234_5678_9abc_def0, Partition: partition}
		held[RangeOfToken(key.Token(), 256)]++
	}
	for at, count := range held {
		if count < 8 || count > 12 {
			t.Errorf("range %d holds %d of 2560 partitions", at, count)
		}
	}
	for _, expected := range []struct {
		token  uint64
		ranges int
		is     RangeID
	}{{1<<64 - 1, 256, 255}, {1<<64 - 1, 1, 0}, {1 << 63, 2, 1}} {
		if got := RangeOfToken(expected.token, expected.ranges); got != expected.is {
			t.Errorf("%x of %d: %d, want %d", expected.token, expected.ranges, got, expected.is)
		}
	}
}

func FuzzFrame(f *testing.F) {
	for _, vector := range loadFrames(f).Frames {
		f.Add([]byte(vector.Frame))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < FrameHeaderBytes {
			return
		}
		header, err := DecodeFrameHeader(frame, ReplyLimits)
		if err != nil || int(header.HeadBytes) != len(frame)-FrameHeaderBytes {
			return
		}
		head := frame[FrameHeaderBytes:]
		if header.Verify(frame[:FrameHeaderBytes], head) != nil {
			return
		}
		if again := AppendFrame(nil, header, head, int(header.BulkBytes)); !bytes.Equal(again, frame) {
			t.Fatalf("read and written again:\n got %x\nwant %x", again, frame)
		}
	})
}

func FuzzMessages(f *testing.F) {
	names := make([]string, 0, len(decoders))
	for _, vector := range loadFrames(f).Frames {
		if decoders[vector.Name] != nil {
			f.Add(vector.Name, []byte(vector.Head))
		}
	}
	for name := range decoders {
		names = append(names, name)
	}
	sort.Strings(names)
	f.Fuzz(func(t *testing.T, name string, head []byte) {
		decode := decoders[name]
		if decode == nil {
			// Any other name still chooses a message, so that mutations of it are not lost.
			decode = decoders[names[int(crc32.ChecksumIEEE([]byte(name)))%len(names)]]
		}
		m, err := decode(head)
		if err != nil {
			return
		}
		if again := m.AppendTo(nil); !bytes.Equal(again, head) {
			t.Fatalf("%s read and written again:\n got %x\nwant %x", name, again, head)
		}
	})
}

func FuzzEntryHeader(f *testing.F) {
	for _, vector := range loadFrames(f).Frames {
		if vector.Name == "produce" {
			f.Add([]byte(vector.Head[16:]))
		}
	}
	f.Fuzz(func(t *testing.T, header []byte) {
		if len(header) > EntryHeaderBytes {
			return
		}
		// A fuzzer does not find checksums: they are made right, so that what is behind them is reached, too.
		if len(header) == EntryHeaderBytes {
			header = bytes.Clone(header)
			clear(header[120:124])
			binary.LittleEndian.PutUint32(header[120:], CRC32C(header))
		}
		decoded, err := DecodeSealed(header)
		if err == nil && !bytes.Equal(decoded.AppendSealed(nil), header) {
			t.Fatalf("read and written again:\n got %x\nwant %x", decoded.AppendSealed(nil), header)
		}
	})
}
