"""Consumers of one group, against a small coordinator behind a real socket (``fake_coordinator``)."""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack
from queue import Queue
from typing import Any, Callable

import pytest

from minikafka import (
    BrokerError,
    Client,
    ClientOptions,
    Consumer,
    ConsumerOptions,
    GroupOptions,
    InvalidOptionError,
    MemberFencedError,
    OffsetOutOfRangeError,
    ProducerOptions,
    TopicPartition,
    aio,
)
from minikafka.protocol.error_code import ErrorCode
from minikafka.protocol.messages import Api
from minikafka.protocol.messages.data import PartitionKey

from .fake_cluster import FakeCluster
from .waiting import PATIENCE, until

PARTITIONS = 4


@pytest.fixture
def client(cluster: FakeCluster) -> Any:
    """A client of the fake cluster, with a topic that has records."""
    with Client(cluster.address, ClientOptions(client_name="test")) as connected:
        connected.create_topic("orders", partitions=PARTITIONS)
        yield connected


def fill(client: Client, count: int, *, first: int = 0) -> None:
    """Writes so many records into each partition; values are their numbers there."""
    with client.producer(ProducerOptions(batch_bytes=1024)) as producer:
        for partition in range(PARTITIONS):
            producer.send_many(
                "orders", [b"%d" % number for number in range(first, first + count)], partition=partition
            )


def read(consumer: Consumer, count: int) -> list[tuple[int, int]]:
    """So many records: partition and offset."""
    records = [consumer.poll(PATIENCE) for _ in range(count)]
    return [(record.partition, record.offset) for record in records if record is not None]


def commits(cluster: FakeCluster, client: Client) -> dict[int, int]:
    return client.group_offsets("billing", "orders")


def joined(client: Client, **options: Any) -> Consumer:
    consumer = client.consumer("orders", group="billing", membership=GroupOptions(**options))
    until(lambda: len(consumer.assignment()) > 0)
    return consumer


def test_one_member_reads_everything_and_what_it_handled_is_committed_at_close(
    client: Client, cluster: FakeCluster
) -> None:
    fill(client, 5)
    with client.consumer("orders", group="billing") as consumer:
        found = read(consumer, 20)
        assert sorted(found) == [(partition, offset) for partition in range(4) for offset in range(5)]
        assert consumer.assignment() == [TopicPartition("orders", partition) for partition in range(4)]
    assert commits(cluster, client) == dict.fromkeys(range(4), 5)
    fill(client, 1, first=5)
    with client.consumer("orders", group="billing") as consumer:
        assert sorted(read(consumer, 4)) == [(partition, 5) for partition in range(4)]
        assert consumer.poll(0) is None


def test_commits_are_made_on_their_own_and_when_asked_for(client: Client, cluster: FakeCluster) -> None:
    fill(client, 5)
    with joined(client, commit_interval=0.05) as consumer:
        read(consumer, 20)
        consumer.poll(0)
        until(lambda: commits(cluster, client) == dict.fromkeys(range(4), 5))
        fill(client, 1, first=5)
        read(consumer, 4)
        consumer.poll(0)
        consumer.commit()
        assert commits(cluster, client) == dict.fromkeys(range(4), 6)


def test_a_record_in_hand_is_not_committed(client: Client, cluster: FakeCluster) -> None:
    fill(client, 3)
    with joined(client) as consumer:
        for record in consumer:
            consumer.commit()
            assert commits(cluster, client).get(record.partition, 0) == record.offset
            if record.offset == 2:
                break


def test_with_ack_the_lowest_that_is_open_is_committed(client: Client, cluster: FakeCluster) -> None:
    fill(client, 4)
    options = ConsumerOptions()
    with client.consumer(
        "orders", group="billing", options=options, membership=GroupOptions(handled="ack")
    ) as consumer:
        records = [consumer.poll(PATIENCE) for _ in range(16)]
        for record in records:
            assert record is not None
            if record.offset != 1:
                record.ack()
        consumer.commit()
        assert commits(cluster, client) == dict.fromkeys(range(4), 1)
    assert commits(cluster, client) == dict.fromkeys(range(4), 1)


