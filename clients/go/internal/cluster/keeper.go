package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/backoff"
	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/fault"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// refreshIntervalMin is how far two refreshes are apart at least, whoever asks for them.
const refreshIntervalMin = 10 * time.Millisecond

// Keeper keeps the newest map: one question to the gateways at a time, however many need the answer.
type Keeper struct {
	gateways      *Gateways
	createMissing bool
	log           *slog.Logger
	current       atomic.Pointer[Map]
	// refreshing is held, by having its only token, during a refresh.
	refreshing  chan struct{}
	lastRefresh time.Time

	mu sync.Mutex
	// names asked about so far: every refresh asks about all of them again.
	names map[string]struct{}
}

// NewKeeper begins without a map. createMissing: topics that do not exist are asked to be created.
func NewKeeper(gateways *Gateways, createMissing bool, log *slog.Logger) *Keeper {
	k := &Keeper{
		gateways: gateways, createMissing: createMissing, log: log, refreshing: make(chan struct{}, 1),
		names: map[string]struct{}{},
	}
	k.current.Store(&Map{})
	return k
}

// Current is the current snapshot.
func (k *Keeper) Current() *Map { return k.current.Load() }

// Gateways are whom the keeper asks.
func (k *Keeper) Gateways() *Gateways { return k.gateways }

func (k *Keeper) lock(ctx context.Context) error {
	select {
	case k.refreshing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (k *Keeper) unlock() { <-k.refreshing }

// NewerThan is a snapshot newer than seen: the one that is there already, the one that another caller is fetching, or one
// fetched now. When no gateway answers it is the current one, with the error: the data path goes on with what is known.
func (k *Keeper) NewerThan(ctx context.Context, seen uint64) (*Map, error) {
	if err := k.lock(ctx); err != nil {
		return k.Current(), err
	}
	defer k.unlock()
	if current := k.Current(); current.Version() > seen {
		return current, nil
	}
	if wait := refreshIntervalMin - time.Since(k.lastRefresh); wait > 0 && !Sleep(ctx, wait) {
		return k.Current(), context.DeadlineExceeded
	}
	before := k.Current()
	next, err := k.refresh(ctx)
	if err == nil && next.hasChainsOf(before) {
		k.gateways.TurnToNext()
	}
	return next, err
}

// NoOlderThan is a snapshot that was asked for no longer than age ago, whoever asked.
func (k *Keeper) NoOlderThan(ctx context.Context, age time.Duration) (*Map, error) {
	if err := k.lock(ctx); err != nil {
		return k.Current(), err
	}
	defer k.unlock()
	if time.Since(k.lastRefresh) < age {
		return k.Current(), nil
	}
	return k.refresh(ctx)
}

// refresh asks about everything that was asked about before; the caller holds the lock.
func (k *Keeper) refresh(ctx context.Context) (*Map, error) {
	next, err := k.resolve(ctx, k.knownNames())
	k.lastRefresh = time.Now()
	if err != nil {
		// Whoever gave up, because the client ends, needs no warning.
		if ctx.Err() == nil {
			k.log.Warn("map not refreshed", "error", err)
		}
		return k.Current(), err
	}
	return next, nil
}

func (k *Keeper) knownNames() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	names := make([]string, 0, len(k.names))
	for name := range k.names {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// Topic is a topic's description: asked for if unknown, and created if it does not exist and client and cluster allow that.
// Any gateway knows what there is; only the controller creates, and it is waited for until the context's deadline, because
// just after a start there is none yet; and so are gateways that do not answer.
func (k *Keeper) Topic(ctx context.Context, name string) (*wire.TopicDescription, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if topic := k.Current().Usable(name); topic != nil {
		return topic, nil
	}
	topic, err := k.lookUp(ctx, name)
	for failures := 1; fault.Retriable(err) && Sleep(ctx, backoff.Random(failures, false, 0)); failures++ {
		topic, err = k.lookUp(ctx, name)
	}
	if err != nil {
		return nil, err
	}
	if k.createMissing && (topic == nil || topic.Error == errorcode.UnknownTopic) {
		reply, _, err := k.gateways.AskController(ctx, wire.APIResolve, request([]string{name}, true))
		if err != nil {
			return nil, err
		}
		next, err := k.take(reply.Head, "the controller")
		if err != nil {
			return nil, err
		}
		topic = next.Topic(name)
	}
	if topic == nil {
		return nil, fault.Broker(errorcode.UnknownTopic, "topic %s", name)
	}
	if topic.Error != errorcode.None {
		return nil, fault.Broker(topic.Error, "topic %s", name)
	}
	k.mu.Lock()
	k.names[name] = struct{}{}
	k.mu.Unlock()
	return topic, nil
}

// lookUp asks a gateway about one topic; nil when it says nothing of it. Refreshes do not wait for more than that: the data path
// must not stand still while a controller is waited for.
func (k *Keeper) lookUp(ctx context.Context, name string) (*wire.TopicDescription, error) {
	if err := k.lock(ctx); err != nil {
		return nil, err
	}
	defer k.unlock()
	if topic := k.Current().Usable(name); topic != nil {
		return topic, nil
	}
	next, err := k.resolve(ctx, []string{name})
	k.lastRefresh = time.Now()
	if err != nil {
		return nil, err
	}
	return next.Topic(name), nil
}

// Learn takes what a create or alter has shown into the map, so that the next look finds it.
func (k *Keeper) Learn(topic *wire.TopicDescription) {
	if topic.Error != errorcode.None || topic.Partitions == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.names[topic.Name] = struct{}{}
	k.replace(topic.Name, topic)
}

// Forget forgets a deleted topic; one that is created again under its name is another one.
func (k *Keeper) Forget(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.names, name)
	k.replace(name, nil)
}

// replace puts a topic into a new snapshot; refreshes may take place at the same time.
func (k *Keeper) replace(name string, topic *wire.TopicDescription) {
	for {
		current := k.current.Load()
		if k.current.CompareAndSwap(current, current.with(name, topic)) {
			return
		}
	}
}

// resolve makes one question to the gateways; the caller holds the lock.
func (k *Keeper) resolve(ctx context.Context, names []string) (*Map, error) {
	reply, from, err := k.gateways.AskAny(ctx, wire.APIResolve, request(names, false))
	if err != nil {
		return nil, err
	}
	return k.take(reply.Head, from)
}

// take makes an answer the current snapshot's successor.
func (k *Keeper) take(head []byte, from string) (*Map, error) {
	reply, err := wire.DecodeResolveReply(head)
	if err != nil {
		return nil, &fault.MalformedError{From: from, What: "map", Reason: err}
	}
	for {
		current := k.current.Load()
		next, err := current.Succeed(&reply)
		if err != nil {
			return nil, &fault.MalformedError{From: from, What: "map", Reason: err}
		}
		if k.current.CompareAndSwap(current, next) {
			return next, nil
		}
	}
}

func request(names []string, create bool) *wire.ResolveRequest {
	return &wire.ResolveRequest{Topics: names, WithRings: true, CreateMissing: create}
}

// CheckName refuses what no topic can be called: 1 to 249 letters, digits, '.', '_' or '-', and neither "." nor "..".
func CheckName(name string) error {
	if !wire.IsName(name) {
		return fault.Broker(errorcode.InvalidTopicName, "topic %q", name)
	}
	return nil
}

// CheckGroup refuses what no group can be called.
func CheckGroup(name string) error {
	if !wire.IsName(name) {
		return &fault.OptionError{Option: "group", Reason: fmt.Sprintf("%q is not 1 to 249 letters, digits, '.', '_' or '-', or it is '.' or '..'", name)}
	}
	return nil
}
