// Command peer is the Go side of the interop matrix: it sends what standard input says, and prints what a topic has, one JSON
// object a line. What a line is: tests/e2e/python/peer.py.
package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	minikafka "github.com/minikafka/minikafka/clients/go"
)

type line struct {
	Partition int32       `json:"partition"`
	Offset    int64       `json:"offset"`
	Timestamp int64       `json:"timestamp"`
	Key       *string     `json:"key"`
	Value     *string     `json:"value"`
	Headers   [][2]string `json:"headers"`
}

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, words []string) error {
	if len(words) != 4 {
		return errors.New("usage: peer produce GATEWAYS TOPIC CODEC | consume GATEWAYS TOPIC COUNT | group GATEWAYS TOPIC GROUP")
	}
	options := []minikafka.Option{minikafka.Gateways(strings.Split(words[1], ",")...), minikafka.ClientName("interop")}
	if words[0] == "consume" {
		count, err := strconv.Atoi(words[3])
		if err != nil {
			return err
		}
		return withClient(ctx, append(options, minikafka.ConsumeTopics(words[2])), func(client *minikafka.Client) error {
			return consume(ctx, client, count)
		})
	}
	if words[0] == "group" {
		options = append(options, minikafka.ConsumeTopics(words[2]), minikafka.Group(words[3]),
			minikafka.SessionTimeout(2*time.Second), minikafka.CommitInterval(100*time.Millisecond))
		return withClient(ctx, options, func(client *minikafka.Client) error { return share(ctx, client) })
	}
	switch words[3] {
	case "lz4":
		options = append(options, minikafka.CompressLZ4())
	case "zstd":
		options = append(options, minikafka.CompressZstd(3))
	}
	return withClient(ctx, options, func(client *minikafka.Client) error { return produce(ctx, client, words[2]) })
}

func withClient(ctx context.Context, options []minikafka.Option, do func(*minikafka.Client) error) error {
	client, err := minikafka.New(options...)
	if err != nil {
		return err
	}
	if err := do(client); err != nil {
		return err
	}
	return client.Close(ctx)
}

func produce(ctx context.Context, client *minikafka.Client, topic string) error {
	input := bufio.NewReader(os.Stdin)
	for {
		text, err := input.ReadString('\n')
		if err == io.EOF {
			return client.Flush(ctx)
		}
		if err != nil {
			return err
		}
		if text == "flush\n" {
			if err := client.Flush(ctx); err != nil {
				return err
			}
			fmt.Println("flushed")
			continue
		}
		record, err := recordOf(text)
		if err != nil {
			return err
		}
		record.Topic = topic
		client.Produce(ctx, &record, nil)
	}
}

func recordOf(text string) (minikafka.Record, error) {
	var from line
	if err := json.Unmarshal([]byte(text), &from); err != nil {
		return minikafka.Record{}, err
	}
	record := minikafka.Record{Timestamp: time.UnixMilli(from.Timestamp)}
	var failures []error
	bytes := func(digits *string) []byte {
		if digits == nil {
			return nil
		}
		decoded, err := hex.DecodeString(*digits)
		failures = append(failures, err)
		if decoded == nil {
			decoded = []byte{}
		}
		return decoded
	}
	record.Key, record.Value = bytes(from.Key), bytes(from.Value)
	for _, header := range from.Headers {
		record.Headers = append(record.Headers, minikafka.Header{Name: header[0], Value: bytes(&header[1])})
	}
	return record, errors.Join(failures...)
}

func consume(ctx context.Context, client *minikafka.Client, count int) error {
	output := bufio.NewWriter(os.Stdout)
	for range count {
		record, err := client.PollRecord(ctx)
		if err != nil {
			return err
		}
		text, err := json.Marshal(lineOf(&record))
		if err != nil {
			return err
		}
		if _, err := output.Write(append(text, '\n')); err != nil {
			return err
		}
	}
	return output.Flush()
}

// share prints what comes until standard input ends.
func share(ctx context.Context, client *minikafka.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	for {
		record, err := client.PollRecord(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if err := json.NewEncoder(os.Stdout).Encode(lineOf(&record)); err != nil {
			return err
		}
	}
}

func lineOf(record *minikafka.Record) line {
	digits := func(bytes []byte) *string {
		if bytes == nil {
			return nil
		}
		text := hex.EncodeToString(bytes)
		return &text
	}
	to := line{
		Partition: record.Partition, Offset: record.Offset, Timestamp: record.Timestamp.UnixMilli(),
		Key: digits(record.Key), Value: digits(record.Value), Headers: [][2]string{},
	}
	for _, header := range record.Headers {
		to.Headers = append(to.Headers, [2]string{header.Name, hex.EncodeToString(header.Value)})
	}
	return to
}
