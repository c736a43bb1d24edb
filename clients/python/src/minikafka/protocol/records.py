"""What the application gets: batches that are decompressed and validated, and the records cut out of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, repeat
from typing import TYPE_CHECKING, Any

from .batch_view import BatchView, BinaryColumn, HeaderColumns, copied
from .compression import decompress
from .entry import CODEC_NONE, EntryHeader
from .errors import InvalidOptionError
from .explain import Explain
from .fetched_entries import FetchedEntry
from .handled import Handled

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow


class _Source:
    """What the records of a batch have in common, and what is rarely asked of them. Does not hold the batch's body, so
    that a record which is kept does not keep a megabyte with it."""

    __slots__ = (
        "append_timestamp",
        "base_timestamp",
        "handled",
        "headers",
        "offsets",
        "partition",
        "timestamp_deltas",
        "topic",
    )

    def __init__(self, batch: Batch) -> None:
        self.topic = batch.topic
        self.partition = batch.partition
        self.append_timestamp = batch.append_timestamp
        self.offsets = batch.offsets
        self.base_timestamp = batch.header.base_timestamp
        self.timestamp_deltas = copied(batch.view.timestamp_deltas[batch.first :])
        self.headers = batch.headers.copied(batch.first) if len(batch.headers.counts) else None
        self.handled = batch.handled


class Record:
    """A record. Key and value are ``bytes``, or None: no key; a tombstone."""

    __slots__ = ("_source", "key", "offset", "value")

    # Whoever cuts records out of a batch fills them in: a call of ``__init__`` would be a third of what a record costs.
    offset: int
    key: bytes | None
    value: bytes | None
    _source: _Source

    @property
    def topic(self) -> str:
        """Its topic."""
        return self._source.topic

    @property
    def partition(self) -> int:
        """Its partition."""
        return self._source.partition

    @property
    def timestamp(self) -> int:
        """The producer's clock, ms since the Unix epoch."""
        source = self._source
        if not len(source.timestamp_deltas):
            return source.base_timestamp
        delta: int = source.timestamp_deltas[source.offsets.index(self.offset)]
        return source.base_timestamp + delta

    @property
    def append_timestamp(self) -> int:
        """The head's clock when it accepted the record, ms since the Unix epoch; never decreases within a partition."""
        return self._source.append_timestamp

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        """Headers, in order; names may repeat."""
        source = self._source
        return source.headers[source.offsets.index(self.offset)] if source.headers is not None else []

    def ack(self) -> None:
        """The record is handled: the group may go on behind it, once everything before it is handled, too.

        :raises InvalidOptionError: its consumer has no group.
        """
        handled = self._source.handled
        if handled is None:
            raise InvalidOptionError("group", "this consumer has no group, so there is nothing to acknowledge")
        handled.mark(self.offset, self.offset + 1)

    def give_back(self) -> None:
        """The record will not be handled here: a revocation of its partition does not wait for it. Until then it is
        neither committed nor given out again."""
        if self._source.handled is not None:
            self._source.handled.take_back(self.offset)

    def __repr__(self) -> str:
        return (
            f"Record(topic={self.topic!r}, partition={self.partition}, offset={self.offset}, key={self.key!r}, "
            f"value={self.value!r})"
        )


def _records(rows: Iterable[tuple[int, bytes | None, bytes | None]], source: _Source) -> Iterator[Record]:
    """Records of offsets, keys and values."""
    new = object.__new__
    for offset, key, value in rows:
        record = new(Record)
        record.offset, record.key, record.value = offset, key, value
        record._source = source  # noqa: SLF001 – nobody else makes records.
        yield record


