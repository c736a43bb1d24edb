"""Back-off, names, the map, errors, options: each small, each with a rule that others rely on."""

from __future__ import annotations

import copy
import pickle
import re
from dataclasses import replace

import pytest

from minikafka.protocol import backoff
from minikafka.protocol.cluster_map import Addressed, ClusterMap
from minikafka.protocol.error_code import ADVICE, ErrorCode
from minikafka.protocol.errors import BrokerError, InvalidOptionError, UnknownTopicError, broker_error
from minikafka.protocol.messages.data import RangeKey
from minikafka.protocol.messages.topics import (
    STATE_READY,
    ChainPlace,
    NodeAddress,
    RangeChain,
    ResolveReply,
    RingMap,
    TopicConfig,
    TopicDescription,
)
from minikafka.protocol.names import check_group_name, check_topic_name
from minikafka.protocol.options import ClientOptions, ConsumerOptions, GroupOptions, ProducerOptions
from minikafka.protocol.partitioner import range_of_token, token_of_group, token_of_partition
from minikafka.protocol.redelivery import pause_after

from ..conftest import REPOSITORY
from .entries import cluster_map, topic


def test_waits_double_to_a_bound_and_respect_the_server() -> None:
    waits = [backoff.wait_after(failures, 1.0) for failures in (0, 1, 2, 3, 1000)]
    assert waits == pytest.approx([0.0, 0.008, 0.016, 0.032, 1.0])
    assert backoff.wait_after(1, 0.0) == pytest.approx(0.004)
    assert backoff.wait_after(1, 0.0, 0.3) == pytest.approx(0.3)
    assert backoff.wait_after(1, 0.0, 9000.0) == 2.0, "a server can not stop a client for long"


def test_a_newer_map_is_asked_for_often_at_first_and_then_more_and_more_rarely() -> None:
    waits = [backoff.wait_for_map(failures, 1.0) for failures in (1, 2, 3, 4, 35, 36, 10_000)]
    assert waits == pytest.approx([0.008, 0.016, 0.032, 0.032, 0.032, 0.064, 1.0])


def test_a_failing_callback_is_tried_again_after_longer_and_longer_pauses() -> None:
    assert [pause_after(failures) for failures in (1, 2, 3, 8, 99)] == pytest.approx([0.1, 0.2, 0.4, 10.0, 10.0])


def test_partitions_spread_evenly_over_ranges() -> None:
    held = [0] * 256
    for partition in range(2560):
        held[range_of_token(token_of_partition(0x1234_5678_9ABC_DEF0, partition), 256)] += 1
    assert all(8 <= count <= 12 for count in held)
    assert range_of_token(2**64 - 1, 256) == 255
    assert range_of_token(2**64 - 1, 1) == 0
    assert range_of_token(2**63, 2) == 1


def test_a_group_lies_where_its_hash_says() -> None:
    # The first eight bytes of SHA-256, as "printf billing | sha256sum" prints them, little-endian.
    assert token_of_group("billing").to_bytes(8, "little").hex() == "0c95c7ece1ce1a97"
    assert token_of_group("a") != token_of_group("b")


def test_names() -> None:
    for good in ("a", "orders.v1", "A_b-9", "x" * 249):
        check_topic_name(good)
        check_group_name(good)
    for bad in ("", "a b", "ü", "a/b", "x" * 250, "a\n"):
        with pytest.raises(BrokerError):
            check_topic_name(bad)
        with pytest.raises(InvalidOptionError):
            check_group_name(bad)
    for bad in (".", ".."):
        with pytest.raises(BrokerError):
            check_topic_name(bad)


def test_the_map_never_goes_back_to_an_older_epoch() -> None:
    new, old = cluster_map([0], [1], epoch=5), reply_of(epoch=3)
    assert new.succeeded_by(old).epoch_of(RangeKey(1, 0)) == 5
    assert new.succeeded_by(reply_of(epoch=6)).epoch_of(RangeKey(1, 0)) == 6
    assert new.succeeded_by(old).topic("orders") is not None, "what was not asked for is kept"


def test_a_request_holds_as_long_as_the_map_says_so() -> None:
    current = cluster_map([0, 1], [1, 0], epoch=5)
    asked = Addressed("shard-0:1", RangeKey(1, 0), 5)
    assert asked.holds(current)
    assert Addressed("shard-1:1", RangeKey(1, 0), 5).holds(current), "every member of the chain"
    assert not replace(asked, epoch=4).holds(current)
    assert not replace(asked, address="shard-9:1").holds(current)


