// Command faulttolerance: half of the values are pushed, a broker of three dies, the rest is pushed: every value is pulled.
//
// -kill is the command that kills it. Ends with 0 if no value is missing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	minikafka "github.com/minikafka/minikafka/clients/go"
)

const (
	// pushers is how many goroutines push.
	pushers = 8
	// patience: nothing new for so long, and what is missing will not come.
	patience = time.Minute
)

func main() {
	gateways := flag.String("gateways", "localhost:9000", "host:port, separated by commas")
	pushes := flag.Int("pushes", 10_000, "how many in all")
	kill := flag.String("kill", "", "a command line")
	flag.Parse()
	told, err := run(context.Background(), strings.Split(*gateways, ","), *pushes, strings.Fields(*kill))
	if err != nil {
		fmt.Fprintln(os.Stderr, "fault tolerance: FAILED:", err)
		os.Exit(1)
	}
	fmt.Println("fault tolerance: ok:", told)
}

func run(ctx context.Context, gateways []string, pushes int, kill []string) (told string, err error) {
	client, err := minikafka.New(minikafka.Gateways(gateways...))
	if err != nil {
		return "", err
	}
	if err := push(ctx, client, 0, pushes/2); err != nil {
		return "", err
	}
	if err := exec.Command(kill[0], kill[1:]...).Run(); err != nil {
		return "", fmt.Errorf("%v: %w", kill, err)
	}
	killed := time.Now()
	if err := push(ctx, client, pushes/2, pushes/2+1); err != nil {
		return "", err
	}
	stoodStill := time.Since(killed)
	if err := push(ctx, client, pushes/2+1, pushes); err != nil {
		return "", err
	}
	if err := client.Close(ctx); err != nil {
		return "", err
	}
	pulled, err := pullAll(ctx, gateways, pushes)
	return fmt.Sprintf("%d values pushed, one broker of three killed in the middle: every value is pulled (%d twice); "+
		"the first push after the kill took %d ms", pushes, pulled-pushes, stoodStill.Milliseconds()), err
}

// push pushes the numbers from first to before end.
func push(ctx context.Context, client *minikafka.Client, first, end int) (err error) {
	failures := make(chan error, pushers)
	for pusher := range pushers {
		go func() {
			var failure error
			for number := first + pusher; number < end && failure == nil; number += pushers {
				_, failure = client.Push(ctx, fmt.Appendf(nil, "key-%d", number%64), strconv.AppendInt(nil, int64(number), 10))
			}
			failures <- failure
		}()
	}
	for range pushers {
		err = errors.Join(err, <-failures)
	}
	return err
}

// pullAll pulls until every number has come, and tells how many pulls that took.
func pullAll(ctx context.Context, gateways []string, pushes int) (pulled int, err error) {
	client, err := minikafka.New(minikafka.Gateways(gateways...))
	if err != nil {
		return 0, err
	}
	seen := map[string]bool{}
	for len(seen) < pushes {
		waiting, cancel := context.WithTimeout(ctx, patience)
		_, value, err := client.Pull(waiting)
		cancel()
		if err != nil {
			return pulled, fmt.Errorf("%d of %d values are missing: %w", pushes-len(seen), pushes, err)
		}
		seen[string(value)] = true
		pulled++
	}
	return pulled, client.Close(ctx)
}
