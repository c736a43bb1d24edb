"""From records to the bytes that are sent: encoding, compression, checksum."""

from __future__ import annotations

from typing import Final, NamedTuple

from ..protocol.compression import compress
from ..protocol.entry import EntryHeader
from ..protocol.lanes import OpenBatch
from ..protocol.options import ProducerOptions

#: Bodies of this size and more are compressed on another thread.
LARGE_BODY_BYTES: Final = 16 << 10


class SealedBatch(NamedTuple):
    """A batch as it is sent. Range, producer and sequence are put into the header at every attempt."""

    header: EntryHeader
    body: bytes


def is_slow_to_seal(batch: OpenBatch, options: ProducerOptions) -> bool:
    """Whether sealing takes so long that others should not wait for it."""
    return options.compression != "none" and batch.body_bytes() >= LARGE_BODY_BYTES


def seal(batch: OpenBatch, topic_id: int, partition: int, options: ProducerOptions) -> SealedBatch:
    """Encodes, compresses and checksums a batch."""
    finished = compress(batch.build(), options.compression, options.zstd_level)
    return SealedBatch(finished.header(topic_id, partition), finished.body)
