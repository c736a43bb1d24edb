"""The first frame of a connection, and what an error reply says (``docs/PROTOCOL.md`` sections 3 and 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from ..fields import U16, U32, U64, Choice, Message, Nonce, Text

#: Protocol versions that this client speaks.
PROTOCOL_MIN: Final = 1
PROTOCOL_MAX: Final = 2
#: The role of a client in its hello.
ROLE_CLIENT: Final = 0
#: The shard of a hello reply that says: a gateway.
SHARD_GATEWAY: Final = 65_535


@dataclass
class Hello(Message):
    """What a client says of itself."""

    protocol_min: U16
    protocol_max: U16
    role: Annotated[int, Choice("role", 0, 1, 2)]
    #: 16 random bytes.
    nonce: Nonce
    #: The cluster expected; 0: any.
    cluster: U64
    client_name: Text
    client_version: Text


@dataclass
class HelloReply(Message):
    """What a server says of itself, and its limits."""

    protocol: U16
    nonce: Nonce
    cluster: U64
    node: U32
    shard: U16
    server_version: Text
    batch_body_bytes_max: U32
    record_bytes_max: U32
    in_flight_max: U32
    idle_deadline_ms: U64


@dataclass
class ErrorReply(Message):
    """The head of a reply with an error."""

    #: For ``not_owner`` and ``stale``: refresh the map to at least this.
    epoch: U64
    retry_after_ms: U32
    message: Text


@dataclass
class Empty(Message):
    """A reply without fields."""
