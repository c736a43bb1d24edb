"""From records to a batch body: a handful of joins, no object per record.

A column that says nothing (no key, no tombstone, no header, every timestamp the same) is left out, as every encoder
does, so that the bytes of a body follow from its records.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from .batch_layout import encode_body
from .checksum import crc32c
from .entry import CODEC_NONE, EntryHeader

#: Headers of one record, in order; names may repeat.
Headers = Sequence["tuple[str, bytes]"]


class FinishedBatch(NamedTuple):
    """A batch ready to be sent; who compresses replaces ``body`` and ``codec``."""

    body: bytes
    codec: int
    uncompressed_bytes: int
    record_count: int
    base_timestamp: int
    max_timestamp: int

    def header(self, topic_id: int, partition: int) -> EntryHeader:
        """The header in front of it, but for the range, the producer and its sequence."""
        return EntryHeader(
            codec=self.codec,
            body_bytes=len(self.body),
            uncompressed_bytes=self.uncompressed_bytes,
            topic_id=topic_id,
            partition=partition,
            record_count=self.record_count,
            last_offset_delta=self.record_count - 1,
            base_timestamp=self.base_timestamp,
            max_timestamp=self.max_timestamp,
            body_crc=crc32c(self.body),
        )


def build_batch(
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    timestamps: Sequence[tuple[int, int]],
    headers: Mapping[int, Headers],
    *,
    has_absent_keys: bool = False,
    has_absent_values: bool = False,
) -> FinishedBatch:
    """The batch of these records, at least one.

    :param keys: one per record, or empty when no record has a key.
    :param values: one per record.
    :param timestamps: runs of equal timestamps: (first record, ms since the Unix epoch); the first run begins at 0.
    :param headers: by record; records without headers are left out.
    :param has_absent_keys: whether a key is None, although others are not.
    :param has_absent_values: whether a value is None.
    """
    count = len(values)
    key_offsets, key_data, key_validity = _binary(keys, has_absent_keys) if keys else (b"", b"", b"")
    value_offsets, value_data, value_validity = _binary(values, has_absent_values)
    body = encode_body(
        (
            key_offsets,
            key_data,
            value_offsets,
            value_data,
            key_validity,
            value_validity,
            _timestamp_deltas(timestamps, count),
            *_header_columns(headers, count),
            b"",
        )
    )
    base = timestamps[0][1]
    newest = max(timestamp for _, timestamp in timestamps) if len(timestamps) > 1 else base
    return FinishedBatch(body, CODEC_NONE, len(body), count, base, newest)


def _binary(items: Sequence[bytes | None], has_absent: bool) -> tuple[bytes, bytes, bytes]:
    """Offsets, data and validity of byte strings, in Arrow's layout."""
    if not has_absent:
        return _offsets(items), b"".join(items), b""  # type: ignore[arg-type]
    present = [item if item is not None else b"" for item in items]
    return _offsets(present), b"".join(present), _validity(items)


def _offsets(items: Iterable[bytes | None]) -> bytes:
    # Packing a list at once is several times faster than an array, which checks every element by itself.
    offsets = list(accumulate(map(len, items), initial=0))  # type: ignore[arg-type]
    return struct.pack(f"<{len(offsets)}i", *offsets)


def _validity(items: Sequence[bytes | None]) -> bytes:
    """Bit i, least significant first, is 1 when item i is present."""
    count = len(items)
    bitmap = bytearray(b"\xff" * (count // 8))
    if count % 8:
        bitmap.append((1 << count % 8) - 1)
    for index, item in enumerate(items):
        if item is None:
            bitmap[index // 8] &= ~(1 << index % 8)
    return bytes(bitmap)


def _timestamp_deltas(timestamps: Sequence[tuple[int, int]], count: int) -> bytes:
    base = timestamps[0][1]
    if all(timestamp == base for _, timestamp in timestamps):
        return b""
    firsts = [first for first, _ in timestamps] + [count]
    runs = zip(firsts, firsts[1:], timestamps)
    return b"".join(struct.pack("<q", timestamp - base) * (end - first) for first, end, (_, timestamp) in runs)


def _header_columns(headers: Mapping[int, Headers], count: int) -> tuple[bytes, bytes, bytes, bytes, bytes]:
    """Running counts, then offsets and data of names and of values."""
    if not any(headers.values()):
        return b"", b"", b"", b"", b""
    of_records = [headers.get(index, ()) for index in range(count)]
    counts = list(accumulate(map(len, of_records), initial=0))
    names = [name.encode() for pairs in of_records for name, _ in pairs]
    values = [value for pairs in of_records for _, value in pairs]
    return (
        struct.pack(f"<{len(counts)}i", *counts),
        _offsets(names),
        b"".join(names),
        _offsets(values),
        b"".join(values),
    )
