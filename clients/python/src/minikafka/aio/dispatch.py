"""Getting a batch to the head of its range: address, connection, request, answer."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Coroutine
from typing import Callable, Final, Union

from ..protocol.cluster_map import Addressed, ClusterMap
from ..protocol.error_code import ErrorCode
from ..protocol.errors import (
    BrokerError,
    DeadlineExceededError,
    MalformedReplyError,
    MiniKafkaError,
    broker_error,
)
from ..protocol.explain import Explain
from ..protocol.messages import Api
from ..protocol.messages.explain import ProduceExplained
from ..protocol.messages.topics import TopicDescription
from ..protocol.options import ProducerOptions
from ..protocol.producer_queue import Attempt, Outcome, Stored
from .cluster import OVERDUE, Cluster
from .connection import Answer, Connection
from .pool import PoolLane
from .sealing import SealedBatch

#: An answer may be late by so many seconds before the connection counts as dead: the server keeps the deadline itself.
_ANSWER_SLACK: Final = 2.0
#: A connection that is not open after this counts as failed for now: a newer map may lead elsewhere.
_CONNECT_PATIENCE: Final = 1.0
#: The map is looked at when one is not open after this: what a killed process had open may take connections for a
#: while.
_CONNECT_DOUBT_AFTER: Final = 0.05
#: How often attempts are looked at that may be overdue.
_WATCH: Final = 0.1

#: Epoch, timeout and nothing, in front of the entry header; and the reply.
_REQUEST_FORM: Final = struct.Struct("<QII")
_REPLY_FORM: Final = struct.Struct("<Qq")


class Flight:
    """One attempt that is under way."""

    __slots__ = ("addressed", "attempt", "connection", "deadline", "is_over", "partition", "sent_at")

    def __init__(
        self,
        partition: int,
        attempt: Attempt,
        addressed: Addressed,
        connection: Connection,
        sent_at: float,
        deadline: float,
    ) -> None:
        self.partition = partition
        self.attempt = attempt
        self.addressed = addressed
        self.connection = connection
        self.sent_at = sent_at
        self.deadline = deadline
        self.is_over = False


class Dispatcher:
    """Sends the batches of one topic, and tells how each attempt ends."""

    def __init__(
        self,
        cluster: Cluster,
        topic: TopicDescription,
        options: ProducerOptions,
        answered: Callable[[Flight, Outcome], None],
        reachable: Callable[[str, MiniKafkaError | None], None],
    ) -> None:
        self._cluster = cluster
        self._topic = topic
        self._options = options
        self._tell_answered = answered
        self._tell_reachable = reachable
        self._loop = asyncio.get_running_loop()
        #: In the order in which they were sent.
        self._flights: dict[Flight, None] = {}
        self._watch: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None
        #: One task per address tells when it can be tried again.
        self._awaiting: dict[str, asyncio.Task[None]] = {}

    def try_send(
        self, cluster_map: ClusterMap, partition: int, attempt: Attempt, sealed: SealedBatch, now: float
    ) -> Union[str, MiniKafkaError, None]:
        """Sends a batch. A text: its address, which can not take it now, and of which will be told when it can; an
        error: it goes to nobody now."""
        range_key = cluster_map.range_of(self._topic, partition)
        owner = cluster_map.owner_of(range_key) if range_key is not None else None
        if range_key is None or owner is None:
            target = f"topic {self._topic.name} partition {partition} has no owner in the map"
            return broker_error(ErrorCode.PARTITION_NOT_READY, target)
        addressed = Addressed(owner.address, range_key, owner.epoch)
        connection = self._cluster.pool.live(owner.address, PoolLane.REQUESTS)
        if connection is None:
            self._await(owner.address, self._connection(addressed))
            return owner.address
        header = sealed.header._replace(
            ring=range_key.ring,
            range=range_key.range,
            producer_id=attempt.producer_id,
            base_sequence=attempt.sequence,
        )
        patience = max(min(self._options.request_timeout, attempt.deadline - now), 0.001)
        head = _REQUEST_FORM.pack(owner.epoch, int(patience * 1000), 0) + header.encode_unsealed()
        try:
            future = connection.try_request(Api.PRODUCE, head, sealed.body, explain=self._options.explain)
        except MiniKafkaError as error:
            return error
        if future is None:
            self._await(owner.address, self._room(connection, len(head) + len(sealed.body)))
            return owner.address
        flight = Flight(partition, attempt, addressed, connection, now, now + patience + _ANSWER_SLACK)
        self._flights[flight] = None
        future.add_done_callback(lambda done: self._answered(flight, done))
        if self._watch is None:
            self._watch = self._loop.call_later(_WATCH, self._watch_flights)
        return None

    def close(self) -> None:
        """Tells nothing any more."""
        for flight in self._flights:
            flight.is_over = True
        self._flights.clear()
        for task in [*self._awaiting.values(), *([self._looking] if self._looking is not None else [])]:
            task.cancel()
        if self._watch is not None:
            self._watch.cancel()

    def _answered(self, flight: Flight, future: asyncio.Future[Answer]) -> None:
        if flight.is_over or future.cancelled():
            return
        answer = future.result()
        if isinstance(answer, MiniKafkaError):
            self._conclude(flight, answer)
        elif answer.explain:
            self._explained(flight, answer.head)
        elif len(answer.head) != _REPLY_FORM.size:
            flight.connection.end_because("a produce request was not answered properly")
            self._conclude(flight, MalformedReplyError(flight.addressed.address, "produce reply", "it is not 16 bytes"))
        else:
            self._conclude(flight, Stored(*_REPLY_FORM.unpack(answer.head)))

    def _explained(self, flight: Flight, head: bytes) -> None:
        round_trip = self._loop.time() - flight.sent_at
        try:
            reply = flight.connection.decode(ProduceExplained, head)
        except MalformedReplyError as error:
            flight.connection.end_because("a produce request was not answered properly")
            self._conclude(flight, error)
            return
        explain = Explain(round_trip, reply.hops)
        self._conclude(flight, Stored(reply.base_offset, reply.append_timestamp, explain))

    def _conclude(self, flight: Flight, outcome: Outcome) -> None:
        """An attempt is over, whatever comes of it later."""
        if flight.is_over:
            return
        flight.is_over = True
        self._flights.pop(flight, None)
        if isinstance(outcome, BrokerError):
            target = f"topic {self._topic.name} partition {flight.partition} at {flight.addressed.address}"
            outcome = outcome.about(target)
        self._tell_answered(flight, outcome)

    def _watch_flights(self) -> None:
        """Ends what is over its deadline, and looks after what is overdue."""
        self._watch = self._loop.call_later(_WATCH, self._watch_flights) if self._flights else None
        now = self._loop.time()
        for flight in [flight for flight in self._flights if flight.deadline <= now]:
            what = f"produce request to {flight.addressed.address}"
            within = flight.deadline - flight.sent_at
            self._conclude(flight, DeadlineExceededError(what, within, outcome_unknown=True))
            flight.connection.end_because("a produce request was not answered in time")
        overdue = [flight for flight in self._flights if flight.sent_at + OVERDUE <= now]
        if overdue and self._looking is None:
            self._looking = asyncio.ensure_future(self._look_after(overdue))

    async def _look_after(self, overdue: list[Flight]) -> None:
        try:
            for addressed in {flight.addressed for flight in overdue}:
                moved = await self._cluster.look_for_move([addressed])
                if moved is None:
                    continue
                for flight in overdue:
                    if flight.addressed == addressed:
                        self._conclude(flight, moved)
        finally:
            self._looking = None

    def _await(self, address: str, outcome: Coroutine[object, object, None]) -> None:
        if address in self._awaiting:
            outcome.close()
            return
        self._awaiting[address] = asyncio.ensure_future(self._tell_when_reachable(address, outcome))

    async def _tell_when_reachable(self, address: str, outcome: Coroutine[object, object, None]) -> None:
        error: MiniKafkaError | None = None
        try:
            await outcome
        except MiniKafkaError as caught:
            error = caught
        finally:
            self._awaiting.pop(address, None)
        self._tell_reachable(address, error)

    async def _connection(self, addressed: Addressed) -> None:
        """Ends well when the connection is open."""
        opening = asyncio.ensure_future(
            self._cluster.pool.connect_within(addressed.address, PoolLane.REQUESTS, _CONNECT_PATIENCE)
        )
        moving = asyncio.ensure_future(self._cluster.moved(_CONNECT_DOUBT_AFTER, [addressed]))
        try:
            await asyncio.wait({opening, moving}, return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                opening.result()
                return
            raise moving.result()
        finally:
            opening.cancel()
            moving.cancel()

    async def _room(self, connection: Connection, payload_bytes: int) -> None:
        """Ends well when the window has room."""
        await connection.room(payload_bytes)
