"""The error table of the protocol (``docs/PROTOCOL.md`` section 6, ``docs/GROUPS.md`` section 5).

Each code is retriable or not, and has one line of advice; it is the same in every language.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

#: Codes below this are retriable.
_RETRIABLE_BELOW: Final = 100


class ErrorCode(IntEnum):
    """A code of the table."""

    NOT_OWNER = 1
    STALE = 2
    PARTITION_NOT_READY = 3
    BEYOND_COMMITTED = 4
    OUT_OF_ORDER = 5
    OVERLOADED = 6
    DISK_FULL = 7
    BELOW_MIN_IN_SYNC = 8
    SHUTTING_DOWN = 9
    TIMED_OUT = 10
    COORDINATOR_UNAVAILABLE = 11
    NOT_CONTROLLER = 12
    RANGE_FAILED = 13
    CORRUPT_BATCH = 14
    UNKNOWN_PARTITION = 15
    THROTTLED = 16
    MALFORMED_FRAME = 100
    UNKNOWN_API = 101
    UNSUPPORTED_VERSION = 102
    FRAME_TOO_LARGE = 103
    HELLO_REQUIRED = 104
    NOT_AUTHORIZED = 105
    WRONG_CLUSTER = 106
    MISDIRECTED = 107
    INVALID_BATCH = 110
    RECORD_TOO_LARGE = 111
    BATCH_TOO_LARGE = 112
    UNKNOWN_TOPIC = 120
    TOPIC_EXISTS = 121
    INVALID_TOPIC_NAME = 122
    INVALID_ARGUMENT = 123
    OFFSET_OUT_OF_RANGE = 124
    MOVED = 125
    UNSUPPORTED = 126
    DUPLICATE_SEQUENCE = 130
    UNKNOWN_PRODUCER = 131
    PRODUCER_FENCED = 132
    NOT_ASSIGNED = 133
    MEMBER_FENCED = 134
    UNKNOWN_MEMBER = 135
    UNKNOWN_GROUP = 136
    GROUP_NOT_EMPTY = 137
    DATA_DAMAGED = 140
    INTERNAL = 150

    @property
    def table_name(self) -> str:
        """The name in the table, such as ``not_owner``."""
        return self.name.lower()

    @property
    def retriable(self) -> bool:
        """Whether the same request may succeed later."""
        return self < _RETRIABLE_BELOW

    @property
    def advice(self) -> str:
        """What to do about it, in one line."""
        return ADVICE[self]

    @classmethod
    def from_number(cls, number: int) -> ErrorCode | None:
        """The code of a number from the wire; none for 0. A number of a newer release is not retriable."""
        if number == 0:
            return None
        try:
            return cls(number)
        except ValueError:
            return cls.INTERNAL


ADVICE: Final[dict[ErrorCode, str]] = {
    ErrorCode.NOT_OWNER: "This shard does not own the range: refresh the map and send to the owner it names.",
    ErrorCode.STALE: "The range has moved to another epoch: refresh the map and send again.",
    ErrorCode.PARTITION_NOT_READY: "The partition is being created: wait a little and send again.",
    ErrorCode.BEYOND_COMMITTED: "The offset is not committed yet: ask again; do not reset the position.",
    ErrorCode.OUT_OF_ORDER: "An earlier batch of this producer has not arrived: send again from that batch on.",
    ErrorCode.OVERLOADED: "The broker is at a limit: wait for retry_after_ms and send again.",
    ErrorCode.DISK_FULL: (
        "The broker's disk is nearly full: free space or shorten retention; writes resume by themselves."
    ),
    ErrorCode.BELOW_MIN_IN_SYNC: (
        "Too few members of the chain are alive: bring a node back; writes resume by themselves."
    ),
    ErrorCode.SHUTTING_DOWN: "The broker is stopping: refresh the map and connect again.",
    ErrorCode.TIMED_OUT: "The deadline passed with the outcome unknown: send again with the same sequence.",
    ErrorCode.COORDINATOR_UNAVAILABLE: (
        "The coordinator does not answer: produce and fetch go on; try the change again later."
    ),
    ErrorCode.NOT_CONTROLLER: "Another gateway is the controller: send to the one it names.",
    ErrorCode.RANGE_FAILED: (
        "A durable write of this range failed, or entries of it are damaged: it is taken over, or waits for a restart "
        "or a repair; see the broker's log."
    ),
    ErrorCode.CORRUPT_BATCH: ("The batch body does not match its checksum: it was damaged on the way; send it again."),
    ErrorCode.UNKNOWN_PARTITION: ("The range does not hold this partition: refresh the topic and its partition count."),
    ErrorCode.THROTTLED: (
        "The topic's produce quota of this shard is used up: wait for retry_after_ms and send again, or raise the "
        "quota."
    ),
    ErrorCode.MALFORMED_FRAME: (
        "The bytes are not a frame of this protocol, or were damaged: the connection is closed; check the client."
    ),
    ErrorCode.UNKNOWN_API: ("This server does not know the request: upgrade the server or use an older client."),
    ErrorCode.UNSUPPORTED_VERSION: "No protocol version in common: upgrade the older side.",
    ErrorCode.FRAME_TOO_LARGE: "The frame is over the limit told in the hello: send smaller requests.",
    ErrorCode.HELLO_REQUIRED: "The first frame of a connection must be a hello.",
    ErrorCode.NOT_AUTHORIZED: ("This request needs a connection that proved the cluster secret: check --secret-file."),
    ErrorCode.WRONG_CLUSTER: ("The peer belongs to another cluster: check --coordinator and the data directory."),
    ErrorCode.MISDIRECTED: (
        "This request belongs to the other kind of server: shards take data, gateways take topics and maps."
    ),
    ErrorCode.INVALID_BATCH: (
        "The batch header or its columns contradict each other: fix the encoder; nothing was written."
    ),
    ErrorCode.RECORD_TOO_LARGE: ("A record is over the limit told in the hello: split it or store it elsewhere."),
    ErrorCode.BATCH_TOO_LARGE: "The batch is over the topic's or the server's limit: send smaller batches.",
    ErrorCode.UNKNOWN_TOPIC: "No topic of this name or id: create it, or check the spelling.",
    ErrorCode.TOPIC_EXISTS: "A topic of this name exists: choose another name or use it as it is.",
    ErrorCode.INVALID_TOPIC_NAME: ("Topic names are 1 to 249 letters, digits, '.', '_' or '-', and not '.' or '..'."),
    ErrorCode.INVALID_ARGUMENT: "A field is outside its range; the message names it.",
    ErrorCode.OFFSET_OUT_OF_RANGE: ("The offset is below the log start or beyond the end: seek to earliest or latest."),
    ErrorCode.MOVED: ("Older offsets of this partition lie in the range that the reply names: fetch them there."),
    ErrorCode.UNSUPPORTED: "This server cannot do that yet; the message says what it can.",
    ErrorCode.DUPLICATE_SEQUENCE: (
        "The batch was stored before and its offset is no longer remembered: count it as stored."
    ),
    ErrorCode.UNKNOWN_PRODUCER: ("The broker has forgotten this producer: start again with a new producer id."),
    ErrorCode.PRODUCER_FENCED: "A newer instance of this producer exists: stop this one.",
    ErrorCode.NOT_ASSIGNED: (
        "The partition does not belong to this member of the group: drop it; whoever has it commits."
    ),
    ErrorCode.MEMBER_FENCED: "Another process uses this instance name: stop this one, or give it another name.",
    ErrorCode.UNKNOWN_MEMBER: "The group does not know this member (any more): drop what it had, and join anew.",
    ErrorCode.UNKNOWN_GROUP: "No group of this name: check the spelling.",
    ErrorCode.GROUP_NOT_EMPTY: "The group has members that own this: stop them first.",
    ErrorCode.DATA_DAMAGED: (
        "The stored bytes are damaged, the broker's log names file and place: go on behind them, or repair from a "
        "neighbour or a backup."
    ),
    ErrorCode.INTERNAL: "The server has a defect: its log has the details; please report it.",
}
