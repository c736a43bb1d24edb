package wire

import "github.com/minikafka/minikafka/clients/go/internal/errorcode"

// ProduceHeadBytes is the size of a produce request's head: fixed, so that a receiver knows where the body begins.
const ProduceHeadBytes = 16 + EntryHeaderBytes

// ProduceRequest appends one batch; the bulk behind it is the body.
type ProduceRequest struct {
	Epoch Epoch
	// TimeoutMs: not committed by then, the answer is timed_out. 0: the server's longest.
	TimeoutMs uint32
	Header    EntryHeader
}

// AppendTo appends the message's fields.
func (m *ProduceRequest) AppendTo(out []byte) []byte {
	out = putU32(putU32(putU64(out, uint64(m.Epoch)), m.TimeoutMs), 0)
	return m.Header.AppendUnsealed(out)
}

// DecodeProduceRequest is the inverse of ProduceRequest.AppendTo.
func DecodeProduceRequest(head []byte) (ProduceRequest, error) {
	r := reader{rest: head}
	m := ProduceRequest{Epoch: Epoch(r.u64()), TimeoutMs: r.u32()}
	if r.u32() != 0 {
		r.fail("field", "produce flags")
	}
	if bytes := r.bytes(EntryHeaderBytes); bytes != nil {
		header, err := DecodeUnsealed(bytes)
		if err != nil {
			r.fail("field", "entry header: "+err.Error())
		}
		m.Header = header
	}
	return m, r.finish()
}

// ProduceReply says that the batch is committed.
type ProduceReply struct {
	BaseOffset      uint64
	AppendTimestamp int64
}

// AppendTo appends the message's fields.
func (m *ProduceReply) AppendTo(out []byte) []byte {
	return putU64(putU64(out, m.BaseOffset), uint64(m.AppendTimestamp))
}

// DecodeProduceReply is the inverse of ProduceReply.AppendTo.
func DecodeProduceReply(head []byte) (ProduceReply, error) {
	r := reader{rest: head}
	m := takeProduceReply(&r)
	return m, r.finish()
}

func takeProduceReply(r *reader) ProduceReply {
	return ProduceReply{BaseOffset: r.u64(), AppendTimestamp: r.i64()}
}

// FetchPartition is one partition of a fetch.
type FetchPartition struct {
	Range     RangeKey
	Epoch     Epoch
	Partition PartitionKey
	Offset    uint64
	BytesMax  uint32
}

// FetchRequest reads batches of several partitions of one shard.
type FetchRequest struct {
	WaitMsMax  uint32
	BytesMin   uint32
	BytesMax   uint32
	Partitions []FetchPartition
}

func putFetchPartition(out []byte, p FetchPartition) []byte {
	out = putPartitionKey(putU64(putRangeKey(out, p.Range), uint64(p.Epoch)), p.Partition)
	return putU32(putU64(out, p.Offset), p.BytesMax)
}

func takeFetchPartition(r *reader) FetchPartition {
	return FetchPartition{r.rangeKey(), Epoch(r.u64()), r.partitionKey(), r.u64(), r.u32()}
}

// AppendTo appends the message's fields.
func (m *FetchRequest) AppendTo(out []byte) []byte {
	out = putU32(putU32(putU32(out, m.WaitMsMax), m.BytesMin), m.BytesMax)
	return putList(out, m.Partitions, putFetchPartition)
}

// DecodeFetchRequest is the inverse of FetchRequest.AppendTo.
func DecodeFetchRequest(head []byte) (FetchRequest, error) {
	r := reader{rest: head}
	m := FetchRequest{WaitMsMax: r.u32(), BytesMin: r.u32(), BytesMax: r.u32()}
	m.Partitions = takeList(&r, 38, takeFetchPartition)
	return m, r.finish()
}

// FetchedPartition is one partition of a fetch reply; its entries stand in the bulk, in the order of the partitions.
type FetchedPartition struct {
	Partition PartitionKey
	// Error concerns this partition alone.
	Error errorcode.Code
	// Epoch of the range at the server; for not_owner and stale, the one to refresh to.
	Epoch        Epoch
	LogStart     uint64
	CommittedEnd uint64
	// Previous, for moved: where the older offsets are.
	Previous *RangeKey
	// Resume, for data_damaged: the first offset behind the damage that can be read.
	Resume *uint64
	// EntriesBytes counts this partition's bytes of the bulk.
	EntriesBytes uint32
}

// FetchReply answers a fetch, in the order of the request.
type FetchReply struct {
	Partitions []FetchedPartition
}

func putFetchedPartition(out []byte, p FetchedPartition) []byte {
	out = putU16(putPartitionKey(out, p.Partition), uint16(p.Error))
	out = putU64(putU64(putU64(out, uint64(p.Epoch)), p.LogStart), p.CommittedEnd)
	out = putOptional(putOptional(out, p.Previous, putRangeKey), p.Resume, putU64)
	return putU32(out, p.EntriesBytes)
}

func takeFetchedPartition(r *reader) FetchedPartition {
	p := FetchedPartition{Partition: r.partitionKey(), Error: r.code(), Epoch: Epoch(r.u64())}
	p.LogStart, p.CommittedEnd = r.u64(), r.u64()
	p.Previous = takeOptional(r, (*reader).rangeKey)
	p.Resume = takeOptional(r, (*reader).u64)
	p.EntriesBytes = r.u32()
	return p
}

