"""The asyncio client: the same calls as :mod:`minikafka`, awaited."""

from __future__ import annotations

from .client import Client
from .consumer import Consumer
from .producer import Delivery, ManyDelivery, Producer
from .queue import Queue, connect

__all__ = ["Client", "Consumer", "Delivery", "ManyDelivery", "Producer", "Queue", "connect"]
