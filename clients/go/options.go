package minikafka

import (
	"log/slog"
	"strings"
	"time"

	"github.com/minikafka/minikafka/clients/go/internal/fault"
	"github.com/minikafka/minikafka/clients/go/internal/wire"
)

// Option is a setting of New. Every option is set by the application; without it, the default holds that is told with it.
type Option interface{ apply(*settings) }

// ClientOption is a setting of the client as a whole.
type ClientOption interface {
	Option
	clientOption()
}

// ProducerOption is a setting of producing.
type ProducerOption interface {
	Option
	producerOption()
}

// ConsumerOption is a setting of consuming, with or without a group.
type ConsumerOption interface {
	Option
	consumerOption()
}

// GroupOption is a setting of consuming in a group.
type GroupOption interface {
	Option
	groupOption()
}

type (
	clientOption   func(*settings)
	producerOption func(*settings)
	consumerOption func(*settings)
	groupOption    func(*settings)
)

func (o clientOption) apply(s *settings)   { o(s) }
func (o producerOption) apply(s *settings) { o(s) }
func (o consumerOption) apply(s *settings) { o(s) }
func (o groupOption) apply(s *settings)    { o(s) }

func (clientOption) clientOption()     {}
func (producerOption) producerOption() {}
func (consumerOption) consumerOption() {}
func (groupOption) groupOption()       {}

// settings are what New gathers.
type settings struct {
	gateways       []string
	clientName     string
	cluster        uint64
	connectTimeout time.Duration
	requestTimeout time.Duration
	createMissing  bool
	logger         *slog.Logger
	producer       producerSettings
	consumer       consumerSettings
	group          groupSettings
}

func defaultSettings() settings {
	return settings{
		connectTimeout: 5 * time.Second,
		requestTimeout: 30 * time.Second,
		createMissing:  true,
		logger:         slog.Default(),
		producer:       defaultProducerSettings(),
		consumer:       defaultConsumerSettings(),
		group:          defaultGroupSettings(),
	}
}

// Gateways names the gateways of the cluster, each as host:port; any of them will do. They are asked in turn: when one has not
// answered within 250 ms, the next is asked as well, and the first answer counts. Needed.
func Gateways(addresses ...string) ClientOption {
	return clientOption(func(s *settings) { s.gateways = append([]string(nil), addresses...) })
}

// ClientName is the name of the program, for the servers' logs and the descriptions of groups. At most 1,024 bytes. Default:
// empty.
func ClientName(name string) ClientOption {
	return clientOption(func(s *settings) { s.clientName = name })
}

// ClusterID is the cluster expected; another one is refused with WrongCluster. Default: 0, any.
func ClusterID(cluster uint64) ClientOption {
	return clientOption(func(s *settings) { s.cluster = cluster })
}

// ConnectTimeout bounds one attempt to open a connection, hello included. Default: 5 s.
func ConnectTimeout(timeout time.Duration) ClientOption {
	return clientOption(func(s *settings) { s.connectTimeout = timeout })
}

// RequestTimeout bounds requests about topics, offsets and groups, retries included. Default: 30 s.
func RequestTimeout(timeout time.Duration) ClientOption {
	return clientOption(func(s *settings) { s.requestTimeout = timeout })
}

// CreateMissingTopics says whether producing to, or reading from, a topic that does not exist asks the cluster to create it.
// Clusters decide whether they do: "minikafka dev" does, others only if configured. Default: true.
func CreateMissingTopics(create bool) ClientOption {
	return clientOption(func(s *settings) { s.createMissing = create })
}

// Logger is where the client tells what it rides through. Default: slog.Default().
func Logger(logger *slog.Logger) ClientOption {
	return clientOption(func(s *settings) { s.logger = logger })
}

func refuse(option, reason string) error { return &fault.OptionError{Option: option, Reason: reason} }

// check refuses settings outside of their range.
func (s *settings) check() error {
	if len(s.gateways) == 0 {
		return refuse("Gateways", "at least one host:port is needed")
	}
	for _, address := range s.gateways {
		if !strings.Contains(address, ":") {
			return refuse("Gateways", address+" is not host:port")
		}
	}
	if s.connectTimeout <= 0 || s.requestTimeout <= 0 {
		return refuse("ConnectTimeout, RequestTimeout", "they must be above zero")
	}
	if len(s.clientName) > wire.TextBytesMax {
		return refuse("ClientName", "it must have at most 1,024 bytes")
	}
	if s.logger == nil {
		return refuse("Logger", "it must not be nil")
	}
	if err := s.producer.check(); err != nil {
		return err
	}
	if err := s.consumer.check(); err != nil {
		return err
	}
	return s.group.check(&s.consumer)
}
