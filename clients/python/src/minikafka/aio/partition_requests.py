"""Requests about many partitions of a topic, each to the shard that owns it, answered by one offset per partition.

Every shard concerned is asked at once; what is retriable is asked again, of whoever owns the partition by then, until
the client's ``request_timeout``. What is not retriable ends it for all.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Callable, NamedTuple, Optional, Union

from ..protocol import backoff
from ..protocol.cluster_map import ClusterMap
from ..protocol.error_code import ErrorCode
from ..protocol.errors import MalformedReplyError, MiniKafkaError, NoSuchPartitionError, broker_error
from ..protocol.fields import Message
from ..protocol.messages import Api
from ..protocol.messages.data import (
    DeleteRecordsPartition,
    DeleteRecordsReply,
    DeleteRecordsRequest,
    ListOffsetsPartition,
    ListOffsetsReply,
    ListOffsetsRequest,
    PartitionKey,
    RangeKey,
)
from ..protocol.messages.topics import TopicDescription
from .cluster import Cluster
from .pool import PoolLane


class _Place(NamedTuple):
    """Where a partition is asked about, and what is wanted of it."""

    range: RangeKey
    epoch: int
    partition: PartitionKey
    wanted: int


class _Outcome(NamedTuple):
    """What a shard answered about one partition."""

    partition: PartitionKey
    error: Optional[ErrorCode]
    epoch: int
    offset: int


class _Question(NamedTuple):
    """A kind of request."""

    api: Api
    request: Callable[[Sequence[_Place]], Message]
    reply: type[Message]
    outcomes: Callable[[Message], list[_Outcome]]


def check_partitions(topic: TopicDescription, partitions: Iterable[int]) -> None:
    """Refuses partitions that the topic does not have.

    :raises NoSuchPartitionError: it names the first one.
    """
    for partition in partitions:
        if not 0 <= partition < topic.partitions:
            raise NoSuchPartitionError(topic.name, partition, f"the topic has {topic.partitions} partitions, from 0 on")


async def list_offsets(
    cluster: Cluster, topic: TopicDescription, partitions: Iterable[int], kind: int, timestamp: int = 0
) -> dict[int, int]:
    """The offset that a query means in each of these partitions; ``timestamp`` is ms since the Unix epoch."""

    def request(places: Sequence[_Place]) -> Message:
        return ListOffsetsRequest(
            [ListOffsetsPartition(at.range, at.epoch, at.partition, at.wanted, timestamp) for at in places]
        )

    def outcomes(reply: Message) -> list[_Outcome]:
        assert isinstance(reply, ListOffsetsReply)
        return [_Outcome(part.partition, part.error, part.epoch, part.offset) for part in reply.partitions]

    question = _Question(Api.LIST_OFFSETS, request, ListOffsetsReply, outcomes)
    return await _ask(cluster, topic, dict.fromkeys(partitions, kind), question)


async def delete_records(cluster: Cluster, topic: TopicDescription, before: Mapping[int, int]) -> dict[int, int]:
    """Deletes the records of partitions below an offset each; the first offset that is left in each."""

    def request(places: Sequence[_Place]) -> Message:
        return DeleteRecordsRequest(
            [DeleteRecordsPartition(at.range, at.epoch, at.partition, at.wanted) for at in places]
        )

    def outcomes(reply: Message) -> list[_Outcome]:
        assert isinstance(reply, DeleteRecordsReply)
        return [_Outcome(part.partition, part.error, part.epoch, part.log_start) for part in reply.partitions]

    question = _Question(Api.DELETE_RECORDS, request, DeleteRecordsReply, outcomes)
    return await _ask(cluster, topic, before, question)


async def _ask(
    cluster: Cluster, topic: TopicDescription, wanted: Mapping[int, int], question: _Question
) -> dict[int, int]:
    """The answers for all partitions, ordered by partition."""
    check_partitions(topic, wanted)
    loop = asyncio.get_running_loop()
    deadline = cluster.request_deadline()
    missing = dict(wanted)
    found: dict[int, int] = {}
    failures = 0
    while missing:
        current = cluster.maps.current
        answers = await _one_round(cluster, current, topic, missing, question, deadline - loop.time())
        errors = [answer for answer in answers.values() if isinstance(answer, MiniKafkaError)]
        for error in errors:
            if not error.retriable:
                raise error
        for partition, answer in answers.items():
            if isinstance(answer, int):
                found[partition] = answer
                del missing[partition]
        if not missing:
            break
        failures += 1
        error = errors[0]
        wait = backoff.wait_of(failures, random.random(), needs_map=error.wants_map, server_asks=error.retry_after)
        if loop.time() + wait >= deadline:
            raise error
        await asyncio.sleep(wait)
        await cluster.map_after(current.version)
    return dict(sorted(found.items()))


async def _one_round(
    cluster: Cluster,
    current: ClusterMap,
    topic: TopicDescription,
    missing: Mapping[int, int],
    question: _Question,
    timeout: float,
) -> dict[int, Union[int, MiniKafkaError]]:
    """Asks every shard concerned; one answer for each partition."""
    shards: dict[str, list[_Place]] = {}
    answers: dict[int, Union[int, MiniKafkaError]] = {}
    for partition, wanted in missing.items():
        range_key = current.range_of(topic, partition)
        owner = current.owner_of(range_key) if range_key is not None else None
        if range_key is None or owner is None:
            target = f"topic {topic.name} partition {partition}"
            answers[partition] = broker_error(ErrorCode.PARTITION_NOT_READY, target)
            continue
        place = _Place(range_key, owner.epoch, PartitionKey(topic.topic, partition), wanted)
        shards.setdefault(owner.address, []).append(place)
    asked = [_ask_shard(cluster, address, places, question, timeout) for address, places in shards.items()]
    for outcomes, places in zip(await asyncio.gather(*asked), shards.values()):
        for at, place in enumerate(places):
            answer = outcomes if isinstance(outcomes, MiniKafkaError) else _answer(topic, outcomes[at])
            answers[place.partition.partition] = answer
    return answers


async def _ask_shard(
    cluster: Cluster, address: str, places: Sequence[_Place], question: _Question, timeout: float
) -> Union[list[_Outcome], MiniKafkaError]:
    """What one shard says, in the order of the question; or why it says nothing."""
    try:
        connection = await cluster.pool.connect(address, PoolLane.REQUESTS)
        reply = await connection.call(question.api, question.request(places), question.reply, timeout=timeout)
        outcomes = question.outcomes(reply)
    except MiniKafkaError as error:
        return error
    if [outcome.partition for outcome in outcomes] != [place.partition for place in places]:
        return MalformedReplyError(address, question.reply.__name__, "it lists other partitions than asked for")
    return outcomes


def _answer(topic: TopicDescription, outcome: _Outcome) -> Union[int, MiniKafkaError]:
    if outcome.error is None:
        return outcome.offset
    target = f"topic {topic.name} partition {outcome.partition.partition}"
    return broker_error(outcome.error, target, epoch=outcome.epoch)
