// Package brokertest runs a real broker for tests: "minikafka dev", as a process of its own, started, killed, and started again.
package brokertest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/vectors"
)

// startDeadline: a broker that takes longer than this to listen is broken.
const startDeadline = 30 * time.Second

// Broker is a running broker. It is killed at the end of its test, at the latest.
type Broker struct {
	t         testing.TB
	directory string
	more      []string
	command   *exec.Cmd
	// Gateway is its gateway's host:port, Shards those of its shards.
	Gateway string
	Shards  []string
	ended   chan error
}

// Binary is the broker's binary: MINIKAFKA_BINARY, or target/release/minikafka or target/debug/minikafka of the repository.
// Without one the test is skipped.
func Binary(t testing.TB) string {
	t.Helper()
	if binary := os.Getenv("MINIKAFKA_BINARY"); binary != "" {
		return binary
	}
	root := vectors.Root(t)
	for _, profile := range []string{"release", "debug"} {
		binary := filepath.Join(root, "target", profile, "minikafka")
		if _, err := os.Stat(binary); err == nil {
			return binary
		}
	}
	t.Skip("no broker: cargo build --release, or name one in MINIKAFKA_BINARY")
	return ""
}

// Start starts a broker with a data directory of its own, below the repository's target directory because a broker needs
// direct I/O, which a temporary directory in memory does not have.
func Start(t testing.TB, more ...string) *Broker {
	t.Helper()
	binary := Binary(t)
	parent := filepath.Join(vectors.Root(t), "target", "tmp")
	if err := os.MkdirAll(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	directory, err := os.MkdirTemp(parent, "go-client-")
	if err != nil {
		t.Fatal(err)
	}
	b := &Broker{t: t, directory: directory, more: more}
	t.Cleanup(func() {
		b.Kill()
		if t.Failed() {
			t.Logf("the end of the broker's log:\n%s", b.logEnd())
		}
		_ = os.RemoveAll(directory)
	})
	b.start(binary, "127.0.0.1:0", 0)
	return b
}

func (b *Broker) start(binary, gateway string, portBase int) {
	b.t.Helper()
	arguments := []string{
		"dev", "--json", "--data-dir", filepath.Join(b.directory, "data"), "--cores", "1", "--http", "127.0.0.1:0",
		"--gateway-listen", gateway, "--port-base", strconv.Itoa(portBase),
	}
	log, err := os.OpenFile(filepath.Join(b.directory, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		b.t.Fatal(err)
	}
	defer log.Close()
	b.command = exec.Command(binary, append(arguments, b.more...)...)
	b.command.Stderr = log
	stdout, err := b.command.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.command.Start(); err != nil {
		b.t.Fatal(err)
	}
	lines := make(chan string, 1)
	command, ended := b.command, make(chan error, 1)
	b.ended = ended
	go func() {
		scanner := bufio.NewScanner(stdout)
		for scanner.Scan() {
			select {
			case lines <- scanner.Text():
			default: // only the first line is listened to
			}
		}
		ended <- command.Wait()
	}()
	var ready struct {
		Gateway string
		Shards  []string
	}
	select {
	case line := <-lines:
		if err := json.Unmarshal([]byte(line), &ready); err != nil {
			b.t.Fatalf("not a ready message: %s", line)
		}
	case err := <-ended:
		b.ended = nil
		b.t.Fatalf("the broker ended (%v):\n%s", err, b.logEnd())
	case <-time.After(startDeadline):
		b.t.Fatalf("the broker does not get ready:\n%s", b.logEnd())
	}
	b.Gateway, b.Shards = ready.Gateway, ready.Shards
}

// Kill ends the broker by SIGKILL: it gets no chance to do anything.
func (b *Broker) Kill() {
	if b.ended == nil {
		return
	}
	_ = b.command.Process.Kill()
	<-b.ended
	b.ended = nil
}

// Restart starts a killed broker again, on the same data and the same ports.
func (b *Broker) Restart() {
	b.t.Helper()
	_, port, err := net.SplitHostPort(b.Shards[0])
	if err != nil {
		b.t.Fatal(err)
	}
	base, err := strconv.Atoi(port)
	if err != nil {
		b.t.Fatal(err)
	}
	b.start(Binary(b.t), b.Gateway, base)
}

func (b *Broker) logEnd() string {
	text, err := os.ReadFile(filepath.Join(b.directory, "log"))
	if err != nil {
		return fmt.Sprint(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(len(lines)-20, 0):], "\n")
}
