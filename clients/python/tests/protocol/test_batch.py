"""Batches under Hypothesis: what is built is read again, and whatever else comes is refused by name."""

from __future__ import annotations

import contextlib
import random
from typing import Optional

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minikafka.protocol import batch_checks
from minikafka.protocol.batch_builder import FinishedBatch, build_batch
from minikafka.protocol.batch_layout import VALUE_OFFSETS, BatchError
from minikafka.protocol.batch_view import BatchView
from minikafka.protocol.compression import DecompressionError, compress, decompress
from minikafka.protocol.options import Compression

Record = tuple[Optional[bytes], Optional[bytes], int, list[tuple[str, bytes]]]

records = st.lists(
    st.tuples(
        st.none() | st.binary(max_size=8),
        st.none() | st.binary(max_size=40),
        st.integers(0, 2**40),
        st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5)), max_size=3),
    ),
    min_size=1,
    max_size=40,
)


def built(rows: list[Record]) -> FinishedBatch:
    keys = [key for key, _, _, _ in rows]
    has_keys = any(key is not None for key in keys)
    values = [value for _, value, _, _ in rows]
    return build_batch(
        keys if has_keys else [],
        values,
        [(index, timestamp) for index, (_, _, timestamp, _) in enumerate(rows)],
        {index: headers for index, (_, _, _, headers) in enumerate(rows)},
        has_absent_keys=has_keys and None in keys,
        has_absent_values=None in values,
    )


def read(view: BatchView) -> list[Record]:
    keys = view.keys.iterate() if len(view.keys) else iter([None] * view.record_count)
    rows = zip(keys, view.values.iterate(), view.timestamps)
    return [(key, value, timestamp, view.headers[index]) for index, (key, value, timestamp) in enumerate(rows)]


@settings(deadline=None)
@given(records)
def test_what_is_built_is_read_again(rows: list[Record]) -> None:
    batch = built(rows)
    view = BatchView.parse(memoryview(batch.body), batch.header(1, 2))
    assert read(view) == rows
    assert list(view.offsets) == list(range(len(rows)))
    for index, (key, value, _, _) in enumerate(rows):
        assert view.values[index] == value
        assert not len(view.keys) or view.keys[index] == key
    for first in range(len(rows)):
        assert list(view.values.starting_at(first).iterate()) == [value for _, value, _, _ in rows[first:]]


@settings(deadline=None, max_examples=200)
@given(records, st.data())
def test_a_changed_body_is_read_or_refused_by_name(rows: list[Record], draw: st.DataObject) -> None:
    batch = built(rows)
    body = bytearray(batch.body)
    for _ in range(draw.draw(st.integers(1, 4))):
        body[draw.draw(st.integers(0, len(body) - 1))] = draw.draw(st.integers(0, 255))
    header = batch.header(1, 2)
    try:
        view = BatchView.parse(memoryview(bytes(body)), header)
    except BatchError as error:
        assert error.name
    else:
        assert len(read(view)) == len(rows), "whatever passes is safe to read"


totals_from_zero = st.lists(st.integers(0, 9) | st.integers(-(2**31), 2**31 - 1), max_size=8).map(
    lambda rest: [0, *rest]
)


@given(totals_from_zero | totals_from_zero.map(sorted) | st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1))
@example([0, -1])
@example([0, 5, -(2**31)])
def test_running_totals_are_judged_as_element_by_element(totals: list[int]) -> None:
    column = memoryview(b"".join(total.to_bytes(4, "little", signed=True) for total in totals))
    is_fine = totals[0] == 0 and all(before <= after for before, after in zip(totals, totals[1:]))
    try:
        assert batch_checks.check_running(VALUE_OFFSETS, column) == totals[-1]
        assert is_fine
    except BatchError:
        assert not is_fine


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=10), st.integers(-(2**63), 2**63 - 1))
def test_timestamps_are_judged_as_one_by_one(deltas: list[int], base: int) -> None:
    column = memoryview(b"".join(delta.to_bytes(8, "little", signed=True) for delta in deltas))
    is_fine = all(-(2**63) <= base + delta < 2**63 for delta in deltas)
    try:
        batch_checks.check_timestamps(column, base)
        assert is_fine
    except BatchError as error:
        assert not is_fine and error.name == "timestamp_overflow"


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_bodies_are_opened_and_lying_sizes_refused(compression: Compression) -> None:
    plain = built([(b"key", b"value" * 50, 0, [])] * 20)
    packed = compress(plain, compression, 3)
    header = packed.header(1, 2)
    assert len(packed.body) < len(plain.body)
    assert bytes(decompress(header, memoryview(packed.body))) == plain.body
    for lie in (-1, 1, 1000):
        with pytest.raises(DecompressionError):
            decompress(header._replace(uncompressed_bytes=header.uncompressed_bytes + lie), packed.body)
    with pytest.raises(DecompressionError):
        decompress(header, packed.body[: len(packed.body) // 2])


def test_a_frame_that_announces_more_than_its_header_is_not_opened() -> None:
    """It would take as much memory as it announces, whatever bound it is given."""
    packed = compress(built([(None, bytes(1 << 20), 0, [])]), "zstd", 3)
    header = packed.header(1, 2)._replace(uncompressed_bytes=1000)
    with pytest.raises(DecompressionError, match="its frame announces"):
        decompress(header, packed.body)


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_what_does_not_become_smaller_stays_as_it_is(compression: Compression) -> None:
    plain = built([(None, random.Random(1).randbytes(5000), 0, [])])._replace(body=random.Random(2).randbytes(5000))
    assert compress(plain, compression, 3) is plain


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(0, 400), st.sampled_from([1, 2]))
def test_noise_does_not_decompress_into_more_than_announced(noise: bytes, announced: int, codec: int) -> None:
    header = built([(None, b"x", 0, [])]).header(1, 2)._replace(codec=codec, uncompressed_bytes=announced)
    with contextlib.suppress(DecompressionError):
        assert len(decompress(header, noise)) == announced
