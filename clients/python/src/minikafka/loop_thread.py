"""The event loop of a synchronous client, on a thread of its own.

What talks to servers is written once, for asyncio (``minikafka.aio``). A synchronous client runs it on a thread, so
that acknowledgements, heartbeats and fetching ahead go on whatever the application does.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Callable, TypeVar

from .protocol.errors import ClosedError, InvalidOptionError

T = TypeVar("T")


class LoopThread:
    """A loop that runs until it is stopped."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        # A daemon, so that a program which forgets to close its client ends all the same.
        self._thread = threading.Thread(target=self._run, name="minikafka", daemon=True)
        self._callbacks: ThreadPoolExecutor | None = None
        self._thread.start()

    def run(self, work: Coroutine[object, object, T]) -> T:
        """Runs a coroutine on the loop and waits for its result.

        :raises ClosedError: the loop was stopped.
        :raises InvalidOptionError: called where it would wait for itself.
        """
        refusal = self._refusal()
        if refusal is not None:
            work.close()
            raise refusal
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            # Interrupted, for example by Ctrl-C: nobody waits for it any more.
            future.cancel()
            raise

    def call(self, function: Callable[[], T]) -> T:
        """Calls a function on the loop and waits for its result."""

        async def calling() -> T:
            return function()

        return self.run(calling())

    async def call_back(self, callback: Callable[..., object], *arguments: object) -> object:
        """Runs an application's callback off the loop, one at a time: there it may wait, and use its client."""
        if self._callbacks is None:
            self._callbacks = ThreadPoolExecutor(1, "minikafka-callbacks")
        return await self._loop.run_in_executor(self._callbacks, partial(callback, *arguments))

    def stop(self) -> None:
        """Ends the loop and its thread."""
        if self._loop.is_closed() or self._process != os.getpid():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()
        if self._callbacks is not None:
            self._callbacks.shutdown(wait=False)

    def _refusal(self) -> Exception | None:
        if self._loop.is_closed():
            return ClosedError("client")
        if self._process != os.getpid():
            # The thread stayed in the parent: whoever waited here would wait for ever.
            return InvalidOptionError("client", "it was made before this process was forked: make one here")
        if threading.current_thread() is self._thread:
            reason = "a delivery callback runs on the client's own thread and must not wait for it: use another one"
            return InvalidOptionError("callback", reason)
        return None

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._finish())
            self._loop.close()

    async def _finish(self) -> None:
        """Ends whatever still runs, and the threads that compressed."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_default_executor()
