"""Batches as Arrow tables: the data are where they were received, and no optional wheel is needed until it is."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from minikafka import Batch, InvalidOptionError, ProducerOptions
from minikafka.protocol.batch_builder import build_batch
from minikafka.protocol.fetched_entries import FetchedEntry
from minikafka.protocol.options import ClientOptions
from minikafka.protocol.records import Batch as ProtocolBatch

pa = pytest.importorskip("pyarrow")

HEADERS = {1: [("trace", b"\x01"), ("trace", b"")], 3: [("é", b"x")]}


def batch(*, first: int = 0, headers: bool = True) -> Batch:
    values: list[bytes | None] = [b"a", None, b"", b"dddd", b"e"]
    keys: list[bytes | None] = [b"k0", b"k1", None, b"k3", b""]
    timestamps = [(0, 1000), (2, 1007), (3, 999)]
    built = build_batch(
        keys, values, timestamps, HEADERS if headers else {}, has_absent_keys=True, has_absent_values=True
    )
    header = built.header(5, 1)._replace(base_offset=100)
    made = ProtocolBatch.open("orders", FetchedEntry(header, memoryview(built.body)), 100 + first)
    assert made is not None
    return made


def test_a_table_has_what_the_records_have() -> None:
    for first in range(5):
        made = batch(first=first)
        table = made.to_arrow()
        records = list(made)
        assert table.column_names == ["offset", "timestamp", "key", "value", "headers"]
        assert table.column("offset").to_pylist() == [record.offset for record in records]
        assert table.column("key").to_pylist() == [record.key for record in records]
        assert table.column("value").to_pylist() == [record.value for record in records]
        assert table.column("timestamp").cast("int64").to_pylist() == [record.timestamp for record in records]
        assert [[(pair["name"], pair["value"]) for pair in pairs] for pairs in table.column("headers").to_pylist()] == [
            record.headers for record in records
        ]
        table.validate(full=True)


def test_batches_without_keys_and_headers() -> None:
    built = build_batch([], [b"a", b"b"], [(0, 5)], {})
    made = ProtocolBatch.open("orders", FetchedEntry(built.header(5, 1), memoryview(built.body)), 0)
    assert made is not None
    table = made.to_arrow()
    assert table.column("key").to_pylist() == [None, None]
    assert table.column("headers").to_pylist() == [[], []]
    assert table.column("offset").to_pylist() == [0, 1]
    table.validate(full=True)


def test_the_data_are_not_copied() -> None:
    made = batch(first=1)
    table = made.to_arrow()
    view = made.view

    def buffers(column: str) -> list[int]:
        (chunk,) = table.column(column).chunks
        return [buffer.address for buffer in chunk.buffers() if buffer is not None]

    def at(data: memoryview) -> int:
        start: int = pa.py_buffer(data).address
        return start

    body = at(made.body)
    for column, binary in (("key", view.keys), ("value", view.values)):
        assert buffers(column) == [at(binary.validity), at(binary.offsets), at(binary.data)]
        assert all(body <= buffer < body + len(made.body) for buffer in buffers(column)), "they are the batch's own"
    headers = view.headers
    for data in (headers.counts, headers.names, headers.values.data):
        assert at(data) in buffers("headers")


def test_pandas_and_polars() -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("polars")
    made = batch()
    frame = made.to_pandas()
    assert list(frame["value"]) == [b"a", None, b"", b"dddd", b"e"]
    assert made.to_polars()["offset"].to_list() == [100, 101, 102, 103, 104]


@pytest.mark.parametrize(("module", "call"), [("pyarrow", "to_arrow"), ("polars", "to_polars")])
def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, module: str, call: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InvalidOptionError, match=r"pip install 'minikafka\[arrow\]'"):
        getattr(batch(), call)()


@pytest.mark.parametrize(("module", "compression"), [("lz4.block", "lz4"), ("zstandard", "zstd")])
def test_a_compression_that_is_not_installed_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, module: str, compression: Any
) -> None:
    from minikafka import Client

    monkeypatch.setitem(sys.modules, module, None)
    with Client("127.0.0.1:1", ClientOptions()) as client:
        with pytest.raises(InvalidOptionError, match=rf"pip install 'minikafka\[{compression}\]'"):
            client.producer(ProducerOptions(compression=compression))
