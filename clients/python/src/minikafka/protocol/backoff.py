"""Jittered exponential back-off. Seconds; the jitter, 0 to 1, is the caller's to draw."""

from __future__ import annotations

from typing import Final

#: Wait before the second attempt, before jitter.
FIRST: Final = 0.008
#: No wait is longer.
LONGEST: Final = 1.0
#: While the map is out of date, no wait is longer than this at first: a chain is changed within a fraction of a second,
#: and whoever waits doubly long finds out doubly late.
MAP_LONGEST: Final = 0.032
#: So often; then waits double again, so that a cluster that stays away is not asked for its map all the time.
MAP_ATTEMPTS: Final = 32
#: Doublings from the first wait to the longest one of those.
_MAP_DOUBLINGS: Final = 3


def wait_after(failures: int, jitter: float, server_asks: float = 0.0) -> float:
    """The wait before attempt ``failures`` + 1: doubles from 8 ms to 1 s, times 0.5 to 1, and at least what the server
    asked for, within reason."""
    if failures <= 0:
        return 0.0
    doubled: float = min(FIRST * (1 << min(failures - 1, 20)), LONGEST)
    return max(doubled * (0.5 + 0.5 * jitter), min(server_asks, 2 * LONGEST))


def wait_for_map(failures: int, jitter: float, server_asks: float = 0.0) -> float:
    """The wait before attempt ``failures`` + 1 when a newer map is what is missing."""
    return wait_after(max(min(failures, _MAP_DOUBLINGS), failures - MAP_ATTEMPTS), jitter, server_asks)


def wait_of(failures: int, jitter: float, *, needs_map: bool, server_asks: float = 0.0) -> float:
    """:func:`wait_for_map` if a newer map is needed, else :func:`wait_after`."""
    wait = wait_for_map if needs_map else wait_after
    return wait(failures, jitter, server_asks)
