package wire

import (
	"encoding/binary"
	"fmt"
)

// EntryHeaderBytes is the size of the header in front of every body.
const EntryHeaderBytes = 128

// EntryAlignment is what entries are padded to.
const EntryAlignment = 16

const (
	entryMagic   = 0x31654b4d // "MKe1"
	entryVersion = 1
	indexMax     = 1<<63 - 1
)

// Bounds of a batch that its header already tells.
const (
	// BatchUncompressedBytesMax bounds a body once decompressed: what a reader must allocate.
	BatchUncompressedBytesMax = 32 << 20
	// BatchRecordsMax bounds the records of a batch.
	BatchRecordsMax = 1 << 18
)

// EntryKind is what an entry is.
type EntryKind uint8

// The kinds of entries.
const (
	EntryBatch   EntryKind = 1
	EntryControl EntryKind = 2
)

// BodyFormat is how a body is laid out.
type BodyFormat uint8

// The body formats.
const (
	BodyControl  BodyFormat = 0
	BodyColumnar BodyFormat = 1
)

// Codec is how a body is compressed.
type Codec uint8

// The codecs: the body as it is, one LZ4 block, one Zstandard frame.
const (
	CodecNone Codec = 0
	CodecLZ4  Codec = 1
	CodecZstd Codec = 2
)

// EntryHeader is what stands in front of every body, on the wire and on disk (docs/DATA_FILE.md section 2).
type EntryHeader struct {
	Kind              EntryKind
	BodyFormat        BodyFormat
	Codec             Codec
	BodyBytes         uint32
	UncompressedBytes uint32
	Range             RangeKey
	Attributes        uint16
	Epoch             Epoch
	Index             uint64
	Topic             TopicID
	Partition         uint32
	RecordCount       uint32
	BaseOffset        uint64
	LastOffsetDelta   uint32
	BaseSequence      int32
	BaseTimestamp     int64
	MaxTimestamp      int64
	AppendTimestamp   int64
	ProducerID        int64
	ProducerEpoch     int16
	BodyCRC           uint32
	RunningHash       uint64
}

// EntryError tells why bytes are not an entry header. Name is the refusal's name in the golden vectors.
type EntryError struct {
	// Name is "short", "magic", "version", "header_crc" or "field".
	Name string
	// Field is the field at fault, if one is.
	Field string
	// Detail says what was found.
	Detail string
}

func (e *EntryError) Error() string {
	if e.Field != "" {
		return "entry field " + e.Field + " is outside its range: " + e.Detail
	}
	return "bytes are not an entry header: " + e.Name + " (" + e.Detail + ")"
}

// EntryBytes counts the bytes from the start of an entry to the start of the next: header, body, padding.
func (h *EntryHeader) EntryBytes() int {
	return EntryHeaderBytes + (int(h.BodyBytes)+EntryAlignment-1)&^(EntryAlignment-1)
}

// NextOffset is the offset after the last record.
func (h *EntryHeader) NextOffset() uint64 { return h.BaseOffset + uint64(h.LastOffsetDelta) + 1 }

// PartitionKey is the partition that the entry belongs to.
func (h *EntryHeader) PartitionKey() PartitionKey {
	return PartitionKey{Topic: h.Topic, Partition: h.Partition}
}

// AppendUnsealed appends the header as a producer sends it: without a checksum of its own, because the frame has one.
func (h *EntryHeader) AppendUnsealed(out []byte) []byte {
	out = putU32(out, entryMagic)
	out = append(out, entryVersion, byte(h.Kind), byte(h.BodyFormat), byte(h.Codec))
	out = putU32(putU32(out, h.BodyBytes), h.UncompressedBytes)
	out = putU16(putU16(out, uint16(h.Range.Ring)), h.Attributes)
	out = putU32(out, uint32(h.Range.Range))
	out = putU64(putU64(out, uint64(h.Epoch)), h.Index)
	out = putU64(out, uint64(h.Topic))
	out = putU32(putU32(out, h.Partition), h.RecordCount)
	out = putU64(out, h.BaseOffset)
	out = putU32(putU32(out, h.LastOffsetDelta), uint32(h.BaseSequence))
	out = putU64(putU64(out, uint64(h.BaseTimestamp)), uint64(h.MaxTimestamp))
	out = putU64(putU64(out, uint64(h.AppendTimestamp)), uint64(h.ProducerID))
	out = putU16(putU16(out, uint16(h.ProducerEpoch)), 0)
	out = putU64(putU32(out, h.BodyCRC), h.RunningHash)
	return putU64(out, 0)
}

// AppendSealed appends the header as logs hold it, with its checksum.
func (h *EntryHeader) AppendSealed(out []byte) []byte {
	start := len(out)
	out = h.AppendUnsealed(out)
	binary.LittleEndian.PutUint32(out[start+120:], CRC32C(out[start:]))
	return out
}

