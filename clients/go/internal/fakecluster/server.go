// Package fakecluster is a small cluster in memory, for tests: real TCP servers that speak the protocol, each gateway and shard in
// one, with topics, records and groups shared by all. What it answers can be changed, and its ranges moved, while clients use it.
// It is written from docs/PROTOCOL.md and docs/GROUPS.md, and promises nothing about durability.
package fakecluster

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// ranges is how many the only ring of the cluster has.
const ranges = 4

// ring is the only one, with the internal replication of a cluster of one.
const ring wire.RingID = 1

// Cluster is what the servers share.
type Cluster struct {
	servers []*Server

	mu     sync.Mutex
	epoch  wire.Epoch
	owner  int
	topics map[string]*topic
	nextID wire.TopicID
	index  uint64
	groups map[string]*group
	// changed is closed, and made anew, when anything that a request may wait for has changed.
	changed chan struct{}
	// intercept, if set, sees every request first: true means that it has dealt with it.
	intercept func(*Request) bool
	// lagging are servers whose gateways tell what was true once.
	lagging  map[int]ownership
	isClosed bool
}

// ownership is who owns every range.
type ownership struct {
	epoch wire.Epoch
	owner int
}

// Server is one node with one shard, and a gateway.
type Server struct {
	cluster  *Cluster
	number   int
	listener net.Listener
	tasks    sync.WaitGroup

	mu      sync.Mutex
	sockets map[net.Conn]struct{}
}

// Request is a request as a server received it.
type Request struct {
	Server *Server
	Header wire.FrameHeader
	Head   []byte
	Bulk   []byte
	socket net.Conn
	writes *sync.Mutex
}

type message interface{ AppendTo([]byte) []byte }

// New starts a cluster of some nodes; the first one owns every range. It is closed at the end of the test.
func New(t testing.TB, nodes int) *Cluster {
	t.Helper()
	c, err := Start(nodes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Start is New without a test that closes the cluster.
func Start(nodes int) (*Cluster, error) {
	c := &Cluster{epoch: 1, topics: map[string]*topic{}, groups: map[string]*group{}, lagging: map[int]ownership{}, nextID: 1 << 60, changed: make(chan struct{})}
	for number := range nodes {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			c.Close()
			return nil, err
		}
		s := &Server{cluster: c, number: number, listener: listener, sockets: map[net.Conn]struct{}{}}
		c.servers = append(c.servers, s)
		s.tasks.Add(1)
		go s.accept()
	}
	return c, nil
}

// Gateways are the addresses of all servers.
func (c *Cluster) Gateways() []string {
	addresses := make([]string, len(c.servers))
	for i, s := range c.servers {
		addresses[i] = s.Address()
	}
	return addresses
}

// Address is where the server listens.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Server is one of the servers.
func (c *Cluster) Server(number int) *Server { return c.servers[number] }

// Intercept lets a function see every request first; nil: none.
func (c *Cluster) Intercept(intercept func(*Request) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.intercept = intercept
}

// Lag makes a server's gateway tell for ever what is true now, as one does that has lost its coordinator.
func (c *Cluster) Lag(number int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lagging[number] = ownership{c.epoch, c.owner}
}

// Move makes another node own every range, in a new epoch. What the coordinator only remembers is forgotten, as when one dies;
// what is in the log stays (docs/GROUPS.md section 2).
func (c *Cluster) Move(to int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	c.owner = to
	for _, g := range c.groups {
		g.forget()
	}
	c.tell()
}

// tell wakes every request that waits; the caller holds the lock.
func (c *Cluster) tell() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Disconnect ends every connection of the server; it goes on to take new ones.
func (s *Server) Disconnect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for socket := range s.sockets {
		_ = socket.Close()
	}
}

// Stop ends the server: nothing listens at its address any more.
func (s *Server) Stop() {
	_ = s.listener.Close()
	s.Disconnect()
}

// Close ends every server.
func (c *Cluster) Close() {
	c.mu.Lock()
	c.isClosed = true
	c.tell()
	c.mu.Unlock()
	for _, s := range c.servers {
		s.Stop()
		s.tasks.Wait()
	}
}

func (s *Server) accept() {
	defer s.tasks.Done()
	for {
		socket, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.sockets[socket] = struct{}{}
		s.mu.Unlock()
		s.tasks.Add(1)
		go func() {
			defer s.tasks.Done()
			s.serve(socket)
			_ = socket.Close()
			s.mu.Lock()
			delete(s.sockets, socket)
			s.mu.Unlock()
		}()
	}
}

// serve answers the requests of one connection, each on a goroutine of its own, because some wait.
func (s *Server) serve(socket net.Conn) {
	var waiting sync.WaitGroup
	defer waiting.Wait()
	// Replies that cannot be written any more end with the socket.
	defer socket.Close()
	writes := &sync.Mutex{}
	for {
		request, err := receive(socket)
		if err != nil {
			return
		}
		request.Server, request.socket, request.writes = s, socket, writes
		s.cluster.mu.Lock()
		intercept := s.cluster.intercept
		s.cluster.mu.Unlock()
		if intercept != nil && intercept(request) {
			continue
		}
		// Produce requests keep their order.
		if request.Header.API == wire.APIProduce {
			s.answer(request)
			continue
		}
		waiting.Add(1)
		go func() {
			defer waiting.Done()
			s.answer(request)
		}()
	}
}

