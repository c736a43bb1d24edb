package minikafka_test

import (
	"io"
	"log/slog"
	"testing"

	"go.uber.org/goleak"
)

// quiet drops what clients log: tests that break servers make them talk.
var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// checkLeaks holds a test to leave no goroutine behind, once everything that it cleans up is cleaned up: called first.
func checkLeaks(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
}
