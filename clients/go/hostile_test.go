package minikafka_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	minikafka "github.com/minikafka/minikafka/clients/go"
	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/fakecluster"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// harm is what a hostile server does instead of answering.
type harm func(*fakecluster.Request)

// harms are the ways to answer badly that every kind of request may meet.
var harms = map[string]harm{
	"hangs up": func(r *fakecluster.Request) { r.HangUp() },
	"garbage": func(r *fakecluster.Request) {
		r.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\nthis is no frame at all"))
	},
	"a corrupt frame":      func(r *fakecluster.Request) { r.Write(r.CorruptFrame()) },
	"4 GiB announced":      func(r *fakecluster.Request) { r.Write(r.LyingFrame(1<<32-1, 0)) },
	"16 MiB, then nothing": func(r *fakecluster.Request) { r.Write(r.LyingFrame(16<<20, 0)); r.HangUp() },
	"20 MiB of bulk, then nothing": func(r *fakecluster.Request) {
		r.Write(r.LyingFrame(0, 20<<20))
		r.HangUp()
	},
	"half a header": func(r *fakecluster.Request) { r.Write(r.CorruptFrame()[:16]); r.HangUp() },
	"another correlation": func(r *fakecluster.Request) {
		r.Header.Correlation += 1000
		r.Reply(empty{}, nil)
	},
	"a request instead of a reply": func(r *fakecluster.Request) { r.Write(wire.AppendFrame(nil, r.Header, nil, 0)) },
	"an empty reply":               func(r *fakecluster.Request) { r.Reply(empty{}, nil) },
	"bytes left over":              func(r *fakecluster.Request) { r.Reply(raw(bytes.Repeat([]byte{1}, 1000)), []byte("bulk")) },
	"a malformed error": func(r *fakecluster.Request) {
		r.Header.IsReply, r.Header.Error = true, errorcode.Stale
		r.Write(wire.AppendFrame(nil, r.Header, []byte{1, 2, 3}, 0))
	},
	"a retriable error":    func(r *fakecluster.Request) { r.Refuse(errorcode.Overloaded, wire.ErrorReply{RetryAfterMs: 5}) },
	"the answer twice":     func(r *fakecluster.Request) { r.Answer(); r.Answer() },
	"the answer, then end": func(r *fakecluster.Request) { r.Answer(); r.HangUp() },
}

type raw []byte

func (r raw) AppendTo(out []byte) []byte { return append(out, r...) }

type empty struct{}

func (empty) AppendTo(out []byte) []byte { return out }

// Every kind of request meets every harm, some times, and then a server in its right mind: everything is stored and read all the
// same, once and in order.
func TestAClientRidesThroughWhateverAServerAnswers(t *testing.T) {
	checkLeaks(t)
	for _, api := range []wire.API{wire.APIHello, wire.APIResolve, wire.APIProduce, wire.APIFetch} {
		for name, harm := range harms {
			t.Run(fmt.Sprintf("%s/%s", api, name), func(t *testing.T) {
				t.Parallel()
				rideThrough(t, api, harm)
			})
		}
	}
}

func rideThrough(t *testing.T, api wire.API, harm harm) {
	const records, times = 60, 3
	cluster := fakecluster.New(t, 1)
	cluster.CreateTopic("orders", 1)
	var seen atomic.Int32
	cluster.Intercept(func(r *fakecluster.Request) bool {
		// The first request of its kind goes well, so that the harm is done in the middle.
		if r.Header.API != api || api == wire.APIProduce && seen.Add(1) == 1 || seen.Add(1) > 1+times {
			return false
		}
		harm(r)
		return true
	})
	client := newClient(t, cluster.Gateways()[0], minikafka.BatchBytes(1<<10), minikafka.ConsumeTopics("orders"), minikafka.FetchWait(20*time.Millisecond))
	ctx := testContext(t)
	// A gateway that cannot be believed is the application's to ask again.
	await(t, "the gateway to answer", func() bool { return client.Ping(ctx) == nil })
	for i := range records {
		value := []byte(fmt.Sprintf("%030d", i))
		client.Produce(ctx, &minikafka.Record{Topic: "orders", Value: value}, func(_ minikafka.Delivery, err error) {
			if err != nil {
				t.Errorf("record %d: %v", i, err)
			}
		})
	}
	if err := client.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	stored := cluster.Values("orders", 0)
	if len(stored) != records {
		t.Fatalf("%d of %d records are stored", len(stored), records)
	}
	for read := 0; read < records; {
		record, err := client.PollRecord(ctx)
		if err != nil {
			var damaged *minikafka.DamagedError
			if errors.As(err, &damaged) {
				// Told after three bad answers in a row: the application decides to go on.
				if err := client.Seek("orders", 0, int64(read)); err != nil {
					t.Fatal(err)
				}
				continue
			}
			t.Fatal(err)
		}
		if expected := fmt.Sprintf("%030d", read); string(record.Value) != expected || stored[read] != expected {
			t.Fatalf("record %d is %s, stored %s", read, record.Value, stored[read])
		}
		read++
	}
}