def test_members_share_partitions_and_each_record_comes_once(client: Client, cluster: FakeCluster) -> None:
    fill(client, 50)
    with ExitStack() as stack:
        first = stack.enter_context(client.consumer("orders", group="billing"))
        found = read(first, 10)
        second = stack.enter_context(client.consumer("orders", group="billing"))

        def shared() -> bool:
            for consumer in (first, second):
                record = consumer.poll(0)
                if record is not None:
                    found.append((record.partition, record.offset))
            return len(first.assignment()) == len(second.assignment()) == 2

        until(shared)
        assert not set(first.assignment()) & set(second.assignment())
        fill(client, 10, first=50)
        while len(found) < 240:
            shared()
        assert sorted(found) == [(partition, offset) for partition in range(4) for offset in range(60)], "each once"


def test_a_revocation_waits_for_what_is_in_hand_and_then_commits_it(client: Client, cluster: FakeCluster) -> None:
    fill(client, 20)
    revoked: list[TopicPartition] = []
    assigned: list[TopicPartition] = []
    options = GroupOptions(on_revoked=revoked.extend, on_assigned=assigned.extend)
    with ExitStack() as stack:
        first = stack.enter_context(client.consumer("orders", group="billing", membership=options))
        until(lambda: len(assigned) == 4 and len(first.assignment()) == 4)
        # The coordinator will take these two away.
        first.pause(0, 1)
        in_hand = first.poll(PATIENCE)
        assert in_hand is not None
        assert in_hand.partition in (2, 3)
        other = TopicPartition("orders", 5 - in_hand.partition)
        second = stack.enter_context(client.consumer("orders", group="billing"))
        until(lambda: second.assignment() == [other])
        assert sorted(revoked) == [TopicPartition("orders", 2), TopicPartition("orders", 3)]
        assert len(first.assignment()) == 2, "its reading has stopped"
        beats = len(cluster.coordinator.heartbeats)
        until(lambda: len(cluster.coordinator.heartbeats) > beats + 5)
        assert second.assignment() == [other], "the one in hand is waited for"
        assert first.poll(0) is None, "asking for the next one says that it is handled"
        until(lambda: len(second.assignment()) == 2)
        after = read(second, 39)
        expected = {(partition, offset) for partition in (2, 3) for offset in range(20)}
        assert sorted(after) == sorted(expected - {(in_hand.partition, in_hand.offset)})


def test_what_is_paused_when_it_is_assigned_stays_paused(client: Client) -> None:
    fill(client, 5)
    consumers: Queue[Consumer] = Queue()

    def on_assigned(partitions: list[TopicPartition]) -> None:
        consumers.get(timeout=PATIENCE).pause(*(at for at in partitions if at.partition < 2))

    membership = GroupOptions(on_assigned=on_assigned)
    with client.consumer("orders", group="billing", membership=membership) as consumer:
        consumers.put(consumer)
        assert {partition for partition, _ in read(consumer, 10)} == {2, 3}
        assert consumer.poll(0.1) is None
        consumer.resume(0, 1)
        assert {partition for partition, _ in read(consumer, 10)} == {0, 1}


def test_a_member_that_dies_is_replaced_and_its_records_come_again(client: Client, cluster: FakeCluster) -> None:
    fill(client, 5)
    with Client(cluster.address) as dying:
        victim = dying.consumer("orders", group="billing", membership=GroupOptions(session_timeout=1.0))
        found = read(victim, 7)
        # Without a word: its loop stands still from here on.
        dying._loop._loop.call_soon_threadsafe(dying._loop._loop.stop)
        dying._loop._thread.join()
        with client.consumer("orders", group="billing") as consumer:
            until(lambda: len(consumer.assignment()) == 4)
            again = read(consumer, 20)
        assert sorted(again) == [(partition, offset) for partition in range(4) for offset in range(5)]
        assert set(found) < set(again)
        dying._cluster.is_closed = True


