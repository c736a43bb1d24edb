"""The entry header: 128 bytes in front of every body, the same on wire and disk (``docs/DATA_FILE.md`` section 2)."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from . import limits
from .checksum import Buffer, crc32c

ENTRY_HEADER_BYTES: Final = 128
#: "MKe1".
ENTRY_MAGIC: Final = int.from_bytes(b"MKe1", "little")
ENTRY_VERSION: Final = 1
#: Entries start at multiples of this.
ENTRY_ALIGNMENT: Final = 16

KIND_BATCH: Final = 1
KIND_CONTROL: Final = 2
FORMAT_CONTROL: Final = 0
FORMAT_COLUMNAR: Final = 1

CODEC_NONE: Final = 0
CODEC_LZ4: Final = 1
CODEC_ZSTD: Final = 2

#: The producer id of who does not number records.
NO_PRODUCER: Final = -1

_FORM: Final = struct.Struct("<IBBBBIIHHIQQQIIQIiqqqqhHIQII")
assert _FORM.size == ENTRY_HEADER_BYTES
_CRC_AT: Final = 120
_ZERO_CRC: Final = bytes(8)


class EntryError(ValueError):
    """Bytes are not an entry header. ``name`` is that of the golden vectors."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name

    @classmethod
    def field(cls, field: str, value: int) -> EntryError:
        """A field is outside its range."""
        return cls("field", f"entry field {field} is {value}, which is outside its range")


class EntryHeader(NamedTuple):
    """An entry header, decoded. What the head of a chain fills in is zero as a producer sends it."""

    kind: int = KIND_BATCH
    body_format: int = FORMAT_COLUMNAR
    codec: int = CODEC_NONE
    body_bytes: int = 0
    #: Bytes of the body once decompressed; equal to ``body_bytes`` without compression.
    uncompressed_bytes: int = 0
    ring: int = 0
    attributes: int = 0
    range: int = 0
    epoch: int = 0
    #: Position in the range log.
    log_index: int = 0
    topic_id: int = 0
    partition: int = 0
    record_count: int = 0
    base_offset: int = 0
    last_offset_delta: int = 0
    base_sequence: int = 0
    #: Producer's clock, ms since the Unix epoch, of the first record.
    base_timestamp: int = 0
    max_timestamp: int = 0
    #: The head's clock when it accepted the entry; never decreases within a range.
    append_timestamp: int = 0
    producer_id: int = NO_PRODUCER
    producer_epoch: int = 0
    body_crc: int = 0
    running_hash: int = 0

    @property
    def entry_bytes(self) -> int:
        """Bytes that the entry takes in a fetch reply: header, body and padding."""
        return ENTRY_HEADER_BYTES + -(-self.body_bytes // ENTRY_ALIGNMENT) * ENTRY_ALIGNMENT

    @property
    def next_offset(self) -> int:
        """The offset after the last record."""
        return self.base_offset + self.last_offset_delta + 1

    def encode_unsealed(self) -> bytes:
        """As a producer sends it: no checksum of the header, because the frame has one."""
        return _FORM.pack(ENTRY_MAGIC, ENTRY_VERSION, *self[:21], 0, *self[21:], 0, 0)

    def encode(self) -> bytes:
        """As logs hold it, with its checksum."""
        unsealed = self.encode_unsealed()
        return unsealed[:_CRC_AT] + crc32c(unsealed).to_bytes(4, "little") + unsealed[_CRC_AT + 4 :]

    @classmethod
    def decode(cls, data: Buffer, at: int = 0) -> EntryHeader:
        """A header from a log, its checksum and fields verified.

        :raises EntryError: with a name of the golden vectors.
        """
        header, found = _unpack(data, at)
        sealed = data[at : at + _CRC_AT]
        computed = crc32c(_ZERO_CRC, crc32c(sealed))
        if found != computed:
            raise EntryError("header_crc", f"entry header checksum is {found:#010x}, computed {computed:#010x}")
        return header

    @classmethod
    def decode_unsealed(cls, data: Buffer) -> EntryHeader:
        """A header as a producer sends it: every field but the checksum is verified.

        :raises EntryError: with a name of the golden vectors.
        """
        return _unpack(data, 0)[0]


def _unpack(data: Buffer, at: int) -> tuple[EntryHeader, int]:
    """The header and its checksum as stored, the fields verified."""
    if len(data) - at < ENTRY_HEADER_BYTES:
        raise EntryError("short", f"an entry header is 128 bytes, only {len(data) - at} are there")
    magic, version, *fields = _FORM.unpack_from(data, at)
    if magic != ENTRY_MAGIC:
        raise EntryError("magic", f"entry magic is {magic:#010x}, expected {ENTRY_MAGIC:#010x}")
    if version != ENTRY_VERSION:
        raise EntryError("version", f"entry version {version} is not known to this release (knows {ENTRY_VERSION})")
    # Both reserved fields leave the list here, so that the rest are the header's own fields, in order.
    reserved, found = fields.pop(), fields.pop()
    reserved |= fields.pop(21)
    header = EntryHeader._make(fields)
    if reserved:
        raise EntryError.field("reserved", reserved)
    _check_fields(header)
    return header, found


def _check_fields(header: EntryHeader) -> None:
    is_control = header.kind == KIND_CONTROL
    checks = (
        (header.kind in (KIND_BATCH, KIND_CONTROL), "kind", header.kind),
        (header.body_format == (FORMAT_CONTROL if is_control else FORMAT_COLUMNAR), "body_format", header.body_format),
        (header.codec <= CODEC_ZSTD, "codec", header.codec),
        (header.attributes == 0, "attributes", header.attributes),
        (header.body_bytes <= limits.BATCH_BODY_BYTES_MAX, "body_bytes", header.body_bytes),
        (
            header.uncompressed_bytes <= limits.BATCH_UNCOMPRESSED_BYTES_MAX
            and (header.codec != CODEC_NONE or header.uncompressed_bytes == header.body_bytes),
            "uncompressed_bytes",
            header.uncompressed_bytes,
        ),
        (
            header.record_count <= limits.BATCH_RECORDS_MAX and is_control == (header.record_count == 0),
            "record_count",
            header.record_count,
        ),
        (is_control or header.last_offset_delta >= header.record_count - 1, "last_offset_delta", header.record_count),
        (header.log_index <= limits.LOG_INDEX_MAX, "index", header.log_index),
        (header.base_offset <= limits.LOG_INDEX_MAX, "base_offset", header.base_offset),
        (header.producer_id < 0 or header.base_sequence >= 0, "base_sequence", header.base_sequence),
    )
    for is_fine, field, value in checks:
        if not is_fine:
            raise EntryError.field(field, value)
