"""Which member of its chain a partition is read from, and which ones it leaves alone for a while.

Pure. Whatever is chosen, positions only go forward and every member serves the same log: a choice costs time at worst.
"""

from __future__ import annotations

from typing import Final

from .cluster_map import ClusterMap, RangeMember
from .messages.data import RangeKey
from .options import Nearest, ReadFrom

#: Seconds for which a member that failed is left alone; then it is preferred again.
LEFT_ALONE: Final = 3.0
#: A member that does not know yet what was read elsewhere is asked so often before it is left alone: one message behind
#: is no reason.
LAGS_MAX: Final = 3


class ChainMembers:
    """What one partition remembers of its chain's members; bounded by those that were in it within ``LEFT_ALONE``."""

    def __init__(self) -> None:
        #: Until when, by node.
        self._left_alone: dict[int, float] = {}
        #: Answers of members behind the head, in a row, that they are behind.
        self._lags = 0

    def choose(
        self, now: float, read_from: ReadFrom, cluster: ClusterMap, range_key: RangeKey, partition: int
    ) -> RangeMember | None:
        """The member to ask: as preferred, among those that are not left alone; when all are, the head."""
        members = cluster.members_of(range_key)
        if not members or (read_from == "head" and not members[0].is_head):
            return None
        if read_from == "head":
            return members[0]
        self._left_alone = {node: until for node, until in self._left_alone.items() if until > now}
        asked = [member for member in members if member.node not in self._left_alone]
        if isinstance(read_from, Nearest):
            preferred = [member for member in asked if member.rack == read_from.rack]
        else:
            turn = partition % len(members)
            preferred = [member for member in members[turn:] + members[:turn] if member in asked]
        return (preferred or asked or members)[0]

    def failed(self, now: float, node: int, *, is_head: bool) -> bool:
        """A member failed. True: it is left alone from now on, and another one may be asked at once."""
        if node in self._left_alone:
            return False
        self._lags = 0
        self._left_alone[node] = now + LEFT_ALONE
        return not is_head

    def lags(self, now: float, node: int, *, is_head: bool) -> bool:
        """A member knows less than what was read already. True, as :meth:`failed`, when it is so for too long."""
        self._lags += 1
        return self._lags >= LAGS_MAX and self.failed(now, node, is_head=is_head)

    def served(self) -> None:
        """A member served what was asked."""
        self._lags = 0
