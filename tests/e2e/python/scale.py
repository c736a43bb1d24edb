"""Scale, the load of it: sends records to a topic of one copy, and says when to look at the brokers' processor time.

Prints ``began`` once the topic is there and warm, and a JSON object when every record is acknowledged. Whoever runs it
(``tests/e2e/run scale``) compares what one broker and three take for it.
"""

from __future__ import annotations

import argparse
import json
import os
import time

from minikafka import Client, ProducerOptions

#: Many, so that they lie evenly on three brokers.
PARTITIONS = 240
#: Records of one round over all partitions: some batches for each.
CHUNK = 2_000 * PARTITIONS
#: Batches are full, whatever the machine is busy with: only so is the work the same with one broker and with three.
#: They are small, so that it is brokers that have work, and not the disk.
FULL_BATCHES = ProducerOptions(batch_bytes=4096, send_when_idle=False, linger=0.2)


def main() -> None:
    """Sends."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--gateways", default="localhost:9000", help="host:port, separated by commas")
    parser.add_argument("--records", type=int, default=2_000_000)
    parser.add_argument("--topic", default="scale")
    arguments = parser.parse_args()
    values = [os.urandom(100) for _ in range(CHUNK // PARTITIONS)]
    with Client(arguments.gateways.split(",")) as client, client.producer(FULL_BATCHES) as producer:
        client.create_topic(arguments.topic, partitions=PARTITIONS, replication=1)

        def send(records: int) -> None:
            for _ in range(records // CHUNK):
                for partition in range(PARTITIONS):
                    producer.send_many(arguments.topic, values, partition=partition)
            producer.flush()

        send(CHUNK)
        print("began", flush=True)
        began = time.monotonic()
        send(arguments.records)
        seconds = time.monotonic() - began
    print(json.dumps({"records": arguments.records // CHUNK * CHUNK, "seconds": seconds}))


if __name__ == "__main__":
    main()
