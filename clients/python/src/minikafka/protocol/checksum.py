"""Checksums: CRC-32C of frames, headers and bodies; IEEE CRC-32 is the standard library's ``zlib.crc32``.

The wheel is ``crc32c``. Measured beside ``google-crc32c`` (both use the processor's instruction): 71 against 70 ns for
16 bytes, 28.4 against 28.0 GB/s for 1 MiB, so equally fast; but only ``crc32c`` reads memoryviews, which lets fetched
bytes be verified where they were received, without a copy.
"""

from __future__ import annotations

from typing import Union

from crc32c import crc32c as _crc32c

Buffer = Union[bytes, bytearray, memoryview]


def crc32c(data: Buffer, before: int = 0) -> int:
    """CRC-32C of ``data``, going on from the checksum of what stands before it."""
    # Without giving the interpreter's lock away, as it would for more than 32 KiB: 256 KiB take 10 µs, and under an
    # application that computes without pause it takes 5 ms to get the lock back.
    checksum: int = _crc32c(data, before, 0)
    return checksum
