"""The golden vectors that every language reads, and, where a client encodes, writes: byte for byte."""

from __future__ import annotations

from typing import Any, Callable
from zlib import crc32

import pytest

from minikafka.protocol.batch_builder import FinishedBatch, build_batch
from minikafka.protocol.batch_layout import BatchError
from minikafka.protocol.batch_view import BatchView
from minikafka.protocol.checksum import crc32c
from minikafka.protocol.entry import EntryError, EntryHeader
from minikafka.protocol.error_code import ErrorCode
from minikafka.protocol.fields import DecodeError, Message
from minikafka.protocol.frames import REPLY_LIMITS, REQUEST_LIMITS, FrameError, FrameReader, encode_frame
from minikafka.protocol.messages import data, explain, groups, hello, topics
from minikafka.protocol.partitioner import partition_of_key, range_of_token, token_of_group

Vectors = Callable[[str], Any]
JsonRecord = dict[str, Any]

#: The messages that a client sends or receives, by the names of the vectors. The others are those between servers.
MESSAGES: dict[str, type[Message]] = {
    "hello": hello.Hello,
    "hello_reply": hello.HelloReply,
    "produce": data.ProduceRequest,
    "produce_reply": data.ProduceReply,
    "fetch": data.FetchRequest,
    "fetch_reply": data.FetchReply,
    "produce_explain": data.ProduceRequest,
    "produce_explained": explain.ProduceExplained,
    "fetch_explain": data.FetchRequest,
    "fetch_explained": explain.FetchExplained,
    "list_offsets": data.ListOffsetsRequest,
    "list_offsets_reply": data.ListOffsetsReply,
    "delete_records": data.DeleteRecordsRequest,
    "delete_records_reply": data.DeleteRecordsReply,
    "resolve": topics.ResolveRequest,
    "resolve_reply": topics.ResolveReply,
    "create_topic": topics.CreateTopicRequest,
    "create_topic_reply": topics.TopicDescription,
    "delete_topic": topics.DeleteTopicRequest,
    "alter_topic": topics.AlterTopicRequest,
    "error_reply": hello.ErrorReply,
    "group_heartbeat": groups.GroupHeartbeatRequest,
    "group_heartbeat_leave": groups.GroupHeartbeatRequest,
    "group_heartbeat_reply": groups.GroupHeartbeatReply,
    "group_heartbeat_fenced": hello.ErrorReply,
    "group_commit": groups.GroupCommitRequest,
    "group_commit_reply": groups.GroupCommitReply,
    "group_offsets": groups.GroupOffsetsRequest,
    "group_offsets_all": groups.GroupOffsetsRequest,
    "group_offsets_reply": groups.GroupOffsetsReply,
    "group_describe": groups.GroupDescribeRequest,
    "group_describe_reply": groups.GroupDescribeReply,
    "group_list": groups.GroupListRequest,
    "group_list_reply": groups.GroupListReply,
    "group_delete": groups.GroupDeleteRequest,
}


def test_checksums(vectors: Vectors) -> None:
    for answer in vectors("checksums")["answers"]:
        data_ = bytes.fromhex(answer["bytes"])
        assert (crc32c(data_), crc32(data_)) == (answer["crc32c"], answer["crc32_ieee"])
        assert crc32c(memoryview(bytearray(data_))[3:], crc32c(data_[:3])) == answer["crc32c"], "going on from a part"


def test_partitioner(vectors: Vectors) -> None:
    for case in vectors("partitioner")["keys"]:
        for count in case["partitions"]:
            assert partition_of_key(bytes.fromhex(case["key"]), count["of"]) == count["is"]


def test_groups_lie_where_all_languages_say(vectors: Vectors) -> None:
    for case in vectors("groups")["placements"]:
        token = token_of_group(case["group"])
        assert token == case["token"], case["group"]
        for count in case["ranges"]:
            assert range_of_token(token, count["of"]) == count["is"], case["group"]


