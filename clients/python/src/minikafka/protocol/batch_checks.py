"""The rules that a received body must keep (``docs/DATA_FILE.md`` section 1), one function each.

Bytes here come from strangers: nothing may raise anything but :class:`BatchError`, read outside of the body, or cost
more than a pass over each column. Columns of numbers are looked at as one long integer each, in whose arithmetic every
element is a digit of 32 bits: that is several times faster than going over the elements one by one.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from itertools import islice
from operator import lt, sub
from typing import Final

from . import limits
from .batch_layout import (
    COLUMNS,
    HEADER_NAMES,
    OFFSET_DELTAS,
    ROOT_BYTES,
    ROOT_FORM,
    TIMESTAMP_DELTAS,
    BatchError,
    Column,
    place_after,
)

#: Timestamps of which a delta of 56 bits stays within 64.
_NEAR_TIMESTAMP: Final = 1 << 62
_TIMESTAMP_MIN: Final = -(1 << 63)
_TIMESTAMP_MAX: Final = (1 << 63) - 1


def cut_columns(body: memoryview) -> list[memoryview]:
    """The columns, cut out of the body by its root; only their places are verified so far."""
    data_bytes = len(body) - ROOT_BYTES
    if data_bytes < 0:
        raise BatchError("short", f"the body has {len(body)} bytes, its root alone takes {ROOT_BYTES}")
    root = ROOT_FORM.unpack_from(body, data_bytes)
    columns: list[memoryview] = []
    end = 0
    for column in COLUMNS:
        start = data_bytes + 8 * column.place + root[2 * column.place]
        stop = start + root[2 * column.place + 1] * column.element_bytes
        if start < 0 or stop > data_bytes:
            raise BatchError("column_outside", "lies outside of the body", column)
        if start < end:
            raise BatchError("column_overlaps", "overlaps the column before it", column)
        place = place_after(end, column)
        if start != place:
            raise BatchError("column_misplaced", f"begins at {start}, its place is {place}", column)
        if start > end and any(body[end:start]):
            raise BatchError("gap_not_zero", "has non-zero bytes in the gap before it", column)
        columns.append(body[start:stop])
        end = stop
    if end != data_bytes:
        raise BatchError("root_misplaced", f"the root begins at {data_bytes}, the columns end at {end}")
    return columns


def check_length(column: Column, data: memoryview, expected: int) -> None:
    """A column must have so many elements."""
    if len(data) != expected * column.element_bytes:
        raise BatchError("column_length", f"has {len(data) // column.element_bytes} elements, not {expected}", column)


def check_length_or_empty(column: Column, data: memoryview, expected: int) -> None:
    """A column must have so many elements, or none."""
    if len(data):
        check_length(column, data, expected)


def check_running(column: Column, totals: memoryview) -> int:
    """Running totals must start at 0 and never decrease; the result is the last one."""
    if not len(totals):
        return 0
    if any(totals[:4]):
        raise BatchError("offsets_start", "does not start at 0", column)
    steps = len(totals) // 4 - 1
    signs = _every(0x8000_0000, steps)
    number = int.from_bytes(totals, "little")
    after, before = number >> 32, number & _every(0xFFFF_FFFF, steps)
    differences = after - before
    # Where no element has its sign bit, an element that is smaller than its predecessor leaves it in the difference, as
    # does one that lends to its neighbour; the last one makes the whole difference negative.
    if differences < 0 or (after | differences) & signs:
        raise BatchError("offsets_decrease", "decreases", column)
    return int.from_bytes(totals[-4:], "little")


@lru_cache(maxsize=64)
def _every(digit: int, count: int) -> int:
    """A number whose digits of 32 bits are all the same. Batches of one producer have the same lengths often."""
    return int.from_bytes(digit.to_bytes(4, "little") * count, "little")


def check_offsets(column: Column, offsets: memoryview, data_bytes: int) -> None:
    """Offsets must run from 0 to the length of their data. Empty columns pass when the data are empty too."""
    last = check_running(column, offsets)
    if last != data_bytes:
        raise BatchError("offsets_end", f"ends at {last}, its data at {data_bytes}", column)


def check_validity(column: Column, bitmap: memoryview, offsets: memoryview, elements: int) -> None:
    """A bitmap must have no bit beyond the last element, and what is absent must have no bytes."""
    check_length_or_empty(column, bitmap, -(-elements // 8))
    if not len(bitmap):
        return
    if elements % 8 and bitmap[-1] >> elements % 8:
        raise BatchError("validity_beyond", "has a bit set beyond the last record", column)
    words = offsets.cast("i")
    for at, byte in enumerate(bitmap):
        if byte == 0xFF:
            continue
        for index in range(at * 8, min(at * 8 + 8, elements)):
            if not byte >> index % 8 & 1 and words[index] != words[index + 1]:
                raise BatchError("absent_with_bytes", f"marks record {index} absent, which has bytes", column)


def check_timestamps(deltas: memoryview, base: int) -> None:
    """Timestamps must stay within 64 bits."""
    if not len(deltas):
        return
    upper_bytes = bytes(deltas)[7::8]
    if -_NEAR_TIMESTAMP < base < _NEAR_TIMESTAMP and upper_bytes.count(0) == len(upper_bytes):
        return
    numbers = deltas.cast("q")
    if base + min(numbers) < _TIMESTAMP_MIN or base + max(numbers) > _TIMESTAMP_MAX:
        raise BatchError("timestamp_overflow", "overflows a timestamp", TIMESTAMP_DELTAS)


def check_offset_deltas(deltas: memoryview, records: int, announced: int) -> None:
    """Offset deltas must start at 0 and grow up to the announced one; without them they are 0, 1, 2, …"""
    check_length_or_empty(OFFSET_DELTAS, deltas, records)
    last = records - 1
    if len(deltas):
        numbers = struct.unpack(f"<{records}I", deltas)
        if numbers[0]:
            raise BatchError("offsets_start", "does not start at 0", OFFSET_DELTAS)
        if not all(map(lt, numbers, islice(numbers, 1, None))):
            raise BatchError("offsets_decrease", "decreases", OFFSET_DELTAS)
        last = numbers[-1]
    if last != announced:
        raise BatchError(
            "last_offset_delta", f"the last record is at offset delta {last}, its header announces {announced}"
        )


def check_record_headers(counts: memoryview) -> None:
    """A record must not have more headers than allowed."""
    for record, count in enumerate(spans(counts)):
        if count > limits.RECORD_HEADERS_MAX:
            raise BatchError(
                "record_headers",
                f"record {record} has {count} headers, the limit is {limits.RECORD_HEADERS_MAX}",
            )


def check_header_names(names: memoryview, offsets: memoryview) -> None:
    """Header names must be UTF-8, each by itself."""
    data = bytes(names)
    if data.isascii():
        return
    numbers = offsets.cast("i").tolist()
    try:
        for start, end in zip(numbers, islice(numbers, 1, None)):
            data[start:end].decode()
    except UnicodeDecodeError:
        raise BatchError("header_name_utf8", "is not UTF-8", HEADER_NAMES) from None


def spans(offsets: memoryview) -> list[int]:
    """The differences of verified running totals: how long each element is."""
    numbers = offsets.cast("i").tolist()
    return list(map(sub, islice(numbers, 1, None), numbers))