// A server that never gets better ends every call by its deadline, with an error that says what happened.
func TestNothingHangsAtAServerThatNeverAnswers(t *testing.T) {
	checkLeaks(t)
	silences := map[string]func(net.Conn){
		"silent":          func(net.Conn) {},
		"closes at once":  func(c net.Conn) { c.Close() },
		"talks nonsense":  func(c net.Conn) { _, _ = c.Write(bytes.Repeat([]byte("nonsense"), 100)) },
		"byte for byte":   drip,
		"never reads":     func(c net.Conn) { _ = c.(*net.TCPConn).SetReadBuffer(1) },
		"half a hello":    func(c net.Conn) { _, _ = c.Write([]byte("MKw1\x00\x00")) },
		"resets at once":  func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0); c.Close() },
		"a giant's hello": func(c net.Conn) { _, _ = c.Write(append([]byte("MKw1"), bytes.Repeat([]byte{0xff}, 28)...)) },
	}
	for name, behave := range silences {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := serve(t, behave)
			client := newClient(t, address, minikafka.ConnectTimeout(200*time.Millisecond), minikafka.RequestTimeout(400*time.Millisecond),
				minikafka.DeliveryTimeout(300*time.Millisecond), minikafka.ConsumeTopics("orders"))
			begun := time.Now()
			ctx := testContext(t)
			_, produced := client.ProduceSync(ctx, &minikafka.Record{Topic: "orders"})
			_, polled := client.Poll(ctx)
			_, listed := client.ListTopics(ctx)
			_, created := client.CreateTopic(ctx, minikafka.NewTopic{Name: "orders"})
			for _, err := range []error{produced, polled, listed, created, client.Ping(ctx)} {
				var typed minikafka.Error
				if err == nil || !errors.As(err, &typed) && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("it ended with %v", err)
				}
			}
			if took := time.Since(begun); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// drip sends a good beginning, too slowly.
func drip(c net.Conn) {
	frame := wire.AppendFrame(nil, wire.FrameHeader{API: wire.APIHello, Version: 1, IsReply: true}, make([]byte, 200), 0)
	for _, b := range frame {
		if _, err := c.Write([]byte{b}); err != nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// serve is a server that does nothing but behave, and keeps its connections open.
func serve(t *testing.T, behave func(net.Conn)) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var connections []net.Conn
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			connections = append(connections, connection)
			go behave(connection)
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-ended
		for _, connection := range connections {
			connection.Close()
		}
	})
	return listener.Addr().String()
}

