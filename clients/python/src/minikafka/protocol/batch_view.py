"""Reading a batch body in place.

:meth:`BatchView.parse` proves every rule of the format once; after it no accessor can fail. Columns are views of the
body: nothing is copied until somebody asks for keys or values as ``bytes``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, islice

from . import batch_checks as check
from . import limits
from .batch_layout import (
    HEADER_COUNTS,
    HEADER_NAME_OFFSETS,
    HEADER_NAMES,
    HEADER_VALUE_OFFSETS,
    HEADER_VALUES,
    KEY_OFFSETS,
    KEY_VALIDITY,
    KEYS,
    OFFSET_DELTAS,
    TIMESTAMP_DELTAS,
    VALUE_OFFSETS,
    VALUE_VALIDITY,
    VALUES,
    BatchError,
    Column,
)
from .entry import FORMAT_COLUMNAR, KIND_BATCH, EntryHeader


class BinaryColumn:
    """Byte strings of a batch in Apache Arrow's variable-binary layout.

    Element i is ``data[offsets[i]:offsets[i + 1]]``, and is present when bit ``start + i`` of ``validity`` (least
    significant first) is 1, or ``validity`` is empty. A column without elements has no offsets.
    """

    __slots__ = ("data", "offsets", "start", "validity")

    def __init__(self, offsets: memoryview, data: memoryview, validity: memoryview, start: int = 0) -> None:
        #: i32, one more than elements.
        self.offsets = offsets
        self.data = data
        self.validity = validity
        self.start = start

    def starting_at(self, first: int) -> BinaryColumn:
        """The elements from ``first`` on; nothing is copied."""
        if not first or not len(self.offsets):
            return self
        return BinaryColumn(self.offsets[first:], self.data, self.validity, self.start + first)

    def __len__(self) -> int:
        return max(len(self.offsets) - 1, 0)

    def __getitem__(self, index: int) -> bytes | None:
        """A copy of one element; None: absent."""
        if not 0 <= index < len(self):
            raise IndexError(f"element {index} of a column of {len(self)}")
        if len(self.validity) and not self._is_present(self.start + index):
            return None
        return bytes(self.data[self.offsets[index] : self.offsets[index + 1]])

    @property
    def is_full(self) -> bool:
        """Whether there are elements, and none may be absent."""
        return len(self.offsets) > 0 and not len(self.validity)

    def cut(self) -> tuple[bytes, list[int]]:
        """A copy of the data of all elements, and where in it the first one begins and each of them ends."""
        offsets: list[int] = self.offsets.tolist()
        start = offsets[0]
        if start:
            offsets = [offset - start for offset in offsets]
        return bytes(self.data[start:]), offsets

    def iterate(self) -> Iterator[bytes | None]:
        """Copies of the elements, made one by one."""
        # One copy of the whole column, then slices of it: cheaper than a copy of each slice of a view.
        data, offsets = self.cut()
        pairs = zip(offsets, islice(offsets, 1, None))
        if self.is_full:
            return (data[at:end] for at, end in pairs)
        is_present = map(self._is_present, count(self.start))
        return (data[at:end] if present else None for (at, end), present in zip(pairs, is_present))

    def _is_present(self, bit: int) -> int:
        return self.validity[bit // 8] >> bit % 8 & 1


class HeaderColumns:
    """The headers of the records of a batch."""

    __slots__ = ("counts", "name_offsets", "names", "values")

    def __init__(self, counts: memoryview, name_offsets: memoryview, names: memoryview, values: BinaryColumn) -> None:
        #: i32; record i has the headers ``counts[i]`` to before ``counts[i + 1]``. Empty: there are no headers.
        self.counts = counts
        self.name_offsets = name_offsets
        self.names = names
        self.values = values

    def __getitem__(self, record: int) -> list[tuple[str, bytes]]:
        """The headers of one record, in order."""
        if not len(self.counts):
            return []
        offsets, names = self.name_offsets, self.names
        return [
            (str(names[offsets[at] : offsets[at + 1]], "utf-8"), self.values[at] or b"")
            for at in range(self.counts[record], self.counts[record + 1])
        ]

    def copied(self, first: int) -> HeaderColumns:
        """A copy for the records from ``first`` on, which does not hold the batch's body."""
        values = BinaryColumn(copied(self.values.offsets), copied(self.values.data), memoryview(b""))
        return HeaderColumns(copied(self.counts[first:]), copied(self.name_offsets), copied(self.names), values)


def copied(view: memoryview) -> memoryview:
    """The same elements in memory of their own."""
    if not len(view):
        return view
    data = memoryview(bytes(view))
    return data if view.format == "B" else data.cast("q" if view.format == "q" else "i")