def test_a_handler_that_takes_long_is_not_thrown_out(client: Client, cluster: FakeCluster) -> None:
    fill(client, 2)
    with client.consumer("orders", group="billing", membership=GroupOptions(session_timeout=1.0)) as consumer:
        record = consumer.poll(PATIENCE)
        assert record is not None
        (member,) = cluster.coordinator.groups["billing"].members.values()
        beats = len(cluster.coordinator.heartbeats)
        # Several session time-outs of heartbeats, while the application does nothing.
        until(lambda: len(cluster.coordinator.heartbeats) >= beats + 8)
        assert list(cluster.coordinator.groups["billing"].members.values()) == [member]
        assert len(consumer.assignment()) == 4


def test_a_coordinator_that_dies_moves_no_partition(client: Client, cluster: FakeCluster) -> None:
    fill(client, 5)
    lost: list[TopicPartition] = []
    revoked: list[TopicPartition] = []
    options = GroupOptions(on_lost=lost.extend, on_revoked=revoked.extend)
    with client.consumer("orders", group="billing", membership=options) as consumer:
        found = read(consumer, 10)
        # First the connections: who is dead answers nobody.
        cluster.server.drop_connections(then=cluster.coordinator.take_over)
        found += read(consumer, 10)
        assert sorted(found) == [(partition, offset) for partition in range(4) for offset in range(5)]
        until(lambda: len(cluster.coordinator.groups["billing"].members) == 1)
        consumer.poll(0)
        consumer.commit()
        assert (lost, revoked) == ([], [])
    assert commits(cluster, client) == dict.fromkeys(range(4), 5)


def test_an_expelled_member_loses_what_it_had_and_joins_anew(client: Client, cluster: FakeCluster) -> None:
    fill(client, 5)
    lost: list[TopicPartition] = []
    with client.consumer("orders", group="billing", membership=GroupOptions(on_lost=lost.extend)) as consumer:
        read(consumer, 20)
        (number,) = cluster.coordinator.groups["billing"].members
        cluster.server.call(lambda: cluster.coordinator.expel("billing", number))
        until(lambda: len(lost) == 4)
        again = read(consumer, 20)
        assert sorted(again) == [(partition, offset) for partition in range(4) for offset in range(5)], "not committed"


def test_a_static_member_is_taken_over_by_its_successor_and_fenced(client: Client, cluster: FakeCluster) -> None:
    fill(client, 3)
    with Client(cluster.address) as other:
        first = client.consumer("orders", group="billing", membership=GroupOptions(instance="till-1"))
        read(first, 12)
        first.poll(0)
        first.commit()
        second = other.consumer("orders", group="billing", membership=GroupOptions(instance="till-1"))
        until(lambda: len(second.assignment()) == 4)
        with pytest.raises(MemberFencedError, match="instance name"):
            until(lambda: first.poll(PATIENCE) is None)
        first.close()
        fill(other, 1, first=3)
        assert sorted(read(second, 4)) == [(partition, 3) for partition in range(4)]


def test_a_static_member_that_leaves_keeps_its_partitions_unless_for_good(client: Client, cluster: FakeCluster) -> None:
    for for_good, owned in ((False, 4), (True, 0)):
        consumer = joined(client, instance="till-1")
        consumer.close(leave_for_good=for_good)
        assert len(cluster.coordinator.groups["billing"].owner) == owned


def test_where_nothing_is_committed(client: Client, cluster: FakeCluster) -> None:
    fill(client, 3)
    with client.consumer("orders", group="billing", start="latest") as consumer:
        until(lambda: len(consumer.assignment()) == 4)
        fill(client, 1, first=3)
        assert sorted(read(consumer, 4)) == [(partition, 3) for partition in range(4)]
    with client.consumer("orders", group="strict", start="error") as consumer:
        with pytest.raises(OffsetOutOfRangeError, match="no committed offset"):
            consumer.poll(PATIENCE)
    for arguments in ({"start": 3}, {"partitions": [0]}, {"options": ConsumerOptions(start_offsets={0: 1})}):
        with pytest.raises(InvalidOptionError):
            client.consumer("orders", group="billing", **arguments)
    with pytest.raises(InvalidOptionError):
        client.consumer("orders", start="error")


