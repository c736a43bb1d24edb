"""What can go wrong, in one small tree: each error says what happened, to what, and what to do.

``retriable``: whether the same request may succeed later. Producers and consumers retry by themselves, so an error that
they raise is either not retriable or was retried until its deadline. ``outcome_unknown``: whether what was asked may
have happened all the same.

::

    MiniKafkaError
    ├── BrokerError               a server answered with a code of the protocol's table
    │   ├── UnknownTopicError, TopicExistsError, OffsetOutOfRangeError, MemberFencedError
    ├── ConnectFailedError        nothing was sent
    ├── ConnectionLostError       what was in flight may have happened
    ├── NoGatewayError
    ├── DeadlineExceededError     (also a TimeoutError)
    ├── MalformedReplyError       a server sent what the protocol does not allow
    ├── OutcomeUnknownError       a batch that can not be sent again without risking a duplicate
    ├── DamagedError              fetched bytes that do not match their checksums, repeatedly
    ├── DataDamagedError          records that are damaged where they are stored
    ├── RecordTooLargeError, InvalidRecordError, NoSuchPartitionError, InvalidOptionError   (also ValueErrors)
    ├── BufferFullError           only from calls that do not wait
    └── ClosedError
"""

from __future__ import annotations

from typing import Final

from .error_code import ErrorCode


class MiniKafkaError(Exception):
    """The root of the tree."""

    #: Whether the same request may succeed later.
    retriable: bool = False
    #: Whether what was asked may have happened all the same.
    outcome_unknown: bool = False
    #: Whether the map that led to this request may be out of date.
    wants_map: bool = False
    #: Seconds that the server asked to wait before the next attempt; 0: as you like.
    retry_after: float = 0.0

    @property
    def code(self) -> ErrorCode | None:
        """The protocol's code, if a server answered with one."""
        return None


#: After these a produce request may have been written: a batch that a sealed head had appended can survive the change
#: of epoch that its ``stale`` speaks of.
_MAY_BE_WRITTEN: Final = frozenset(
    {
        ErrorCode.STALE,
        ErrorCode.TIMED_OUT,
        ErrorCode.SHUTTING_DOWN,
        ErrorCode.BELOW_MIN_IN_SYNC,
        ErrorCode.RANGE_FAILED,
        ErrorCode.DUPLICATE_SEQUENCE,
        ErrorCode.DATA_DAMAGED,
        ErrorCode.INTERNAL,
    }
)

_WANTS_MAP: Final = frozenset(
    {
        ErrorCode.NOT_OWNER,
        ErrorCode.STALE,
        ErrorCode.UNKNOWN_PARTITION,
        ErrorCode.SHUTTING_DOWN,
        ErrorCode.RANGE_FAILED,
        ErrorCode.BELOW_MIN_IN_SYNC,
        ErrorCode.TIMED_OUT,
        ErrorCode.PARTITION_NOT_READY,
    }
)


class BrokerError(MiniKafkaError):
    """A server answered with a code of the protocol's table.

    ``target`` tells who answered, or which topic and partition it concerns; ``epoch`` is what the map should be
    refreshed to (``not_owner``, ``stale``), otherwise 0.
    """

    def __init__(
        self, code: ErrorCode, target: str, message: str = "", *, epoch: int = 0, retry_after: float = 0.0
    ) -> None:
        advice = code.advice
        said = "" if message in ("", advice) else f": {message}"
        super().__init__(f"{target}: {code.table_name}{said}{'' if said.endswith('.') else '.'} {advice}")
        self._code = code
        self.target = target
        self.message = message
        self.epoch = epoch
        self.retry_after = retry_after
        self.retriable = code.retriable
        self.outcome_unknown = code in _MAY_BE_WRITTEN
        self.wants_map = code in _WANTS_MAP

    @property
    def code(self) -> ErrorCode:
        """The code."""
        return self._code

    def about(self, target: str) -> BrokerError:
        """The same error, naming what it concerns instead of who answered."""
        return broker_error(self._code, target, self.message, epoch=self.epoch, retry_after=self.retry_after)

    def __reduce__(self) -> tuple[object, ...]:
        # The message is made of several arguments, so the default way of copying does not fit.
        return broker_error, (self._code, self.target, self.message)


class UnknownTopicError(BrokerError):
    """``unknown_topic``: no topic of this name."""


class TopicExistsError(BrokerError):
    """``topic_exists``: a topic of this name exists."""


class OffsetOutOfRangeError(BrokerError):
    """``offset_out_of_range``: the position lies below the log's start or beyond its end."""


class MemberFencedError(BrokerError):
    """``member_fenced``: another process uses this consumer's instance name."""


_SUBCLASSES: Final[dict[ErrorCode, type[BrokerError]]] = {
    ErrorCode.UNKNOWN_TOPIC: UnknownTopicError,
    ErrorCode.TOPIC_EXISTS: TopicExistsError,
    ErrorCode.OFFSET_OUT_OF_RANGE: OffsetOutOfRangeError,
    ErrorCode.MEMBER_FENCED: MemberFencedError,
}


