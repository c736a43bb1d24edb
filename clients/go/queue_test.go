package minikafka_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	minikafka "github.com/minikafka/minikafka/clients/go"
	"github.com/minikafka/minikafka/clients/go/internal/brokertest"
	"github.com/minikafka/minikafka/clients/go/internal/fakecluster"
)

func push(t *testing.T, client *minikafka.Client, values ...string) {
	t.Helper()
	for _, value := range values {
		// One key, hence one partition: the order is told.
		if _, err := client.Push(testContext(t), []byte("key"), []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
}

func pull(t *testing.T, client *minikafka.Client) string {
	t.Helper()
	key, value, err := client.Pull(testContext(t))
	if err != nil || string(key) != "key" {
		t.Fatalf("pulled %s: %v", key, err)
	}
	return string(value)
}

// atEveryQueue runs a test against a cluster in memory, and against a broker of its own. disconnect breaks the connections, where
// that can be done.
func atEveryQueue(t *testing.T, test func(t *testing.T, gateway string, disconnect func())) {
	t.Run("in memory", func(t *testing.T) {
		checkLeaks(t)
		cluster := fakecluster.New(t, 1)
		test(t, cluster.Gateways()[0], cluster.Server(0).Disconnect)
	})
	t.Run("of a broker", func(t *testing.T) {
		checkLeaks(t)
		broker := brokertest.Start(t)
		test(t, broker.Gateway, func() {
			broker.Kill()
			broker.Restart()
		})
	})
}

func TestWhatIsPushedIsPulledInOrderAndAgainUntilItIsAcknowledged(t *testing.T) {
	atEveryQueue(t, whatIsPushedIsPulledInOrderAndAgainUntilItIsAcknowledged)
}

func whatIsPushedIsPulledInOrderAndAgainUntilItIsAcknowledged(t *testing.T, gateway string, disconnect func()) {
	producer := newClient(t, gateway)
	push(t, producer, "a", "b", "c")
	first := newClient(t, gateway)
	for _, expected := range []string{"a", "b"} {
		if got := pull(t, first); got != expected {
			t.Fatalf("%s comes instead of %s", got, expected)
		}
	}
	// The second pull has acknowledged a; Close acknowledges b, also over a connection that has to be made anew.
	disconnect()
	if err := first.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	second := newClient(t, gateway)
	if got := pull(t, second); got != "c" {
		t.Fatalf("%s comes instead of c", got)
	}
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := second.Pull(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an empty queue: %v", err)
	}
}

func TestWhatIsNotAcknowledgedIsDeliveredToTheNext(t *testing.T) {
	atEveryQueue(t, whatIsNotAcknowledgedIsDeliveredToTheNext)
}

func whatIsNotAcknowledgedIsDeliveredToTheNext(t *testing.T, gateway string, _ func()) {
	client := newClient(t, gateway)
	push(t, client, "a", "b", "c")
	ctx := testContext(t)
	var held []*minikafka.QueueDelivery
	for range 3 {
		delivery, err := client.PullDelivery(ctx)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, delivery)
	}
	held[0].Ack()
	held[2].Ack()
	if err := client.Close(ctx); err != nil {
		t.Fatal(err)
	}
	second := newClient(t, gateway)
	if first, next := pull(t, second), pull(t, second); first != "b" || next != "c" {
		t.Errorf("%s and %s come again", first, next)
	}
}

func TestANackGivesTheRecordOutAgainFirst(t *testing.T) {
	atEveryQueue(t, aNackGivesTheRecordOutAgainFirst)
}

func aNackGivesTheRecordOutAgainFirst(t *testing.T, gateway string, _ func()) {
	client := newClient(t, gateway)
	push(t, client, "a", "b")
	ctx := testContext(t)
	for attempt := range 3 {
		delivery, err := client.PullDelivery(ctx)
		if err != nil || string(delivery.Value()) != "a" {
			t.Fatalf("attempt %d: %v", attempt, err)
		}
		if attempt < 2 {
			delivery.Nack()
			delivery.Ack() // too late to count
		} else {
			delivery.Ack()
		}
	}
	last, err := client.PullDelivery(ctx)
	if err != nil || string(last.Value()) != "b" {
		t.Fatalf("behind it comes %v", err)
	}
	// A pull that waits is interrupted by a nack.
	again := make(chan string, 1)
	go func() {
		delivery, err := client.PullDelivery(ctx)
		if err != nil {
			again <- err.Error()
			return
		}
		again <- string(delivery.Value())
	}()
	last.Nack()
	if got := <-again; got != "b" {
		t.Errorf("after the nack comes %s", got)
	}
}

func TestASubscriberGetsEachRecordUntilItTakesIt(t *testing.T) {
	atEveryQueue(t, aSubscriberGetsEachRecordUntilItTakesIt)
}

func aSubscriberGetsEachRecordUntilItTakesIt(t *testing.T, gateway string, _ func()) {
	client := newClient(t, gateway)
	var got []string
	enough := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	failures := 2
	done, err := client.Subscribe(ctx, func(_ context.Context, key, value []byte) error {
		got = append(got, string(value))
		if string(value) == "b" && failures > 0 {
			failures--
			return errors.New("not now")
		}
		if string(value) == "c" {
			close(enough)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	push(t, client, "a", "b", "c")
	<-enough
	if waited := time.Since(begun); waited < 300*time.Millisecond {
		t.Errorf("two pauses, of 100 and 200 ms, took %v", waited)
	}
	cancel()
	<-done
	if fmt.Sprint(got) != "[a b b b c]" {
		t.Errorf("the handler got %v", got)
	}
	if err := client.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	// All is acknowledged: the next subscriber gets what is new.
	next := newClient(t, gateway)
	push(t, next, "d")
	if value := pull(t, next); value != "d" {
		t.Errorf("%s comes again", value)
	}
}

// A handler that does not return does not hold up a Close whose context is over.
func TestCloseDoesNotWaitForEverForAHandler(t *testing.T) {
	atEveryQueue(t, closeDoesNotWaitForEverForAHandler)
}

func closeDoesNotWaitForEverForAHandler(t *testing.T, gateway string, _ func()) {
	client := newClient(t, gateway)
	push(t, client, "a")
	called, release := make(chan struct{}), make(chan struct{})
	done, err := client.Subscribe(context.Background(), func(context.Context, []byte, []byte) error {
		close(called)
		<-release
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	<-called
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	var late *minikafka.DeadlineError
	if err := client.Close(short); !errors.As(err, &late) {
		t.Errorf("close: %v", err)
	}
	close(release)
	<-done
}
