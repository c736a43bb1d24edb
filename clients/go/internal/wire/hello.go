package wire

// The protocols that this release speaks, from the oldest to the newest.
const (
	ProtocolMin = 1
	ProtocolMax = 2
)

// RoleClient is what a client says it wants to be; peers and controllers prove a secret.
const RoleClient = 0

const roleMax = 2

// Hello is the first frame of a connection (docs/PROTOCOL.md section 3).
type Hello struct {
	ProtocolMin   uint16
	ProtocolMax   uint16
	Role          uint8
	Nonce         [16]byte
	Cluster       ClusterID
	ClientName    string
	ClientVersion string
}

// AppendTo appends the message's fields.
func (m *Hello) AppendTo(out []byte) []byte {
	out = putU16(putU16(out, m.ProtocolMin), m.ProtocolMax)
	out = append(append(out, m.Role), m.Nonce[:]...)
	return putText(putText(putU64(out, uint64(m.Cluster)), m.ClientName), m.ClientVersion)
}

// DecodeHello is the inverse of Hello.AppendTo.
func DecodeHello(head []byte) (Hello, error) {
	r := reader{rest: head}
	m := Hello{ProtocolMin: r.u16(), ProtocolMax: r.u16(), Role: r.u8()}
	if m.Role > roleMax {
		r.fail("field", "role")
	}
	copy(m.Nonce[:], r.bytes(len(m.Nonce)))
	m.Cluster = ClusterID(r.u64())
	m.ClientName, m.ClientVersion = r.text(), r.text()
	return m, r.finish()
}

// HelloReply is what a server says of itself.
type HelloReply struct {
	Protocol          uint16
	Nonce             [16]byte
	Cluster           ClusterID
	Node              NodeID
	Shard             ShardID
	ServerVersion     string
	BatchBodyBytesMax uint32
	RecordBytesMax    uint32
	InFlightMax       uint32
	IdleDeadlineMs    uint64
}

// AppendTo appends the message's fields.
func (m *HelloReply) AppendTo(out []byte) []byte {
	out = append(putU16(out, m.Protocol), m.Nonce[:]...)
	out = putU64(out, uint64(m.Cluster))
	out = putU16(putU32(out, uint32(m.Node)), uint16(m.Shard))
	out = putText(out, m.ServerVersion)
	out = putU32(putU32(putU32(out, m.BatchBodyBytesMax), m.RecordBytesMax), m.InFlightMax)
	return putU64(out, m.IdleDeadlineMs)
}

// DecodeHelloReply is the inverse of HelloReply.AppendTo.
func DecodeHelloReply(head []byte) (HelloReply, error) {
	r := reader{rest: head}
	m := HelloReply{Protocol: r.u16()}
	copy(m.Nonce[:], r.bytes(len(m.Nonce)))
	m.Cluster, m.Node, m.Shard = ClusterID(r.u64()), NodeID(r.u32()), ShardID(r.u16())
	m.ServerVersion = r.text()
	m.BatchBodyBytesMax, m.RecordBytesMax, m.InFlightMax = r.u32(), r.u32(), r.u32()
	m.IdleDeadlineMs = r.u64()
	return m, r.finish()
}

// ErrorReply is the head of a reply whose frame header names an error.
type ErrorReply struct {
	// Epoch is what to refresh the map to at least, for not_owner and stale; otherwise 0.
	Epoch        Epoch
	RetryAfterMs uint32
	Message      string
}

// AppendTo appends the message's fields.
func (m *ErrorReply) AppendTo(out []byte) []byte {
	return putText(putU32(putU64(out, uint64(m.Epoch)), m.RetryAfterMs), m.Message)
}

// DecodeErrorReply is the inverse of ErrorReply.AppendTo.
func DecodeErrorReply(head []byte) (ErrorReply, error) {
	r := reader{rest: head}
	m := ErrorReply{Epoch: Epoch(r.u64()), RetryAfterMs: r.u32(), Message: r.text()}
	return m, r.finish()
}
