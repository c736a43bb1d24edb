"""Client for MiniKafka, a durable message broker.

Example::

    from minikafka import Client

    with Client("localhost:9000") as client:
        client.create_topic("orders", partitions=8)
        with client.producer() as producer:
            future = producer.send("orders", value=b"bought", key=b"user-7")
            print(future.result().offset)  # acknowledged: durable on every replica
        with client.consumer("orders", group="billing") as consumer:
            for record in consumer:
                print(record.key, record.value)

:mod:`minikafka.aio` is the same for asyncio; :func:`connect` the simple queue.
"""

from __future__ import annotations

from ._version import VERSION
from .aio.coordinator import Group, GroupMemberInfo
from .aio.topics import Topic
from .client import Client
from .consumer import Consumer
from .producer import Delivery, ManyDelivery, Producer
from .protocol.counters import Counters
from .protocol.delivery import Delivered, DeliveredRun
from .protocol.error_code import ErrorCode
from .protocol.errors import (
    BrokerError,
    BufferFullError,
    ClosedError,
    ConnectFailedError,
    ConnectionLostError,
    DamagedError,
    DataDamagedError,
    DeadlineExceededError,
    InvalidOptionError,
    InvalidRecordError,
    MalformedReplyError,
    MemberFencedError,
    MiniKafkaError,
    NoGatewayError,
    NoSuchPartitionError,
    OffsetOutOfRangeError,
    OutcomeUnknownError,
    RecordTooLargeError,
    TopicExistsError,
    UnknownTopicError,
)
from .protocol.explain import Explain
from .protocol.messages.explain import Hop, StageSpan
from .protocol.messages.topics import TopicConfig, TopicConfigChange
from .protocol.options import (
    ClientOptions,
    ConsumerOptions,
    GroupOptions,
    Nearest,
    ProducerOptions,
    StartAt,
    TopicPartition,
)
from .protocol.partition_progress import Skipped
from .protocol.records import Batch, Record
from .protocol.redelivery import QueueDelivery
from .queue import Queue, connect

__version__ = VERSION

__all__ = [
    "Batch",
    "BrokerError",
    "BufferFullError",
    "Client",
    "ClientOptions",
    "ClosedError",
    "ConnectFailedError",
    "ConnectionLostError",
    "Consumer",
    "ConsumerOptions",
    "Counters",
    "DamagedError",
    "DataDamagedError",
    "DeadlineExceededError",
    "Delivered",
    "DeliveredRun",
    "Delivery",
    "ErrorCode",
    "Explain",
    "Group",
    "GroupMemberInfo",
    "GroupOptions",
    "Hop",
    "InvalidOptionError",
    "InvalidRecordError",
    "MalformedReplyError",
    "ManyDelivery",
    "MemberFencedError",
    "MiniKafkaError",
    "Nearest",
    "NoGatewayError",
    "NoSuchPartitionError",
    "OffsetOutOfRangeError",
    "OutcomeUnknownError",
    "Producer",
    "ProducerOptions",
    "Queue",
    "QueueDelivery",
    "Record",
    "RecordTooLargeError",
    "Skipped",
    "StageSpan",
    "StartAt",
    "Topic",
    "TopicConfig",
    "TopicConfigChange",
    "TopicExistsError",
    "TopicPartition",
    "UnknownTopicError",
    "__version__",
    "connect",
]