def test_a_commit_of_what_belongs_to_others_is_refused_and_the_partition_is_lost(
    client: Client, cluster: FakeCluster
) -> None:
    fill(client, 3)
    lost: list[TopicPartition] = []
    with client.consumer("orders", group="billing", membership=GroupOptions(on_lost=lost.extend)) as consumer:
        read(consumer, 12)
        key = PartitionKey(cluster.topics["orders"].topic, 2)
        cluster.server.call(lambda: cluster.coordinator.groups["billing"].owner.update({key: 12345}))
        consumer.poll(0)
        with pytest.raises(BrokerError, match=r"partition 2.*not_assigned"):
            consumer.commit()
        until(lambda: lost == [TopicPartition("orders", 2)])
        assert TopicPartition("orders", 2) not in consumer.assignment()
    assert commits(cluster, client) == {0: 3, 1: 3, 3: 3}


def test_seeking_when_assigned_comes_before_any_record(client: Client, cluster: FakeCluster) -> None:
    fill(client, 5)
    consumers: list[Consumer] = []
    ready = threading.Event()

    def seek(partitions: list[TopicPartition]) -> None:
        assert ready.wait(PATIENCE)
        for partition in partitions:
            consumers[0].seek(partition, 4)

    with client.consumer("orders", group="billing", membership=GroupOptions(on_assigned=seek)) as consumer:
        consumers.append(consumer)
        ready.set()
        assert sorted(read(consumer, 4)) == [(partition, 4) for partition in range(4)]


def test_a_callback_that_fails_does_not_stop_the_membership(client: Client, cluster: FakeCluster) -> None:
    fill(client, 2)

    def failing(_: list[TopicPartition]) -> None:
        raise RuntimeError("the application's mistake")

    with client.consumer("orders", group="billing", membership=GroupOptions(on_assigned=failing)) as consumer:
        assert len(read(consumer, 8)) == 8


@pytest.mark.parametrize("code", [ErrorCode.NOT_OWNER, ErrorCode.STALE, ErrorCode.OVERLOADED, ErrorCode.TIMED_OUT])
def test_heartbeats_and_commits_that_are_refused_for_a_while_are_repeated(
    client: Client, cluster: FakeCluster, code: ErrorCode
) -> None:
    fill(client, 2)
    with client.consumer("orders", group="billing") as consumer:
        read(consumer, 8)
        cluster.refuse(Api.GROUP_HEARTBEAT, code, times=3)
        cluster.refuse(Api.GROUP_COMMIT, code, times=3)
        consumer.poll(0)
        consumer.commit()
        assert commits(cluster, client) == dict.fromkeys(range(4), 2)


def test_tools_see_groups(client: Client, cluster: FakeCluster) -> None:
    with joined(client, instance="till-1") as consumer:
        until(lambda: len(consumer.assignment()) == 4)
        group = client.describe_group("billing")
        assert (group.state, [member.instance for member in group.members]) == ("stable", ["till-1"])
        assert len(group.members[0].target) == 4
        with pytest.raises(BrokerError, match="group_not_empty"):
            client.delete_group("billing")
    client.delete_group("billing")
    with pytest.raises(BrokerError, match="unknown_group"):
        client.describe_group("billing")


def test_the_asyncio_consumer_in_a_group(client: Client, cluster: FakeCluster) -> None:
    fill(client, 5)
    seen: list[str] = []

    async def assigned(partitions: list[TopicPartition]) -> None:
        await asyncio.sleep(0)
        seen.append(f"assigned {len(partitions)}")

    def note(what: str) -> Callable[[list[TopicPartition]], None]:
        return lambda partitions: seen.append(f"{what} {len(partitions)}")

    async def test() -> None:
        membership = GroupOptions(on_assigned=assigned, on_revoked=note("revoked"), handled="ack")
        async with aio.Client(cluster.address) as other:
            async with await other.consumer("orders", group="billing", membership=membership) as consumer:
                count = 0
                async for record in consumer:
                    record.ack()
                    count += 1
                    if count == 20:
                        break
                await consumer.commit()
            assert await other.group_offsets("billing", "orders") == dict.fromkeys(range(4), 5)

    asyncio.run(asyncio.wait_for(test(), 50))
    assert seen == ["assigned 4", "revoked 4"]
