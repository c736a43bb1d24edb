package minikafka_test

import (
	"testing"
	"time"

	minikafka "github.com/minikafka/minikafka/clients/go"
	"github.com/minikafka/minikafka/clients/go/internal/brokertest"
	"github.com/minikafka/minikafka/clients/go/internal/fakecluster"
)

// produceOne stores one record, and says where its time went.
func produceOne(t *testing.T, client *minikafka.Client, topic string) *minikafka.Explain {
	t.Helper()
	delivered := make(chan minikafka.Delivery, 1)
	client.Produce(testContext(t), &minikafka.Record{Topic: topic, Value: []byte("bought")}, func(d minikafka.Delivery, err error) {
		if err != nil {
			t.Error(err)
		}
		delivered <- d
	})
	return (<-delivered).Explain
}

// checkHops: every stage lies within its hop, the first hop within the round trip, and the stages of the first one are there.
func checkHops(t *testing.T, told *minikafka.Explain, hops int, stages ...string) {
	t.Helper()
	if told == nil || len(told.Hops) != hops || told.Hops[0].Whole > told.RoundTrip {
		t.Fatalf("%+v, want %d hops", told, hops)
	}
	for _, hop := range told.Hops {
		for _, stage := range hop.Stages {
			if stage.Start+stage.Took > hop.Whole {
				t.Errorf("%s ends after its hop: %+v", stage.Name, hop)
			}
		}
	}
	for _, name := range stages {
		found := false
		for _, stage := range told.Hops[0].Stages {
			found = found || stage.Name == name
		}
		if !found {
			t.Errorf("no stage %s in %+v", name, told.Hops[0])
		}
	}
}

func TestAChainOfThreeAndAFetchAreExplained(t *testing.T) {
	checkLeaks(t)
	broker := brokertest.Start(t, "--nodes", "3")
	client := newClient(
		t, broker.Gateway, minikafka.ExplainProduces(), minikafka.ExplainFetches(), minikafka.ConsumeTopics("explained"),
	)
	told := produceOne(t, client, "explained")
	checkHops(t, told, 3, "receive", "checksum", "append", "durable", "successor", "answer")
	waited := told.Hops[0].Took("successor")
	if behind := told.Hops[1].Whole; waited == 0 || behind > waited+time.Millisecond {
		t.Errorf("the head waited %v for what took its successor %v", waited, behind)
	}
	batch, err := client.Poll(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	checkHops(t, batch.Explain(), 1, "memory", "read", "room")
	broker.Kill()
}

func TestAnOlderServerIsNotAskedToExplain(t *testing.T) {
	cluster := fakecluster.New(t, 1)
	cluster.CreateTopic("orders", 1)
	client := newClient(t, cluster.Gateways()[0], minikafka.ExplainProduces(), minikafka.ExplainFetches(), minikafka.ConsumeTopics("orders"))
	if told := produceOne(t, client, "orders"); told != nil {
		t.Errorf("%+v", told)
	}
	batch, err := client.Poll(testContext(t))
	if err != nil || batch.Explain() != nil {
		t.Errorf("%+v, %v", batch.Explain(), err)
	}
}
