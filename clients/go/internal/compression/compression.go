// Package compression compresses and opens batch bodies: one LZ4 block, or one Zstandard frame (docs/DATA_FILE.md section 1).
package compression

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// Codec says how bodies are compressed; its zero value: not at all.
type Codec struct {
	Kind wire.Codec
	// Level is for Zstandard, 1 to 22.
	Level int
}

var lz4Compressors = sync.Pool{New: func() any { return new(lz4.Compressor) }}

// zstdEncoders has an encoder per level; each is safe for use by many goroutines.
var zstdEncoders sync.Map

func zstdEncoder(level zstd.EncoderLevel) (*zstd.Encoder, error) {
	if encoder, ok := zstdEncoders.Load(level); ok {
		return encoder.(*zstd.Encoder), nil
	}
	// The body has its own checksum, and its size stands in the header of its entry.
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, err
	}
	kept, _ := zstdEncoders.LoadOrStore(level, encoder)
	return kept.(*zstd.Encoder), nil
}

// Compress returns body compressed, in memory of its own, or body itself and CodecNone when that would not make it smaller.
func (c Codec) Compress(body []byte) ([]byte, wire.Codec) {
	switch c.Kind {
	case wire.CodecLZ4:
		compressor := lz4Compressors.Get().(*lz4.Compressor)
		defer lz4Compressors.Put(compressor)
		// With less room than the body has, what would not get smaller is given up early.
		out := make([]byte, len(body)-1)
		if bytes, err := compressor.CompressBlock(body, out); err == nil && bytes > 0 && bytes < len(body) {
			return out[:bytes], wire.CodecLZ4
		}
	case wire.CodecZstd:
		encoder, err := zstdEncoder(zstd.EncoderLevelFromZstd(c.Level))
		if err != nil {
			return body, wire.CodecNone
		}
		if out := encoder.EncodeAll(body, make([]byte, 0, len(body)/2)); len(out) < len(body) {
			return out, wire.CodecZstd
		}
	}
	return body, wire.CodecNone
}

// The decoder takes no more memory than a header may announce, whatever a frame says of itself, and decodes where its caller
// runs: it has no goroutines.
var zstdDecoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(wire.BatchUncompressedBytesMax),
		zstd.WithDecodeAllCapLimit(true))
})

// Open is the body as its producer wrote it. expected is what its header announces, at most 32 MiB.
func Open(codec wire.Codec, body []byte, expected int) ([]byte, error) {
	if expected > wire.BatchUncompressedBytesMax {
		return nil, fmt.Errorf("a body of %d bytes is announced, at most %d are allowed", expected, wire.BatchUncompressedBytesMax)
	}
	var plain []byte
	switch codec {
	case wire.CodecNone:
		plain = body
	case wire.CodecLZ4:
		plain = make([]byte, expected)
		bytes, err := lz4.UncompressBlock(body, plain)
		if err != nil {
			return nil, fmt.Errorf("the LZ4 block is damaged: %w", err)
		}
		plain = plain[:bytes]
	case wire.CodecZstd:
		decoder, err := zstdDecoder()
		if err != nil {
			return nil, err
		}
		if plain, err = decoder.DecodeAll(body, make([]byte, 0, expected)); err != nil {
			return nil, fmt.Errorf("the Zstandard frame is damaged: %w", err)
		}
	default:
		return nil, fmt.Errorf("codec %d is not known", codec)
	}
	if len(plain) != expected {
		return nil, fmt.Errorf("the body has %d bytes once decompressed, its header announces %d", len(plain), expected)
	}
	return plain, nil
}
