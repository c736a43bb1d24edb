"""What a client has done so far, readable at any time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from .error_code import ErrorCode


@dataclass
class Counters:
    """Counts since the client was made. Bytes are those of batch bodies, as sent and as received."""

    records_sent: int = 0
    batches_sent: int = 0
    bytes_sent: int = 0
    #: Batches that were sent again.
    batches_retried: int = 0
    #: Records that will not be stored, or of which that is unknown.
    records_failed: int = 0
    records_received: int = 0
    batches_received: int = 0
    bytes_received: int = 0
    requests_sent: int = 0
    #: Requests that wait for their answer now.
    requests_in_flight: int = 0
    connections_opened: int = 0
    #: Connections that ended other than by ``close()``.
    connections_lost: int = 0
    #: Answers with an error, by code.
    errors: Counter[ErrorCode] = field(default_factory=Counter)

    def snapshot(self) -> Counters:
        """A copy that does not change any more."""
        return replace(self, errors=Counter(self.errors))
