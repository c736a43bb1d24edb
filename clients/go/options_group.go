package minikafka

import (
	"context"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/cluster"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

type groupSettings struct {
	name           string
	instance       string
	sessionTimeout time.Duration
	commitInterval time.Duration
	byAck          bool
	leavesForGood  bool
	failsUncommit  bool
	revokeWait     time.Duration
	onAssigned     func(context.Context, *Client, []TopicPartition)
	onRevoked      func(context.Context, *Client, []TopicPartition)
	onLost         func(context.Context, *Client, []TopicPartition)
}

func defaultGroupSettings() groupSettings {
	return groupSettings{sessionTimeout: 10 * time.Second, commitInterval: 5 * time.Second, revokeWait: time.Second}
}

// Group makes the client a member of a consumer group: the members share the partitions of the topics they consume. 1 to 249
// letters, digits, '.', '_' or '-'. Default: none; the client reads all by itself.
func Group(name string) GroupOption {
	return groupOption(func(s *settings) { s.group.name = name })
}

// Instance makes the membership static: a new process with the same instance name, which must be unique in the group, takes
// over the partitions of the old one without anybody else noticing, and fences it. Default: none.
func Instance(name string) GroupOption {
	return groupOption(func(s *settings) { s.group.instance = name })
}

// SessionTimeout is how long the client may be silent before its partitions go to others. Heartbeats are the client's own,
// whatever the application does. 1 to 600 s. Default: 10 s.
func SessionTimeout(timeout time.Duration) GroupOption {
	return groupOption(func(s *settings) { s.group.sessionTimeout = timeout })
}

// CommitInterval is how often what was handled is committed. At a revocation and at Close it is committed in any case; zero:
// only then, and when Commit is called. Default: 5 s.
func CommitInterval(interval time.Duration) GroupOption {
	return groupOption(func(s *settings) { s.group.commitInterval = interval })
}

// CommitByAck makes a record count as handled when it was acknowledged (Client.Ack, Batch.Ack), and commits the lowest record
// that was given out and not acknowledged. Default: a record counts as handled when the next one is asked for (Poll,
// PollRecord), or at Close.
func CommitByAck() GroupOption {
	return groupOption(func(s *settings) { s.group.byAck = true })
}

// LeaveForGood gives the partitions of a static member to others at once when it closes. Default: they are kept for its session
// time-out, for the process that comes back under its instance name.
func LeaveForGood() GroupOption {
	return groupOption(func(s *settings) { s.group.leavesForGood = true })
}

// FailWithoutCommit makes a partition fail with OffsetOutOfRange where the group has no commit. Default: it begins where
// StartEarliest (the default) or StartLatest says.
func FailWithoutCommit() GroupOption {
	return groupOption(func(s *settings) { s.group.failsUncommit = true })
}

// RevokeWait is how long a revocation waits for the application to finish the records of a revoked partition that it has in
// hand, so that nobody handles them again. Then they are given to the next owner all the same. At most 30 s. Default: 1 s.
func RevokeWait(wait time.Duration) GroupOption {
	return groupOption(func(s *settings) { s.group.revokeWait = wait })
}

// OnAssigned is called when partitions were assigned to this member, before they are read: Seek says where they begin, if not
// at the committed offset. Callbacks are called one at a time, from a goroutine of the client; the context ends with the
// client. Default: nothing.
func OnAssigned(callback func(ctx context.Context, client *Client, partitions []TopicPartition)) GroupOption {
	return groupOption(func(s *settings) { s.group.onAssigned = callback })
}

// OnRevoked is called when partitions are to go to another member: they are not read any more, what was handled of them is
// committed after the callback returns, and then they are released. The other partitions go on. Default: nothing.
func OnRevoked(callback func(ctx context.Context, client *Client, partitions []TopicPartition)) GroupOption {
	return groupOption(func(s *settings) { s.group.onRevoked = callback })
}

// OnLost is called when partitions are gone already, because this member was expelled or fenced: nothing of them can be
// committed. Default: nothing.
func OnLost(callback func(ctx context.Context, client *Client, partitions []TopicPartition)) GroupOption {
	return groupOption(func(s *settings) { s.group.onLost = callback })
}

func (s *groupSettings) check(consumer *consumerSettings) error {
	if s.name == "" {
		if s.instance != "" {
			return refuse("Instance", "it is for members of a group")
		}
		return nil
	}
	if err := cluster.CheckGroup(s.name); err != nil {
		return err
	}
	if s.instance != "" && !wire.IsName(s.instance) {
		return refuse("Instance", "it must be 1 to 249 letters, digits, '.', '_' or '-', and not '.' or '..'")
	}
	if s.sessionTimeout < time.Second || s.sessionTimeout > 600*time.Second {
		return refuse("SessionTimeout", "it must be 1 to 600 s")
	}
	if s.commitInterval < 0 || s.revokeWait < 0 || s.revokeWait > 30*time.Second {
		return refuse("CommitInterval, RevokeWait", "they must not be negative, RevokeWait at most 30 s")
	}
	if len(consumer.topics) == 0 || len(consumer.partitions) > 0 {
		return refuse("Group", "a member consumes topics (ConsumeTopics), and no partitions of its own choice")
	}
	if kind := consumer.start.kind; kind != startEarliest && kind != startLatest || len(consumer.startOffsets) > 0 {
		return refuse("StartAtOffset, StartAtTime, StartPartitionAt", "in a group, commits say where to begin; without one it is StartEarliest or StartLatest")
	}
	return nil
}
