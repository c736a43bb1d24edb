"""Waiting for an event or a time, whichever comes first."""

from __future__ import annotations

import asyncio


async def wait_until(event: asyncio.Event, at: float | None) -> None:
    """Waits for the event, at most until a time of the loop; the event is set in any case: look what has happened.

    ``asyncio.wait_for`` would not do: before Python 3.12 it loses a cancellation that comes together with the event,
    and a task that goes round and round then never ends.
    """
    if at is None:
        await event.wait()
        return
    timer = asyncio.get_running_loop().call_at(at, event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()