def test_entry_headers_read_and_written(vectors: Vectors) -> None:
    for entry in vectors("entries")["log"]:
        fields = {"log_index" if name == "index" else name: value for name, value in entry["fields"].items()}
        header = EntryHeader(**fields)
        produced = header._replace(epoch=0, log_index=0, base_offset=0, append_timestamp=0)
        assert produced.encode_unsealed().hex() == entry["unsealed"], entry["name"]
        assert EntryHeader.decode_unsealed(bytes.fromhex(entry["unsealed"])) == produced
        sealed = header._replace(running_hash=entry["running_hash"])
        assert sealed.encode().hex() == entry["sealed"], entry["name"]
        assert EntryHeader.decode(bytes.fromhex(entry["sealed"])) == sealed


def test_malformed_entry_headers_are_refused_by_name(vectors: Vectors) -> None:
    for case in vectors("entries")["malformed"]:
        decode = EntryHeader.decode if case["sealed"] else EntryHeader.decode_unsealed
        with pytest.raises(EntryError) as refusal:
            decode(bytes.fromhex(case["bytes"]))
        assert refusal.value.name == case["error"], case["name"]


def test_frames_read_and_written(vectors: Vectors) -> None:
    for case in vectors("frames")["frames"]:
        expected = bytes.fromhex(case["frame"])
        written = encode_frame(
            case["api"],
            case["correlation"],
            bytes.fromhex(case["head"]),
            case["bulk_bytes"],
            is_reply=case["is_reply"],
            explain=case.get("explain", False),
            error=case["error"],
            version=case["version"],
        )
        assert written == expected, case["name"]
        bulk = bytes(case["bulk_bytes"])
        (frame,) = read_frames(expected + bulk, FrameReader(REPLY_LIMITS))
        header = frame.header
        assert (header.api, header.correlation, header.is_reply, header.explain, header.error) == (
            case["api"],
            case["correlation"],
            case["is_reply"],
            case.get("explain", False),
            case["error"],
        )
        assert (frame.head.hex(), bytes(frame.bulk)) == (case["head"], bulk)


def test_messages_read_and_written(vectors: Vectors) -> None:
    cases = vectors("frames")["frames"]
    for case in cases:
        if case["name"] in MESSAGES:
            head = bytes.fromhex(case["head"])
            message = MESSAGES[case["name"]].decode(head)
            assert message.encode() == head, case["name"]
            expected = {name: value for name, value in case["fields"].items() if name != "header"}
            assert plain(message, expected) == expected, case["name"]
    left_out = {case["api"] for case in cases if case["name"] not in MESSAGES}
    assert all(api >= 40 or api == 2 for api in left_out), "only what servers say to each other is left out"


def test_malformed_frames_are_refused_by_name(vectors: Vectors) -> None:
    for case in vectors("frames")["malformed_frames"]:
        with pytest.raises(FrameError) as refusal:
            read_frames(bytes.fromhex(case["frame"]), FrameReader(REQUEST_LIMITS))
        assert refusal.value.name == case["error"], case["name"]


def test_malformed_messages_are_refused_by_name(vectors: Vectors) -> None:
    cases = [case for case in vectors("frames")["malformed_heads"] if case["message"] in MESSAGES]
    assert len(cases) >= 15
    for case in cases:
        with pytest.raises(DecodeError) as refusal:
            MESSAGES[case["message"]].decode(bytes.fromhex(case["head"]))
        assert refusal.value.name == case["error"], case["name"]


def test_batches_read_and_written(vectors: Vectors) -> None:
    for case in vectors("batches")["valid"]:
        header, body = EntryHeader(**case["header"]), bytes.fromhex(case["body"])
        records = case["records"] if "records" in case else records_by_rule()
        assert [as_json(record) for record in records_of(header, body)] == records, case["name"]
        assert crc32c(body) == case["body_crc"]
        if case["built"]:
            built = build(records)
            assert built.body == body, case["name"]
            written = built.header(0, 0)
            assert written.body_crc == case["body_crc"]
            for field, value in case["header"].items():
                assert field == "base_offset" or getattr(written, field) == value, (case["name"], field)