// Fetched bytes that are not what they should be are never handed to the application.
func TestFetchedBytesThatLieAreToldAsDamage(t *testing.T) {
	checkLeaks(t)
	for name, change := range map[string]func(reply *wire.FetchReply, bulk []byte) []byte{
		"a flipped bit in a value":  func(_ *wire.FetchReply, bulk []byte) []byte { bulk[wire.EntryHeaderBytes+10]++; return bulk },
		"a flipped bit in a header": func(_ *wire.FetchReply, bulk []byte) []byte { bulk[60]++; return bulk },
		"padding that hides bytes":  func(_ *wire.FetchReply, bulk []byte) []byte { bulk[len(bulk)-1]++; return bulk },
		"an entry that is cut off":  cutOff,
		"bytes that do not add up":  func(reply *wire.FetchReply, bulk []byte) []byte { reply.Partitions[0].EntriesBytes++; return bulk },
		"another partition's answer": func(reply *wire.FetchReply, bulk []byte) []byte {
			reply.Partitions[0].Partition.Partition++
			return bulk
		},
		"another partition's entry": func(_ *wire.FetchReply, bulk []byte) []byte {
			binary.LittleEndian.PutUint32(bulk[48:], 7)
			return reseal(bulk)
		},
		"a body that is no batch": func(_ *wire.FetchReply, bulk []byte) []byte {
			binary.LittleEndian.PutUint32(bulk[52:], 3)
			binary.LittleEndian.PutUint32(bulk[64:], 2)
			return reseal(bulk)
		},
		"a size that is a lie": func(_ *wire.FetchReply, bulk []byte) []byte {
			bulk[7] = byte(wire.CodecLZ4)
			binary.LittleEndian.PutUint32(bulk[12:], 32<<20)
			return reseal(bulk)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := fakecluster.New(t, 1)
			cluster.CreateTopic("orders", 1)
			// Of a length that leaves padding behind the body.
			cluster.Append("orders", 0, "a value")
			entry := cluster.Entry("orders", 0)
			cluster.Intercept(func(r *fakecluster.Request) bool {
				if r.Header.API != wire.APIFetch {
					return false
				}
				request, err := wire.DecodeFetchRequest(r.Head)
				if err != nil {
					t.Error(err)
				}
				reply := &wire.FetchReply{Partitions: []wire.FetchedPartition{{
					Partition: request.Partitions[0].Partition, Epoch: 1, CommittedEnd: 1, EntriesBytes: uint32(len(entry)),
				}}}
				bulk := change(reply, bytes.Clone(entry))
				r.Reply(reply, bulk)
				return true
			})
			client := newClient(t, cluster.Gateways()[0], minikafka.ConsumeTopics("orders"))
			batch, err := client.Poll(testContext(t))
			var damaged *minikafka.DamagedError
			if !errors.As(err, &damaged) || damaged.First != 0 || damaged.Stored {
				t.Errorf("%+v: %v", batch, err)
			}
		})
	}
}

func cutOff(reply *wire.FetchReply, bulk []byte) []byte {
	reply.Partitions[0].EntriesBytes -= 16
	return bulk[:len(bulk)-16]
}

// reseal makes the checksum of an entry's header right again.
func reseal(entry []byte) []byte {
	clear(entry[120:124])
	binary.LittleEndian.PutUint32(entry[120:], wire.CRC32C(entry[:wire.EntryHeaderBytes]))
	return entry
}

