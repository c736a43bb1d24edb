"""Frames: 32 bytes, then a head of message fields, then bulk (``docs/PROTOCOL.md`` section 1).

The header's checksum covers itself and the head; bulk carries checksums of its own. :class:`FrameReader` cuts a stream
into frames without doing any I/O: a transport asks it where to receive to, and tells it how much came.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from . import limits
from .checksum import Buffer, crc32c

FRAME_HEADER_BYTES: Final = 32
#: "MKw1".
FRAME_MAGIC: Final = int.from_bytes(b"MKw1", "little")
#: Version of every api's messages today.
API_VERSION: Final = 1
_FLAG_REPLY: Final = 1
_FLAG_EXPLAIN: Final = 2
#: The apis that may be asked to explain: produce and fetch.
_EXPLAINED_APIS: Final = frozenset((10, 11))

_FORM: Final = struct.Struct("<IIIHBBQHHI")
_FORM_WITHOUT_CRC: Final = struct.Struct("<IIIHBBQHH")
_CRC_FORM: Final = struct.Struct("<I")
assert _FORM.size == FRAME_HEADER_BYTES

#: What is received at once where no large bulk is under way.
_READ_BUFFER_BYTES: Final = 256 << 10


class FrameError(ValueError):
    """Bytes are not a frame; the connection can not go on. ``name`` is that of the golden vectors."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name


class FrameLimits(NamedTuple):
    """What the receiver of a frame allows."""

    head_bytes_max: int
    bulk_bytes_max: int


#: What a shard or gateway takes from a client.
REQUEST_LIMITS: Final = FrameLimits(limits.REQUEST_HEAD_BYTES_MAX, limits.BATCH_BODY_BYTES_MAX)
#: What a client takes from a server.
REPLY_LIMITS: Final = FrameLimits(limits.FRAME_HEAD_BYTES_MAX, limits.FETCH_BYTES_MAX + limits.BATCH_BODY_BYTES_MAX)


class FrameHeader(NamedTuple):
    """A frame header, decoded."""

    head_bytes: int
    bulk_bytes: int
    api: int
    version: int
    is_reply: bool
    #: A produce or fetch asks to be explained; its reply's head ends with that.
    explain: bool
    #: Chosen by the client; a reply repeats its request's.
    correlation: int
    #: Replies: 0 or a code of the table. Then the head is an error reply.
    error: int
    crc: int


class Frame(NamedTuple):
    """A whole frame, its checksum verified."""

    header: FrameHeader
    head: bytes
    bulk: memoryview


def encode_frame(
    api: int,
    correlation: int,
    head: bytes,
    bulk_bytes: int = 0,
    *,
    is_reply: bool = False,
    explain: bool = False,
    error: int = 0,
    version: int = API_VERSION,
) -> bytes:
    """A frame without its bulk, which is sent right behind."""
    flags = (_FLAG_REPLY if is_reply else 0) | (_FLAG_EXPLAIN if explain else 0)
    start = _FORM_WITHOUT_CRC.pack(FRAME_MAGIC, len(head), bulk_bytes, api, version, flags, correlation, error, 0)
    return start + _CRC_FORM.pack(crc32c(head, crc32c(start))) + head


def decode_frame_header(data: Buffer, at: int, allowed: FrameLimits) -> FrameHeader:
    """Decodes 32 bytes; sizes are checked before anything is allocated for them.

    :raises FrameError: ``magic``, ``too_large`` or ``field``.
    """
    magic, head_bytes, bulk_bytes, api, version, flags, correlation, error, reserved, crc = _FORM.unpack_from(data, at)
    if magic != FRAME_MAGIC:
        raise FrameError(
            "magic",
            f"frame magic is {magic:#010x}, expected {FRAME_MAGIC:#010x}: the peer does not speak MiniKafka's protocol",
        )
    if head_bytes > allowed.head_bytes_max or bulk_bytes > allowed.bulk_bytes_max:
        raise FrameError(
            "too_large", f"frame announces {head_bytes + bulk_bytes} bytes, at most {sum(allowed)} are allowed"
        )
    is_reply, explain = bool(flags & _FLAG_REPLY), bool(flags & _FLAG_EXPLAIN)
    if flags & ~(_FLAG_REPLY | _FLAG_EXPLAIN) or (explain and (api not in _EXPLAINED_APIS or error)):
        raise FrameError("field", "frame field flags is outside its range")
    if reserved:
        raise FrameError("field", "frame field reserved is outside its range")
    return FrameHeader(head_bytes, bulk_bytes, api, version, is_reply, explain, correlation, error, crc)


