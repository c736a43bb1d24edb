//go:build !linux

package connection

import (
	"syscall"
	"time"
)

// keepAliveIdle is after which silence, and then how often, a connection is probed.
const keepAliveIdle = 10 * time.Second

func configure(_, _ string, _ syscall.RawConn) error { return nil }
