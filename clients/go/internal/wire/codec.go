package wire

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
)

// DecodeError tells why bytes are not the message they should be. Name is the refusal's name in the golden vectors.
type DecodeError struct {
	// Name is "truncated", "trailing" or "field".
	Name string
	// Detail says which field, or how many bytes.
	Detail string
}

func (e *DecodeError) Error() string {
	return fmt.Sprintf("message is not valid: %s (%s)", e.Name, e.Detail)
}

// reader takes fields from a message, front to back. The first fault sticks; what is taken after it is zero, and callers
// look at it once, in finish.
type reader struct {
	rest  []byte
	fault *DecodeError
}

func (r *reader) fail(name, detail string) {
	if r.fault == nil {
		r.fault = &DecodeError{Name: name, Detail: detail}
		r.rest = nil
	}
}

func (r *reader) bytes(count int) []byte {
	if count > len(r.rest) {
		r.fail("truncated", fmt.Sprintf("%d bytes too early", count-len(r.rest)))
		return nil
	}
	taken := r.rest[:count]
	r.rest = r.rest[count:]
	return taken
}

func (r *reader) u8() uint8 {
	if taken := r.bytes(1); taken != nil {
		return taken[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if taken := r.bytes(2); taken != nil {
		return binary.LittleEndian.Uint16(taken)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if taken := r.bytes(4); taken != nil {
		return binary.LittleEndian.Uint32(taken)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if taken := r.bytes(8); taken != nil {
		return binary.LittleEndian.Uint64(taken)
	}
	return 0
}

func (r *reader) i64() int64 { return int64(r.u64()) }

func (r *reader) bool() bool {
	number := r.u8()
	if number > 1 {
		r.fail("field", "bool")
	}
	return number == 1
}

func (r *reader) text() string {
	length := int(r.u16())
	if length > TextBytesMax {
		r.fail("field", "text length")
		return ""
	}
	taken := r.bytes(length)
	if !utf8.Valid(taken) {
		r.fail("field", "text")
		return ""
	}
	return string(taken)
}

// IsName tells whether topics, groups and instances can be called that: 1 to 249 letters, digits, '.', '_' or '-', and neither
// "." nor "..".
func IsName(name string) bool {
	if len(name) == 0 || len(name) > NameBytesMax || name == "." || name == ".." {
		return false
	}
	for _, b := range []byte(name) {
		letter := b|0x20 >= 'a' && b|0x20 <= 'z'
		if !letter && (b < '0' || b > '9') && b != '.' && b != '_' && b != '-' {
			return false
		}
	}
	return true
}

func (r *reader) groupName() string {
	name := r.text()
	if !IsName(name) {
		r.fail("field", "group name")
	}
	return name
}

// instanceName takes the name of a member's instance; empty: none.
func (r *reader) instanceName() string {
	name := r.text()
	if name != "" && !IsName(name) {
		r.fail("field", "instance name")
	}
	return name
}

// code takes an error; a number of a newer release is kept, and is not retriable.
func (r *reader) code() errorcode.Code { return errorcode.Code(r.u16()) }

func (r *reader) rangeKey() RangeKey {
	return RangeKey{Ring: RingID(r.u16()), Range: RangeID(r.u32())}
}

func (r *reader) partitionKey() PartitionKey {
	return PartitionKey{Topic: TopicID(r.u64()), Partition: r.u32()}
}

// finish tells what is wrong with the message, if anything, bytes that are left over included.
func (r *reader) finish() error {
	if r.fault == nil && len(r.rest) > 0 {
		r.fail("trailing", fmt.Sprintf("%d bytes are left over", len(r.rest)))
	}
	if r.fault != nil {
		return r.fault
	}
	return nil
}

// takeList takes a list whose items have at least itemBytesMin bytes each, so that a lying count cannot make us allocate
// more than was sent.
func takeList[T any](r *reader, itemBytesMin int, take func(*reader) T) []T {
	count := int(r.u32())
	if count > len(r.rest)/itemBytesMin {
		r.fail("truncated", fmt.Sprintf("a list of %d items in %d bytes", count, len(r.rest)))
		return nil
	}
	items := make([]T, 0, count)
	for i := 0; i < count && r.fault == nil; i++ {
		items = append(items, take(r))
	}
	return items
}

// takeOptional takes a bool, and the value if it is true.
func takeOptional[T any](r *reader, take func(*reader) T) *T {
	if !r.bool() {
		return nil
	}
	value := take(r)
	return &value
}

func putU16(out []byte, number uint16) []byte { return binary.LittleEndian.AppendUint16(out, number) }
func putU32(out []byte, number uint32) []byte { return binary.LittleEndian.AppendUint32(out, number) }
func putU64(out []byte, number uint64) []byte { return binary.LittleEndian.AppendUint64(out, number) }

func putBool(out []byte, value bool) []byte {
	if value {
		return append(out, 1)
	}
	return append(out, 0)
}

// putText appends a text; one that is too long is cut at a character.
func putText(out []byte, text string) []byte {
	if len(text) > TextBytesMax {
		end := TextBytesMax
		for end > 0 && !utf8.RuneStart(text[end]) {
			end--
		}
		text = text[:end]
	}
	out = putU16(out, uint16(len(text)))
	return append(out, text...)
}

func putRangeKey(out []byte, key RangeKey) []byte {
	return putU32(putU16(out, uint16(key.Ring)), uint32(key.Range))
}

func putPartitionKey(out []byte, key PartitionKey) []byte {
	return putU32(putU64(out, uint64(key.Topic)), key.Partition)
}

func putList[T any](out []byte, items []T, put func([]byte, T) []byte) []byte {
	out = putU32(out, uint32(len(items)))
	for _, item := range items {
		out = put(out, item)
	}
	return out
}

func putOptional[T any](out []byte, value *T, put func([]byte, T) []byte) []byte {
	if value == nil {
		return append(out, 0)
	}
	return put(append(out, 1), *value)
}
