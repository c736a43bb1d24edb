"""What clients ask of shards: produce, fetch, list offsets, delete records (``docs/PROTOCOL.md`` section 4)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Annotated, Any, Final, NamedTuple, Optional

from ..entry import ENTRY_HEADER_BYTES, EntryError, EntryHeader
from ..fields import I64, U32, U64, Choice, DecodeError, Field, MaybeError, Message, Reader


class RangeKey(NamedTuple):
    """A range of a ring."""

    ring: int
    range: int


class PartitionKey(NamedTuple):
    """A partition of a topic, by the topic's id."""

    topic: int
    partition: int


class _PairField(Field):
    """Two numbers that are used as a key everywhere, hence a named tuple and not a dataclass."""

    def __init__(self, kind: type[RangeKey] | type[PartitionKey], code: str) -> None:
        self._kind = kind
        self._form = struct.Struct("<" + code)

    def put(self, out: bytearray, value: Any) -> None:
        out += self._form.pack(*value)

    def take(self, reader: Reader) -> Any:
        return self._kind(*self._form.unpack(reader.bytes(self._form.size)))


class _EntryHeaderField(Field):
    """An entry header as a producer sends it."""

    def put(self, out: bytearray, value: Any) -> None:
        out += value.encode_unsealed()

    def take(self, reader: Reader) -> EntryHeader:
        try:
            return EntryHeader.decode_unsealed(reader.bytes(ENTRY_HEADER_BYTES))
        except EntryError:
            raise DecodeError.field("entry header") from None


_U32: Final = struct.Struct("<I")


class _Zero(Field):
    """A reserved u32."""

    def put(self, out: bytearray, value: Any) -> None:
        out += _U32.pack(value)

    def take(self, reader: Reader) -> int:
        if any(reader.bytes(4)):
            raise DecodeError.field("produce flags")
        return 0


RangeField = Annotated[RangeKey, _PairField(RangeKey, "HI")]
PartitionField = Annotated[PartitionKey, _PairField(PartitionKey, "QI")]

#: Which offset is looked up.
QUERY_EARLIEST: Final = 0
QUERY_LATEST: Final = 1
#: The first of the first batch appended at or after a time; latest, if there is none.
QUERY_TIME: Final = 2


@dataclass
class ProduceRequest(Message):
    """Appends one batch. The bulk is the body, exactly ``header.body_bytes`` long."""

    #: The epoch of the range that the client believes in.
    epoch: U64
    #: When not committed by then the answer is ``timed_out``, outcome unknown. 0: the server's longest.
    timeout_ms: U32
    flags: Annotated[int, _Zero()]
    header: Annotated[EntryHeader, _EntryHeaderField()]


@dataclass
class ProduceReply(Message):
    """The batch is committed."""

    base_offset: U64
    append_timestamp: I64


@dataclass
class FetchPartition(Message):
    """One partition of a fetch."""

    range: RangeField
    epoch: U64
    partition: PartitionField
    #: First offset wanted.
    offset: U64
    #: Entry bytes wanted at most; one entry is always sent.
    bytes_max: U32


@dataclass
class FetchRequest(Message):
    """Reads batches of several partitions of one shard."""

    wait_ms_max: U32
    bytes_min: U32
    bytes_max: U32
    partitions: list[FetchPartition]


@dataclass
class FetchedPartition(Message):
    """One partition of a fetch reply; its entries stand in the bulk, in the order of the partitions."""

    partition: PartitionField
    error: MaybeError
    #: Epoch of the range at the server; for ``not_owner`` and ``stale``, the one to refresh to.
    epoch: U64
    log_start: U64
    committed_end: U64
    #: For ``moved``: where the older offsets are.
    previous: Optional[RangeField]
    #: For ``data_damaged``: the first offset behind the damage that can be read; none: nothing behind it can.
    resume: Optional[U64]
    entries_bytes: U32


@dataclass
class FetchReply(Message):
    """Answer to a fetch, in the order of the request."""

    partitions: list[FetchedPartition]


@dataclass
class ListOffsetsPartition(Message):
    """One partition of a list-offsets request."""

    range: RangeField
    epoch: U64
    partition: PartitionField
    kind: Annotated[int, Choice("offset query", QUERY_EARLIEST, QUERY_LATEST, QUERY_TIME)]
    timestamp: I64


@dataclass
class ListOffsetsRequest(Message):
    """Looks offsets up."""

    partitions: list[ListOffsetsPartition]


@dataclass
class ListedOffset(Message):
    """One partition of a list-offsets reply."""

    partition: PartitionField
    error: MaybeError
    epoch: U64
    offset: U64


@dataclass
class ListOffsetsReply(Message):
    """In the order of the request."""

    partitions: list[ListedOffset]


@dataclass
class DeleteRecordsPartition(Message):
    """One partition of a delete-records request."""

    range: RangeField
    epoch: U64
    partition: PartitionField
    #: Records below this are to go; beyond the committed end it means that end.
    before: U64


@dataclass
class DeleteRecordsRequest(Message):
    """Deletes the oldest records of partitions."""

    partitions: list[DeleteRecordsPartition]


@dataclass
class DeletedRecords(Message):
    """One partition of a delete-records reply."""

    partition: PartitionField
    error: MaybeError
    epoch: U64
    log_start: U64


@dataclass
class DeleteRecordsReply(Message):
    """In the order of the request; every log start in it is committed."""

    partitions: list[DeletedRecords]
