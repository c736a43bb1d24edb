"""Groups at a real broker, with what only processes do: dying without a word, coming back under an instance name, and
a coordinator that dies itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from minikafka import (
    BrokerError,
    Client,
    Consumer,
    GroupOptions,
    MemberFencedError,
    ProducerOptions,
    TopicPartition,
)
from minikafka.protocol.error_code import ErrorCode
from minikafka.protocol.group_member import Committer

from .broker import Broker, binary
from .waiting import PATIENCE, until

PARTITIONS = 6

#: A consumer as a process of its own: says what it reads, and what it has, line by line, until it is killed.
MEMBER = """
import sys
from minikafka import Client, GroupOptions

gateway, topic, group, instance = sys.argv[1:]
membership = GroupOptions(session_timeout=2.0, commit_interval=0.1, instance=instance or None)
with Client(gateway) as client, client.consumer(topic, group=group, membership=membership) as consumer:
    said = None
    while True:
        record = consumer.poll(0.02)
        if record is not None:
            print("record", record.partition, record.offset, flush=True)
        assigned = [at.partition for at in consumer.assignment()]
        if assigned != said:
            said = assigned
            print("assigned", *assigned, flush=True)
"""


class MemberProcess:
    """A consumer that can be killed."""

    def __init__(self, gateway: str, topic: str, group: str, instance: str = "") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", MEMBER, gateway, topic, group, instance], stdout=subprocess.PIPE, text=True
        )
        self.assigned: list[int] = []
        self.records: set[tuple[int, int]] = set()

    def read_until_it_has(self, count: int) -> None:
        """Reads what it says until it has so many partitions."""
        assert self._process.stdout is not None
        while len(self.assigned) != count:
            what, *numbers = self._process.stdout.readline().split()
            if what == "assigned":
                self.assigned = [int(number) for number in numbers]
            else:
                partition, offset = numbers
                self.records.add((int(partition), int(offset)))

    def kill(self) -> None:
        """Without a word."""
        assert self._process.stdout is not None
        if self._process.stdout.closed:
            return
        self._process.kill()
        for line in self._process.stdout:
            # The last one may be cut.
            if line.startswith("record") and line.endswith("\n"):
                _, partition, offset = line.split()
                self.records.add((int(partition), int(offset)))
        self._process.stdout.close()
        self._process.wait()


@contextmanager
def member_process(gateway: str, topic: str, group: str, instance: str = "") -> Iterator[MemberProcess]:
    running = MemberProcess(gateway, topic, group, instance)
    try:
        yield running
    finally:
        running.kill()


def fill(client: Client, topic: str, count: int) -> None:
    """Writes so many records more into each partition."""
    with client.producer(ProducerOptions(batch_bytes=4096)) as producer:
        for partition in range(PARTITIONS):
            producer.send_many(topic, [b"value"] * count, partition=partition)


def read(consumer: Consumer, count: int) -> set[tuple[int, int]]:
    """So many records: partition and offset."""
    records = [consumer.poll(PATIENCE) for _ in range(count)]
    return {(record.partition, record.offset) for record in records if record is not None}


def everything(count: int, first: int = 0) -> set[tuple[int, int]]:
    return {(partition, offset) for partition in range(PARTITIONS) for offset in range(first, count)}


@pytest.fixture
def orders(client: Client, topic: str) -> str:
    """A topic of the test's own, and the name of its group."""
    client.create_topic(topic, partitions=PARTITIONS)
    return topic


