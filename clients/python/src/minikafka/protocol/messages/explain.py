"""What became of a produce or fetch, stage by stage and hop by hop (``docs/PROTOCOL.md`` section 4, "Explain")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

from .. import limits
from ..fields import U8, U16, U32, DecodeError, ListOf, Message, Reader, Record
from .data import FetchReply, ProduceReply

#: First protocol in which there is explain.
EXPLAIN_PROTOCOL: Final = 2

STAGE_NAMES: Final = {
    1: "receive",
    2: "checksum",
    3: "append",
    4: "durable",
    5: "successor",
    6: "answer",
    16: "memory",
    17: "read",
    18: "wait",
    19: "mend",
    20: "room",
}


class _AtMost(ListOf):
    """A list with a bound."""

    def __init__(self, what: str, count_max: int, kind: type[Message]) -> None:
        super().__init__(Record(kind))
        self._what = what
        self._count_max = count_max

    def check(self, count: int) -> None:
        if count > self._count_max:
            raise DecodeError.field(self._what)


@dataclass
class StageSpan(Message):
    """One stage of one hop."""

    stage: U8
    #: When it began, in microseconds since the hop did.
    start_us: U32
    #: How long it took.
    took_us: U32

    @property
    def name(self) -> str:
        """Its name; "other" of one that a later release knows."""
        return STAGE_NAMES.get(self.stage, "other")


@dataclass
class Hop(Message):
    """What one shard says of a request; times are of its own clock."""

    node: U32
    shard: U16
    #: From the request's arrival until its answer was queued.
    whole_us: U32
    #: In the order in which they ended; none: it could not tell.
    stages: Annotated[list[StageSpan], _AtMost("stages", limits.EXPLAIN_STAGES_MAX, StageSpan)]

    @classmethod
    def take(cls, reader: Reader) -> Hop:
        """Takes the wire form, in which every stage lies within its hop."""
        hop = super().take(reader)
        if any(span.start_us + span.took_us > hop.whole_us for span in hop.stages):
            raise DecodeError.field("stage time")
        return hop

    def took_us(self, name: str) -> int | None:
        """How long the stage of this name took, however often it came; none when it did not."""
        times = [span.took_us for span in self.stages if span.name == name]
        return sum(times) if times else None


_HOPS: Final[Any] = _AtMost("hops", limits.CHAIN_MAX, Hop)


@dataclass
class ProduceExplained(ProduceReply):
    """A produce reply with the flag: the members of the chain, from the head on."""

    hops: Annotated[list[Hop], _HOPS]


@dataclass
class FetchExplained(FetchReply):
    """A fetch reply with the flag: the member that was asked."""

    hops: Annotated[list[Hop], _HOPS]