def verify_frame(header: FrameHeader, start: Buffer, head: Buffer) -> None:
    """Verifies the checksum over the header's first 28 bytes, ``start``, and the head.

    :raises FrameError: ``crc``.
    """
    computed = crc32c(head, crc32c(start))
    if computed != header.crc:
        raise FrameError(
            "crc",
            f"frame checksum is {header.crc:#010x}, computed {computed:#010x}: the bytes were damaged on the way",
        )


class FrameReader:
    """Cuts a stream into frames.

    Small pieces go through one buffer; a bulk that is not there yet is received straight into memory of its own, which
    the frame then holds, so that fetched entries are never copied.
    """

    def __init__(self, allowed: FrameLimits = REPLY_LIMITS) -> None:
        self._allowed = allowed
        self._buffer = bytearray(_READ_BUFFER_BYTES)
        self._start = 0
        self._end = 0
        #: The frame whose bulk is under way.
        self._header: FrameHeader | None = None
        self._head = b""
        self._bulk = bytearray()
        self._bulk_filled = 0

    def free_space(self) -> memoryview:
        """Where the next bytes are to be received; never empty."""
        if self._header is not None:
            return memoryview(self._bulk)[self._bulk_filled :]
        return memoryview(self._buffer)[self._end :]

    def received(self, count: int) -> list[Frame]:
        """So many bytes are in the space that :meth:`free_space` gave: the frames that are whole by now.

        :raises FrameError: the stream is not one of frames.
        """
        frames: list[Frame] = []
        if self._header is not None:
            self._bulk_filled += count
            if self._bulk_filled < len(self._bulk):
                return frames
            frames.append(self._finish_bulk(self._header))
            return frames
        self._end += count
        while self._cut(frames):
            pass
        return frames

    @property
    def is_inside_frame(self) -> bool:
        """Whether the stream may not end here."""
        return self._header is not None or self._end > self._start

    def _cut(self, frames: list[Frame]) -> bool:
        """Cuts one frame out of the buffer; false when it needs more bytes."""
        available = self._end - self._start
        if available < FRAME_HEADER_BYTES:
            self._make_room(FRAME_HEADER_BYTES)
            return False
        header = decode_frame_header(self._buffer, self._start, self._allowed)
        head_at = self._start + FRAME_HEADER_BYTES
        if available < FRAME_HEADER_BYTES + header.head_bytes:
            self._make_room(FRAME_HEADER_BYTES + header.head_bytes)
            return False
        head = bytes(self._buffer[head_at : head_at + header.head_bytes])
        verify_frame(header, bytes(self._buffer[self._start : self._start + _FORM_WITHOUT_CRC.size]), head)
        self._start = head_at + header.head_bytes
        if self._end - self._start >= header.bulk_bytes:
            bulk = bytes(self._buffer[self._start : self._start + header.bulk_bytes])
            self._start += header.bulk_bytes
            frames.append(Frame(header, head, memoryview(bulk)))
            return True
        self._begin_bulk(header, head)
        return False

    def _begin_bulk(self, header: FrameHeader, head: bytes) -> None:
        self._header, self._head, self._bulk = header, head, bytearray(header.bulk_bytes)
        self._bulk_filled = self._end - self._start
        self._bulk[: self._bulk_filled] = memoryview(self._buffer)[self._start : self._end]
        self._start = self._end = 0

    def _finish_bulk(self, header: FrameHeader) -> Frame:
        frame = Frame(header, self._head, memoryview(self._bulk).toreadonly())
        self._header, self._head, self._bulk = None, b"", bytearray()
        return frame

    def _make_room(self, wanted: int) -> None:
        """Makes the buffer hold so many bytes from the start of the frame on, and leaves space behind the end."""
        if self._start == self._end:
            self._start = self._end = 0
        if self._start + wanted <= len(self._buffer) and self._end < len(self._buffer):
            return
        rest = bytes(self._buffer[self._start : self._end])
        if wanted > len(self._buffer):
            self._buffer = bytearray(wanted)
        elif len(self._buffer) > _READ_BUFFER_BYTES >= wanted:
            # A long head has made it larger: it does not stay so.
            self._buffer = bytearray(_READ_BUFFER_BYTES)
        self._buffer[: len(rest)] = rest
        self._start, self._end = 0, len(rest)
