"""What a consumer reads and has given out: between its fetcher, which is always ahead, and its application.

Pure but for one lock: the application may be on another thread than the fetcher. Who waits for more is told so by a
callback, and waits in its own way.
"""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock
from typing import Callable, NamedTuple

from .consumer_progress import Progress
from .errors import ClosedError, DamagedError, InvalidOptionError, MiniKafkaError
from .fetched_entries import FetchedEntry
from .handled import Handled
from .messages.data import PartitionKey
from .messages.topics import TopicDescription
from .options import ConsumerOptions
from .partition_progress import PartitionProgress
from .records import Batch, Handing, Record


class _InHand(NamedTuple):
    """What the application has."""

    key: PartitionKey
    handing: Handing


class Reading:
    """See the module's description.

    :param is_grouped: whether what was handled is kept track of.
    :param is_automatic: whether a record counts as handled when the next one is asked for.
    """

    def __init__(self, options: ConsumerOptions, seed: int, *, is_grouped: bool, is_automatic: bool) -> None:
        self.lock = Lock()
        self.progress = Progress(options, seed)
        self.is_closed = False
        #: Called when there may be something for the application.
        self.on_ready: Callable[[], object] = lambda: None
        #: Called when the fetcher may have something to do.
        self.wake_fetcher: Callable[[], object] = lambda: None
        self._is_grouped = is_grouped
        self._is_automatic = is_automatic
        self._in_hand: _InHand | None = None
        self._handled: dict[PartitionKey, Handled] = {}
        #: What ended the reading for good: the member was fenced, a start is missing.
        self._failure: MiniKafkaError | None = None

    # What the application asks for.

    def next_batch(self) -> Batch | None:
        """The next batch of any partition that is not paused; None: wait for ``on_ready``.

        :raises MiniKafkaError: what a partition can not go on with; the others go on.
        """
        with self.lock:
            in_hand = self._in_hand
            rest = self._finish_in_hand()
            if in_hand is not None and rest is not None:
                self._in_hand = _InHand(in_hand.key, Handing(rest, as_whole=True))
                return rest
        handing = self._open_next(as_whole=True)
        return handing.batch if handing is not None else None

    def next_records(self) -> Handing | None:
        """The next batch, to be given out record by record: what is left of the current one, or another one."""
        with self.lock:
            if self._in_hand is not None and not self._in_hand.handing.is_over:
                return self._in_hand.handing
            self._finish_in_hand()
        return self._open_next(as_whole=False)

    def next_record(self) -> Record | None:
        """The next record; None: wait for ``on_ready``."""
        handing = self.next_records()
        return next(handing.records, None) if handing is not None else None

    def _open_next(self, *, as_whole: bool) -> Handing | None:
        """Takes, decompresses and validates the next batch; outside of the lock, because that takes its time."""
        while True:
            with self.lock:
                self._refuse_when_over()
                taken = self.progress.take()
                if isinstance(taken, MiniKafkaError):
                    # Told again and again, it must not gather a longer traceback each time.
                    raise taken.with_traceback(None)
                if taken is None:
                    return None
                may_fetch = self.progress.may_fetch(taken)
            if may_fetch:
                self.wake_fetcher()
            progress, entry, position = taken
            try:
                batch = Batch.open(progress.topic.name, entry, position)
            except InvalidOptionError:
                with self.lock:
                    self.progress.put_back(progress, entry, position)
                raise
            except ValueError as error:
                offset = max(position, entry.header.base_offset)
                damage = DamagedError(progress.topic.name, progress.partition, offset, error)
                with self.lock:
                    self.progress.fail(progress, offset, damage)
                raise damage from error
            with self.lock:
                if batch is not None and not progress.is_removed:
                    batch.handled = self._handled.get(progress.key)
                    handing = Handing(batch, as_whole=as_whole)
                    self._in_hand = _InHand(progress.key, handing)
                    return handing

    # What the application says.

    def seek(self, key: PartitionKey, position: int) -> bool:
        """Goes on at ``position``. A failed partition goes on, too. False: the partition is not read here."""
        with self.lock:
            if self._in_hand is not None and self._in_hand.key == key:
                self._in_hand.handing.stop()
                self._in_hand = None
            is_read = self.progress.seek(key, position)
            if is_read and self._is_grouped:
                # What was handled before says nothing about where the group goes on now.
                self._handled[key] = Handled(position)
        self.wake_fetcher()
        return is_read

    def pause(self, keys: Iterable[PartitionKey]) -> None:
        """Hands out nothing of these partitions until they are resumed."""
        keys = list(keys)
        with self.lock:
            self.progress.set_paused(keys, is_paused=True)
            progress = self.progress.get(self._in_hand.key) if self._in_hand is not None else None
            if self._in_hand is not None and progress is not None and progress.is_paused:
                rest = self._in_hand.handing.stop()
                if rest is not None:
                    entry = FetchedEntry(rest.header, rest.body, rest.explain)
                    self.progress.put_back(progress, entry, rest.first_offset)

    def resume(self, keys: Iterable[PartitionKey]) -> None:
        """Undoes :meth:`pause`."""
        with self.lock:
            self.progress.set_paused(keys, is_paused=False)
        self.wake_fetcher()
        self.on_ready()

    def close(self) -> None:
        """Nothing is given out any more."""
        with self.lock:
            self._finish_in_hand()
            self.is_closed = True
        self.on_ready()

    def fail(self, error: MiniKafkaError) -> None:
        """Ends the reading with an error that is told from now on."""
        with self.lock:
            self._failure = error
        self.on_ready()

    # Where it is.

    def partitions(self) -> list[PartitionKey]:
        """The partitions that are read now."""
        with self.lock:
            return [progress.key for progress in self.progress.partitions()]

    def position(self, key: PartitionKey) -> int | None:
        """The offset of the record that comes next; None: not read here."""
        with self.lock:
            progress = self.progress.get(key)
            return self._position(progress) if progress is not None else None

    def committed_end(self, key: PartitionKey) -> int | None:
        """The offset behind the last committed record, as last heard from its shard. None: not heard yet."""
        with self.lock:
            progress = self.progress.get(key)
            return progress.committed_end if progress is not None else None

    def lag(self, key: PartitionKey) -> int | None:
        """How many offsets lie between the position and the committed end. None: not heard yet."""
        with self.lock:
            progress = self.progress.get(key)
            if progress is None or progress.committed_end is None:
                return None
            return max(progress.committed_end - self._position(progress), 0)

    def is_at_end(self) -> bool:
        """Whether every partition has been read up to its committed end, as last heard."""
        with self.lock:
            return all(
                progress.committed_end is not None and self._position(progress) >= progress.committed_end
                for progress in self.progress.partitions()
            )

    # What its membership in a group says.

    def assign(
        self, topic: TopicDescription, partition: int, position: int, *, is_starting: bool, held: bool = False
    ) -> None:
        """Reads this partition from now on, or once it is told to :meth:`begin`; ``is_starting``: from ``position`` or
        where the log begins, if that is later."""
        with self.lock:
            progress = PartitionProgress(topic, partition, position, is_starting=is_starting)
            progress.is_held = held
            self.progress.add(progress)
            if self._is_grouped:
                self._handled[progress.key] = Handled(position)
        self.wake_fetcher()

    def begin(self, keys: Iterable[PartitionKey]) -> None:
        """Gives out what was held, unless it is paused."""
        with self.lock:
            self.progress.begin(keys)
        self.wake_fetcher()
        self.on_ready()

    def withdraw(self, keys: Iterable[PartitionKey]) -> None:
        """Reads and gives out nothing of these partitions any more; what was given out may still be handled."""
        with self.lock:
            for key in keys:
                if self.progress.get(key) is None:
                    continue
                if self._in_hand is not None and self._in_hand.key == key:
                    self._in_hand.handing.stop()
                self.progress.remove(key)

    def is_outstanding(self, key: PartitionKey) -> bool:
        """Whether something of a partition was given out that is not handled."""
        with self.lock:
            self._look_in_hand()
            handled = self._handled.get(key)
            return handled is not None and handled.is_outstanding

    def committable(self) -> dict[PartitionKey, int]:
        """The offsets that the group may go on with."""
        with self.lock:
            self._look_in_hand()
            return {key: handled.committable for key, handled in self._handled.items()}

    def forget(self, keys: Iterable[PartitionKey]) -> None:
        """These partitions were released or lost: what is handled of them from now on counts for nothing."""
        with self.lock:
            for key in keys:
                self._handled.pop(key, None)

    # The lock is held below.

    def _refuse_when_over(self) -> None:
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        if self.is_closed:
            raise ClosedError("consumer")

    def _position(self, progress: PartitionProgress) -> int:
        """Within what the application has in hand, the position is finer than the progress knows."""
        in_hand = self._in_hand
        if in_hand is not None and in_hand.key == progress.key and not in_hand.handing.is_over:
            return in_hand.handing.next_offset
        return progress.position

    def _look_in_hand(self) -> None:
        """Keeps track of what was given out since the last look."""
        if self._in_hand is None:
            return
        handing = self._in_hand.handing
        handled, last = handing.batch.handled, handing.last_given
        if handled is None or last is None:
            return
        handled.give(handing.batch.first_offset, handing.next_offset, handing.gaps)
        if self._is_automatic and not handing.is_whole:
            # The application has asked for this one, so it is done with those before.
            handled.mark_all_before(last)

    def _finish_in_hand(self) -> Batch | None:
        """The application asks for more, so it is done with what it has; the result is what was not given out of it."""
        self._look_in_hand()
        in_hand, self._in_hand = self._in_hand, None
        if in_hand is None:
            return None
        rest = in_hand.handing.stop()
        handled = in_hand.handing.batch.handled
        if self._is_automatic and handled is not None and in_hand.handing.last_given is not None:
            handled.mark_all_before(in_hand.handing.next_offset)
        return rest
