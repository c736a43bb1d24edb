// Command bench measures this client against a running cluster: records a second, acknowledged, and read back.
//
//	bench -gateway localhost:9000 -records 20000000 -bytes 100
//
// It makes a topic, produces to it with a promise for every record, waits for the last acknowledgement, reads everything back,
// checks that nothing is missing, and deletes the topic. Run it beside the broker, each on a core of its own (README.md).
package main

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"sort"
	"strings"
	"time"

	minikafka "github.com/minikafka/minikafka/clients/go"
)

type options struct {
	gateways   string
	records    int
	bytes      int
	partitions int
	runs       int
	batchBytes int
	keyed      bool
	release    bool
	codec      string
	profile    string
}

func main() {
	var o options
	flag.StringVar(&o.gateways, "gateway", "localhost:9000", "host:port of gateways, separated by commas")
	flag.IntVar(&o.records, "records", 10_000_000, "records of each run")
	flag.IntVar(&o.bytes, "bytes", 100, "bytes of each value, at least 8")
	flag.IntVar(&o.partitions, "partitions", 8, "partitions of the topic")
	flag.IntVar(&o.runs, "runs", 5, "how often both are measured")
	flag.IntVar(&o.batchBytes, "batch", 256<<10, "bytes of a batch")
	flag.BoolVar(&o.keyed, "keyed", false, "give each record a key of 8 bytes")
	flag.BoolVar(&o.release, "release", true, "give the memory of fetched batches back")
	flag.StringVar(&o.codec, "codec", "none", "none, lz4 or zstd")
	flag.StringVar(&o.profile, "profile", "", "write a CPU profile here")
	flag.Parse()
	if err := run(&o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(o *options) error {
	if o.bytes < 8 || o.records < 1 || o.runs < 1 {
		return fmt.Errorf("-bytes must be at least 8, -records and -runs at least 1")
	}
	if o.profile != "" {
		file, err := os.Create(o.profile)
		if err != nil {
			return err
		}
		defer file.Close()
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	var produced, consumed measured
	for n := range o.runs {
		topic := fmt.Sprintf("bench-%d-%d", os.Getpid(), n)
		if err := produced.add(o, topic, produce); err != nil {
			return err
		}
		if err := consumed.add(o, topic, consume); err != nil {
			return err
		}
		fmt.Printf("run %d: produced %.0f records/s, consumed %.0f records/s\n", n+1, produced.rates[n], consumed.rates[n])
	}
	fmt.Printf("%d records of %d bytes, %d partitions, codec %s, GOMAXPROCS %d, %s\n",
		o.records, o.bytes, o.partitions, o.codec, runtime.GOMAXPROCS(0), runtime.Version())
	fmt.Println("produce " + produced.String())
	fmt.Println("consume " + consumed.String())
	return nil
}

// measured are the runs of one kind: records a second, and the processor time of this process for each record.
type measured struct {
	rates       []float64
	nanoseconds []float64
}

func (m *measured) add(o *options, topic string, measure func(*options, string) (time.Duration, error)) error {
	before := processorTime()
	took, err := measure(o, topic)
	m.rates = append(m.rates, float64(o.records)/took.Seconds())
	m.nanoseconds = append(m.nanoseconds, float64((processorTime()-before).Nanoseconds())/float64(o.records))
	return err
}

func (m *measured) String() string {
	sort.Float64s(m.rates)
	sort.Float64s(m.nanoseconds)
	last := len(m.rates) - 1
	return fmt.Sprintf("%.2f million records/s (median; lowest %.2f, highest %.2f), %.0f ns of processor time a record (%.0f to %.0f)",
		m.rates[last/2]/1e6, m.rates[0]/1e6, m.rates[last]/1e6, m.nanoseconds[last/2], m.nanoseconds[0], m.nanoseconds[last])
}

func (o *options) client(more ...minikafka.Option) (*minikafka.Client, error) {
	all := append([]minikafka.Option{
		minikafka.Gateways(strings.Split(o.gateways, ",")...), minikafka.ClientName("bench"), minikafka.BatchBytes(o.batchBytes),
	}, more...)
	switch o.codec {
	case "lz4":
		all = append(all, minikafka.CompressLZ4())
	case "zstd":
		all = append(all, minikafka.CompressZstd(3))
	}
	return minikafka.New(all...)
}

// produce measures from the first record to the last acknowledgement.
func produce(o *options, topic string) (time.Duration, error) {
	ctx := context.Background()
	client, err := o.client()
	if err != nil {
		return 0, err
	}
	defer client.Close(ctx)
	if _, err := client.CreateTopic(ctx, minikafka.NewTopic{Name: topic, Partitions: int32(o.partitions)}); err != nil {
		return 0, err
	}
	acknowledged := 0
	var failure error
	promise := func(_ minikafka.Delivery, err error) {
		if err != nil {
			failure = err
			return
		}
		acknowledged++
	}
	value, key := make([]byte, o.bytes), make([]byte, 8)
	record := minikafka.Record{Topic: topic, Value: value}
	begun := time.Now()
	for i := range o.records {
		binary.LittleEndian.PutUint64(value, uint64(i))
		if o.keyed {
			binary.LittleEndian.PutUint64(key, uint64(i))
			record.Key = key
		}
		client.Produce(ctx, &record, promise)
	}
	if err := client.Flush(ctx); err != nil {
		return 0, err
	}
	took := time.Since(begun)
	if acknowledged != o.records || failure != nil {
		return 0, fmt.Errorf("%d of %d records acknowledged: %v", acknowledged, o.records, failure)
	}
	return took, nil
}

// consume measures from the first poll to the last record, and then deletes the topic.
func consume(o *options, topic string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	client, err := o.client(minikafka.ConsumeTopics(topic))
	if err != nil {
		return 0, err
	}
	defer client.Close(ctx)
	begun := time.Now()
	read, sum := 0, uint64(0)
	for read < o.records {
		batch, err := client.Poll(ctx)
		if err != nil {
			return 0, fmt.Errorf("%d of %d records read: %w", read, o.records, err)
		}
		for i := range batch.Len() {
			record := batch.Record(i)
			sum += binary.LittleEndian.Uint64(record.Value)
		}
		read += batch.Len()
		if o.release {
			batch.Release()
		}
	}
	took := time.Since(begun)
	if n := uint64(o.records); sum != n*(n-1)/2 {
		return 0, fmt.Errorf("the records read are not those that were produced")
	}
	return took, client.DeleteTopic(ctx, topic)
}