// A server that was cut off without a trace answers nothing and closes nothing: the map tells that others own its ranges, and
// requests go there.
func TestAServerThatFallsSilentIsLeftWhenTheMapSaysSo(t *testing.T) {
	checkLeaks(t)
	cluster := fakecluster.New(t, 2)
	cluster.CreateTopic("orders", 1)
	client := newClient(t, cluster.Gateways()[1], minikafka.ConsumeTopics("orders"), minikafka.FetchWait(50*time.Millisecond))
	ctx := testContext(t)
	if _, err := client.ProduceSync(ctx, &minikafka.Record{Topic: "orders", Value: []byte("a")}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.PollRecord(ctx); err != nil {
		t.Fatal(err)
	}
	silent := cluster.Server(0)
	cluster.Intercept(func(r *fakecluster.Request) bool { return r.Server == silent })
	done := make(chan error, 1)
	go func() {
		_, err := client.ProduceSync(ctx, &minikafka.Record{Topic: "orders", Value: []byte("b")})
		done <- err
	}()
	await(t, "the record to be under way", func() bool { return client.Counters().ProduceInFlight == 1 })
	cluster.Move(1)
	begun := time.Now()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if record, err := client.PollRecord(ctx); err != nil || string(record.Value) != "b" {
		t.Fatalf("%s (%v)", record.Value, err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if stored := cluster.Values("orders", 0); len(stored) != 2 {
		t.Errorf("%v is stored", stored)
	}
}

// A gateway that does not answer does not hold up the next one.
func TestASilentGatewayIsPassedBy(t *testing.T) {
	checkLeaks(t)
	cluster := fakecluster.New(t, 1)
	silent := serve(t, func(net.Conn) {})
	for range 4 { // whichever is asked first
		client, err := minikafka.New(minikafka.Gateways(silent, cluster.Gateways()[0]), minikafka.Logger(quiet))
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if err := client.Ping(testContext(t)); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("it took %v", took)
		}
		if err := client.Close(testContext(t)); err != nil {
			t.Error(err)
		}
	}
}

// A gateway that has lost its coordinator tells its old map for ever: it is not asked first again.
func TestAGatewayThatLagsForEverIsNotBelievedForEver(t *testing.T) {
	checkLeaks(t)
	for range 4 { // whichever is asked first
		cluster := fakecluster.New(t, 2)
		cluster.CreateTopic("orders", 1)
		client, err := minikafka.New(minikafka.Gateways(cluster.Gateways()...), minikafka.Logger(quiet))
		if err != nil {
			t.Fatal(err)
		}
		record := &minikafka.Record{Topic: "orders", Value: []byte("one")}
		if _, err := client.ProduceSync(testContext(t), record); err != nil {
			t.Fatal(err)
		}
		cluster.Lag(0)
		cluster.Move(1)
		if _, err := client.ProduceSync(testContext(t), record); err != nil {
			t.Error(err)
		}
		if err := client.Close(testContext(t)); err != nil {
			t.Error(err)
		}
	}
}

func TestAProducerFailsByItsDeadlineAndSaysWhetherItMayBeStored(t *testing.T) {
	checkLeaks(t)
	cluster := fakecluster.New(t, 1)
	cluster.CreateTopic("orders", 1)
	cluster.Intercept(func(r *fakecluster.Request) bool { return r.Header.API == wire.APIProduce })
	client := newClient(t, cluster.Gateways()[0], minikafka.DeliveryTimeout(200*time.Millisecond), minikafka.BufferBytes(1<<10))
	ctx := testContext(t)
	_, err := client.ProduceSync(ctx, &minikafka.Record{Topic: "orders", Value: make([]byte, 600)})
	var late *minikafka.DeadlineError
	if !errors.As(err, &late) || !minikafka.IsOutcomeUnknown(err) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it failed with %v", err)
	}
	// Memory is bounded: a second large record waits, and a context ends the wait.
	client.Produce(ctx, &minikafka.Record{Topic: "orders", Value: make([]byte, 600)}, nil)
	if err := client.TryProduce(ctx, &minikafka.Record{Topic: "orders", Value: make([]byte, 600)}, nil); !errors.Is(err, minikafka.ErrBufferFull) {
		t.Errorf("beyond the memory: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	failed := make(chan error, 1)
	client.Produce(short, &minikafka.Record{Topic: "orders", Value: make([]byte, 600)}, func(_ minikafka.Delivery, err error) { failed <- err })
	if err := <-failed; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a wait for memory ended with %v", err)
	}
	if err := client.Flush(ctx); !minikafka.IsOutcomeUnknown(err) {
		t.Errorf("the flush tells %v", err)
	}
	if err := client.Flush(ctx); err != nil {
		t.Errorf("a failure is told twice: %v", err)
	}
}

// Close ends what it cannot finish in time.
func TestCloseIsBoundedByItsContext(t *testing.T) {
	checkLeaks(t)
	cluster := fakecluster.New(t, 1)
	cluster.CreateTopic("orders", 1)
	cluster.Intercept(func(r *fakecluster.Request) bool { return r.Header.API == wire.APIProduce })
	client := newClient(t, cluster.Gateways()[0])
	failed := make(chan error, 1)
	client.Produce(testContext(t), &minikafka.Record{Topic: "orders"}, func(_ minikafka.Delivery, err error) { failed <- err })
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := client.Close(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("close: %v", err)
	}
	if err := <-failed; !errors.Is(err, minikafka.ErrClosed) {
		t.Errorf("the record failed with %v", err)
	}
}
