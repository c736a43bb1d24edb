"""Waiting for conditions, never for time."""

from __future__ import annotations

import asyncio
import time
from typing import Callable, TypeVar

T = TypeVar("T")

#: Longer than anything should take on a busy machine.
PATIENCE = 20.0


def until(condition: Callable[[], T], within: float = PATIENCE) -> T:
    """What a condition says once it says something true."""
    deadline = time.monotonic() + within
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {within} s: {condition}"
        time.sleep(0.002)


async def until_async(condition: Callable[[], T], within: float = PATIENCE) -> T:
    """The same, on a loop that others need meanwhile."""
    deadline = time.monotonic() + within
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {within} s: {condition}"
        await asyncio.sleep(0.002)
