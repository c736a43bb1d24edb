package fakecluster

import (
	"sort"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/batch"
	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// topic has the logs of its partitions.
type topic struct {
	description wire.TopicDescription
	partitions  []*log
}

// log has the entries of one partition, as they are stored.
type log struct {
	entries   []entry
	end       uint64
	producers map[int64]*producer
}

type entry struct {
	header wire.EntryHeader
	bytes  []byte
}

// producer is what is remembered of one: its next sequence, and the places of its last batches.
type producer struct {
	next    int32
	batches map[int32]wire.ProduceReply
}

// CreateTopic creates a topic.
func (c *Cluster) CreateTopic(name string, partitions int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.create(name, partitions)
}

func (c *Cluster) create(name string, partitions int) *topic {
	c.nextID++
	created := &topic{description: wire.TopicDescription{
		Name: name, Topic: c.nextID, Partitions: uint32(partitions), Ring: ring, State: wire.TopicReady,
		Config: wire.TopicConfig{RetentionMs: -1, RetentionBytes: -1, BatchBytesMax: wire.BatchBodyBytesMax},
	}}
	for range partitions {
		created.partitions = append(created.partitions, &log{producers: map[int64]*producer{}})
	}
	c.topics[name] = created
	return created
}

// Append stores plain records in a partition, in one batch.
func (c *Cluster) Append(name string, partition int, values ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var builder batch.Builder
	for _, value := range values {
		builder.Push(&batch.Record{Value: []byte(value), Timestamp: 5}, len(value), wire.BatchBodyBytesMax)
	}
	finished := builder.Finish(nil)
	of := c.topics[name]
	header := wire.EntryHeader{
		Kind: wire.EntryBatch, BodyFormat: wire.BodyColumnar, BodyBytes: uint32(len(finished.Body)),
		UncompressedBytes: uint32(len(finished.Body)), Topic: of.description.Topic, Partition: uint32(partition),
		RecordCount: uint32(len(values)), LastOffsetDelta: uint32(len(values) - 1), BaseTimestamp: 5, MaxTimestamp: 5,
		ProducerID: -1, BodyCRC: wire.CRC32C(finished.Body),
	}
	c.store(of.partitions[partition], header, finished.Body)
	c.tell()
}

// Values are the values of all records of a partition, in order. A batch that is not valid is one value, which says why.
func (c *Cluster) Values(name string, partition int) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var values []string
	for _, entry := range c.topics[name].partitions[partition].entries {
		body := entry.bytes[wire.EntryHeaderBytes:][:entry.header.BodyBytes]
		view, err := batch.Parse(body, &entry.header)
		if err != nil {
			values = append(values, err.Error())
			continue
		}
		for i := range view.Len() {
			values = append(values, string(view.Value(i)))
		}
	}
	return values
}

func (c *Cluster) store(to *log, header wire.EntryHeader, body []byte) wire.ProduceReply {
	c.index++
	header.Epoch, header.Index = c.epoch, c.index
	header.BaseOffset, header.AppendTimestamp = to.end, time.Now().UnixMilli()
	bytes := append(header.AppendSealed(nil), body...)
	bytes = append(bytes, make([]byte, header.EntryBytes()-len(bytes))...)
	to.entries = append(to.entries, entry{header, bytes})
	to.end = header.NextOffset()
	return wire.ProduceReply{BaseOffset: header.BaseOffset, AppendTimestamp: header.AppendTimestamp}
}

func (c *Cluster) log(key wire.PartitionKey) *log {
	for _, topic := range c.topics {
		if topic.description.Topic == key.Topic && int(key.Partition) < len(topic.partitions) {
			return topic.partitions[key.Partition]
		}
	}
	return nil
}

