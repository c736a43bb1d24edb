"""Keeps the newest map: asks gateways, one question at a time however many need the answer."""

from __future__ import annotations

import asyncio
from typing import Final

from ..protocol.cluster_map import ClusterMap
from ..protocol.error_code import ErrorCode
from ..protocol.errors import MalformedReplyError, broker_error
from ..protocol.messages import Api
from ..protocol.messages.topics import ResolveReply, ResolveRequest, TopicDescription
from ..protocol.names import check_topic_name
from .gateways import Gateways

#: Two refreshes are at least this far apart, in seconds, whoever asks for them.
REFRESH_INTERVAL_MIN: Final = 0.010


class MapKeeper:
    """Owns the current snapshot."""

    def __init__(self, gateways: Gateways, *, create_missing: bool) -> None:
        self.current = ClusterMap()
        self._gateways = gateways
        self._create_missing = create_missing
        #: Asked about so far: every refresh asks about all of them again.
        self._names: set[str] = set()
        #: Made when it is first needed: before Python 3.10, a lock belonged to the loop that ran when it was made.
        self._lock: asyncio.Lock | None = None
        self._last_refresh = float("-inf")

    async def newer_than(self, seen: int) -> ClusterMap:
        """A snapshot newer than ``seen``: the one that is there already, the one that another caller is fetching, or
        one fetched now.

        :raises NoGatewayError: none answers.
        """
        async with self._refreshing:
            if self.current.version > seen:
                return self.current
            loop = asyncio.get_running_loop()
            await asyncio.sleep(max(self._last_refresh + REFRESH_INTERVAL_MIN - loop.time(), 0))
            before = self.current
            refreshed = await self._refresh()
            if refreshed.has_chains_of(before):
                self._gateways.turn_to_next()
            return refreshed

    async def no_older_than(self, age_max: float) -> ClusterMap:
        """A snapshot that was asked for no longer than ``age_max`` seconds ago, whoever asked.

        :raises NoGatewayError: none answers.
        """
        async with self._refreshing:
            if asyncio.get_running_loop().time() - self._last_refresh < age_max:
                return self.current
            return await self._refresh()

    async def topic(self, name: str, *, deadline: float) -> TopicDescription:
        """A topic's description, asked for if unknown, and created if it does not exist and client and cluster allow.

        Any gateway knows what there is; only the controller creates, and it is waited for until the deadline: just
        after a start there is none yet.

        :raises BrokerError: ``unknown_topic``, ``invalid_topic_name``.
        """
        check_topic_name(name)
        topic = self._known(name)
        if topic is not None:
            return topic
        async with self._refreshing:
            topic = self._known(name)
            if topic is not None:
                return topic
            await self._resolve([name])
            topic = self.current.topic(name)
            if self._create_missing and (topic is None or topic.error is ErrorCode.UNKNOWN_TOPIC):
                topic = await self._create(name, deadline)
            self._last_refresh = asyncio.get_running_loop().time()
            if topic is None or topic.error is not None:
                code = topic.error if topic is not None and topic.error is not None else ErrorCode.UNKNOWN_TOPIC
                raise broker_error(code, f"topic {name}")
            self._names.add(name)
            return topic

    def _known(self, name: str) -> TopicDescription | None:
        """A topic that exists; none as long as no map was fetched, without which nobody can go on with it."""
        return self.current.usable_topic(name) if self.current.version else None

    def learn(self, topic: TopicDescription) -> None:
        """Takes what a create or alter has shown into the map, so that the next lookup finds it."""
        if topic.error is None and topic.partitions:
            self._names.add(topic.name)
            self.current = self.current.with_topic(topic)

    def forget(self, name: str) -> None:
        """Forgets a deleted topic; a topic created again under its name is another one."""
        self._names.discard(name)
        self.current = self.current.without_topic(name)

    @property
    def _refreshing(self) -> asyncio.Lock:
        """Held during a refresh."""
        if self._lock is None:
            self._lock = asyncio.Lock()
        return self._lock

    async def _refresh(self) -> ClusterMap:
        try:
            return await self._resolve(sorted(self._names))
        finally:
            self._last_refresh = asyncio.get_running_loop().time()

    async def _resolve(self, topics: list[str]) -> ClusterMap:
        """One question to the gateways; the caller holds ``_refreshing``."""
        request = ResolveRequest(topics, all_topics=False, with_rings=True, create_missing=False)
        address, reply = await self._gateways.ask_any(Api.RESOLVE, request, ResolveReply)
        return self._take(reply, address)

    async def _create(self, name: str, deadline: float) -> TopicDescription | None:
        request = ResolveRequest([name], all_topics=False, with_rings=True, create_missing=True)
        created = await self._gateways.ask_controller(Api.RESOLVE, request, ResolveReply, deadline=deadline)
        if created.error is not None:
            raise created.error
        assert isinstance(created.reply, ResolveReply)
        return self._take(created.reply, "the controller").topic(name)

    def _take(self, reply: ResolveReply, address: str) -> ClusterMap:
        """Takes an answer for the current snapshot's successor."""
        try:
            self.current = self.current.succeeded_by(reply)
        except ValueError as error:
            raise MalformedReplyError(address, "map", error) from error
        return self.current
