"""Where the columns of a batch body stand, and how they are written (``docs/DATA_FILE.md`` section 1).

::

    0        key_offsets | keys | value_offsets | … | offset_deltas     each aligned to its element, gaps zero
    end-104  root: 13 × (i32 position relative to this field, u32 elements), in the same order
    end
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

if sys.byteorder != "little":
    # Columns are handed out as views of the bytes that came, which are little-endian.
    raise ImportError("minikafka reads columns in place, which needs a little-endian machine")


class Column(NamedTuple):
    """A column: its place in the root, its name, and the bytes of one element, which it is also aligned to."""

    place: int
    name: str
    element_bytes: int


KEY_OFFSETS: Final = Column(0, "key_offsets", 4)
KEYS: Final = Column(1, "keys", 1)
VALUE_OFFSETS: Final = Column(2, "value_offsets", 4)
VALUES: Final = Column(3, "values", 1)
KEY_VALIDITY: Final = Column(4, "key_validity", 1)
VALUE_VALIDITY: Final = Column(5, "value_validity", 1)
TIMESTAMP_DELTAS: Final = Column(6, "timestamp_deltas", 8)
HEADER_COUNTS: Final = Column(7, "header_counts", 4)
HEADER_NAME_OFFSETS: Final = Column(8, "header_name_offsets", 4)
HEADER_NAMES: Final = Column(9, "header_names", 1)
HEADER_VALUE_OFFSETS: Final = Column(10, "header_value_offsets", 4)
HEADER_VALUES: Final = Column(11, "header_values", 1)
OFFSET_DELTAS: Final = Column(12, "offset_deltas", 4)

#: Every column, in the order of the root and of the data.
COLUMNS: Final = (
    KEY_OFFSETS,
    KEYS,
    VALUE_OFFSETS,
    VALUES,
    KEY_VALIDITY,
    VALUE_VALIDITY,
    TIMESTAMP_DELTAS,
    HEADER_COUNTS,
    HEADER_NAME_OFFSETS,
    HEADER_NAMES,
    HEADER_VALUE_OFFSETS,
    HEADER_VALUES,
    OFFSET_DELTAS,
)

ROOT_FORM: Final = struct.Struct("<" + "iI" * len(COLUMNS))
#: Bytes of the root, which ends every body.
ROOT_BYTES: Final = 104
assert ROOT_FORM.size == ROOT_BYTES

#: Most bytes that alignment can add to a body.
GAPS_BYTES_MAX: Final = 7 * len(COLUMNS)


class BatchError(ValueError):
    """A body is not the batch that its header announces. ``name`` is that of the golden vectors."""

    def __init__(self, name: str, reason: str, column: Column | None = None) -> None:
        super().__init__(reason if column is None else f"column {column.name} {reason}")
        self.name = name
        self.column = column.name if column is not None else None


def place_after(end: int, column: Column) -> int:
    """Where a column begins when the one before it ends at ``end``."""
    return -(-end // column.element_bytes) * column.element_bytes


def encode_body(columns: Sequence[bytes]) -> bytes:
    """The body of these columns, each given as its little-endian bytes, in the order of :data:`COLUMNS`."""
    parts: list[bytes] = []
    places: list[int] = []
    end = 0
    for column, data in zip(COLUMNS, columns):
        place = place_after(end, column)
        if place > end:
            parts.append(bytes(place - end))
        parts.append(data)
        places.append(place)
        end = place + len(data)
    # The last column has elements of four bytes, so the root that follows it is aligned.
    root: list[int] = []
    for column, data, place in zip(COLUMNS, columns, places):
        root += (place - (end + 8 * column.place), len(data) // column.element_bytes)
    parts.append(ROOT_FORM.pack(*root))
    return b"".join(parts)
