package compression

import (
	"bytes"
	"math/rand"
	"testing"

	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

func codecs() []Codec {
	return []Codec{{Kind: wire.CodecLZ4}, {Kind: wire.CodecZstd, Level: 1}, {Kind: wire.CodecZstd, Level: 3}, {Kind: wire.CodecZstd, Level: 22}}
}

func TestWhatIsCompressedIsOpenedAndLyingSizesAreRefused(t *testing.T) {
	for _, size := range []int{120, 4096, 1 << 20} {
		body := bytes.Repeat([]byte("some text, over and over; "), size/26+1)[:size]
		for _, codec := range codecs() {
			compressed, kind := codec.Compress(body)
			if kind != codec.Kind || len(compressed) >= len(body) {
				t.Fatalf("%+v: %d bytes of %d, codec %d", codec, len(compressed), len(body), kind)
			}
			plain, err := Open(kind, compressed, len(body))
			if err != nil || !bytes.Equal(plain, body) {
				t.Fatalf("%+v: %v", codec, err)
			}
			for _, lie := range []int{-1, 1, 1000} {
				if _, err := Open(kind, compressed, len(body)+lie); err == nil {
					t.Errorf("%+v: a size off by %d is taken", codec, lie)
				}
			}
			if _, err := Open(kind, compressed[:len(compressed)/2], len(body)); err == nil {
				t.Errorf("%+v: half a body is taken", codec)
			}
		}
	}
}

func TestWhatDoesNotGetSmallerStaysAsItIs(t *testing.T) {
	body := make([]byte, 10_000)
	rand.New(rand.NewSource(1)).Read(body)
	for _, codec := range append(codecs(), Codec{}) {
		if same, kind := codec.Compress(body); kind != wire.CodecNone || &same[0] != &body[0] {
			t.Errorf("%+v: %d bytes", codec, len(same))
		}
	}
	if _, err := Open(9, body, len(body)); err == nil {
		t.Error("an unknown codec is taken")
	}
}

// FuzzOpen holds decoders of other people's making to what we promise: no panic, and no more memory than announced.
func FuzzOpen(f *testing.F) {
	body := bytes.Repeat([]byte("some text, over and over; "), 10)
	for _, codec := range codecs() {
		compressed, kind := codec.Compress(body)
		f.Add(uint8(kind), compressed, len(body))
	}
	f.Fuzz(func(t *testing.T, codec uint8, compressed []byte, expected int) {
		if expected < 0 || expected > 1<<20 {
			return
		}
		plain, err := Open(wire.Codec(codec), compressed, expected)
		if err == nil && len(plain) != expected {
			t.Fatalf("%d bytes, not %d", len(plain), expected)
		}
	})
}
