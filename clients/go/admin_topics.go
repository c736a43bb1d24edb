package minikafka

import (
	"context"
	"errors"
	"sort"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/cluster"
	"github.com/minikafka/minikafka/clients/go/internal/connection"
	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/fault"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// TopicConfig has the settings of a topic.
type TopicConfig struct {
	// Retention: records older than this, by the brokers' clocks, may be deleted. Negative: never.
	Retention time.Duration
	// RetentionBytes: the oldest records are deleted while a partition is larger than this. Negative: never.
	RetentionBytes int64
	// BatchBytesMax is the largest batch body that is accepted, 1 byte to 4 MiB.
	BatchBytesMax int
	// ProduceBytesPerSecond is how many body bytes each shard takes per second, for all partitions of the topic that it
	// heads. 0: unlimited.
	ProduceBytesPerSecond uint64
}

// NewTopic is how a topic is made. Zero values leave the choice to the cluster, or mean no limit.
type NewTopic struct {
	// Name of the topic: 1 to 249 letters, digits, '.', '_' or '-', and neither "." nor "..".
	Name string
	// Partitions, at most 10,000. 0: the cluster's default.
	Partitions int32
	// Replication is the number of members of every chain. 0: the cluster's default.
	Replication int16
	// Retention, RetentionBytes, BatchBytesMax, ProduceBytesPerSecond are as in TopicConfig, but that 0 of the first three
	// means: for ever, any number, 4 MiB.
	Retention             time.Duration
	RetentionBytes        int64
	BatchBytesMax         int
	ProduceBytesPerSecond uint64
}

// TopicChange has the settings of a topic that are to change, as in TopicConfig; nil: as it is.
type TopicChange struct {
	Retention             *time.Duration
	RetentionBytes        *int64
	BatchBytesMax         *int
	ProduceBytesPerSecond *uint64
}

// TopicDescription is a topic as the cluster knows it.
type TopicDescription struct {
	// Name of the topic.
	Name string
	// Err, if the topic cannot be described (UnknownTopic); then the rest means nothing.
	Err error
	// ID of the topic; one that is created again under the same name has another.
	ID uint64
	// Partitions are numbered from 0.
	Partitions int32
	// State is "creating", "ready", "deleting" or "altering".
	State string
	// Config has its settings.
	Config TopicConfig
}

// CreateTopic creates a topic, and returns once every partition is open.
//
// The error is a *BrokerError: TopicExists, InvalidTopicName, InvalidArgument, or what did not pass before RequestTimeout; then
// the creation goes on. Asking again is safe.
func (c *Client) CreateTopic(ctx context.Context, topic NewTopic) (TopicDescription, error) {
	ctx, cancel := c.requestContext(ctx)
	defer cancel()
	if err := cluster.CheckName(topic.Name); err != nil {
		return TopicDescription{}, err
	}
	request := &wire.CreateTopicRequest{
		Name: topic.Name, Partitions: uint32(max(topic.Partitions, 0)), Replication: uint16(max(topic.Replication, 0)),
		Config: topic.config(), TimeoutMs: c.serverTimeoutMs(),
	}
	reply, maybeDone, err := c.keeper.Gateways().AskController(ctx, wire.APICreateTopic, request)
	if maybeDone && errors.Is(err, errorcode.TopicExists) {
		// An earlier attempt, whose answer was lost, may have created it: then it looks as we asked.
		existing, described := c.describe(ctx, &wire.ResolveRequest{Topics: []string{topic.Name}})
		if described == nil && len(existing) == 1 && existing[0].Error == errorcode.None && existing[0].Config == request.Config &&
			(request.Partitions == 0 || existing[0].Partitions == request.Partitions) {
			c.keeper.Learn(&existing[0])
			return describe(&existing[0]), nil
		}
	}
	return c.learn(reply, err, topic.Name)
}

// AlterTopic changes settings of a topic, and returns once every partition has them. Producers that run already keep to the batch
// size that they began with; a smaller one refuses their larger batches.
//
// The error is a *BrokerError: UnknownTopic, InvalidArgument, or what did not pass before RequestTimeout; then the change goes on.
func (c *Client) AlterTopic(ctx context.Context, topic string, change TopicChange) (TopicDescription, error) {
	ctx, cancel := c.requestContext(ctx)
	defer cancel()
	if err := cluster.CheckName(topic); err != nil {
		return TopicDescription{}, err
	}
	request := &wire.AlterTopicRequest{Name: topic, TimeoutMs: c.serverTimeoutMs(), Change: change.config()}
	// Made twice it is as made once, so it does not matter whether an attempt without an answer was carried out.
	reply, _, err := c.keeper.Gateways().AskController(ctx, wire.APIAlterTopic, request)
	return c.learn(reply, err, topic)
}

// DeleteTopic deletes a topic with all its records, and returns once none of them can be read any more.
//
// The error is a *BrokerError: UnknownTopic, or what did not pass before RequestTimeout; then the deletion goes on.
func (c *Client) DeleteTopic(ctx context.Context, topic string) error {
	ctx, cancel := c.requestContext(ctx)
	defer cancel()
	if err := cluster.CheckName(topic); err != nil {
		return err
	}
	request := &wire.DeleteTopicRequest{Name: topic, TimeoutMs: c.serverTimeoutMs()}
	_, maybeDone, err := c.keeper.Gateways().AskController(ctx, wire.APIDeleteTopic, request)
	if err != nil && !(maybeDone && errors.Is(err, errorcode.UnknownTopic)) {
		return err
	}
	c.keeper.Forget(topic)
	return nil
}

// DescribeTopics describes topics by name; one that does not exist has its Err set. The error is a *NoGatewayError.
func (c *Client) DescribeTopics(ctx context.Context, topics ...string) ([]TopicDescription, error) {
	return c.describeTopics(ctx, &wire.ResolveRequest{Topics: topics})
}

// ListTopics describes every topic of the cluster, ordered by name. The error is a *NoGatewayError.
func (c *Client) ListTopics(ctx context.Context) ([]TopicDescription, error) {
	return c.describeTopics(ctx, &wire.ResolveRequest{AllTopics: true})
}

func (c *Client) describeTopics(ctx context.Context, request *wire.ResolveRequest) ([]TopicDescription, error) {
	ctx, cancel := c.requestContext(ctx)
	defer cancel()
	topics, err := c.describe(ctx, request)
	if err != nil {
		return nil, err
	}
	descriptions := make([]TopicDescription, len(topics))
	for i := range topics {
		descriptions[i] = describe(&topics[i])
	}
	sort.Slice(descriptions, func(i, j int) bool { return descriptions[i].Name < descriptions[j].Name })
	return descriptions, nil
}

func (c *Client) describe(ctx context.Context, request *wire.ResolveRequest) ([]wire.TopicDescription, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	reply, from, err := c.keeper.Gateways().AskUntil(ctx, wire.APIResolve, request)
	if err != nil {
		return nil, err
	}
	resolved, err := wire.DecodeResolveReply(reply.Head)
	if err != nil {
		return nil, &fault.MalformedError{From: from, What: "resolve reply", Reason: err}
	}
	return resolved.Topics, nil
}

// learn takes the description of a topic that was created or altered into the map.
func (c *Client) learn(reply connection.Reply, err error, name string) (TopicDescription, error) {
	if err != nil {
		return TopicDescription{}, err
	}
	topic, err := wire.DecodeTopicDescription(reply.Head)
	if err != nil {
		return TopicDescription{}, &fault.MalformedError{From: "the controller", What: "description of topic " + name, Reason: err}
	}
	if topic.Error != errorcode.None {
		return TopicDescription{}, fault.Broker(topic.Error, "topic %s", name)
	}
	c.keeper.Learn(&topic)
	return describe(&topic), nil
}

// serverTimeoutMs is how long the server may take: a little less than we wait, so that its answer still arrives.
func (c *Client) serverTimeoutMs() uint32 {
	timeout := c.settings.requestTimeout
	return uint32(max(timeout-500*time.Millisecond, timeout/2).Milliseconds())
}

func (t *NewTopic) config() wire.TopicConfig {
	config := wire.TopicConfig{
		RetentionMs: t.Retention.Milliseconds(), RetentionBytes: t.RetentionBytes, BatchBytesMax: uint32(max(t.BatchBytesMax, 0)),
		ProduceBytesPerSecond: t.ProduceBytesPerSecond,
	}
	if config.RetentionMs <= 0 {
		config.RetentionMs = -1
	}
	if config.RetentionBytes <= 0 {
		config.RetentionBytes = -1
	}
	if config.BatchBytesMax == 0 {
		config.BatchBytesMax = wire.BatchBodyBytesMax
	}
	return config
}

func (t *TopicChange) config() (change wire.TopicConfigChange) {
	if t.Retention != nil {
		milliseconds := t.Retention.Milliseconds()
		if *t.Retention < 0 {
			milliseconds = -1
		}
		change.RetentionMs = &milliseconds
	}
	if t.BatchBytesMax != nil {
		bytes := uint32(max(*t.BatchBytesMax, 0))
		change.BatchBytesMax = &bytes
	}
	change.RetentionBytes, change.ProduceBytesPerSecond = t.RetentionBytes, t.ProduceBytesPerSecond
	return change
}

var topicStates = map[wire.TopicState]string{
	wire.TopicCreating: "creating", wire.TopicReady: "ready", wire.TopicDeleting: "deleting", wire.TopicAltering: "altering",
}

func describe(topic *wire.TopicDescription) TopicDescription {
	description := TopicDescription{Name: topic.Name, ID: uint64(topic.Topic), Partitions: int32(topic.Partitions), State: topicStates[topic.State]}
	if topic.Error != errorcode.None {
		description.Err = fault.Broker(topic.Error, "topic %s", topic.Name)
	}
	description.Config = TopicConfig{
		RetentionBytes: topic.Config.RetentionBytes, BatchBytesMax: int(topic.Config.BatchBytesMax),
		ProduceBytesPerSecond: topic.Config.ProduceBytesPerSecond, Retention: -1,
	}
	if milliseconds := topic.Config.RetentionMs; milliseconds >= 0 {
		// A retention beyond what a time.Duration holds (292 years) is as good as the longest one.
		description.Config.Retention = time.Duration(min(milliseconds, 1<<63/1_000_000-1)) * time.Millisecond
	}
	return description
}
