package fetch

import (
	"sync"
	"sync/atomic"
)

// Buffer is the memory of one fetch reply, counted by the entries that lie in it, so that it can be used again once the
// application has released all of them. Without a release it is the garbage collector's.
type Buffer struct {
	bytes []byte
	users atomic.Int32
	pool  *Buffers
}

// keptMax bounds the buffers that are kept for their next use.
const keptMax = 8

// Buffers keeps released memory for the next fetch replies.
type Buffers struct {
	mu   sync.Mutex
	kept [][]byte
}

// Allocate gives memory of exactly so many bytes, whose contents are arbitrary.
func (b *Buffers) Allocate(bytes int) []byte {
	b.mu.Lock()
	for i, kept := range b.kept {
		if cap(kept) >= bytes && cap(kept) <= 4*bytes {
			last := len(b.kept) - 1
			b.kept[i] = b.kept[last]
			b.kept = b.kept[:last]
			b.mu.Unlock()
			return kept[:bytes]
		}
	}
	b.mu.Unlock()
	// Somewhat more than asked for, so that the next reply, about as large, finds room in it.
	return make([]byte, bytes, bytes+bytes/8)
}

// Own counts the users of a reply's memory from now on; the caller is the first.
func (b *Buffers) Own(bytes []byte) *Buffer {
	buffer := &Buffer{bytes: bytes, pool: b}
	buffer.users.Store(1)
	return buffer
}

func (b *Buffer) retain() *Buffer {
	if b != nil {
		b.users.Add(1)
	}
	return b
}

// Release says that one user does not need the memory any more.
func (b *Buffer) Release() {
	if b == nil || b.users.Add(-1) != 0 {
		return
	}
	b.pool.mu.Lock()
	defer b.pool.mu.Unlock()
	if len(b.pool.kept) == keptMax {
		// The oldest goes: sizes change, and what nobody took for long is not of the size that is wanted.
		copy(b.pool.kept, b.pool.kept[1:])
		b.pool.kept = b.pool.kept[:keptMax-1]
	}
	b.pool.kept = append(b.pool.kept, b.bytes[:0])
}
