package wire

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
)

// FrameHeaderBytes is the size of a frame header.
const FrameHeaderBytes = 32

// frameMagic is "MKw1", the first four bytes of every frame.
const frameMagic = 0x31774b4d

const (
	flagReply   = 1
	flagExplain = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CRC32C guards bytes on the wire and in entries.
func CRC32C(bytes []byte) uint32 { return crc32.Checksum(bytes, castagnoli) }

// FrameHeader is a frame header, decoded (docs/PROTOCOL.md section 1).
type FrameHeader struct {
	API     API
	Version uint8
	IsReply bool
	// Explain: a produce or fetch asks to be explained; its reply's head ends with that.
	Explain bool
	// Correlation is chosen by the client, and repeated in the reply.
	Correlation uint64
	// Error is what went wrong; then the head is an ErrorReply. None in requests.
	Error errorcode.Code
	// HeadBytes counts the message fields behind the header.
	HeadBytes uint32
	// BulkBytes counts what stands behind the head.
	BulkBytes uint32
	crc       uint32
}

// FrameError tells why bytes are not a frame: the connection cannot go on.
type FrameError struct {
	// Name is the refusal's name in the golden vectors: "magic", "too_large", "field" or "crc".
	Name string
	// Detail says what was found.
	Detail string
}

func (e *FrameError) Error() string {
	return "bytes are not a frame: " + e.Name + " (" + e.Detail + ")"
}

// FrameLimits is what the receiver of a frame allows.
type FrameLimits struct {
	HeadBytesMax uint32
	BulkBytesMax uint32
}

// RequestLimits is what a shard or gateway takes from a client.
var RequestLimits = FrameLimits{HeadBytesMax: RequestHeadBytesMax, BulkBytesMax: BatchBodyBytesMax}

// ReplyLimits is what a client takes from a server: the entries of a fetch reply, or one entry.
var ReplyLimits = FrameLimits{HeadBytesMax: FrameHeadBytesMax, BulkBytesMax: FetchBytesMax + BatchBodyBytesMax}

// DecodeFrameHeader decodes the first 32 of bytes; the sizes are checked before anything is allocated for them.
func DecodeFrameHeader(bytes []byte, allowed FrameLimits) (FrameHeader, error) {
	bytes = bytes[:FrameHeaderBytes]
	if magic := binary.LittleEndian.Uint32(bytes); magic != frameMagic {
		return FrameHeader{}, &FrameError{"magic", fmt.Sprintf("%#08x: the peer does not speak MiniKafka's protocol", magic)}
	}
	head, bulk := binary.LittleEndian.Uint32(bytes[4:]), binary.LittleEndian.Uint32(bytes[8:])
	if head > allowed.HeadBytesMax || bulk > allowed.BulkBytesMax {
		detail := fmt.Sprintf("%d and %d bytes, at most %d and %d are allowed", head, bulk, allowed.HeadBytesMax, allowed.BulkBytesMax)
		return FrameHeader{}, &FrameError{"too_large", detail}
	}
	api, flags, code := API(binary.LittleEndian.Uint16(bytes[12:])), bytes[15], binary.LittleEndian.Uint16(bytes[24:])
	mayExplain := (api == APIProduce || api == APIFetch) && code == 0
	if flags&^(flagReply|flagExplain) != 0 || (flags&flagExplain != 0 && !mayExplain) {
		return FrameHeader{}, &FrameError{"field", "flags"}
	}
	if binary.LittleEndian.Uint16(bytes[26:]) != 0 {
		return FrameHeader{}, &FrameError{"field", "reserved"}
	}
	return FrameHeader{
		API:         api,
		Version:     bytes[14],
		IsReply:     flags&flagReply != 0,
		Explain:     flags&flagExplain != 0,
		Correlation: binary.LittleEndian.Uint64(bytes[16:]),
		Error:       errorcode.Code(code),
		HeadBytes:   head,
		BulkBytes:   bulk,
		crc:         binary.LittleEndian.Uint32(bytes[28:]),
	}, nil
}

// Verify holds the header (its bytes as received) and the head against the header's checksum.
func (header *FrameHeader) Verify(bytes, head []byte) error {
	computed := crc32.Update(CRC32C(bytes[:28]), castagnoli, head)
	if computed != header.crc {
		return &FrameError{"crc", fmt.Sprintf("%#08x, computed %#08x: the bytes were damaged on the way", header.crc, computed)}
	}
	return nil
}

// Request is the header of a request; AppendFrame fills in the sizes.
func Request(api API, correlation uint64) FrameHeader {
	return FrameHeader{API: api, Version: 1, Correlation: correlation}
}

// AppendFrame appends a frame: header and head. The sender puts bulkBytes more right behind.
func AppendFrame(out []byte, header FrameHeader, head []byte, bulkBytes int) []byte {
	start := len(out)
	out = AppendFrameHeader(out, header, len(head), bulkBytes)
	out = append(out, head...)
	return SealFrame(out, start)
}

// AppendFrameHeader appends a header without its checksum: for heads that are encoded right behind it. SealFrame ends it.
func AppendFrameHeader(out []byte, header FrameHeader, headBytes, bulkBytes int) []byte {
	out = putU32(out, frameMagic)
	out = putU32(out, uint32(headBytes))
	out = putU32(out, uint32(bulkBytes))
	out = putU16(out, uint16(header.API))
	flags := byte(0)
	if header.IsReply {
		flags |= flagReply
	}
	if header.Explain {
		flags |= flagExplain
	}
	out = append(out, header.Version, flags)
	out = putU64(out, header.Correlation)
	out = putU16(out, uint16(header.Error))
	return append(out, 0, 0, 0, 0, 0, 0)
}

// SealFrame computes the checksum of the frame that begins at start and ends with its head.
func SealFrame(out []byte, start int) []byte {
	frame := out[start:]
	binary.LittleEndian.PutUint32(frame[4:], uint32(len(frame)-FrameHeaderBytes))
	crc := crc32.Update(CRC32C(frame[:28]), castagnoli, frame[FrameHeaderBytes:])
	binary.LittleEndian.PutUint32(frame[28:], crc)
	return out
}
