package minikafka

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/backoff"
	"github.com/minikafka/minikafka/clients/go/internal/cluster"
	"github.com/minikafka/minikafka/clients/go/internal/connection"
	"github.com/minikafka/minikafka/clients/go/internal/errorcode"
	"github.com/minikafka/minikafka/clients/go/internal/fault"
	"github.com/minikafka/minikafka/clients/go/internal/member"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// GroupListing is one group of the cluster.
type GroupListing struct {
	// Group is its name.
	Group string
	// State is "empty", "stable" or "rebalancing".
	State string
	// Members is how many it has.
	Members int
}

// GroupDescription is a group as its coordinator knows it.
type GroupDescription struct {
	// Group is its name.
	Group string
	// Generation grows with every change of who owns what.
	Generation uint64
	// State is "empty", "stable" or "rebalancing".
	State string
	// Members of the group.
	Members []GroupMember
}

// GroupMember is one member of a described group.
type GroupMember struct {
	// ID is what the member calls itself.
	ID uint64
	// Instance is the name of a static member; empty for others.
	Instance string
	// ClientName is the name of its program.
	ClientName string
	// Silent is how long ago it was heard of.
	Silent time.Duration
	// Topics that it subscribes to. Those that this client does not know are written as their ids.
	Topics []string
	// Owned partitions are read by it now, Target is what it should have.
	Owned, Target []TopicPartition
}

// GroupOffset is what a group has committed for a partition.
type GroupOffset struct {
	TopicPartition
	// Offset is the next one to read.
	Offset int64
	// Metadata is what whoever committed it left with it, at most 256 bytes.
	Metadata string
}

var groupStates = map[wire.GroupState]string{
	wire.GroupEmpty: "empty", wire.GroupStable: "stable", wire.GroupRebalancing: "rebalancing",
}

// DescribeGroup describes a group. The error is a *BrokerError (UnknownGroup), or what did not pass before RequestTimeout.
func (c *Client) DescribeGroup(ctx context.Context, group string) (GroupDescription, error) {
	reply, names, err := c.askAboutGroup(ctx, group, wire.APIGroupDescribe, func(at cluster.Addressed) connection.Message {
		return &wire.GroupRequest{Range: at.Range, Epoch: at.Epoch, Group: group}
	})
	if err != nil {
		return GroupDescription{}, err
	}
	decoded, err := wire.DecodeGroupDescription(reply.Head)
	if err != nil {
		return GroupDescription{}, &fault.MalformedError{From: "the coordinator of group " + group, What: "description", Reason: err}
	}
	description := GroupDescription{Group: group, Generation: decoded.Generation, State: groupStates[decoded.State]}
	for _, from := range decoded.Members {
		member := GroupMember{
			ID: uint64(from.Member), Instance: from.Instance, ClientName: from.ClientName,
			Silent: time.Duration(min(from.SilentMs, 1<<40)) * time.Millisecond, Owned: names.partitions(from.Owned), Target: names.partitions(from.Target),
		}
		for _, topic := range from.Topics {
			member.Topics = append(member.Topics, names.topic(topic))
		}
		description.Members = append(description.Members, member)
	}
	return description, nil
}

// DeleteGroup deletes a group without members, and its commits. The error is a *BrokerError (UnknownGroup, GroupNotEmpty), or what
// did not pass before RequestTimeout.
func (c *Client) DeleteGroup(ctx context.Context, group string) error {
	_, _, err := c.askAboutGroup(ctx, group, wire.APIGroupDelete, func(at cluster.Addressed) connection.Message {
		return &wire.GroupRequest{Range: at.Range, Epoch: at.Epoch, Group: group}
	})
	return err
}

// GroupOffsets is what a group has committed, ordered by topic and partition. The error is a *BrokerError (UnknownGroup), or what
// did not pass before RequestTimeout.
func (c *Client) GroupOffsets(ctx context.Context, group string) ([]GroupOffset, error) {
	reply, names, err := c.askAboutGroup(ctx, group, wire.APIGroupOffsets, func(at cluster.Addressed) connection.Message {
		return &wire.GroupOffsetsRequest{Range: at.Range, Epoch: at.Epoch, Group: group}
	})
	if err != nil {
		return nil, err
	}
	decoded, err := wire.DecodeGroupOffsetsReply(reply.Head)
	if err != nil {
		return nil, &fault.MalformedError{From: "the coordinator of group " + group, What: "offsets", Reason: err}
	}
	offsets := make([]GroupOffset, len(decoded.Offsets))
	for i, from := range decoded.Offsets {
		offsets[i] = GroupOffset{names.partition(from.Partition), int64(from.Offset), from.Metadata}
	}
	sort.Slice(offsets, func(i, j int) bool {
		if offsets[i].Topic != offsets[j].Topic {
			return offsets[i].Topic < offsets[j].Topic
		}
		return offsets[i].Partition < offsets[j].Partition
	})
	return offsets, nil
}

