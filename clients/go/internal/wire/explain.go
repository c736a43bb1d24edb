package wire

// ExplainProtocol is the first protocol in which there is explain.
const ExplainProtocol = 2

// stageNames are the names of docs/PROTOCOL.md section 4, "Explain".
var stageNames = map[uint8]string{
	1: "receive", 2: "checksum", 3: "append", 4: "durable", 5: "successor", 6: "answer",
	16: "memory", 17: "read", 18: "wait", 19: "mend", 20: "room",
}

// StageName is the name of a stage; "other" of one that a later release knows.
func StageName(stage uint8) string {
	if name, ok := stageNames[stage]; ok {
		return name
	}
	return "other"
}

// StageSpan is one stage of one hop, in microseconds since the hop began.
type StageSpan struct {
	Stage   uint8
	StartUs uint32
	TookUs  uint32
}

// Hop is what one shard says of a request; times are of its own clock. One without stages could not tell.
type Hop struct {
	Node    NodeID
	Shard   ShardID
	WholeUs uint32
	Stages  []StageSpan
}

func putStageSpan(out []byte, span StageSpan) []byte {
	return putU32(putU32(append(out, span.Stage), span.StartUs), span.TookUs)
}

func putHop(out []byte, hop Hop) []byte {
	out = putU32(putU16(putU32(out, uint32(hop.Node)), uint16(hop.Shard)), hop.WholeUs)
	return putList(out, hop.Stages, putStageSpan)
}

func takeStageSpan(r *reader) StageSpan {
	return StageSpan{Stage: r.u8(), StartUs: r.u32(), TookUs: r.u32()}
}

func takeHop(r *reader) Hop {
	hop := Hop{Node: NodeID(r.u32()), Shard: ShardID(r.u16()), WholeUs: r.u32()}
	hop.Stages = takeAtMost(r, ExplainStagesMax, "stages", takeStageSpan)
	for _, span := range hop.Stages {
		if uint64(span.StartUs)+uint64(span.TookUs) > uint64(hop.WholeUs) {
			r.fail("field", "stage time")
		}
	}
	return hop
}

// takeAtMost takes a list with a bound.
func takeAtMost[T any](r *reader, most uint32, what string, take func(*reader) T) []T {
	count := r.u32()
	if count > most {
		r.fail("field", what)
		return nil
	}
	items := make([]T, 0, count)
	for i := uint32(0); i < count && r.fault == nil; i++ {
		items = append(items, take(r))
	}
	return items
}

func takeHops(r *reader) []Hop { return takeAtMost(r, ChainMax, "hops", takeHop) }

// ProduceExplained is a produce reply whose frame has the flag: with the members of the chain, from the head on.
type ProduceExplained struct {
	ProduceReply
	Hops []Hop
}

// AppendTo appends the message's fields.
func (m *ProduceExplained) AppendTo(out []byte) []byte {
	return putList(m.ProduceReply.AppendTo(out), m.Hops, putHop)
}

// DecodeProduceExplained is the inverse of ProduceExplained.AppendTo.
func DecodeProduceExplained(head []byte) (ProduceExplained, error) {
	r := reader{rest: head}
	m := ProduceExplained{ProduceReply: takeProduceReply(&r), Hops: takeHops(&r)}
	return m, r.finish()
}

// FetchExplained is a fetch reply whose frame has the flag: with the member that was asked.
type FetchExplained struct {
	FetchReply
	Hops []Hop
}

// AppendTo appends the message's fields.
func (m *FetchExplained) AppendTo(out []byte) []byte {
	return putList(m.FetchReply.AppendTo(out), m.Hops, putHop)
}

// DecodeFetchExplained is the inverse of FetchExplained.AppendTo.
func DecodeFetchExplained(head []byte) (FetchExplained, error) {
	r := reader{rest: head}
	m := FetchExplained{FetchReply: takeFetchReply(&r), Hops: takeHops(&r)}
	return m, r.finish()
}
