"""Settings, as small dataclasses by role. Each is set by the application; times are seconds, sizes are bytes.

Every class refuses values outside of their range when it is made, with an :class:`InvalidOptionError` that names the
field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, NamedTuple, Union

from . import limits
from .errors import InvalidOptionError
from .names import is_name

_MIB: Final = 1 << 20

#: Where a consumer begins: at the first record that is there, after the last committed one, at an offset (in every
#: partition), or at the first batch appended at or after a time (with a time zone). In a group: where it begins in
#: partitions that the group has committed nothing of: earliest, latest, or nowhere (``"error"``).
StartAt = Union[Literal["earliest", "latest", "error"], int, datetime]

Compression = Literal["none", "lz4", "zstd"]


class TopicPartition(NamedTuple):
    """A partition, as applications name it."""

    topic: str
    partition: int


def _require(is_fine: bool, option: str, reason: str) -> None:
    if not is_fine:
        raise InvalidOptionError(option, reason)


#: What is called when partitions come and go.
RebalanceCallback = Callable[[list[TopicPartition]], object]


@dataclass(frozen=True)
class ClientOptions:
    """Settings of a client."""

    #: Name of the program, for the servers' logs; at most 1,024 bytes of UTF-8.
    client_name: str = ""
    #: The id of the cluster expected; another one is refused with ``wrong_cluster``. 0: any.
    cluster: int = 0
    #: Time to open one connection, hello included.
    connect_timeout: float = 5.0
    #: Time for a request about topics, offsets or groups, retries included.
    request_timeout: float = 30.0
    #: Whether a producer or consumer of an unknown topic asks the cluster to create it. Clusters decide whether they do
    #: (``minikafka dev`` does, others only if configured).
    create_missing_topics: bool = True

    def __post_init__(self) -> None:
        _require(len(self.client_name.encode()) <= limits.TEXT_BYTES_MAX, "client_name", "it must be at most 1 KiB")
        _require(self.connect_timeout > 0, "connect_timeout", "it must be positive")
        _require(self.request_timeout > 0, "request_timeout", "it must be positive")


@dataclass(frozen=True)
class ProducerOptions:
    """Settings of a producer."""

    #: A batch is sent when its body, uncompressed, has reached this. 1 KiB to 4 MiB; the topic's own limit and a single
    #: larger record go first.
    batch_bytes: int = 256 << 10
    #: A batch is sent at the latest this long after its first record.
    linger: float = 0.005
    #: Send a batch at once when nothing of its partition is in flight, whatever ``linger`` says: lowest latency at low
    #: rates, and batches grow with the rate.
    send_when_idle: bool = True
    #: Records accepted and not stored are at most so many bytes; past it, ``send`` waits. 1 KiB to 2 GiB.
    buffer_bytes: int = 64 * _MIB
    #: Batches of one partition in flight, 1 to 8. Without ``idempotent`` it counts as 1, because a retry would
    #: otherwise overtake.
    in_flight_max: int = limits.PRODUCER_IN_FLIGHT_MAX
    #: Number records so that a retry is never stored twice. Without it, a retry after a lost answer may be.
    idempotent: bool = True
    #: From acceptance to success or failure, retries included.
    delivery_timeout: float = 120.0
    #: One attempt of one batch; then its outcome is unknown and it is sent again.
    request_timeout: float = 30.0
    #: Compression of batches; kept only where a batch becomes smaller. Needs the extra of the same name.
    compression: Compression = "none"
    #: Level for Zstandard, 1 to 22.
    zstd_level: int = 3
    #: Ask the brokers where the time of each batch went: ``Delivered.explain``. Costs a kilobyte a batch.
    explain: bool = False

    def __post_init__(self) -> None:
        _require(1 << 10 <= self.batch_bytes <= limits.BATCH_BODY_BYTES_MAX, "batch_bytes", "it must be 1 KiB to 4 MiB")
        _require(1 << 10 <= self.buffer_bytes <= 2 << 30, "buffer_bytes", "it must be 1 KiB to 2 GiB")
        _require(
            1 <= self.in_flight_max <= limits.PRODUCER_IN_FLIGHT_MAX,
            "in_flight_max",
            f"it must be 1 to {limits.PRODUCER_IN_FLIGHT_MAX}",
        )
        _require(self.linger >= 0, "linger", "it must not be negative")
        _require(self.delivery_timeout > 0, "delivery_timeout", "it must be positive")
        _require(self.request_timeout > 0, "request_timeout", "it must be positive")
        _require(self.compression in ("none", "lz4", "zstd"), "compression", "it must be none, lz4 or zstd")
        _require(1 <= self.zstd_level <= 22, "zstd_level", "it must be 1 to 22")


@dataclass(frozen=True)
class Nearest:
    """Read from a member in this rack if there is one, otherwise from the head: spares the traffic between racks."""

    #: As brokers are told by ``--rack``.
    rack: str


#: Which member of a chain records are read from; all of them serve the same log.
ReadFrom = Union[Literal["head", "any"], Nearest]


@dataclass(frozen=True)
class ConsumerOptions:
    """Settings of a consumer."""

    #: Where to begin in particular partitions, instead of ``start``: offsets.
    start_offsets: Mapping[int, int] = field(default_factory=dict)
    #: Fetched bytes that wait for the application, requests under way included; one batch (4 MiB) per shard may come on
    #: top. At least 64 KiB.
    prefetch_bytes: int = 32 * _MIB
    #: Bytes of one partition in one fetch, 4 KiB to 16 MiB.
    partition_fetch_bytes: int = _MIB
    #: How long a shard may hold a fetch that has fewer than ``fetch_bytes_min`` bytes. At most 30 s.
    fetch_wait: float = 0.5
    #: See ``fetch_wait``.
    fetch_bytes_min: int = 1
    #: ``"head"``: first to know that a record is committed; ``"any"``: partitions are spread over the members of their
    #: chains; :class:`Nearest`. One that fails or lags is left alone for some seconds, while another one is read from.
    read_from: ReadFrom = "head"
    #: What happens to a position below the log's start (deleted by retention) or beyond its end: go on with the first
    #: record that is there, with the next one that is written, or raise :class:`OffsetOutOfRangeError`.
    out_of_range: Literal["earliest", "latest", "error"] = "error"
    #: What happens at records that are damaged on the broker's disk: raise :class:`DataDamagedError`, or go on behind
    #: them and count (``consumer.skipped()``).
    on_damage: Literal["error", "skip"] = "error"
    #: Ask the brokers where the time of each fetch went: ``Batch.explain``.
    explain: bool = False

    def __post_init__(self) -> None:
        _require(self.prefetch_bytes >= 64 << 10, "prefetch_bytes", "it must be at least 64 KiB")
        _require(
            4 << 10 <= self.partition_fetch_bytes <= limits.FETCH_BYTES_MAX,
            "partition_fetch_bytes",
            "it must be 4 KiB to 16 MiB",
        )
        _require(0 <= self.fetch_wait <= limits.FETCH_WAIT_MS_MAX / 1000, "fetch_wait", "it must be at most 30 s")
        _require(self.fetch_bytes_min >= 0, "fetch_bytes_min", "it must not be negative")
        _require(self.out_of_range in ("earliest", "latest", "error"), "out_of_range", "earliest, latest or error")
        _require(self.on_damage in ("error", "skip"), "on_damage", "it must be error or skip")
        _require(
            self.read_from in ("head", "any") or isinstance(self.read_from, Nearest),
            "read_from",
            "it must be 'head', 'any' or Nearest(rack)",
        )


@dataclass(frozen=True)
class GroupOptions:
    """Settings of a consumer's membership in its group."""

    #: How long the client may be silent before its partitions go to others; heartbeats are the client's own, whatever
    #: the application does. 1 s to 10 min.
    session_timeout: float = 10.0
    #: What was handled is committed this often; also at a revocation, at ``close()``, and by ``commit()``.
    commit_interval: float = 5.0
    #: ``"automatic"``: a record counts as handled when the next one is asked for, or at ``close()``; ``"ack"``: when
    #: ``ack()`` was called, and the commit is the lowest record given out and not acknowledged.
    handled: Literal["automatic", "ack"] = "automatic"
    #: Static membership: a new process with the same instance takes over its partitions without anybody else noticing,
    #: and fences the old one. None: a dynamic member.
    instance: str | None = None
    #: A partition that is to go to another member is held back so long for records that were given out and are not
    #: handled yet. Below the group's own 60 s.
    revocation_wait: float = 30.0

    #: Called with partitions that are read from now on, before any record of them is given out: ``seek`` may be called.
    #: Callbacks of a :class:`minikafka.Consumer` run on a thread of its own, one at a time; those of an asyncio
    #: consumer on its loop, and may be coroutine functions. They should be quick: what is released waits for them.
    on_assigned: RebalanceCallback | None = None
    #: Called with partitions that go to another member, after their reading has stopped and before what was handled of
    #: them is committed; also at ``close()``.
    on_revoked: RebalanceCallback | None = None
    #: Called with partitions that belong to others already: nothing of them is committed.
    on_lost: RebalanceCallback | None = None

    def __post_init__(self) -> None:
        low, high = limits.SESSION_TIMEOUT_MS_MIN / 1000, limits.SESSION_TIMEOUT_MS_MAX / 1000
        _require(low <= self.session_timeout <= high, "session_timeout", f"it must be {low:g} to {high:g} s")
        _require(self.commit_interval > 0, "commit_interval", "it must be positive")
        _require(self.handled in ("automatic", "ack"), "handled", "it must be automatic or ack")
        _require(
            0 <= self.revocation_wait < limits.GROUP_REVOCATION_TIMEOUT_MS / 1000,
            "revocation_wait",
            "it must be below 60 s",
        )
        _require(
            self.instance is None or is_name(self.instance),
            "instance",
            "it must be 1 to 249 letters, digits, '.', '_' or '-', and not '.' or '..'",
        )
