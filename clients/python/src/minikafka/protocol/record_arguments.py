"""What applications give to be sent: verified, and many of them cut into pieces that fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Union
from zlib import crc32

from . import limits
from .errors import InvalidRecordError
from .lanes import KEY_PLACES, RECORD_OVERHEAD_BYTES, VALUE_PLACES

#: So many records tell what the others are like.
_SAMPLE: Final = 64

HeadersArgument = Union[Mapping[str, bytes], Sequence["tuple[str, bytes]"], None]


def as_bytes(data: object, what: str) -> bytes | None:
    """The bytes of a key or value, which must not change any more."""
    if data is None or type(data) is bytes:
        return data
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise InvalidRecordError(f"a {what} must be bytes or None, not {type(data).__name__}: encode it first")


def all_bytes(data: Sequence[bytes | None], what: str) -> tuple[Sequence[Any], bool]:
    """The same for many, and whether some are None."""
    kinds = list(map(type, data))
    plain = kinds.count(bytes)
    absent = len(kinds) - plain and kinds.count(type(None))
    if plain + absent < len(kinds):
        data = [as_bytes(item, what) for item in data]
    return data, absent > 0


def header_pairs(headers: HeadersArgument) -> list[tuple[str, bytes]]:
    """Headers in order, verified."""
    if not headers:
        return []
    pairs = [(name, value) for name, value in (headers.items() if isinstance(headers, Mapping) else headers)]
    if len(pairs) > limits.RECORD_HEADERS_MAX:
        raise InvalidRecordError(f"it has {len(pairs)} headers, at most {limits.RECORD_HEADERS_MAX} are allowed")
    for name, value in pairs:
        if not isinstance(name, str) or not isinstance(value, bytes):
            raise InvalidRecordError(f"header {name!r} must have a str as name and bytes as value")
    return pairs


def check_timestamp(timestamp: int | None) -> None:
    """Refuses what is not milliseconds of 64 bits."""
    if timestamp is not None and not (isinstance(timestamp, int) and -(1 << 63) <= timestamp < 1 << 63):
        raise InvalidRecordError(f"timestamp {timestamp!r} is not a number of milliseconds since the Unix epoch")


def by_partition(
    keys: Sequence[bytes], values: Sequence[bytes | None], count: int
) -> list[tuple[list[bytes], list[bytes | None]]]:
    """Keys and values of each partition, in their order."""
    groups: list[tuple[list[bytes], list[bytes | None]]] = [([], []) for _ in range(count)]
    try:
        for key, value in zip(keys, values):
            lane_keys, lane_values = groups[crc32(key) % count]
            lane_keys.append(key)
            lane_values.append(value)
    except TypeError:
        raise InvalidRecordError("keys must all be bytes: leave them out for records without a key") from None
    return groups


class ManyRecords:
    """Records of one ``send_many`` that go to one lane, or to those that take the records without a key."""

    __slots__ = ("_average", "count", "has_absent", "keys", "places", "values")

    def __init__(self, values: Sequence[Any], keys: Sequence[bytes] | None, has_absent: bool) -> None:
        self.values = values
        self.keys = keys
        self.has_absent = has_absent
        self.count = len(values)
        #: What each takes of a body besides its own bytes.
        self.places = VALUE_PLACES + (KEY_PLACES if keys is not None else 0)
        #: What one of them costs, as far as is known.
        self._average = float(RECORD_OVERHEAD_BYTES)
        if self.count:
            sample = min(self.count, _SAMPLE)
            self._average = self.cost(0, sample) / sample

    @property
    def is_keyed(self) -> bool:
        """Whether they have keys."""
        return self.keys is not None

    def slice(self, at: int, end: int) -> tuple[Sequence[Any], Sequence[bytes] | None]:
        """Values and keys of some."""
        if end - at == self.count:
            return self.values, self.keys
        return self.values[at:end], self.keys[at:end] if self.keys is not None else None

    def cost(self, at: int, end: int) -> int:
        """What some take of the producer's memory."""
        values, keys = self.slice(at, end)
        if self.has_absent:
            values = [value or b"" for value in values]
        data = sum(map(len, values)) + (sum(map(len, keys)) if keys is not None else 0)
        return data + (end - at) * RECORD_OVERHEAD_BYTES

    def fitting(self, at: int, body_bytes_max: int, cost_max: int) -> tuple[int, int]:
        """To before which, from ``at`` on, they fit in a body and in the memory, nearly as many as do; and their cost.

        Adding lengths up costs less than looking for the last one that fits: records are much alike, so a guess by
        their average is right, or nearly.
        """
        saved = RECORD_OVERHEAD_BYTES - self.places
        guess = min(body_bytes_max / (self._average - saved), cost_max / self._average)
        end = min(self.count, at + max(int(guess), 0))
        while end > at:
            cost = self.cost(at, end)
            self._average = cost / (end - at)
            over = max((cost - (end - at) * saved) / max(body_bytes_max, 1), cost / cost_max)
            if over <= 1:
                return end, cost
            end = at + min(int((end - at) / over), end - at - 1)
        return at, 0