// DecodeSealed decodes a header from a log, and verifies its checksum and fields.
func DecodeSealed(bytes []byte) (EntryHeader, error) {
	h, err := DecodeUnsealed(bytes)
	if err != nil {
		return h, err
	}
	found := binary.LittleEndian.Uint32(bytes[120:])
	var zeroed [EntryHeaderBytes]byte
	copy(zeroed[:], bytes)
	clear(zeroed[120:124])
	if computed := CRC32C(zeroed[:]); found != computed {
		return h, &EntryError{Name: "header_crc", Detail: fmt.Sprintf("%#08x, computed %#08x", found, computed)}
	}
	return h, nil
}

// DecodeUnsealed decodes a header as a producer sends it: everything but the checksum is verified.
func DecodeUnsealed(bytes []byte) (EntryHeader, error) {
	if len(bytes) < EntryHeaderBytes {
		return EntryHeader{}, &EntryError{Name: "short", Detail: fmt.Sprintf("%d bytes", len(bytes))}
	}
	if magic := binary.LittleEndian.Uint32(bytes); magic != entryMagic {
		return EntryHeader{}, &EntryError{Name: "magic", Detail: fmt.Sprintf("%#08x", magic)}
	}
	if bytes[4] != entryVersion {
		return EntryHeader{}, &EntryError{Name: "version", Detail: fmt.Sprintf("%d, this release knows %d", bytes[4], entryVersion)}
	}
	u16 := func(at int) uint16 { return binary.LittleEndian.Uint16(bytes[at:]) }
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(bytes[at:]) }
	u64 := func(at int) uint64 { return binary.LittleEndian.Uint64(bytes[at:]) }
	h := EntryHeader{
		Kind:              EntryKind(bytes[5]),
		BodyFormat:        BodyFormat(bytes[6]),
		Codec:             Codec(bytes[7]),
		BodyBytes:         u32(8),
		UncompressedBytes: u32(12),
		Range:             RangeKey{Ring: RingID(u16(16)), Range: RangeID(u32(20))},
		Attributes:        u16(18),
		Epoch:             Epoch(u64(24)),
		Index:             u64(32),
		Topic:             TopicID(u64(40)),
		Partition:         u32(48),
		RecordCount:       u32(52),
		BaseOffset:        u64(56),
		LastOffsetDelta:   u32(64),
		BaseSequence:      int32(u32(68)),
		BaseTimestamp:     int64(u64(72)),
		MaxTimestamp:      int64(u64(80)),
		AppendTimestamp:   int64(u64(88)),
		ProducerID:        int64(u64(96)),
		ProducerEpoch:     int16(u16(104)),
		BodyCRC:           u32(108),
		RunningHash:       u64(112),
	}
	if u16(106) != 0 || u32(124) != 0 {
		return h, &EntryError{Name: "field", Field: "reserved", Detail: "it is not zero"}
	}
	return h, h.checkFields()
}

// checkFields holds every field against its range, and against the others.
func (h *EntryHeader) checkFields() error {
	isControl := h.Kind == EntryControl
	rules := [...]struct {
		holds bool
		field string
		value uint64
	}{
		{h.Kind == EntryBatch || isControl, "kind", uint64(h.Kind)},
		{h.BodyFormat <= BodyColumnar && isControl == (h.BodyFormat == BodyControl), "body_format", uint64(h.BodyFormat)},
		{h.Codec <= CodecZstd, "codec", uint64(h.Codec)},
		{h.Attributes == 0, "attributes", uint64(h.Attributes)},
		{h.BodyBytes <= BatchBodyBytesMax, "body_bytes", uint64(h.BodyBytes)},
		{
			h.UncompressedBytes <= BatchUncompressedBytesMax && (h.Codec != CodecNone || h.UncompressedBytes == h.BodyBytes),
			"uncompressed_bytes", uint64(h.UncompressedBytes),
		},
		{h.RecordCount <= BatchRecordsMax && isControl == (h.RecordCount == 0), "record_count", uint64(h.RecordCount)},
		{isControl || h.LastOffsetDelta >= h.RecordCount-1, "last_offset_delta", uint64(h.LastOffsetDelta)},
		{h.Index <= indexMax, "index", h.Index},
		{h.BaseOffset <= indexMax, "base_offset", h.BaseOffset},
		{h.ProducerID < 0 || h.BaseSequence >= 0, "base_sequence", uint64(uint32(h.BaseSequence))},
	}
	for _, rule := range rules {
		if !rule.holds {
			return &EntryError{Name: "field", Field: rule.field, Detail: fmt.Sprint(rule.value)}
		}
	}
	return nil
}
