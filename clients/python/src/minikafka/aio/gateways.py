"""Asking gateways: any of them for the map, the controller for changes."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Final, NamedTuple, TypeVar

from ..protocol import backoff
from ..protocol.error_code import ErrorCode
from ..protocol.errors import BrokerError, DeadlineExceededError, MiniKafkaError, NoGatewayError
from ..protocol.fields import Message
from ..protocol.messages import Api
from .pool import ConnectionPool, PoolLane

_log = logging.getLogger("minikafka")

#: One gateway has this long to answer, in seconds.
ANSWER_DEADLINE: Final = 5.0
#: A gateway that says nothing for so long is not waited for alone: the next one is asked as well.
PATIENCE: Final = 0.250

M = TypeVar("M", bound=Message)


class Controlled(NamedTuple):
    """How a request to the controller ended."""

    reply: Message | None
    error: MiniKafkaError | None
    #: Whether an attempt before the last one may have been carried out without an answer: then "exists" or "unknown"
    #: can be this very request's own doing.
    maybe_done: bool


class Gateways:
    """The gateways of a client, and which of them answered last."""

    def __init__(self, addresses: list[str], pool: ConnectionPool) -> None:
        self._addresses = addresses
        self._pool = pool
        # Clients spread over the gateways from the start.
        self._preferred = random.randrange(len(addresses))

    async def ask_any(self, api: Api, request: Message, reply: type[M]) -> tuple[str, M]:
        """Asks the gateway that answered last, and each of the others as soon as those before failed or kept silent for
        a while, until one gives an answer. Returns who did, too.

        :raises NoGatewayError: none does.
        :raises BrokerError: what one gateway refuses for good, the others refuse too.
        """
        count = len(self._addresses)
        turns = [(self._preferred + turn) % count for turn in range(count)]
        asking: dict[asyncio.Task[M], int] = {}
        last: object = "nothing"
        try:
            while turns or asking:
                if turns:
                    at = turns.pop(0)
                    asking[asyncio.ensure_future(self._ask_one(self._addresses[at], api, request, reply))] = at
                patience = PATIENCE if turns else 2 * ANSWER_DEADLINE
                done, _ = await asyncio.wait(asking, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                if not done and not turns:
                    break
                for question in done:
                    at = asking.pop(question)
                    error = question.exception()
                    if error is None:
                        self._preferred = at
                        return self._addresses[at], question.result()
                    if not isinstance(error, MiniKafkaError) or (
                        isinstance(error, BrokerError) and not error.retriable
                    ):
                        raise error
                    _log.debug("gateway %s did not answer: %s", self._addresses[at], error)
                    last = error
        finally:
            for question in asking:
                question.cancel()
        raise NoGatewayError(", ".join(self._addresses), last)

    def turn_to_next(self) -> None:
        """Another gateway is asked first the next time: what this one tells is too old. It may have lost the
        coordinator, and not know what the others do.
        """
        self._preferred = (self._preferred + 1) % len(self._addresses)

    async def ask_controller(self, api: Api, request: Message, reply: type[Message], *, deadline: float) -> Controlled:
        """Asks the controller, wherever it is: follows ``not_controller`` (whose message is the controller's address),
        goes on to the next gateway when one is gone, and retries what is retriable until the deadline (the loop's
        time).
        """
        loop = asyncio.get_running_loop()
        named: str | None = None
        at, failures, maybe_done = self._preferred, 0, False
        while True:
            address = named or self._addresses[at % len(self._addresses)]
            try:
                connection = await self._pool.connect(address, PoolLane.REQUESTS)
                left = max(deadline - loop.time(), 0.001)
                return Controlled(await connection.call(api, request, reply, timeout=left), None, maybe_done)
            except MiniKafkaError as caught:
                error = caught
            failures += 1
            wait = backoff.wait_after(failures, random.random(), error.retry_after)
            if not error.retriable or loop.time() + wait >= deadline:
                return Controlled(None, error, maybe_done)
            maybe_done = maybe_done or error.outcome_unknown
            named = _controller_named_by(error)
            at += named is None
            await asyncio.sleep(wait)

    async def _ask_one(self, address: str, api: Api, request: Message, reply: type[M]) -> M:
        """One question to one gateway. A connection on which no answer came is not used again."""
        connection = await self._pool.connect(address, PoolLane.REQUESTS)
        try:
            return await connection.call(api, request, reply, timeout=ANSWER_DEADLINE)
        except DeadlineExceededError:
            connection.end_because("a gateway did not answer in time")
            raise


def _controller_named_by(error: MiniKafkaError) -> str | None:
    """The address in a ``not_controller`` answer, if it is one."""
    if not isinstance(error, BrokerError) or error.code is not ErrorCode.NOT_CONTROLLER:
        return None
    host, _, port = error.message.rpartition(":")
    is_address = host and not any(map(str.isspace, host)) and port.isdigit() and int(port) < 1 << 16
    return error.message if is_address else None