class BatchView:
    """A validated batch body."""

    __slots__ = (
        "_offset_deltas",
        "base_offset",
        "base_timestamp",
        "headers",
        "keys",
        "record_count",
        "timestamp_deltas",
        "values",
    )

    def __init__(self, header: EntryHeader, columns: Sequence[memoryview]) -> None:
        self.record_count = header.record_count
        self.base_offset = header.base_offset
        self.base_timestamp = header.base_timestamp

        def column(of: Column) -> memoryview:
            return columns[of.place]

        def words(of: Column) -> memoryview:
            return columns[of.place].cast("i")

        self.keys = BinaryColumn(words(KEY_OFFSETS), column(KEYS), column(KEY_VALIDITY))
        self.values = BinaryColumn(words(VALUE_OFFSETS), column(VALUES), column(VALUE_VALIDITY))
        #: i64 milliseconds to be added to the base timestamp, one per record; empty when all are 0.
        self.timestamp_deltas = column(TIMESTAMP_DELTAS).cast("q")
        self._offset_deltas = column(OFFSET_DELTAS).cast("I")
        header_values = BinaryColumn(words(HEADER_VALUE_OFFSETS), column(HEADER_VALUES), memoryview(b""))
        self.headers = HeaderColumns(
            words(HEADER_COUNTS), words(HEADER_NAME_OFFSETS), column(HEADER_NAMES), header_values
        )

    @classmethod
    def parse(cls, body: memoryview, header: EntryHeader) -> BatchView:
        """Validates an uncompressed body against its header. Its checksum is not looked at.

        :raises BatchError: it names the broken rule.
        """
        if header.kind != KIND_BATCH or header.body_format != FORMAT_COLUMNAR:
            raise BatchError("not_columnar", "the entry is not a columnar batch")
        if len(body) != header.uncompressed_bytes:
            raise BatchError(
                "body_bytes", f"the body has {len(body)} bytes, its header announces {header.uncompressed_bytes}"
            )
        if not 0 < header.record_count <= limits.BATCH_RECORDS_MAX:
            raise BatchError(
                "record_count",
                f"the header announces {header.record_count} records, a batch holds 1 to {limits.BATCH_RECORDS_MAX}",
            )
        columns = check.cut_columns(body)
        _check_columns(columns, header)
        return cls(header, columns)

    @property
    def offsets(self) -> Sequence[int]:
        """The offset of every record, in order."""
        base = self.base_offset
        if not len(self._offset_deltas):
            return range(base, base + self.record_count)
        return [base + delta for delta in self._offset_deltas.tolist()]

    @property
    def timestamps(self) -> Sequence[int]:
        """The timestamp of every record, ms since the Unix epoch."""
        base = self.base_timestamp
        if not len(self.timestamp_deltas):
            return [base] * self.record_count
        return [base + delta for delta in self.timestamp_deltas.tolist()]


def _check_columns(columns: Sequence[memoryview], header: EntryHeader) -> None:
    records = header.record_count
    check.check_length(VALUE_OFFSETS, columns[VALUE_OFFSETS.place], records + 1)
    check.check_length_or_empty(KEY_OFFSETS, columns[KEY_OFFSETS.place], records + 1)
    check.check_length_or_empty(TIMESTAMP_DELTAS, columns[TIMESTAMP_DELTAS.place], records)
    check.check_timestamps(columns[TIMESTAMP_DELTAS.place], header.base_timestamp)
    _check_binary(columns, KEY_OFFSETS, KEYS, KEY_VALIDITY)
    _check_binary(columns, VALUE_OFFSETS, VALUES, VALUE_VALIDITY)
    counts = columns[HEADER_COUNTS.place]
    check.check_length_or_empty(HEADER_COUNTS, counts, records + 1)
    headers = check.check_running(HEADER_COUNTS, counts)
    if len(counts):
        check.check_record_headers(counts)
    for column in (HEADER_NAME_OFFSETS, HEADER_VALUE_OFFSETS):
        check.check_length(column, columns[column.place], headers + 1 if len(counts) else 0)
    _check_binary(columns, HEADER_NAME_OFFSETS, HEADER_NAMES, None)
    _check_binary(columns, HEADER_VALUE_OFFSETS, HEADER_VALUES, None)
    if len(counts):
        check.check_header_names(columns[HEADER_NAMES.place], columns[HEADER_NAME_OFFSETS.place])
    check.check_offset_deltas(columns[OFFSET_DELTAS.place], records, header.last_offset_delta)
    _check_record_bytes(columns, records)


def _check_binary(
    columns: Sequence[memoryview], offsets_column: Column, data_column: Column, validity_column: Column | None
) -> None:
    offsets, data = columns[offsets_column.place], columns[data_column.place]
    if not len(offsets):
        check.check_length(data_column, data, 0)
    check.check_offsets(offsets_column, offsets, len(data))
    if validity_column is not None:
        elements = max(len(offsets) // 4 - 1, 0)
        check.check_validity(validity_column, columns[validity_column.place], offsets, elements)


def _check_record_bytes(columns: Sequence[memoryview], records: int) -> None:
    """No record may be larger than allowed, which a body that is small as a whole need not prove record by record."""
    data = sum(len(columns[column.place]) for column in (KEYS, VALUES, HEADER_NAMES, HEADER_VALUES))
    if data <= limits.RECORD_BYTES_MAX:
        return
    sizes = [0] * records
    for column in (KEY_OFFSETS, VALUE_OFFSETS):
        if len(columns[column.place]):
            sizes = [size + span for size, span in zip(sizes, check.spans(columns[column.place]))]
    for column in (HEADER_NAME_OFFSETS, HEADER_VALUE_OFFSETS):
        if len(columns[column.place]):
            totals = columns[column.place].cast("i")
            ends = [totals[count] for count in columns[HEADER_COUNTS.place].cast("i")]
            sizes = [size + end - start for size, start, end in zip(sizes, ends, islice(ends, 1, None))]
    for record, size in enumerate(sizes):
        if size > limits.RECORD_BYTES_MAX:
            raise BatchError(
                "record_bytes", f"record {record} has {size} bytes in all, the limit is {limits.RECORD_BYTES_MAX}"
            )
