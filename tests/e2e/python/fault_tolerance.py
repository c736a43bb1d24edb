"""Fault tolerance: half of the values are pushed, a broker of three dies, the rest is pushed: every value is pulled.

``--kill`` is the command that kills it. Ends with 0 if no value is missing.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import threading
import time

import minikafka

#: So many threads push.
PUSHERS = 8
#: Nothing new for so long: what is missing will not come.
PATIENCE = 60.0


def main() -> None:
    """Pushes, kills, pushes, pulls."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--gateways", default="localhost:9000", help="host:port, separated by commas")
    parser.add_argument("--pushes", type=int, default=10_000)
    parser.add_argument("--kill", required=True, help="a command line")
    arguments = parser.parse_args()
    gateways, pushes = arguments.gateways.split(","), arguments.pushes
    with minikafka.connect(gateways) as queue:
        push(queue, range(pushes // 2))
        subprocess.run(shlex.split(arguments.kill), check=True, stdout=subprocess.DEVNULL)
        killed = time.monotonic()
        push(queue, range(pushes // 2, pushes // 2 + 1))
        stood_still = time.monotonic() - killed
        push(queue, range(pushes // 2 + 1, pushes))
    seen: set[int] = set()
    pulled = 0
    with minikafka.connect(gateways) as queue:
        while len(seen) < pushes:
            item = queue.pull(PATIENCE)
            if item is None or item[1] is None:
                missing = sorted(set(range(pushes)) - seen)
                sys.exit(f"fault tolerance: FAILED: {len(missing)} of {pushes} values are missing: {missing[:10]} …")
            seen.add(int(item[1]))
            pulled += 1
    print(
        f"fault tolerance: ok: {pushes} values pushed, one broker of three killed in the middle: every value is "
        f"pulled ({pulled - pushes} twice); the first push after the kill took {stood_still * 1000:.0f} ms"
    )


def push(queue: minikafka.Queue, numbers: range) -> None:
    """Pushes these by several threads; the first failure is raised."""
    failures: list[Exception] = []

    def push_some(first: int) -> None:
        try:
            for number in numbers[first::PUSHERS]:
                queue.push(b"key-%d" % (number % 64), b"%d" % number)
        except minikafka.MiniKafkaError as error:
            failures.append(error)

    threads = [threading.Thread(target=push_some, args=(first,)) for first in range(PUSHERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


if __name__ == "__main__":
    main()
