"""Entries as a broker sends them, and maps of small clusters."""

from __future__ import annotations

from minikafka.protocol.batch_builder import build_batch
from minikafka.protocol.cluster_map import ClusterMap
from minikafka.protocol.messages.data import PartitionKey
from minikafka.protocol.messages.topics import (
    STATE_READY,
    ChainPlace,
    NodeAddress,
    Placement,
    RangeChain,
    ResolveReply,
    RingMap,
    TopicConfig,
    TopicDescription,
)

PARTITION = PartitionKey(5, 1)


def entries(base: int, counts: list[int]) -> bytes:
    """Entries of so many records each, from offset ``base`` on; values are the offsets."""
    out = b""
    for number, count in enumerate(counts):
        values: list[bytes | None] = [offset.to_bytes(8, "little") for offset in range(base, base + count)]
        built = build_batch([], values, [(0, base)], {})
        header = built.header(PARTITION.topic, PARTITION.partition)
        header = header._replace(base_offset=base, log_index=base + number + 1)
        out += header.encode() + built.body + bytes(-len(built.body) % 16)
        base += count
    return out


def topic() -> TopicDescription:
    """Two partitions: 1 lies in range 0, 0 in range 1."""
    placement = [Placement(1, 0), Placement(0, 1)]
    return TopicDescription("orders", None, PARTITION.topic, 2, 1, STATE_READY, TopicConfig(), placement)


TOPIC = topic()


def cluster_map(*chains: list[int], epoch: int = 4, topic: TopicDescription = TOPIC) -> ClusterMap:
    """A map of ranges 0 and 1, whose chains have these nodes, each in a rack of its own."""
    chains = chains or ([0], [1])
    nodes = sorted({node for chain in chains for node in chain})
    reply = ResolveReply(
        1,
        1,
        [NodeAddress(node, f"rack-{node}", [f"shard-{node}:1"]) for node in nodes],
        [RingMap(1, len(chains[0]), [RangeChain(epoch, [ChainPlace(node, 0) for node in chain]) for chain in chains])],
        [topic],
    )
    return ClusterMap().succeeded_by(reply)