def _cut_records(
    offsets: Iterator[int], keys: tuple[bytes, list[int]], values: tuple[bytes, list[int]], source: _Source
) -> Iterator[Record]:
    """The same where every record has a key and a value: in one loop, it costs a quarter less."""
    new = object.__new__
    (key_data, key_offsets), (value_data, value_offsets) = keys, values
    key_at = value_at = 0
    for offset, key_end, value_end in zip(offsets, islice(key_offsets, 1, None), islice(value_offsets, 1, None)):
        record = new(Record)
        record.offset = offset
        record._source = source  # noqa: SLF001 – nobody else makes records.
        record.key, key_at = key_data[key_at:key_end], key_end
        record.value, value_at = value_data[value_at:value_end], value_end
        yield record


class Batch:
    """Records of one partition, as one validated batch: at least one, offsets growing.

    ``keys`` and ``values`` are columns in Apache Arrow's layout: views of the bytes that came, not copies.
    Whoever keeps a batch, or a column of it, keeps the answer that it came in, at most 16 MiB. A record that is
    kept keeps only itself.
    """

    def __init__(self, topic: str, header: EntryHeader, body: memoryview, view: BatchView, first: int) -> None:
        self.topic = topic
        #: The whole body, uncompressed.
        self.body = body
        #: The batch's header, as if it had not been compressed. It may announce records before ``first_offset``.
        self.header = header
        #: The index of the first record that is asked for; the ones before it were read earlier.
        self.first = first
        #: Who is told what was handled; None: nobody.
        self.handled: Handled | None = None
        #: Where the time of the fetch went that brought this batch, and perhaps others. None: nobody asked
        #: (``ConsumerOptions.explain``), or the broker is of a release that cannot tell.
        self.explain: Explain | None = None
        self._view = view

    @classmethod
    def open(cls, topic: str, entry: FetchedEntry, position: int) -> Batch | None:
        """Decompresses and validates. None: the batch has no record at ``position`` or behind it.

        :raises ValueError: why it is not what its header announces.
        """
        plain = memoryview(decompress(entry.header, entry.body))
        # From here on the header speaks of the uncompressed body.
        header = entry.header._replace(codec=CODEC_NONE, body_bytes=entry.header.uncompressed_bytes)
        view = BatchView.parse(plain, header)
        offsets = view.offsets
        first = min(max(position - header.base_offset, 0), len(offsets))
        # Without compaction the guess is right; with it, offsets grow faster than indexes.
        while first > 0 and offsets[first - 1] >= position:
            first -= 1
        if first == len(offsets):
            return None
        batch = cls(topic, header, plain, view, first)
        batch.explain = entry.explain
        return batch

    @property
    def partition(self) -> int:
        """Their partition."""
        return self.header.partition

    @property
    def append_timestamp(self) -> int:
        """The head's clock when it accepted the batch, ms since the Unix epoch."""
        return self.header.append_timestamp

    @property
    def offsets(self) -> Sequence[int]:
        """The offset of every record."""
        return self._view.offsets[self.first :]

    @property
    def first_offset(self) -> int:
        """The offset of the first record."""
        return self.offsets[0]

    @property
    def next_offset(self) -> int:
        """The position behind the last record."""
        return self.header.next_offset

    @property
    def timestamps(self) -> Sequence[int]:
        """The producer's clock for every record, ms since the Unix epoch."""
        return self._view.timestamps[self.first :]

    @property
    def keys(self) -> BinaryColumn:
        """Keys; without elements when no record has one."""
        return self._view.keys.starting_at(self.first)

    @property
    def values(self) -> BinaryColumn:
        """Values; an absent one is a tombstone."""
        return self._view.values.starting_at(self.first)

    @property
    def headers(self) -> HeaderColumns:
        """Headers of the whole batch, counted from the first record of its header."""
        return self._view.headers

    @property
    def view(self) -> BatchView:
        """All columns of the whole batch, records before ``first_offset`` included."""
        return self._view

    def __len__(self) -> int:
        return self.header.record_count - self.first

    def __iter__(self) -> Iterator[Record]:
        return self.records()

    def records(self) -> Iterator[Record]:
        """The records, cut out one by one."""
        return self.records_of(iter(self.offsets))

    def records_of(self, offsets: Iterator[int]) -> Iterator[Record]:
        """The same as long as ``offsets`` lasts, which is asked for each record before anything else."""
        keys, values, source = self.keys, self.values, _Source(self)
        if keys.is_full and values.is_full:
            return _cut_records(offsets, keys.cut(), values.cut(), source)
        column: Iterator[bytes | None] = keys.iterate() if len(keys) else repeat(None)
        return _records(zip(offsets, column, values.iterate()), source)

    def starting_at(self, offset: int) -> Batch | None:
        """The same records from ``offset`` on; None when there are none."""
        for place, record_offset in enumerate(self.offsets):
            if record_offset >= offset:
                rest = Batch(self.topic, self.header, self.body, self._view, self.first + place)
                rest.handled, rest.explain = self.handled, self.explain
                return rest
        return None

    def ack(self) -> None:
        """Every record of the batch is handled.

        :raises InvalidOptionError: its consumer has no group.
        """
        if self.handled is None:
            raise InvalidOptionError("group", "this consumer has no group, so there is nothing to acknowledge")
        self.handled.mark(self.first_offset, self.next_offset)

    def to_arrow(self) -> pyarrow.Table:
        """A table of the columns ``offset``, ``timestamp``, ``key``, ``value``, ``headers``. Keys, values and headers
        stay where they are: their buffers are those of this batch. Needs the extra ``arrow``.

        :raises InvalidOptionError: pyarrow is not installed.
        """
        from .arrow import table_of

        return table_of(self)

    def to_pandas(self, **options: Any) -> pandas.DataFrame:
        """:meth:`to_arrow` as a pandas data frame; ``options`` are those of ``pyarrow.Table.to_pandas``."""
        return self.to_arrow().to_pandas(**options)

    def to_polars(self) -> polars.DataFrame:
        """:meth:`to_arrow` as a polars data frame.

        :raises InvalidOptionError: polars is not installed.
        """
        from .arrow import polars_of

        return polars_of(self)

    def __repr__(self) -> str:
        return (
            f"Batch(topic={self.topic!r}, partition={self.partition}, first_offset={self.first_offset}, "
            f"records={len(self)})"
        )