def broker_error(
    code: ErrorCode, target: str, message: str = "", *, epoch: int = 0, retry_after: float = 0.0
) -> BrokerError:
    """The error of a code, in the class that callers may want to catch."""
    return _SUBCLASSES.get(code, BrokerError)(code, target, message, epoch=epoch, retry_after=retry_after)


class ConnectFailedError(MiniKafkaError):
    """A connection could not be opened. Nothing was sent."""

    retriable = True
    wants_map = True

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(
            f"cannot connect to {address}: {reason}. Check that the server runs and that this address is reachable"
        )
        self.address = address


class ConnectionLostError(MiniKafkaError):
    """A connection ended while a request was in flight: its outcome is unknown."""

    retriable = True
    outcome_unknown = True
    wants_map = True

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(
            f"connection to {address} lost: {reason}. The outcome of requests in flight is unknown; sending again is "
            "safe"
        )
        self.address = address


class DeadlineExceededError(MiniKafkaError, TimeoutError):
    """Something did not happen in time."""

    retriable = True
    wants_map = True

    def __init__(self, what: str, within: float, *, outcome_unknown: bool) -> None:
        advice = "; it may have happened all the same" if outcome_unknown else "; nothing was changed"
        super().__init__(f"{what} did not finish within {within:g} s{advice}")
        self.outcome_unknown = outcome_unknown


class MalformedReplyError(MiniKafkaError):
    """A server sent bytes that are not what the protocol asks for."""

    outcome_unknown = True

    def __init__(self, address: str, what: str, reason: object) -> None:
        super().__init__(f"{address} sent a malformed {what}: {reason}. Check that both ends run compatible releases")


class NoGatewayError(MiniKafkaError):
    """No gateway gave the map."""

    retriable = True

    def __init__(self, tried: str, last: object) -> None:
        super().__init__(
            f"none of the gateways {tried} answered; the last one said: {last}. Check their addresses and that one runs"
        )


class RecordTooLargeError(MiniKafkaError, ValueError):
    """A record that can never be sent."""

    def __init__(self, record_bytes: int, bytes_max: int) -> None:
        super().__init__(
            f"record has {record_bytes} bytes, at most {bytes_max} are allowed. Split it, or store it elsewhere and "
            "send a reference"
        )


class InvalidRecordError(MiniKafkaError, ValueError):
    """A record that contradicts the limits of the format in another way."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"record is not valid: {reason}")


class BufferFullError(MiniKafkaError):
    """A call that does not wait found no memory for its record."""

    retriable = True

    def __init__(self) -> None:
        super().__init__("the producer's memory is full. Call send() instead, which waits, or raise buffer_bytes")


class NoSuchPartitionError(MiniKafkaError, ValueError):
    """A partition that the topic does not have, or that this consumer does not read."""

    def __init__(self, topic: str, partition: int, reason: str) -> None:
        super().__init__(f"topic {topic} partition {partition}: {reason}")


class OutcomeUnknownError(MiniKafkaError):
    """A batch was sent, its outcome was never learned, and it can not be sent again without risking a duplicate."""

    outcome_unknown = True

    def __init__(self, topic: str, partition: int, reason: object) -> None:
        super().__init__(
            f"topic {topic} partition {partition}: batch may or may not be stored ({reason}). Read the partition to "
            "find out, or send it again and accept a duplicate"
        )


class DamagedError(MiniKafkaError):
    """Fetched bytes do not match their checksums or structure, repeatedly."""

    def __init__(self, topic: str, partition: int, offset: int, reason: object) -> None:
        super().__init__(
            f"topic {topic} partition {partition} offset {offset}: fetched data are damaged ({reason}). Repair the "
            "log, or seek past it"
        )
        self.topic, self.partition, self.offset = topic, partition, offset


class DataDamagedError(MiniKafkaError):
    """Records are damaged on the broker's disk, and no other member of the chain has them.

    ``first`` is the first offset that is lost, ``resume`` the first one behind the damage that can be read, if any can.
    """

    def __init__(self, topic: str, partition: int, first: int, resume: int | None) -> None:
        until = "and nothing behind it can be read" if resume is None else f"up to before {resume}"
        super().__init__(
            f"topic {topic} partition {partition}: records from offset {first} on are damaged on the broker's disk, "
            f"{until}. The broker's log names file and place: restore the file from a backup, or go on without them "
            "with on_damage='skip'"
        )
        self.topic, self.partition, self.first, self.resume = topic, partition, first, resume


class InvalidOptionError(MiniKafkaError, ValueError):
    """A setting outside of its range, or a call that does not go with the settings."""

    def __init__(self, option: str, reason: str) -> None:
        super().__init__(f"option {option} is not valid: {reason}")


class ClosedError(MiniKafkaError):
    """The client, producer or consumer was closed by its owner."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is closed")
