package fetch

import (
	"fmt"

	"github.com/minikafka/minikafka/clients/go/internal/explain"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// Entry is a batch as fetched: verified, but neither decompressed nor parsed.
type Entry struct {
	Header wire.EntryHeader
	Body   []byte
	// Buffer is the memory that Body lies in, if it is counted.
	Buffer *Buffer
	// Explain is of the fetch that brought it, if that was asked for.
	Explain *explain.Explain
}

// bufferedBytes is what the entry holds of the consumer's memory.
func (e *Entry) bufferedBytes() int { return e.Header.EntryBytes() }

// Verified cuts fetched bytes into the batches of a partition that reach beyond position, up to the first damage, which comes
// with them. Every byte is checked: headers by their own checksum, bodies by theirs, padding by being zero, and the order of
// offsets and indexes by growing. (The running hash chains entries of all partitions of a range, so one partition's entries
// alone cannot be checked against it.)
func Verified(bytes []byte, partition wire.PartitionKey, position uint64, buffer *Buffer) ([]Entry, error) {
	var entries []Entry
	cursor := cursor{nextOffset: position}
	for cursor.at < len(bytes) {
		entry, wanted, err := cursor.next(bytes, partition)
		if err != nil {
			return entries, err
		}
		if wanted {
			entry.Buffer = buffer.retain()
			entries = append(entries, entry)
		}
	}
	return entries, nil
}

// cursor is how far the bytes have been verified.
type cursor struct {
	at         int
	nextOffset uint64
	index      uint64
}

// next is the next entry; not wanted when it holds nothing that was asked for.
func (c *cursor) next(bytes []byte, partition wire.PartitionKey) (entry Entry, wanted bool, err error) {
	header, err := wire.DecodeSealed(bytes[c.at:])
	if err != nil {
		return entry, false, err
	}
	start, end := c.at+wire.EntryHeaderBytes, c.at+header.EntryBytes()
	if end > len(bytes) {
		return entry, false, fmt.Errorf("an entry of %d bytes is cut off", header.EntryBytes())
	}
	bodyEnd := start + int(header.BodyBytes)
	for _, padding := range bytes[bodyEnd:end] {
		if padding != 0 {
			return entry, false, fmt.Errorf("the padding of entry %d is not zero", header.Index)
		}
	}
	body := bytes[start:bodyEnd:bodyEnd]
	if found := wire.CRC32C(body); found != header.BodyCRC {
		return entry, false, fmt.Errorf("a body's checksum is %#08x, computed %#08x", header.BodyCRC, found)
	}
	if header.PartitionKey() != partition {
		return entry, false, fmt.Errorf("an entry belongs to partition %s", header.PartitionKey())
	}
	if header.Index <= c.index {
		return entry, false, fmt.Errorf("entry %d follows entry %d", header.Index, c.index)
	}
	isFirst := c.at == 0
	c.at, c.index = end, header.Index
	if header.Kind != wire.EntryBatch || isFirst && header.NextOffset() <= c.nextOffset {
		return entry, false, nil
	}
	if !isFirst && header.BaseOffset < c.nextOffset {
		return entry, false, fmt.Errorf("offset %d follows offset %d", header.BaseOffset, c.nextOffset)
	}
	c.nextOffset = header.NextOffset()
	return Entry{Header: header, Body: body}, true, nil
}