def test_malformed_batches_are_refused_by_name(vectors: Vectors) -> None:
    for case in vectors("batches")["malformed"]:
        with pytest.raises(BatchError) as refusal:
            BatchView.parse(memoryview(bytes.fromhex(case["body"])), EntryHeader(**case["header"]))
        assert (refusal.value.name, refusal.value.column) == (case["error"], case.get("column")), case["name"]


def test_the_two_refusals_that_have_no_vector() -> None:
    built = build_batch([], [b"a" * ((2 << 20) + 1)], [(0, 0)], {})
    with pytest.raises(BatchError) as refusal:
        BatchView.parse(memoryview(built.body), built.header(0, 0))
    assert refusal.value.name == "record_bytes"
    with pytest.raises(BatchError) as refusal:
        BatchView.parse(memoryview(built.body), built.header(0, 0)._replace(kind=2))
    assert refusal.value.name == "not_columnar"


def read_frames(stream: bytes, reader: FrameReader) -> list[Any]:
    """The frames of a stream, received at once."""
    frames = []
    while stream:
        space = reader.free_space()
        piece, stream = stream[: len(space)], stream[len(space) :]
        space[: len(piece)] = piece
        frames += reader.received(len(piece))
    return frames


def plain(value: Any, like: Any) -> Any:
    """A message in the form of the vectors' fields."""
    if isinstance(value, ErrorCode):
        return int(value)
    if value is None:
        return 0 if like == 0 else None
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list):
        return [plain(item, expected) for item, expected in zip(value, like)]
    if isinstance(like, dict):
        fields = value._asdict() if hasattr(value, "_asdict") else vars(value)
        return {name: plain(fields[name], expected) for name, expected in like.items()}
    return value


def records_of(header: EntryHeader, body: bytes) -> list[JsonRecord]:
    view = BatchView.parse(memoryview(body), header)
    count = view.record_count
    keys = list(view.keys.iterate()) if len(view.keys) else [None] * count
    records = zip(view.offsets, view.timestamps, keys, view.values.iterate())
    return [
        {"offset": offset, "timestamp": timestamp, "key": key, "value": value, "headers": view.headers[index]}
        for index, (offset, timestamp, key, value) in enumerate(records)
    ]


def as_json(record: JsonRecord) -> JsonRecord:
    hexed = {name: record[name].hex() if record[name] is not None else None for name in ("key", "value")}
    return {**record, **hexed, "headers": [[name, value.hex()] for name, value in record["headers"]]}


def build(records: list[JsonRecord]) -> FinishedBatch:
    keys = [bytes.fromhex(record["key"]) if record["key"] is not None else None for record in records]
    values = [bytes.fromhex(record["value"]) if record["value"] is not None else None for record in records]
    headers = {
        index: [(name, bytes.fromhex(value)) for name, value in record["headers"]]
        for index, record in enumerate(records)
    }
    has_keys = any(key is not None for key in keys)
    return build_batch(
        keys if has_keys else [],
        values,
        [(index, record["timestamp"]) for index, record in enumerate(records)],
        headers,
        has_absent_keys=has_keys and None in keys,
        has_absent_values=None in values,
    )


def records_by_rule() -> list[JsonRecord]:
    """The thousand records that the last vector describes in words."""
    records = []
    for i in range(1000):
        headers = [["n", i.to_bytes(2, "little").hex()]] if i % 25 == 0 else []
        headers += [["é", ""]] if i % 100 == 0 else []
        value = None if i % 50 == 7 else bytes((i + j) % 256 for j in range(i * 7 % 40)).hex()
        key = None if i % 10 == 3 else str(i % 100).encode().hex()
        timestamp = 1_700_000_000_000 + i - i % 3 * 5
        records.append({"offset": 5000 + i, "timestamp": timestamp, "key": key, "value": value, "headers": headers})
    return records
