package connection

import (
	"syscall"
	"time"
)

const (
	// keepAliveIdle is after which silence, and then how often, a connection is probed.
	keepAliveIdle = 10 * time.Second
	// tcpUserTimeout is TCP_USER_TIMEOUT, which package syscall does not name.
	tcpUserTimeout = 0x12
	// unacknowledgedMsMax: sent bytes that stay unacknowledged so long end the connection.
	unacknowledgedMsMax = 15_000
)

// configure makes a dead peer noticed within seconds instead of the system's hours. A system that does not know the setting
// is no reason not to connect: overdue answers are noticed all the same.
func configure(_, _ string, socket syscall.RawConn) error {
	return socket.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, unacknowledgedMsMax)
	})
}
