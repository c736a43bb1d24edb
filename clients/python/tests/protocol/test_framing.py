"""Frames and fields under Hypothesis: round trips, every flipped bit, every way of cutting a stream."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minikafka.protocol.entry import EntryHeader
from minikafka.protocol.error_code import ErrorCode
from minikafka.protocol.fields import DecodeError
from minikafka.protocol.frames import REPLY_LIMITS, REQUEST_LIMITS, Frame, FrameError, FrameReader, encode_frame
from minikafka.protocol.messages.data import FetchedPartition, FetchReply, PartitionKey, RangeKey
from minikafka.protocol.messages.groups import GroupHeartbeatRequest, Subscription
from minikafka.protocol.messages.topics import NodeAddress, ResolveReply, TopicConfigChange

u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
text = st.text(max_size=30)
partition_keys = st.builds(PartitionKey, u64, u32)
range_keys = st.builds(RangeKey, u16, u32)


def cut(stream: bytes, sizes: list[int], reader: FrameReader) -> list[Frame]:
    """The frames of a stream that comes in pieces."""
    frames: list[Frame] = []
    at = 0
    turn = 0
    while at < len(stream):
        space = reader.free_space()
        assert len(space) > 0, "there must always be space for more"
        piece = stream[at : at + min(len(space), sizes[turn % len(sizes)])]
        space[: len(piece)] = piece
        frames += reader.received(len(piece))
        at += len(piece)
        turn += 1
    return frames


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.binary(max_size=200), st.binary(max_size=2000), u64), min_size=1, max_size=6),
    st.lists(st.integers(1, 3000), min_size=1, max_size=5),
)
def test_a_stream_gives_the_same_frames_however_it_is_cut(
    frames: list[tuple[bytes, bytes, int]], sizes: list[int]
) -> None:
    stream = b"".join(encode_frame(11, correlation, head, len(bulk)) + bulk for head, bulk, correlation in frames)
    reader = FrameReader(REPLY_LIMITS)
    received = cut(stream, sizes, reader)
    assert [(frame.head, bytes(frame.bulk), frame.header.correlation) for frame in received] == frames
    assert not reader.is_inside_frame


def test_long_heads_and_bulks_pass_whole() -> None:
    long, bulk = bytes(range(256)) * 5000, bytes(range(255)) * 30_000
    stream = encode_frame(11, 1, b"short", len(bulk)) + bulk + encode_frame(20, 2, long) + encode_frame(20, 3, b"")
    frames = cut(stream, [70_000, 1, 31, 300_000], FrameReader(REPLY_LIMITS))
    assert [(frame.head, bytes(frame.bulk)) for frame in frames] == [(b"short", bulk), (long, b""), (b"", b"")]


def test_every_flipped_bit_of_a_frame_is_noticed() -> None:
    good = encode_frame(11, 7, b"some head")
    for bit in range(len(good) * 8):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        reader = FrameReader(REQUEST_LIMITS)
        try:
            frames = cut(bytes(bad), [1000], reader)
        except FrameError:
            continue
        assert not frames, f"bit {bit} went unnoticed"


@given(st.binary(min_size=32, max_size=300))
def test_noise_is_refused_or_waited_for(noise: bytes) -> None:
    with pytest.raises(FrameError):
        cut(noise, [1000], FrameReader(REPLY_LIMITS))


fetched = st.builds(
    FetchedPartition,
    partition=partition_keys,
    error=st.none() | st.sampled_from(ErrorCode),
    epoch=u64,
    log_start=u64,
    committed_end=u64,
    previous=st.none() | range_keys,
    resume=st.none() | u64,
    entries_bytes=u32,
)
names = st.text("abcXYZ019._-", min_size=1, max_size=249).filter(lambda name: name not in (".", ".."))
heartbeats = st.builds(
    GroupHeartbeatRequest,
    range=range_keys,
    epoch=u64,
    group=names,
    member=u64,
    sequence=u64,
    generation=u64,
    instance=st.just("") | names,
    client_name=text,
    session_timeout_ms=u32,
    wait_ms_max=u32,
    intent=st.integers(0, 2),
    subscribed=st.none() | st.lists(st.builds(Subscription, u64, u32), max_size=3),
    owned=st.none() | st.lists(partition_keys, max_size=3),
)
messages = st.one_of(
    st.builds(FetchReply, st.lists(fetched, max_size=4)),
    heartbeats,
    st.builds(TopicConfigChange, st.none() | st.integers(-(2**63), 2**63 - 1), st.none(), st.none() | u32, st.none()),
    st.builds(
        ResolveReply,
        u64,
        st.integers(0, 0xFFFF),
        st.lists(st.builds(NodeAddress, u32, text, st.lists(text, max_size=2))),
        st.just([]),
        st.just([]),
    ),
)


@settings(deadline=None)
@given(messages, st.data())
def test_messages_round_trip_and_no_cut_or_addition_passes(message: FetchReply, draw: st.DataObject) -> None:
    encoded = message.encode()
    assert type(message).decode(encoded) == message
    with pytest.raises(DecodeError):
        type(message).decode(encoded[: draw.draw(st.integers(0, max(len(encoded) - 1, 0)))] if encoded else b"\1")
    with pytest.raises(DecodeError):
        type(message).decode(encoded + b"\0")


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from([FetchReply, GroupHeartbeatRequest, ResolveReply, TopicConfigChange]))
def test_noise_is_a_message_or_refused_by_name(noise: bytes, kind: type[FetchReply]) -> None:
    try:
        message = kind.decode(noise)
    except DecodeError as error:
        assert error.name in ("truncated", "trailing", "field")
    else:
        assert message.encode() == noise


def test_a_text_that_is_too_long_is_cut_at_a_character() -> None:
    name = "é" * 600
    (node,) = ResolveReply.decode(ResolveReply(0, 1, [NodeAddress(1, name, [])], [], []).encode()).nodes
    assert node.rack == "é" * 512


def test_every_flipped_bit_of_an_entry_header_is_noticed() -> None:
    good = EntryHeader(body_bytes=5, uncompressed_bytes=5, record_count=1, log_index=3).encode()
    for bit in range(len(good) * 8):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match="entry"):
            EntryHeader.decode(bytes(bad))


def test_an_unknown_code_is_not_retriable() -> None:
    assert ErrorCode.from_number(0) is None
    assert ErrorCode.from_number(9999) is ErrorCode.INTERNAL
    assert not ErrorCode.INTERNAL.retriable
