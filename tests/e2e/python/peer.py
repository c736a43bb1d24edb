"""The Python side of the interop matrix: sends what standard input says, prints what a topic has.

::

    peer.py produce GATEWAYS TOPIC CODEC        # a record a line; "flush" is answered "flushed" once all are stored
    peer.py consume GATEWAYS TOPIC COUNT        # prints so many records
    peer.py group GATEWAYS TOPIC GROUP          # prints what comes to this member, until standard input ends

A line is a JSON object: ``timestamp`` (ms), ``key`` and ``value`` (hexadecimal digits, or null), ``headers`` (a list of
name and hexadecimal digits); what is read has ``partition`` and ``offset`` besides. Peers of all languages speak it.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

from minikafka import Client, Consumer, GroupOptions, Producer, ProducerOptions, Record


def main() -> None:
    """Does what the command line says."""
    command, gateways, topic, last = sys.argv[1:]
    with Client(gateways.split(",")) as client:
        if command == "produce":
            with client.producer(ProducerOptions(compression=last)) as producer:  # type: ignore[arg-type]
                produce(producer, topic)
        elif command == "group":
            membership = GroupOptions(session_timeout=2.0, commit_interval=0.1)
            with client.consumer(topic, group=last, membership=membership) as consumer:
                share(consumer)
        else:
            with client.consumer(topic) as consumer:
                consume(consumer, int(last))


def produce(producer: Producer, topic: str) -> None:
    """Sends every line of standard input."""
    for line in sys.stdin:
        if line == "flush\n":
            producer.flush()
            print("flushed", flush=True)
            continue
        record: dict[str, Any] = json.loads(line)
        producer.send(
            topic,
            as_bytes(record["value"]),
            as_bytes(record["key"]),
            headers=[(name, bytes.fromhex(value)) for name, value in record["headers"]],
            timestamp=record["timestamp"],
        )


def consume(consumer: Consumer, count: int) -> None:
    """Prints so many records."""
    for _ in range(count):
        record = consumer.poll()
        assert record is not None, "without a time-out, it waits for one"
        print(json.dumps(line_of(record)))


def share(consumer: Consumer) -> None:
    """Prints what comes until standard input ends."""
    ending = threading.Thread(target=sys.stdin.read, daemon=True)
    ending.start()
    while ending.is_alive():
        record = consumer.poll(0.05)
        if record is not None:
            print(json.dumps(line_of(record)), flush=True)


def line_of(record: Record) -> dict[str, Any]:
    """A record that was read."""
    return {
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": as_digits(record.key),
        "value": as_digits(record.value),
        "headers": [[name, value.hex()] for name, value in record.headers],
    }


def as_bytes(digits: str | None) -> bytes | None:
    """Bytes of hexadecimal digits."""
    return bytes.fromhex(digits) if digits is not None else None


def as_digits(data: bytes | None) -> str | None:
    """Hexadecimal digits of bytes."""
    return data.hex() if data is not None else None


if __name__ == "__main__":
    main()