func (c *Cluster) resolve(r *Request) {
	request, err := wire.DecodeResolveRequest(r.Head)
	if err != nil {
		r.Refuse(errorcode.MalformedFrame, wire.ErrorReply{Message: err.Error()})
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	reply := &wire.ResolveReply{Cluster: 7, InternalRing: ring}
	for number, server := range c.servers {
		reply.Nodes = append(reply.Nodes, wire.NodeAddress{Node: wire.NodeID(number + 1), Shards: []string{server.Address()}})
	}
	told, isLagging := c.lagging[r.Server.number]
	if !isLagging {
		told = ownership{c.epoch, c.owner}
	}
	chain := wire.RangeChain{Epoch: told.epoch, Places: []wire.ChainPlace{{Node: wire.NodeID(told.owner + 1)}}}
	chains := make([]wire.RangeChain, ranges)
	for i := range chains {
		chains[i] = chain
	}
	reply.Rings = []wire.RingMap{{Ring: ring, Replication: 1, Chains: chains}}
	names := request.Topics
	if request.AllTopics {
		names = nil
		for name := range c.topics {
			names = append(names, name)
		}
		sort.Strings(names)
	}
	for _, name := range names {
		known := c.topics[name]
		if known == nil && request.CreateMissing {
			known = c.create(name, 4)
		}
		if known == nil {
			reply.Topics = append(reply.Topics, wire.TopicDescription{Name: name, Error: errorcode.UnknownTopic, State: wire.TopicReady})
			continue
		}
		reply.Topics = append(reply.Topics, known.description)
	}
	r.Reply(reply, nil)
}

func (c *Cluster) createTopic(r *Request) {
	request, err := wire.DecodeCreateTopicRequest(r.Head)
	if err != nil {
		r.Refuse(errorcode.MalformedFrame, wire.ErrorReply{Message: err.Error()})
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.topics[request.Name] != nil {
		r.Refuse(errorcode.TopicExists, wire.ErrorReply{})
		return
	}
	created := c.create(request.Name, int(request.Partitions))
	created.description.Config = request.Config
	r.Reply(&created.description, nil)
}

func (c *Cluster) produce(r *Request) {
	request, err := wire.DecodeProduceRequest(r.Head)
	if err != nil || wire.CRC32C(r.Bulk) != request.Header.BodyCRC {
		r.Refuse(errorcode.InvalidBatch, wire.ErrorReply{})
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refusesEpoch(r, request.Epoch) {
		return
	}
	header := request.Header
	to := c.log(header.PartitionKey())
	if to == nil {
		r.Refuse(errorcode.UnknownPartition, wire.ErrorReply{})
		return
	}
	known := to.producers[header.ProducerID]
	switch {
	case header.ProducerID < 0:
		reply := c.store(to, header, r.Bulk)
		r.Reply(&reply, nil)
		c.tell()
		return
	case known == nil && header.BaseSequence != 0:
		r.Refuse(errorcode.UnknownProducer, wire.ErrorReply{})
		return
	case known == nil:
		known = &producer{batches: map[int32]wire.ProduceReply{}}
		to.producers[header.ProducerID] = known
	}
	if before, ok := known.batches[header.BaseSequence]; ok {
		r.Reply(&before, nil)
		return
	}
	if header.BaseSequence != known.next {
		r.Refuse(errorcode.OutOfOrder, wire.ErrorReply{})
		return
	}
	reply := c.store(to, header, r.Bulk)
	known.next += int32(header.RecordCount)
	known.batches[header.BaseSequence] = reply
	r.Reply(&reply, nil)
	c.tell()
}

func (c *Cluster) fetch(r *Request) {
	request, err := wire.DecodeFetchRequest(r.Head)
	if err != nil {
		r.Refuse(errorcode.MalformedFrame, wire.ErrorReply{Message: err.Error()})
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var reply *wire.FetchReply
	var bulk []byte
	c.waitFor(time.Duration(request.WaitMsMax)*time.Millisecond, func() bool {
		var hasError bool
		reply, bulk, hasError = c.fetchNow(r, &request)
		return hasError || len(bulk) >= int(max(request.BytesMin, 1))
	})
	r.Reply(reply, bulk)
}

func (c *Cluster) fetchNow(r *Request, request *wire.FetchRequest) (reply *wire.FetchReply, bulk []byte, hasError bool) {
	reply = &wire.FetchReply{}
	for _, asked := range request.Partitions {
		fetched := wire.FetchedPartition{Partition: asked.Partition, Epoch: c.epoch, Error: c.epochError(r, asked.Epoch)}
		from := c.log(asked.Partition)
		if from == nil && fetched.Error == errorcode.None {
			fetched.Error = errorcode.UnknownPartition
		}
		if fetched.Error == errorcode.None {
			fetched.CommittedEnd = from.end
			if asked.Offset > from.end {
				fetched.Error = errorcode.OffsetOutOfRange
			}
			before := len(bulk)
			for _, entry := range from.entries {
				isFirst := len(bulk) == 0
				if entry.header.NextOffset() > asked.Offset && (isFirst || len(bulk)+len(entry.bytes) <= int(request.BytesMax)) {
					bulk = append(bulk, entry.bytes...)
				}
			}
			fetched.EntriesBytes = uint32(len(bulk) - before)
		}
		hasError = hasError || fetched.Error != errorcode.None
		reply.Partitions = append(reply.Partitions, fetched)
	}
	return reply, bulk, hasError
}

func (c *Cluster) listOffsets(r *Request) {
	request, err := wire.DecodeListOffsetsRequest(r.Head)
	if err != nil {
		r.Refuse(errorcode.MalformedFrame, wire.ErrorReply{Message: err.Error()})
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	reply := &wire.PartitionOffsetsReply{}
	for _, asked := range request.Partitions {
		listed := wire.PartitionOffset{Partition: asked.Partition, Epoch: c.epoch, Error: c.epochError(r, asked.Epoch)}
		if from := c.log(asked.Partition); from != nil && asked.Query == wire.QueryLatest {
			listed.Offset = from.end
		}
		reply.Partitions = append(reply.Partitions, listed)
	}
	r.Reply(reply, nil)
}

// Entry is the first entry of a partition, as it is stored.
func (c *Cluster) Entry(name string, partition int) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.topics[name].partitions[partition].entries[0].bytes
}