def test_a_chain_without_a_known_head_has_no_owner() -> None:
    reply = reply_of(epoch=5)
    reply.nodes = []
    assert ClusterMap().succeeded_by(reply).owner_of(RangeKey(1, 0)) is None
    assert ClusterMap().range_of_group("billing") is None


@pytest.mark.parametrize(
    "broken",
    [
        {"chains": 3},
        {"partitions": 0},
        {"partitions": 10_001},
    ],
)
def test_a_map_that_contradicts_itself_is_refused(broken: dict[str, int]) -> None:
    reply = reply_of(epoch=1, chains=broken.get("chains", 2))
    reply.topics = [replace(topic(), partitions=broken.get("partitions", 2))]
    with pytest.raises(ValueError, match=r"partition|power of two"):
        ClusterMap().succeeded_by(reply)


def reply_of(*, epoch: int, chains: int = 2) -> ResolveReply:
    chain = RangeChain(epoch, [ChainPlace(0, 0)])
    return ResolveReply(1, 1, [NodeAddress(0, "", ["shard-0:1"])], [RingMap(1, 1, [chain] * chains)], [])


def test_an_error_says_what_happened_to_what_and_what_to_do() -> None:
    error = broker_error(ErrorCode.UNKNOWN_TOPIC, "topic orders")
    assert isinstance(error, UnknownTopicError)
    assert str(error) == f"topic orders: unknown_topic. {ADVICE[ErrorCode.UNKNOWN_TOPIC]}"
    assert "said so" in str(broker_error(ErrorCode.INTERNAL, "x", "said so"))
    assert error.about("topic other").target == "topic other"
    assert not error.retriable
    assert broker_error(ErrorCode.STALE, "x").outcome_unknown
    assert not broker_error(ErrorCode.NOT_OWNER, "x").outcome_unknown
    for copied in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(copied), str(copied)) == (type(error), str(error))


def test_the_table_of_errors_is_the_one_of_the_documents() -> None:
    text = (REPOSITORY / "docs" / "PROTOCOL.md").read_text()
    rows = re.findall(r"^\| (\d+) \| `([a-z_]+)` \| (yes|no) \| (.+) \|$", text, re.MULTILINE)
    assert {(int(code), code.name.lower(), "yes" if code.retriable else "no", ADVICE[code]) for code in ErrorCode} == {
        (int(number), name, retriable, advice) for number, name, retriable, advice in rows
    }


@pytest.mark.parametrize(
    "make",
    [
        lambda: ClientOptions(connect_timeout=0),
        lambda: ClientOptions(client_name="x" * 1025),
        lambda: ProducerOptions(batch_bytes=1),
        lambda: ProducerOptions(buffer_bytes=1),
        lambda: ProducerOptions(in_flight_max=9),
        lambda: ProducerOptions(linger=-1),
        lambda: ProducerOptions(compression="gzip"),  # type: ignore[arg-type]
        lambda: ProducerOptions(zstd_level=23),
        lambda: ConsumerOptions(prefetch_bytes=1),
        lambda: ConsumerOptions(partition_fetch_bytes=1),
        lambda: ConsumerOptions(fetch_wait=31),
        lambda: ConsumerOptions(out_of_range="nowhere"),  # type: ignore[arg-type]
        lambda: ConsumerOptions(read_from="tail"),  # type: ignore[arg-type]
        lambda: GroupOptions(session_timeout=0.5),
        lambda: GroupOptions(handled="never"),  # type: ignore[arg-type]
        lambda: GroupOptions(instance=""),
        lambda: GroupOptions(revocation_wait=60),
    ],
)
def test_options_outside_of_their_range_are_refused_by_name(make: object) -> None:
    with pytest.raises(InvalidOptionError, match=r"option [a-z_]+ is not valid"):
        make()  # type: ignore[operator]


def test_a_topic_that_was_deleted_is_not_known_any_more() -> None:
    described = TopicDescription("new", None, 8, 1, 1, STATE_READY, TopicConfig(), [])
    current = cluster_map().with_topic(described)
    assert current.usable_topic("new") == described
    assert current.topic_of_id(8) == described
    assert current.without_topic("new").topic("new") is None
