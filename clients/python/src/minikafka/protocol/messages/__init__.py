"""The messages that a client sends and receives (``docs/PROTOCOL.md`` section 4, ``docs/GROUPS.md`` section 5)."""

from __future__ import annotations

from enum import IntEnum


class Api(IntEnum):
    """What is asked. Apis between servers (40 and above) are not a client's."""

    HELLO = 1
    PRODUCE = 10
    FETCH = 11
    LIST_OFFSETS = 12
    DELETE_RECORDS = 13
    GROUP_HEARTBEAT = 14
    GROUP_COMMIT = 15
    GROUP_OFFSETS = 16
    GROUP_DESCRIBE = 17
    GROUP_LIST = 18
    GROUP_DELETE = 19
    RESOLVE = 20
    CREATE_TOPIC = 21
    DELETE_TOPIC = 22
    ALTER_TOPIC = 23
