"""Measures records per second of this client on one core, the broker on another; and of Kafka's, in the same run.

From ``clients/python``::

    python -m benchmarks.throughput                                # a broker of its own, from target/release
    python -m benchmarks.throughput --gateway localhost:9000       # one that runs
    python -m benchmarks.throughput --kafka localhost:9092         # and Kafka's clients beside it

Every record is acknowledged: on stable storage before its run ends. Beside the wall clock stand the records per second
of this process's own processor time, which tells what it would be on a core of its own where the machine is shared.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import statistics
import sys
from collections.abc import Iterator
from typing import Callable

from tests.broker import Broker, binary

from minikafka import Client, __version__

from .kafka_drivers import DRIVERS
from .workloads import WORKLOADS, Load, Measured, latencies


def main() -> None:
    """Runs what was asked for and prints a table."""
    arguments = _arguments()
    load = Load.of(arguments.records, arguments.value_bytes, arguments.partitions)
    print(f"minikafka {__version__}, Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores")
    of_what = f"{load.records:,} records of {arguments.value_bytes} bytes, {load.partitions} partitions"
    print(f"{of_what}, {arguments.runs} runs; load of the machine at the start: {os.getloadavg()[0]:.1f}")
    print(f"{'':26}{'median':>14} {'lowest':>14} {'highest':>14}   {'by own CPU time':>16}   records/s")
    with contextlib.ExitStack() as stack:
        gateway = arguments.gateway or stack.enter_context(_broker(arguments.broker_core)).gateway
        _pin(arguments.client_core)
        client = stack.enter_context(Client(gateway))
        for name in arguments.only or WORKLOADS:
            workload = WORKLOADS[name]
            _report(name, [workload(client, load) for _ in range(arguments.runs)])
        if not arguments.only:
            median, last = latencies(client, load, 2000)
            print(f"{'one record at a time':26}{median:11.0f} µs {last:11.0f} µs   median, 99th percentile")
    if arguments.kafka:
        _run_kafka(arguments.kafka, load, arguments.runs)


def _run_kafka(address: str, load: Load, runs: int) -> None:
    for name, driver in DRIVERS.items():
        try:
            _report(name, [driver(address, load) for _ in range(runs)])
        except ImportError as error:
            print(f"{name:26}{'not installed':>14}: {error}")


def _report(name: str, runs: list[Measured]) -> None:
    rates = sorted(run.records / run.seconds for run in runs)
    by_cpu = statistics.median(run.records / run.cpu_seconds for run in runs)
    print(
        f"{name:26}{statistics.median(rates):14,.0f} {rates[0]:14,.0f} {rates[-1]:14,.0f}   {by_cpu:16,.0f}", flush=True
    )


@contextlib.contextmanager
def _broker(core: int) -> Iterator[Broker]:
    if binary() is None:
        sys.exit("no broker: cargo build --release -p minikafka, or name one by --gateway")
    # What is started now stays on this core.
    _pin(core)
    # It keeps what is read here in memory: read back from its disk, it would be the broker that is measured.
    with Broker("--memory-per-shard", "1G") as broker:
        yield broker


def _pin(core: int) -> None:
    pin: Callable[[int, set[int]], None] | None = getattr(os, "sched_setaffinity", None)
    if core >= 0 and pin is not None:
        pin(0, {core})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--gateway", help="host:port of a broker that runs; without it, one is started")
    parser.add_argument("--records", type=int, default=2_000_000, help="of each run (default: 2,000,000)")
    parser.add_argument("--value-bytes", type=int, default=100, help="default: 100")
    parser.add_argument("--partitions", type=int, default=8, help="default: 8")
    parser.add_argument("--runs", type=int, default=5, help="of each workload (default: 5)")
    parser.add_argument("--only", nargs="*", choices=WORKLOADS, help="workloads; default: all")
    parser.add_argument("--client-core", type=int, default=0, help="-1: any (default: 0)")
    parser.add_argument("--broker-core", type=int, default=1, help="of the broker that is started (default: 1)")
    parser.add_argument("--kafka", help="host:port of a Kafka, to run its clients in the same run")
    return parser.parse_args()


if __name__ == "__main__":
    main()