def test_a_member_that_dies_without_leaving_is_replaced(client: Client, broker: Broker, orders: str) -> None:
    fill(client, orders, 20)
    with client.consumer(orders, group=orders, membership=GroupOptions(commit_interval=0.1)) as survivor:
        until(lambda: len(survivor.assignment()) == PARTITIONS)
        mine = read(survivor, PARTITIONS * 20)
        assert mine == everything(20)
        with member_process(broker.gateway, orders, orders) as other:
            until(lambda: survivor.poll(0) is None and len(survivor.assignment()) == PARTITIONS // 2)
            other.read_until_it_has(PARTITIONS // 2)
            assert not {at.partition for at in survivor.assignment()} & set(other.assigned)
            fill(client, orders, 20)
            mine |= read(survivor, PARTITIONS // 2 * 20)
            survivor.poll(0)
            other.kill()
            killed = other.records
        until(lambda: len(survivor.assignment()) == PARTITIONS)

        def has_caught_up() -> bool:
            record = survivor.poll(0.05)
            if record is not None:
                mine.add((record.partition, record.offset))
                return False
            survivor.commit()
            return client.group_offsets(orders, orders) == dict.fromkeys(range(PARTITIONS), 40)

        # What it had read and not committed comes again, what it had not read comes.
        until(has_caught_up)
        assert mine | killed == everything(40)


def test_commits_and_ownership_survive_a_crash_of_the_broker(topic: str) -> None:
    if binary() is None:
        pytest.skip("no broker: build it (cargo build -p minikafka), or name it in MINIKAFKA_BINARY")
    lost: list[TopicPartition] = []
    revoked: list[TopicPartition] = []
    with Broker() as mortal, Client(mortal.gateway) as client:
        client.create_topic(topic, partitions=PARTITIONS)
        fill(client, topic, 10)
        membership = GroupOptions(on_lost=lost.extend, on_revoked=revoked.extend)
        with client.consumer(topic, group="billing", membership=membership) as consumer:
            assert read(consumer, PARTITIONS * 10) == everything(10)
            consumer.poll(0)
            consumer.commit()
            mortal.kill()
            mortal.start()
            assert client.group_offsets("billing", topic) == dict.fromkeys(range(PARTITIONS), 10)
            fill(client, topic, 10)
            assert read(consumer, PARTITIONS * 10) == everything(20, first=10), "each once"
            group = client.describe_group("billing")
            assert len(group.members) == 1 and len(group.members[0].owned) == PARTITIONS
            assert (lost, revoked) == ([], []), "the death of a coordinator moves no partition"
            consumer.poll(0)
        assert client.group_offsets("billing", topic) == dict.fromkeys(range(PARTITIONS), 20)
        mortal.kill()
        mortal.start()
        with client.consumer(topic, group="billing") as consumer:
            fill(client, topic, 1)
            assert read(consumer, PARTITIONS) == everything(21, first=20), "it goes on where the group was"


def test_a_zombie_is_fenced_and_commits_nothing(client: Client, broker: Broker, orders: str) -> None:
    fill(client, orders, 5)
    static = GroupOptions(instance="till-1", handled="ack")
    with Client(broker.gateway) as earlier:
        zombie = earlier.consumer(orders, group=orders, membership=static)
        records = [zombie.poll(PATIENCE) for _ in range(PARTITIONS * 5)]
        was = zombie._engine._membership
        assert was is not None
        committer = was._member.committer()
        with client.consumer(orders, group=orders, membership=static) as successor:
            until(lambda: len(successor.assignment()) == PARTITIONS)
            with pytest.raises(MemberFencedError, match="instance name"):
                until(lambda: zombie.poll(PATIENCE) is None)
            for record in records:
                assert record is not None
                record.ack()
            zombie.commit()
            assert client.group_offsets(orders, orders) == {}, "it says nothing"
            # Not even one that was on its way for a long time.
            for late in (committer, Committer(committer.member, committer.generation + 10)):
                assert commit_of(client, orders, late) == {0: ErrorCode.NOT_ASSIGNED}
            assert read(successor, PARTITIONS * 5) == everything(5)


def commit_of(client: Client, orders: str, committer: Committer) -> dict[int, ErrorCode]:
    """A commit of partition 0 in the name of a member."""
    from minikafka.aio import coordinator
    from minikafka.protocol.messages.data import PartitionKey

    key = PartitionKey(client.describe_topic(orders).id, 0)
    commit = coordinator.commit(client._cluster, orders, {key: 3}, committer=committer, next_sequence=lambda: 1 << 60)
    return {key.partition: code for key, code in client._loop.run(commit).items()}


def test_a_static_member_comes_back_to_its_partitions_and_nobody_notices(
    client: Client, broker: Broker, orders: str
) -> None:
    moved: list[TopicPartition] = []
    membership = GroupOptions(on_revoked=moved.extend, on_lost=moved.extend)
    with client.consumer(orders, group=orders, membership=membership) as other:
        until(lambda: len(other.assignment()) == PARTITIONS)
        with member_process(broker.gateway, orders, orders, "till-1") as first:
            until(lambda: len(other.assignment()) == PARTITIONS // 2)
            first.read_until_it_has(PARTITIONS // 2)
            before, generation = sorted(first.assigned), client.describe_group(orders).generation
            moved.clear()
            first.kill()
            with member_process(broker.gateway, orders, orders, "till-1") as second:
                second.read_until_it_has(PARTITIONS // 2)
                assert sorted(second.assigned) == before
                assert moved == []
                assert client.describe_group(orders).generation > generation, "the older process is fenced"


@pytest.mark.parametrize("for_good", [False, True])
def test_a_static_member_that_leaves_keeps_its_partitions_unless_for_good(
    client: Client, broker: Broker, orders: str, for_good: bool
) -> None:
    with ExitStack() as stack:
        other = stack.enter_context(client.consumer(orders, group=orders))
        earlier = stack.enter_context(Client(broker.gateway))
        static = earlier.consumer(orders, group=orders, membership=GroupOptions(instance="till-1"))
        until(lambda: len(static.assignment()) == len(other.assignment()) == PARTITIONS // 2)
        before = static.assignment()
        static.close(leave_for_good=for_good)
        if for_good:
            until(lambda: len(other.assignment()) == PARTITIONS)
        else:
            again = stack.enter_context(
                earlier.consumer(orders, group=orders, membership=GroupOptions(instance="till-1"))
            )
            until(lambda: len(again.assignment()) == PARTITIONS // 2)
            assert again.assignment() == before
            assert len(other.assignment()) == PARTITIONS // 2


def test_tools_reset_list_and_delete_a_group(client: Client, orders: str) -> None:
    fill(client, orders, 5)
    with client.consumer(orders, group=orders) as consumer:
        read(consumer, PARTITIONS * 5)
        assert client.list_groups()[orders] == "stable"
        with pytest.raises(BrokerError, match="group_not_empty"):
            client.delete_group(orders)
        assert commit_of(client, orders, Committer(0, 0)) == {0: ErrorCode.GROUP_NOT_EMPTY}
    assert client.list_groups()[orders] == "empty"
    assert commit_of(client, orders, Committer(0, 0)) == {}
    assert client.group_offsets(orders, orders) == {0: 3, **dict.fromkeys(range(1, PARTITIONS), 5)}
    with client.consumer(orders, group=orders) as consumer:
        assert read(consumer, 2) == {(0, 3), (0, 4)}
    client.delete_group(orders)
    assert orders not in client.list_groups()
    with pytest.raises(BrokerError, match="unknown_group"):
        client.describe_group(orders)
