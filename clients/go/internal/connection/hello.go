package connection

import (
	"crypto/rand"
	"errors"
	"io"
	"net"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/fault"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// Options says how connections are opened.
type Options struct {
	// ClientName and ClientVersion are for the servers' logs.
	ClientName    string
	ClientVersion string
	// Cluster expected; another one refuses with wrong_cluster. 0: any.
	Cluster wire.ClusterID
	// ConnectTimeout bounds opening a connection, hello included.
	ConnectTimeout time.Duration
	// AllocateBulk gives memory for what stands behind a reply's head; nil: fresh memory.
	AllocateBulk func(bytes int) []byte
}

// helloCorrelation is the only one that requests do not use.
const helloCorrelation = 0

// sayHello makes the first exchange of a connection, with nothing else in flight.
func sayHello(address string, frames *frameReader, socket net.Conn, options *Options) (wire.HelloReply, error) {
	refused := func(reason string) error { return &fault.ConnectionError{Address: address, Reason: reason} }
	malformed := func(reason error) error {
		return &fault.MalformedError{From: address, What: "hello reply", Reason: reason}
	}
	hello := wire.Hello{
		ProtocolMin: wire.ProtocolMin, ProtocolMax: wire.ProtocolMax, Role: wire.RoleClient, Cluster: options.Cluster,
		ClientName: options.ClientName, ClientVersion: options.ClientVersion,
	}
	if _, err := rand.Read(hello.Nonce[:]); err != nil {
		return wire.HelloReply{}, refused(err.Error())
	}
	request := wire.AppendFrame(nil, wire.Request(wire.APIHello, helloCorrelation), hello.AppendTo(nil), 0)
	if _, err := socket.Write(request); err != nil {
		return wire.HelloReply{}, refused(err.Error())
	}
	frame, err := frames.next()
	var notAFrame *wire.FrameError
	switch {
	case errors.As(err, &notAFrame):
		return wire.HelloReply{}, malformed(err)
	case errors.Is(err, io.EOF):
		return wire.HelloReply{}, refused("the server closed the connection instead of answering the hello")
	case err != nil:
		return wire.HelloReply{}, refused("no hello: " + describeReadError(err))
	}
	if err := replyError(address, &frame); err != nil {
		return wire.HelloReply{}, err
	}
	if !frame.header.IsReply || frame.header.Correlation != helloCorrelation {
		return wire.HelloReply{}, malformed(errors.New("it answers another request"))
	}
	reply, err := wire.DecodeHelloReply(frame.head)
	if err != nil {
		return wire.HelloReply{}, malformed(err)
	}
	if reply.Protocol < wire.ProtocolMin || reply.Protocol > wire.ProtocolMax {
		return wire.HelloReply{}, fault.Broker(errorcode.UnsupportedVersion, "%s", address)
	}
	return reply, nil
}
