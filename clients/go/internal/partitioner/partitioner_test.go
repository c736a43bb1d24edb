package partitioner

import (
	"testing"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/vectors"
)

func TestGoldenPartitions(t *testing.T) {
	var file struct {
		Keys []struct {
			Key        vectors.Hex
			Partitions []struct{ Of, Is int32 }
		}
	}
	vectors.Load(t, "partitioner", &file)
	if len(file.Keys) == 0 {
		t.Fatal("no keys")
	}
	for _, vector := range file.Keys {
		for _, expected := range vector.Partitions {
			if got := OfKey(vector.Key, expected.Of); got != expected.Is {
				t.Errorf("key %x of %d: %d, want %d", vector.Key, expected.Of, got, expected.Is)
			}
		}
	}
}

func TestMovesOnAfterEnoughBytesOrEnoughTime(t *testing.T) {
	start := time.Now()
	sticky := NewSticky(4, 3, 1000, start)
	steps := []struct {
		partition, bytes int
		at               time.Duration
		current          int32
	}{
		{1, 400, 0, 1},
		{1, 600, 0, 2},
		{1, 5000, 0, 2}, // batches of other partitions do not count
		{2, 1, stayMax, 0},
	}
	for _, step := range steps {
		sticky.BatchLeft(int32(step.partition), step.bytes, start.Add(step.at))
		if sticky.Current() != step.current {
			t.Fatalf("%+v: now at %d", step, sticky.Current())
		}
	}
}
