"""Where a record goes: its partition by key, the partition's token, and the range that holds it.

See ``docs/PROTOCOL.md``, "Resolve": everything but the map itself is computed by the client.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final
from zlib import crc32

#: Steps between the tokens of a topic's partitions: 2^64 divided by the golden ratio, so that they land evenly spread.
_TOKEN_STEP: Final = 0x9E37_79B9_7F4A_7C15
_MASK: Final = (1 << 64) - 1


def partition_of_key(key: bytes, partitions: int) -> int:
    """The partition of a key among so many: its IEEE CRC-32, modulo their number."""
    return crc32(key) % partitions


def token_of_partition(topic: int, partition: int) -> int:
    """The token of a partition, by its topic's id."""
    return (topic + partition * _TOKEN_STEP) & _MASK


def token_of_group(group: str) -> int:
    """The token of a consumer group (``docs/GROUPS.md`` section 1)."""
    return int.from_bytes(sha256(group.encode()).digest()[:8], "little")


def range_of_token(token: int, ranges: int) -> int:
    """The range that a token falls into among so many, a power of two: its top bits."""
    return token >> (64 - (ranges.bit_length() - 1)) if ranges > 1 else 0
