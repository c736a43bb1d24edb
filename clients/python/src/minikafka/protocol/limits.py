"""Every bound of the protocol that a client must know. Bytes, milliseconds and counts are in the names.

They are those of the servers (``core::limits`` in the Rust sources); what a server tells in its hello may be less.
"""

from __future__ import annotations

from typing import Final

#: Bytes of one batch body, as stored (compressed or not).
BATCH_BODY_BYTES_MAX: Final = 4 << 20
#: Bytes of one batch body once decompressed; bounds what a reader must allocate.
BATCH_UNCOMPRESSED_BYTES_MAX: Final = 32 << 20
#: Records in one batch.
BATCH_RECORDS_MAX: Final = 1 << 18
#: Key, value and headers of one record together.
RECORD_BYTES_MAX: Final = 2 << 20
#: Headers of one record.
RECORD_HEADERS_MAX: Final = 1024

#: Message fields of a frame (everything but batch bodies and fetched entries).
FRAME_HEAD_BYTES_MAX: Final = 16 << 20
#: Fields of one request that a client may send, batch body excluded.
REQUEST_HEAD_BYTES_MAX: Final = 1 << 20
#: Entry bytes of one fetch reply. One entry always fits.
FETCH_BYTES_MAX: Final = 16 << 20
#: Partitions named by one request.
REQUEST_PARTITIONS_MAX: Final = 10_000
#: Longest wait of a fetch.
FETCH_WAIT_MS_MAX: Final = 30_000

#: Requests in flight on one connection; the server may tell less.
CONNECTION_IN_FLIGHT_MAX: Final = 1024
#: Request bytes in flight on one connection.
CONNECTION_IN_FLIGHT_BYTES_MAX: Final = 32 << 20
#: What was sent must leave within this.
WRITE_DEADLINE_MS: Final = 30_000

#: Batches of one producer and partition that may be in flight, and whose outcome the broker remembers.
PRODUCER_IN_FLIGHT_MAX: Final = 8

#: Letters of a topic's or a group's name.
NAME_BYTES_MAX: Final = 249
#: Partitions of one topic.
TOPIC_PARTITIONS_MAX: Final = 10_000
#: Bytes of any short text on the wire (names, addresses, versions).
TEXT_BYTES_MAX: Final = 1024
#: Ranges of a ring at most.
RANGES_MAX: Final = 65_536
#: Positions in a range log, and offsets, end here: 63 bits.
LOG_INDEX_MAX: Final = (1 << 63) - 1

#: Session time-outs of a group's members.
SESSION_TIMEOUT_MS_MIN: Final = 1_000
SESSION_TIMEOUT_MS_MAX: Final = 600_000
#: A heartbeat waits at most this long, and at most a third of the session time-out.
HEARTBEAT_WAIT_MS_MAX: Final = 3_000
#: Bytes of the text that goes with a committed offset.
COMMIT_METADATA_BYTES_MAX: Final = 256
#: A partition that its owner keeps so long after being asked for it goes to another one all the same.
GROUP_REVOCATION_TIMEOUT_MS: Final = 60_000

#: Members of a chain.
CHAIN_MAX: Final = 7
#: Stages of one hop of an explanation.
EXPLAIN_STAGES_MAX: Final = 16
