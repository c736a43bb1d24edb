package produce

// noProducer is the id of a producer that is not idempotent.
const noProducer = -1

// line is a producer id with the next sequence to be used under it.
type line struct {
	producerID int64
	next       int32
}

// newLine begins with a random 63-bit id, from sequence 0 on; without idempotence, with the id that means none.
func newLine(r *randomness, idempotent bool) line {
	if !idempotent {
		return line{producerID: noProducer}
	}
	return line{producerID: int64(r.next() >> 1)}
}

// advance is the sequence so many records later: it wraps from the largest to zero.
func advance(sequence int32, records int) int32 {
	return int32((uint32(sequence) + uint32(records)) & 0x7fff_ffff)
}

// randomness is SplitMix64 (Steele, Lea, Flood 2014): the seed is random, everything after it replays.
type randomness uint64

func (r *randomness) next() uint64 {
	*r += 0x9E37_79B9_7F4A_7C15
	mixed := uint64(*r)
	mixed = (mixed ^ mixed>>30) * 0xBF58_476D_1CE4_E5B9
	mixed = (mixed ^ mixed>>27) * 0x94D0_49BB_1331_11EB
	return mixed ^ mixed>>31
}

// fraction is 0 to 1.
func (r *randomness) fraction() float64 { return float64(r.next()>>11) / (1 << 53) }
