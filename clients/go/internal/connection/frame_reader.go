package connection

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

const (
	// readBufferBytes is what one read asks the system for when nothing large is expected.
	readBufferBytes = 64 << 10
	// frameDeadline is how long a frame may take from its first byte on.
	frameDeadline = 30 * time.Second
)

// frame is a frame as received: its header and head are verified, its bulk carries checksums of its own.
type frame struct {
	header wire.FrameHeader
	head   []byte
	bulk   []byte
}

// frameReader cuts a byte stream into frames. Small frames are parsed out of one buffer, many per read. Bulk gets memory of
// exactly its size: what is already buffered is copied there, the rest is received straight into it, so that a large fetch
// reply is not copied again. Sizes are checked before memory is taken for them.
type frameReader struct {
	socket     net.Conn
	allocate   func(int) []byte
	buffer     []byte
	start, end int
	hasTimer   bool
}

func newFrameReader(socket net.Conn, allocate func(int) []byte) *frameReader {
	if allocate == nil {
		allocate = func(bytes int) []byte { return make([]byte, bytes) }
	}
	return &frameReader{socket: socket, allocate: allocate, buffer: make([]byte, readBufferBytes)}
}

// next waits for the next frame, however long it takes for one to begin. io.EOF when the stream ends between two frames.
func (r *frameReader) next() (frame, error) {
	if err := r.fill(wire.FrameHeaderBytes); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) && r.end == r.start {
			err = io.EOF
		}
		return frame{}, err
	}
	bytes := r.buffer[r.start : r.start+wire.FrameHeaderBytes]
	header, err := wire.DecodeFrameHeader(bytes, wire.ReplyLimits)
	if err != nil {
		return frame{}, err
	}
	if err := r.fill(wire.FrameHeaderBytes + int(header.HeadBytes)); err != nil {
		return frame{}, err
	}
	whole := r.buffer[r.start : r.start+wire.FrameHeaderBytes+int(header.HeadBytes)]
	// The head is copied: it outlives the buffer.
	head := append([]byte(nil), whole[wire.FrameHeaderBytes:]...)
	if err := header.Verify(whole[:wire.FrameHeaderBytes], head); err != nil {
		return frame{}, err
	}
	r.start += len(whole)
	bulk, err := r.receiveBulk(int(header.BulkBytes))
	if err != nil {
		return frame{}, err
	}
	r.stopTimer()
	return frame{header: header, head: head, bulk: bulk}, nil
}

func (r *frameReader) receiveBulk(bytes int) ([]byte, error) {
	if bytes == 0 {
		return nil, nil
	}
	bulk := r.allocate(bytes)
	buffered := copy(bulk, r.buffer[r.start:r.end])
	r.start += buffered
	if buffered == bytes {
		return bulk, nil
	}
	r.startTimer()
	_, err := io.ReadFull(r.socket, bulk[buffered:])
	return bulk, err
}

// fill reads until so many bytes are buffered. The buffer grows with what comes, not with what is announced.
func (r *frameReader) fill(bytes int) error {
	for r.end-r.start < bytes {
		if r.end > r.start {
			r.startTimer()
		}
		r.makeRoom()
		count, err := r.socket.Read(r.buffer[r.end:])
		r.end += count
		if err != nil && r.end-r.start < bytes {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

func (r *frameReader) makeRoom() {
	if r.start == r.end {
		r.start, r.end = 0, 0
		if len(r.buffer) > readBufferBytes {
			// One long head must not cost memory for ever.
			r.buffer = make([]byte, readBufferBytes)
		}
	}
	if len(r.buffer)-r.end >= readBufferBytes/4 {
		return
	}
	buffered := r.buffer[r.start:r.end]
	if len(buffered) > len(r.buffer)/2 {
		r.buffer = make([]byte, 2*len(r.buffer))
	}
	r.end = copy(r.buffer, buffered)
	r.start = 0
}

func (r *frameReader) startTimer() {
	if !r.hasTimer {
		r.hasTimer = true
		_ = r.socket.SetReadDeadline(time.Now().Add(frameDeadline))
	}
}

func (r *frameReader) stopTimer() {
	if r.hasTimer {
		r.hasTimer = false
		_ = r.socket.SetReadDeadline(time.Time{})
	}
}

func describeReadError(err error) string {
	switch {
	case errors.Is(err, io.EOF):
		return "the server closed it"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "the stream ended inside a frame"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "a frame took too long to arrive"
	default:
		return err.Error()
	}
}