// SetGroupOffsets commits offsets for a group from outside of it, as a tool does that resets it: for partitions that no member
// owns. The error is a *BrokerError (NotAssigned, GroupNotEmpty), or what did not pass before RequestTimeout.
func (c *Client) SetGroupOffsets(ctx context.Context, group string, offsets []GroupOffset) error {
	ctx, cancel := c.requestContext(ctx)
	defer cancel()
	if err := cluster.CheckGroup(group); err != nil {
		return err
	}
	committed := make([]wire.CommittedOffset, len(offsets))
	for i, offset := range offsets {
		topic, err := c.keeper.Topic(ctx, offset.Topic)
		if err != nil {
			return err
		}
		if offset.Partition < 0 || offset.Partition >= int32(topic.Partitions) {
			return noSuchPartition(offset.Topic, offset.Partition, int32(topic.Partitions))
		}
		committed[i] = wire.CommittedOffset{
			Partition: wire.PartitionKey{Topic: topic.Topic, Partition: uint32(offset.Partition)}, Offset: uint64(offset.Offset),
			Metadata: offset.Metadata,
		}
	}
	results, err := c.commitOffsets(ctx, group, member.Committer{}, func() uint64 { return 0 }, committed)
	if err != nil {
		return err
	}
	for i, result := range results {
		if result.Error != errorcode.None {
			return fault.Broker(result.Error, "commit of group %s for topic %s partition %d", group, offsets[i].Topic, offsets[i].Partition)
		}
	}
	return nil
}

// ListGroups lists every group of the cluster, ordered by name. The error is what did not pass before RequestTimeout.
func (c *Client) ListGroups(ctx context.Context) ([]GroupListing, error) {
	ctx, cancel := c.requestContext(ctx)
	defer cancel()
	if _, err := c.keeper.NoOlderThan(ctx, time.Second); err != nil && c.keeper.Current().Version() == 0 {
		return nil, err
	}
	open := map[wire.RangeKey]struct{}{}
	for _, key := range c.keeper.Current().GroupRanges() {
		open[key] = struct{}{}
	}
	var groups []GroupListing
	for failures := 1; ; failures++ {
		m := c.keeper.Current()
		found, last := c.listGroupsOnce(ctx, m, open)
		groups = append(groups, found...)
		if len(open) == 0 {
			sort.Slice(groups, func(i, j int) bool { return groups[i].Group < groups[j].Group })
			return groups, nil
		}
		if last == nil {
			last = fault.Broker(errorcode.PartitionNotReady, "%d ranges have no owner in the map", len(open))
		}
		if !fault.Retriable(last) || !cluster.Sleep(ctx, backoff.Random(failures, fault.WantsRefresh(last), fault.RetryAfter(last))) {
			return nil, last
		}
		_, _ = c.keeper.NewerThan(ctx, m.Version())
	}
}

// listGroupsOnce asks every shard for the groups of its ranges; ranges that are answered leave open.
func (c *Client) listGroupsOnce(ctx context.Context, m *cluster.Map, open map[wire.RangeKey]struct{}) (groups []GroupListing, last error) {
	byShard := map[string][]wire.RangeEpoch{}
	for key := range open {
		if address, epoch, ok := m.Owner(key); ok {
			byShard[address] = append(byShard[address], wire.RangeEpoch{Range: key, Epoch: epoch})
		}
	}
	var mu sync.Mutex
	var asking sync.WaitGroup
	for address, ranges := range byShard {
		asking.Add(1)
		go func() {
			defer asking.Done()
			listed, err := c.listGroupsOf(ctx, address, ranges)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				last = err
			}
			for _, of := range listed {
				if of.Error != errorcode.None {
					last = fault.Broker(of.Error, "groups of range %s", of.Range)
					continue
				}
				delete(open, of.Range)
				for _, group := range of.Groups {
					groups = append(groups, GroupListing{group.Group, groupStates[group.State], int(group.Members)})
				}
			}
		}()
	}
	asking.Wait()
	return groups, last
}

func (c *Client) listGroupsOf(ctx context.Context, address string, ranges []wire.RangeEpoch) ([]wire.ListedRange, error) {
	first := cluster.Addressed{Address: address, Range: ranges[0].Range, Epoch: ranges[0].Epoch}
	reply, err := c.callCoordinator(ctx, first, wire.APIGroupList, &wire.GroupListRequest{Ranges: ranges}, 0)
	if err != nil {
		return nil, err
	}
	decoded, err := wire.DecodeGroupListReply(reply.Head)
	if err == nil && len(decoded.Ranges) != len(ranges) {
		err = errors.New("it lists other ranges than were asked for")
	}
	if err != nil {
		return nil, &fault.MalformedError{From: address, What: "list of groups", Reason: err}
	}
	return decoded.Ranges, nil
}

// askAboutGroup makes a request to a group's coordinator, and tells the names of topics that its answer may speak of.
func (c *Client) askAboutGroup(ctx context.Context, group string, api wire.API, request func(cluster.Addressed) connection.Message) (connection.Reply, topicNames, error) {
	ctx, cancel := c.requestContext(ctx)
	defer cancel()
	if err := cluster.CheckGroup(group); err != nil {
		return connection.Reply{}, nil, err
	}
	reply, err := c.askCoordinator(ctx, group, api, request)
	if err != nil {
		return connection.Reply{}, nil, err
	}
	names := topicNames{}
	topics, err := c.describe(ctx, &wire.ResolveRequest{AllTopics: true})
	if err != nil {
		return connection.Reply{}, nil, err
	}
	for i := range topics {
		names[topics[i].Topic] = topics[i].Name
	}
	return reply, names, nil
}

// topicNames has the names of topics by their ids.
type topicNames map[wire.TopicID]string

func (n topicNames) topic(id wire.TopicID) string {
	if name, ok := n[id]; ok {
		return name
	}
	return fmt.Sprintf("%016x", uint64(id))
}

func (n topicNames) partition(key wire.PartitionKey) TopicPartition {
	return TopicPartition{Topic: n.topic(key.Topic), Partition: int32(key.Partition)}
}

func (n topicNames) partitions(keys []wire.PartitionKey) []TopicPartition {
	partitions := make([]TopicPartition, len(keys))
	for i, key := range keys {
		partitions[i] = n.partition(key)
	}
	return partitions
}
