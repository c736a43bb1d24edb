"""What became of one request, as its client saw it."""

from __future__ import annotations

from dataclasses import dataclass

from .messages.explain import Hop


@dataclass(frozen=True)
class Explain:
    """Where the time of one produce or fetch went, asked for by the option ``explain``."""

    #: From handing the request to its connection until the reply was here, in seconds by this client's clock.
    round_trip: float
    #: Who worked on it: the shard that was asked, and of a produce the members behind it in the chain, in order. Times
    #: are microseconds by each one's own clock.
    hops: list[Hop]
