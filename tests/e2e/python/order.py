"""Order: what is pushed under one key is handed to subscribers in the order in which it was pushed, each value once.

Eight keys, one thread pushing each of them, each push waiting until it is stored; four subscribers, who share the queue
as a group and join while it goes on. Ends with 0 if every key's values arrived in order, none missing, none twice.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections import Counter, defaultdict
from zlib import crc32

import minikafka

#: So many partitions has the queue.
PARTITIONS = 8
#: Nothing new for so long: what is missing will not come.
PATIENCE = 60.0


def main() -> None:
    """Pushes, collects, compares."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--gateways", default="localhost:9000", help="host:port, separated by commas")
    parser.add_argument("--pushes", type=int, default=10_000)
    parser.add_argument("--subscribers", type=int, default=4)
    arguments = parser.parse_args()
    gateways = arguments.gateways.split(",")
    keys = one_key_of_each_partition()
    each = arguments.pushes // len(keys)
    arrived = Arrived(each * len(keys))
    began = time.monotonic()
    queues = [minikafka.connect(gateways) for _ in range(arguments.subscribers)]
    for number, queue in enumerate(queues):
        queue.subscribe(arrived.subscriber(number))
    push_all(gateways, keys, each)
    pushed = time.monotonic()
    is_whole = arrived.wait()
    for queue in queues:
        queue.close()
    faults = arrived.faults(keys, each)
    if faults or not is_whole:
        sys.exit("order: FAILED: " + "; ".join(faults[:5] or ["values are missing"]))
    shares = [arrived.shares[number] for number in range(len(queues))]
    print(
        f"order: ok: {each * len(keys)} pushes over {len(keys)} keys in {pushed - began:.1f} s, pulled by "
        f"{len(queues)} subscribers ({', '.join(map(str, shares))}): each key's values arrived in order"
    )


def one_key_of_each_partition() -> list[bytes]:
    """So every subscriber has something to do."""
    keys: dict[int, bytes] = {}
    number = 0
    while len(keys) < PARTITIONS:
        key = b"key-%d" % number
        keys.setdefault(crc32(key) % PARTITIONS, key)
        number += 1
    return list(keys.values())


def push_all(gateways: list[str], keys: list[bytes], each: int) -> None:
    """One thread for each key; the first failure is raised."""
    failures: list[Exception] = []
    with minikafka.connect(gateways) as queue:

        def push(key: bytes) -> None:
            try:
                for number in range(each):
                    queue.push(key, b"%d" % number)
            except minikafka.MiniKafkaError as error:
                failures.append(error)

        threads = [threading.Thread(target=push, args=(key,)) for key in keys]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


class Arrived:
    """What subscribers were given, by key, in the order in which they were called."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._values: dict[bytes, list[int]] = defaultdict(list)
        self._changed = threading.Condition()
        self._count = 0
        self.shares: Counter[int] = Counter()

    def subscriber(self, number: int) -> minikafka.queue.Callback:
        """The callback of one subscriber."""

        def take(key: bytes | None, value: bytes | None) -> None:
            assert key is not None and value is not None
            with self._changed:
                self._values[key].append(int(value))
                self.shares[number] += 1
                self._count += 1
                self._changed.notify_all()

        return take

    def wait(self) -> bool:
        """Waits until so much has come as was pushed; false: nothing new came for too long."""
        with self._changed:
            while self._count < self._expected:
                before = self._count
                if not self._changed.wait_for(lambda before=before: self._count > before, PATIENCE):  # type: ignore[misc]
                    return False
        return True

    def faults(self, keys: list[bytes], each: int) -> list[str]:
        """What is wrong with what arrived."""
        faults = []
        for key in keys:
            values = self._values[key]
            if values == list(range(each)):
                continue
            missing = each - len(set(values))
            fault = f"{key.decode()}: {len(values)} of {each} values, {missing} missing"
            wrong = next(
                (at for at, (before, after) in enumerate(zip(values, values[1:])) if after != before + 1), None
            )
            if wrong is not None:
                fault += f", {values[wrong + 1]} came behind {values[wrong]}"
            faults.append(fault)
        return faults


if __name__ == "__main__":
    main()