// AppendTo appends the message's fields.
func (m *FetchReply) AppendTo(out []byte) []byte {
	return putList(out, m.Partitions, putFetchedPartition)
}

// DecodeFetchReply is the inverse of FetchReply.AppendTo.
func DecodeFetchReply(head []byte) (FetchReply, error) {
	r := reader{rest: head}
	m := takeFetchReply(&r)
	return m, r.finish()
}

func takeFetchReply(r *reader) FetchReply {
	return FetchReply{Partitions: takeList(r, 44, takeFetchedPartition)}
}

// OffsetQuery says which offset is looked up.
type OffsetQuery uint8

// The queries: the first that can be fetched, the one after the last committed, the first of the first batch that was
// appended at or after a time.
const (
	QueryEarliest OffsetQuery = 0
	QueryLatest   OffsetQuery = 1
	QueryTime     OffsetQuery = 2
)

// ListOffsetsPartition is one partition of a list-offsets request.
type ListOffsetsPartition struct {
	Range     RangeKey
	Epoch     Epoch
	Partition PartitionKey
	Query     OffsetQuery
	Timestamp int64
}

// ListOffsetsRequest looks offsets up.
type ListOffsetsRequest struct {
	Partitions []ListOffsetsPartition
}

func putListOffsetsPartition(out []byte, p ListOffsetsPartition) []byte {
	out = putPartitionKey(putU64(putRangeKey(out, p.Range), uint64(p.Epoch)), p.Partition)
	return putU64(append(out, byte(p.Query)), uint64(p.Timestamp))
}

func takeListOffsetsPartition(r *reader) ListOffsetsPartition {
	p := ListOffsetsPartition{r.rangeKey(), Epoch(r.u64()), r.partitionKey(), OffsetQuery(r.u8()), r.i64()}
	if p.Query > QueryTime {
		r.fail("field", "offset query")
	}
	return p
}

// AppendTo appends the message's fields.
func (m *ListOffsetsRequest) AppendTo(out []byte) []byte {
	return putList(out, m.Partitions, putListOffsetsPartition)
}

// DecodeListOffsetsRequest is the inverse of ListOffsetsRequest.AppendTo.
func DecodeListOffsetsRequest(head []byte) (ListOffsetsRequest, error) {
	r := reader{rest: head}
	m := ListOffsetsRequest{Partitions: takeList(&r, 35, takeListOffsetsPartition)}
	return m, r.finish()
}

// PartitionOffset is one partition of a list-offsets or delete-records reply: the offset found, or the new log start.
type PartitionOffset struct {
	Partition PartitionKey
	Error     errorcode.Code
	Epoch     Epoch
	Offset    uint64
}

// PartitionOffsetsReply answers list-offsets and delete-records, in the order of the request.
type PartitionOffsetsReply struct {
	Partitions []PartitionOffset
}

func putPartitionOffset(out []byte, p PartitionOffset) []byte {
	out = putU16(putPartitionKey(out, p.Partition), uint16(p.Error))
	return putU64(putU64(out, uint64(p.Epoch)), p.Offset)
}

func takePartitionOffset(r *reader) PartitionOffset {
	return PartitionOffset{r.partitionKey(), r.code(), Epoch(r.u64()), r.u64()}
}

// AppendTo appends the message's fields.
func (m *PartitionOffsetsReply) AppendTo(out []byte) []byte {
	return putList(out, m.Partitions, putPartitionOffset)
}

// DecodePartitionOffsetsReply is the inverse of PartitionOffsetsReply.AppendTo.
func DecodePartitionOffsetsReply(head []byte) (PartitionOffsetsReply, error) {
	r := reader{rest: head}
	m := PartitionOffsetsReply{Partitions: takeList(&r, 30, takePartitionOffset)}
	return m, r.finish()
}

// DeleteRecordsPartition is one partition of a delete-records request.
type DeleteRecordsPartition struct {
	Range     RangeKey
	Epoch     Epoch
	Partition PartitionKey
	// Before: records below this are to go; beyond the committed end it means that end.
	Before uint64
}

// DeleteRecordsRequest deletes the oldest records of partitions.
type DeleteRecordsRequest struct {
	Partitions []DeleteRecordsPartition
}

func putDeleteRecordsPartition(out []byte, p DeleteRecordsPartition) []byte {
	out = putPartitionKey(putU64(putRangeKey(out, p.Range), uint64(p.Epoch)), p.Partition)
	return putU64(out, p.Before)
}

func takeDeleteRecordsPartition(r *reader) DeleteRecordsPartition {
	return DeleteRecordsPartition{r.rangeKey(), Epoch(r.u64()), r.partitionKey(), r.u64()}
}

// AppendTo appends the message's fields.
func (m *DeleteRecordsRequest) AppendTo(out []byte) []byte {
	return putList(out, m.Partitions, putDeleteRecordsPartition)
}

// DecodeDeleteRecordsRequest is the inverse of DeleteRecordsRequest.AppendTo.
func DecodeDeleteRecordsRequest(head []byte) (DeleteRecordsRequest, error) {
	r := reader{rest: head}
	m := DeleteRecordsRequest{Partitions: takeList(&r, 34, takeDeleteRecordsPartition)}
	return m, r.finish()
}
