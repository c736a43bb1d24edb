"""Names of topics and groups: refused before a server has to."""

from __future__ import annotations

import re
from typing import Final

from . import limits
from .error_code import ErrorCode
from .errors import InvalidOptionError, broker_error

_NAME: Final = re.compile(rf"[A-Za-z0-9._-]{{1,{limits.NAME_BYTES_MAX}}}", re.ASCII)


def is_name(name: str) -> bool:
    """Whether topics, groups and instances may be called that."""
    return _NAME.fullmatch(name) is not None and name not in (".", "..")


def check_topic_name(name: str) -> None:
    """Refuses what is no topic's name.

    :raises BrokerError: ``invalid_topic_name``, as a server would answer.
    """
    if not is_name(name):
        raise broker_error(ErrorCode.INVALID_TOPIC_NAME, f"topic {name!r}")


def check_group_name(name: str) -> None:
    """Refuses what is no group's name.

    :raises InvalidOptionError: it says what names are.
    """
    if not is_name(name):
        reason = f"{name!r} is not 1 to 249 letters, digits, '.', '_' or '-', or it is '.' or '..'"
        raise InvalidOptionError("group", reason)