class Handing:
    """A batch that is being given out, as a whole or record by record: how far it is, exactly, at no cost per record.

    Every record asks the iterator of offsets first, so what that has left is what was not given out; and whoever
    empties it ends the giving out, from whatever thread.
    """

    def __init__(self, batch: Batch, *, as_whole: bool) -> None:
        self.batch = batch
        self.is_whole = as_whole
        self._offsets = batch.offsets
        self._left: Any = iter(self._offsets)
        self._stopped_at: int | None = len(self._offsets) if as_whole else None
        self.records: Iterator[Record] = iter(()) if as_whole else batch.records_of(self._left)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is given out."""
        return self._stopped_at is not None or self._given == len(self._offsets)

    @property
    def next_offset(self) -> int:
        """The first offset that was not given out; or the one behind the batch."""
        given = self._given
        return self._offsets[given] if given < len(self._offsets) else self.batch.next_offset

    @property
    def last_given(self) -> int | None:
        """The offset of the record that was given out last."""
        given = self._given
        return self._offsets[given - 1] if given else None

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """Stretches between the batch's records in which there is none: what compaction leaves."""
        if isinstance(self._offsets, range):
            return []
        ends = zip(self._offsets, islice(self._offsets, 1, None))
        return [(before + 1, after) for before, after in ends if after > before + 1]

    def stop(self) -> Batch | None:
        """Ends the giving out; what was not given out, if there is something."""
        if self._stopped_at is not None:
            return None
        # One call into the interpreter, so that no record slips through between looking and emptying.
        rest = list(self._left)
        self._stopped_at = len(self._offsets) - len(rest)
        return self.batch.starting_at(rest[0]) if rest else None

    @property
    def _given(self) -> int:
        if self._stopped_at is not None:
            return self._stopped_at
        left: int = self._left.__length_hint__()
        return len(self._offsets) - left
