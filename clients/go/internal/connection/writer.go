package connection

import (
	"net"
	"sync/atomic"
	"time"
)

const (
	// requestsPerWrite bounds what one system call carries: each request has two pieces, the system takes 1,024.
	requestsPerWrite = 64
	// writeDeadline is how long a server may take to read what was sent.
	writeDeadline = 30 * time.Second
)

// outgoing is a request on its way out.
type outgoing struct {
	// start has frame header and head.
	start []byte
	// bulk is what follows; it belongs to whoever may have to send it again.
	bulk    []byte
	written *atomic.Bool
}

// writeRequests writes requests until the connection ends: as many as are there, in one system call.
func (c *Connection) writeRequests() {
	defer c.tasks.Done()
	var requests []outgoing
	pieces := make([][]byte, 0, 2*requestsPerWrite)
	for {
		select {
		case <-c.wakeWriter:
		case <-c.ended:
			return
		}
		c.mu.Lock()
		requests, c.outgoing = c.outgoing, requests[:0]
		c.mu.Unlock()
		for rest := requests; len(rest) > 0; {
			now := rest[:min(len(rest), requestsPerWrite)]
			rest = rest[len(now):]
			if err := c.write(now, pieces); err != nil {
				c.EndBecause(describeWriteError(err))
				return
			}
		}
		clear(requests)
	}
}

func (c *Connection) write(requests []outgoing, pieces [][]byte) error {
	for i := range requests {
		pieces = append(pieces, requests[i].start)
		if len(requests[i].bulk) > 0 {
			pieces = append(pieces, requests[i].bulk)
		}
	}
	if err := c.socket.SetWriteDeadline(time.Now().Add(writeDeadline)); err != nil {
		return err
	}
	buffers := net.Buffers(pieces)
	if _, err := buffers.WriteTo(c.socket); err != nil {
		return err
	}
	for i := range requests {
		if requests[i].written != nil {
			requests[i].written.Store(true)
		}
	}
	return nil
}

func describeWriteError(err error) string {
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		return "the server did not read for 30 s"
	}
	return err.Error()
}
