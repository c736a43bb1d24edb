"""Batches as Apache Arrow tables. Columns are in Arrow's layout already, so keys, values and headers are not copied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .batch_view import BinaryColumn
from .errors import InvalidOptionError

if TYPE_CHECKING:
    import polars
    import pyarrow

    from .records import Batch


def table_of(batch: Batch) -> pyarrow.Table:
    """The records of a batch as a table."""
    pa = _import("pyarrow", "arrow")
    compute = _import("pyarrow.compute", "arrow")
    count, first = len(batch), batch.first
    view = batch.view
    timestamps = pa.repeat(pa.scalar(view.base_timestamp, pa.int64()), count)
    if len(view.timestamp_deltas):
        deltas = pa.Array.from_buffers(pa.int64(), count, [None, pa.py_buffer(view.timestamp_deltas)], offset=first)
        timestamps = compute.add(timestamps, deltas)
    columns = {
        "offset": _offsets(pa, compute, batch),
        "timestamp": timestamps.cast(pa.timestamp("ms", tz="UTC")),
        "key": _binary(pa, view.keys, pa.binary(), count, first),
        "value": _binary(pa, view.values, pa.binary(), count, first),
        "headers": _headers(pa, batch),
    }
    return pa.table(columns)


def polars_of(batch: Batch) -> polars.DataFrame:
    """The records of a batch as a polars data frame."""
    frame: polars.DataFrame = _import("polars", "arrow").from_arrow(table_of(batch))
    return frame


def _offsets(pa: Any, compute: Any, batch: Batch) -> Any:
    offsets = batch.offsets
    if isinstance(offsets, range):
        ones = pa.repeat(pa.scalar(1, pa.int64()), len(batch))
        return compute.cumulative_sum(ones, start=pa.scalar(batch.first_offset - 1, pa.int64()))
    return pa.array(offsets, pa.int64())


def _binary(pa: Any, column: BinaryColumn, kind: Any, count: int, first: int) -> Any:
    if not len(column):
        return pa.nulls(count, kind)
    validity = pa.py_buffer(column.validity) if len(column.validity) else None
    buffers = [validity, pa.py_buffer(column.offsets), pa.py_buffer(column.data)]
    return pa.Array.from_buffers(kind, count, buffers, offset=first)


def _headers(pa: Any, batch: Batch) -> Any:
    """A list of names and values for each record."""
    headers = batch.headers
    kind = pa.list_(pa.struct([("name", pa.string()), ("value", pa.binary())]))
    if not len(headers.counts):
        # One empty list for each record: all of them end where they begin.
        return pa.ListArray.from_arrays(
            pa.repeat(pa.scalar(0, pa.int32()), len(batch) + 1), pa.array([], kind.value_type)
        )
    count = len(headers.values)
    names = BinaryColumn(headers.name_offsets, headers.names, memoryview(b""))
    pairs = pa.StructArray.from_arrays(
        [_binary(pa, names, pa.string(), count, 0), _binary(pa, headers.values, pa.binary(), count, 0)],
        ["name", "value"],
    )
    lists = [None, pa.py_buffer(headers.counts)]
    return pa.Array.from_buffers(kind, len(batch), lists, offset=batch.first, children=[pairs])


def _import(module: str, extra: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        raise InvalidOptionError("to_arrow", f"{module} is not installed: pip install 'minikafka[{extra}]'") from None
