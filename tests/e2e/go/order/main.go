// Command order: what is pushed under one key is handed to subscribers in the order in which it was pushed, each value once.
//
// Eight keys, one goroutine pushing each of them, each push waiting until it is stored; four subscribers, who share the queue as a
// group and join while it goes on. Ends with 0 if every key's values arrived in order, none missing, none twice.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	minikafka "github.com/minikafka/minikafka/clients/go"
)

const (
	// partitions is how many the queue has.
	partitions = 8
	// patience: nothing new for so long, and what is missing will not come.
	patience = time.Minute
)

func main() {
	gateways := flag.String("gateways", "localhost:9000", "host:port, separated by commas")
	pushes := flag.Int("pushes", 10_000, "how many in all")
	subscribers := flag.Int("subscribers", 4, "how many")
	flag.Parse()
	told, err := run(context.Background(), strings.Split(*gateways, ","), *pushes, *subscribers)
	if err != nil {
		fmt.Fprintln(os.Stderr, "order: FAILED:", err)
		os.Exit(1)
	}
	fmt.Println("order: ok:", told)
}

func run(ctx context.Context, gateways []string, pushes, subscribers int) (told string, err error) {
	keys := oneKeyOfEachPartition()
	each := pushes / len(keys)
	arrived := &arrived{values: map[string][]int{}, shares: make([]int, subscribers), news: make(chan struct{}, 1)}
	begun := time.Now()
	clients := make([]*minikafka.Client, subscribers)
	for number := range clients {
		if clients[number], err = minikafka.New(minikafka.Gateways(gateways...)); err != nil {
			return "", err
		}
		if _, err := clients[number].Subscribe(ctx, arrived.subscriber(number)); err != nil {
			return "", err
		}
	}
	if err := pushAll(ctx, gateways, keys, each); err != nil {
		return "", err
	}
	pushed := time.Since(begun)
	isWhole := arrived.wait(each * len(keys))
	for _, client := range clients {
		if err := client.Close(ctx); err != nil {
			return "", err
		}
	}
	if err := arrived.check(keys, each); err != nil || !isWhole {
		return "", errors.Join(err, fmt.Errorf("all values came: %v", isWhole))
	}
	return fmt.Sprintf("%d pushes over %d keys in %.1f s, pulled by %d subscribers (%v): each key's values arrived in order",
		each*len(keys), len(keys), pushed.Seconds(), subscribers, arrived.shares), nil
}

// oneKeyOfEachPartition: so every subscriber has something to do.
func oneKeyOfEachPartition() []string {
	var keys []string
	taken := map[uint32]bool{}
	for number := 0; len(keys) < partitions; number++ {
		key := fmt.Sprintf("key-%d", number)
		if partition := crc32.ChecksumIEEE([]byte(key)) % partitions; !taken[partition] {
			taken[partition] = true
			keys = append(keys, key)
		}
	}
	return keys
}

// pushAll pushes each key by a goroutine of its own.
func pushAll(ctx context.Context, gateways, keys []string, each int) error {
	client, err := minikafka.New(minikafka.Gateways(gateways...))
	if err != nil {
		return err
	}
	failures := make(chan error, len(keys))
	for _, key := range keys {
		go func() {
			var failure error
			for number := 0; number < each && failure == nil; number++ {
				_, failure = client.Push(ctx, []byte(key), strconv.AppendInt(nil, int64(number), 10))
			}
			failures <- failure
		}()
	}
	for range keys {
		err = errors.Join(err, <-failures)
	}
	return errors.Join(err, client.Close(ctx))
}

// arrived is what subscribers were given, by key, in the order in which they were called.
type arrived struct {
	mu     sync.Mutex
	values map[string][]int
	shares []int
	count  int
	news   chan struct{}
}

func (a *arrived) subscriber(number int) func(context.Context, []byte, []byte) error {
	return func(_ context.Context, key, value []byte) error {
		parsed, err := strconv.Atoi(string(value))
		if err != nil {
			return err
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.values[string(key)] = append(a.values[string(key)], parsed)
		a.shares[number]++
		a.count++
		select {
		case a.news <- struct{}{}:
		default:
		}
		return nil
	}
}

// wait waits until so many have come; false: nothing new came for too long.
func (a *arrived) wait(expected int) bool {
	for {
		a.mu.Lock()
		count := a.count
		a.mu.Unlock()
		if count >= expected {
			return true
		}
		select {
		case <-a.news:
		case <-time.After(patience):
			return false
		}
	}
}

func (a *arrived) check(keys []string, each int) (err error) {
	for _, key := range keys {
		values := a.values[key]
		if len(values) != each {
			err = errors.Join(err, fmt.Errorf("%s: %d values came, %d were pushed", key, len(values), each))
		}
		for at, value := range values {
			if value != at {
				err = errors.Join(err, fmt.Errorf("%s: %d came at place %d", key, value, at))
				break
			}
		}
	}
	return err
}
