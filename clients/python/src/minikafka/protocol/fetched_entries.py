"""Fetched bytes: cut into entries and verified before anybody relies on them.

Every byte is checked: headers by their own checksum, bodies by theirs, padding by being zero, and the order of offsets
and indexes by growing. (The running hash chains entries of all partitions of a range, so one partition's entries alone
can not be checked against it.)
"""

from __future__ import annotations

from typing import NamedTuple

from .checksum import crc32c
from .entry import ENTRY_HEADER_BYTES, KIND_BATCH, EntryError, EntryHeader
from .explain import Explain
from .messages.data import PartitionKey


class FetchedEntry(NamedTuple):
    """A batch as fetched: verified, but neither decompressed nor parsed."""

    header: EntryHeader
    body: memoryview
    #: Of the fetch that brought it, if that was asked for.
    explain: Explain | None = None

    @property
    def buffered_bytes(self) -> int:
        """What it holds of the consumer's memory."""
        return self.header.entry_bytes


def verified(data: memoryview, partition: PartitionKey, position: int) -> tuple[list[FetchedEntry], str | None]:
    """The batches of ``partition`` in ``data`` that reach beyond ``position``, up to the first damage, which comes with
    them."""
    entries: list[FetchedEntry] = []
    at, next_offset, index = 0, position, 0
    while at < len(data):
        try:
            header = _entry_at(data, at, partition, index)
        except EntryError as error:
            return entries, str(error)
        is_first = at == 0
        start, at, index = at + ENTRY_HEADER_BYTES, at + header.entry_bytes, header.log_index
        if header.kind != KIND_BATCH or (is_first and header.next_offset <= next_offset):
            # A control entry, or nothing that was asked for.
            continue
        if not is_first and header.base_offset < next_offset:
            return entries, f"offset {header.base_offset} follows offset {next_offset}"
        next_offset = header.next_offset
        entries.append(FetchedEntry(header, data[start : start + header.body_bytes]))
    return entries, None


def _entry_at(data: memoryview, at: int, partition: PartitionKey, index: int) -> EntryHeader:
    """The header of the entry at ``at``, everything about the entry verified but its place among the offsets.

    :raises EntryError: the damage.
    """
    header = EntryHeader.decode(data, at)
    start, end = at + ENTRY_HEADER_BYTES, at + header.entry_bytes
    if end > len(data):
        raise EntryError("cut", f"an entry of {header.entry_bytes} bytes is cut off")
    body_end = start + header.body_bytes
    if any(data[body_end:end]):
        raise EntryError("padding", "the padding of an entry is not zero")
    found = crc32c(data[start:body_end])
    if found != header.body_crc:
        raise EntryError("body_crc", f"a body's checksum is {header.body_crc:#010x}, computed {found:#010x}")
    if (header.topic_id, header.partition) != partition:
        raise EntryError("partition", f"an entry belongs to partition {header.partition} of topic {header.topic_id}")
    if header.log_index <= index:
        raise EntryError("index", f"entry {header.log_index} follows entry {index}")
    return header