func receive(socket net.Conn) (*Request, error) {
	var bytes [wire.FrameHeaderBytes]byte
	if _, err := io.ReadFull(socket, bytes[:]); err != nil {
		return nil, err
	}
	header, err := wire.DecodeFrameHeader(bytes[:], wire.RequestLimits)
	if err != nil {
		return nil, err
	}
	request := &Request{Header: header, Head: make([]byte, header.HeadBytes), Bulk: make([]byte, header.BulkBytes)}
	if _, err := io.ReadFull(socket, request.Head); err != nil {
		return nil, err
	}
	if err := header.Verify(bytes[:], request.Head); err != nil {
		return nil, err
	}
	_, err = io.ReadFull(socket, request.Bulk)
	return request, err
}

// Reply answers the request.
func (r *Request) Reply(head message, bulk []byte) {
	header := r.Header
	header.IsReply, header.Error = true, errorcode.None
	r.Write(append(wire.AppendFrame(nil, header, head.AppendTo(nil), len(bulk)), bulk...))
}

// Refuse answers the request with an error.
func (r *Request) Refuse(code errorcode.Code, reply wire.ErrorReply) {
	header := r.Header
	header.IsReply, header.Error = true, code
	r.Write(wire.AppendFrame(nil, header, reply.AppendTo(nil), 0))
}

// Write sends bytes as they are, for answers that are none.
func (r *Request) Write(bytes []byte) {
	r.writes.Lock()
	defer r.writes.Unlock()
	_, _ = r.socket.Write(bytes)
}

// HangUp closes the connection that the request came on.
func (r *Request) HangUp() { _ = r.socket.Close() }

// Answer answers the request as if it had not been intercepted.
func (r *Request) Answer() { r.Server.answer(r) }

type nothing struct{}

func (nothing) AppendTo(out []byte) []byte { return out }

func (s *Server) answer(r *Request) {
	c := s.cluster
	switch r.Header.API {
	case wire.APIHello:
		r.Reply(&wire.HelloReply{
			Protocol: wire.ProtocolMin, Cluster: 7, Node: wire.NodeID(s.number + 1), ServerVersion: "fake",
			BatchBodyBytesMax: wire.BatchBodyBytesMax, InFlightMax: wire.ConnectionInFlightMax,
		}, nil)
	case wire.APIResolve:
		c.resolve(r)
	case wire.APICreateTopic:
		c.createTopic(r)
	case wire.APIProduce:
		c.produce(r)
	case wire.APIFetch:
		c.fetch(r)
	case wire.APIListOffsets:
		c.listOffsets(r)
	case wire.APIGroupHeartbeat, wire.APIGroupCommit, wire.APIGroupOffsets, wire.APIGroupDescribe, wire.APIGroupList, wire.APIGroupDelete:
		c.answerGroup(r)
	default:
		r.Refuse(errorcode.UnknownAPI, wire.ErrorReply{})
	}
}

// refusesEpoch refuses a request to a range that this server does not own, or in another epoch; the caller holds the lock.
func (c *Cluster) refusesEpoch(r *Request, epoch wire.Epoch) bool {
	code := c.epochError(r, epoch)
	if code != errorcode.None {
		r.Refuse(code, wire.ErrorReply{Epoch: c.epoch})
	}
	return code != errorcode.None
}

func (c *Cluster) epochError(r *Request, epoch wire.Epoch) errorcode.Code {
	switch {
	case r.Server.number != c.owner:
		return errorcode.NotOwner
	case epoch != c.epoch:
		return errorcode.Stale
	default:
		return errorcode.None
	}
}

// waitFor returns when holds does, something it does not know of has closed the cluster, or the time is over. It is called with
// the lock, and gives it up while it waits.
func (c *Cluster) waitFor(wait time.Duration, holds func() bool) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for !holds() && !c.isClosed {
		changed := c.changed
		c.mu.Unlock()
		over := false
		select {
		case <-changed:
		case <-timer.C:
			over = true
		}
		c.mu.Lock()
		if over {
			return
		}
	}
}

// CorruptFrame is a reply whose checksum is wrong.
func (r *Request) CorruptFrame() []byte {
	header := r.Header
	header.IsReply = true
	frame := wire.AppendFrame(nil, header, []byte("head"), 0)
	frame[len(frame)-1]++
	return frame
}

// LyingFrame is a reply that announces more than it brings, or more than is allowed.
func (r *Request) LyingFrame(headBytes, bulkBytes uint32) []byte {
	header := r.Header
	header.IsReply = true
	frame := wire.AppendFrame(nil, header, nil, 0)
	binary.LittleEndian.PutUint32(frame[4:], headBytes)
	binary.LittleEndian.PutUint32(frame[8:], bulkBytes)
	// The checksum is right, so that it is the length that lies.
	binary.LittleEndian.PutUint32(frame[28:], wire.CRC32C(frame[:28]))
	return frame
}
