"""The interop matrix: records of every kind, written by each language under each codec, read by each language.

A record is known by its timestamp, which is different for each. What is read must be what was written, in key, value,
headers and timestamp; each record once; offsets without gaps; the records of a key in its partition, in order.
"""

from __future__ import annotations

import json
import random
import subprocess
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from zlib import crc32

CODECS: Final = ("none", "lz4", "zstd")
PARTITIONS: Final = 4
#: One program, one topic, may take so long; then it hangs.
DEADLINE: Final = 120.0
_FIRST_TIMESTAMP: Final = 1_790_000_000_000
_MIB: Final = 1 << 20

Line = dict[str, Any]


class Language(NamedTuple):
    """A language, and how its peer is started."""

    name: str
    peer: list[str]


def records(count: int, seed: int) -> list[Line]:
    """Records of every kind: with and without key, value and headers, empty ones, two of a mebibyte."""
    chance = random.Random(seed)
    made = [_record(number, chance) for number in range(count)]
    made[count // 3]["value"] = chance.randbytes(_MIB).hex()
    made[2 * count // 3]["value"] = (b"all the same " * _MIB)[:_MIB].hex()
    return made


def _record(number: int, chance: random.Random) -> Line:
    keys: list[bytes | None] = [*[b"key-%d" % (number % 8)] * 8, None, b""]
    values: list[bytes | None] = [*[b"%d:" % number + chance.randbytes(chance.randrange(200))] * 10, None, b""]
    headers: list[list[tuple[str, bytes]]] = [
        [],
        [("trace", chance.randbytes(16))],
        [("twice", b"1"), ("twice", b"2"), ("grüße, 世界", b"")],
        [("", b"\0\xff")],
    ]
    key, value = keys[number % len(keys)], values[number % len(values)]
    return {
        "timestamp": _FIRST_TIMESTAMP + number,
        "key": key.hex() if key is not None else None,
        "value": value.hex() if value is not None else None,
        "headers": [[name, data.hex()] for name, data in headers[number % len(headers)]],
    }


def faults(sent: list[Line], got: list[Line]) -> list[str]:
    """What is wrong with what was read."""
    found = []
    by_timestamp = {line["timestamp"]: line for line in sent}
    offsets: dict[int, list[int]] = defaultdict(list)
    of_key: dict[str, list[int]] = defaultdict(list)
    for line in got:
        expected = by_timestamp.pop(line["timestamp"], None)
        if expected is None:
            found.append(f"{brief(line)} was not written, or is there twice")
            continue
        if any(line[name] != expected[name] for name in ("key", "value", "headers")):
            found.append(f"{brief(line)} was written as {brief(expected)}")
        offsets[line["partition"]].append(line["offset"])
        if line["key"] is not None:
            of_key[line["key"]].append(line["timestamp"])
            if line["partition"] != crc32(bytes.fromhex(line["key"])) % PARTITIONS:
                found.append(f"{brief(line)} lies in the wrong partition")
    found += [f"{brief(line)} is missing" for line in by_timestamp.values()]
    found += [f"partition {at} has offsets {them}" for at, them in offsets.items() if them != list(range(len(them)))]
    found += [f"key {key} is out of order" for key, them in of_key.items() if them != sorted(them)]
    return found


def brief(line: Line) -> str:
    """A record in a message."""
    text = json.dumps(line)
    return text if len(text) <= 200 else f"{text[:200]}…"


@dataclass
class Producing:
    """A peer that writes a topic."""

    topic: str
    sent: list[Line]
    process: subprocess.Popen[str]

    def write(self, lines: list[Line]) -> None:
        """Sends these; they may still be on their way."""
        assert self.process.stdin is not None
        for line in lines:
            self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()

    def flush(self) -> None:
        """Waits until all is stored."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("flush\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "flushed\n", f"{self.topic}: the producer has failed"

    def end(self) -> None:
        """Waits until all is stored and it has ended."""
        self.process.communicate(timeout=DEADLINE)
        assert self.process.returncode == 0, f"{self.topic}: the producer ended with {self.process.returncode}"


@dataclass
class Consuming:
    """A peer that reads a topic."""

    topic: str
    reader: str
    process: subprocess.Popen[str]
    lines: list[Line] = field(default_factory=list)

    def __post_init__(self) -> None:
        # What it prints is taken from it at once, so that it never waits.
        self._taking = threading.Thread(target=self._take, daemon=True)
        self._taking.start()

    def _take(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            # The last one of a process that was killed may be cut.
            if line.endswith("\n"):
                self.lines.append(json.loads(line))

    def end(self) -> list[Line]:
        """What it has read, in the end."""
        self.process.wait(DEADLINE)
        self._taking.join()
        return self.lines


class Matrix:
    """Every language writes under every codec, every language reads all of it."""

    def __init__(self, languages: list[Language], gateways: str, environment: dict[str, str], count: int) -> None:
        self._languages = languages
        self._gateways = gateways
        self._environment = environment
        self._count = count
        self._running: list[subprocess.Popen[str]] = []
        #: By writer, codec and reader: what was found, ``ok`` or how many faults.
        self._results: dict[tuple[str, str, str], str] = {}

    def run(self, *, create: list[str], kill: list[str]) -> list[str]:
        """Runs it; ``kill`` is what happens when half of everything is written. What is wrong."""
        try:
            return self._run(create, kill)
        finally:
            for process in self._running:
                process.kill()
                process.wait()

    def _run(self, create: list[str], kill: list[str]) -> list[str]:
        producing = {}
        for seed, (writer, codec) in enumerate((writer, codec) for writer in self._languages for codec in CODECS):
            topic = f"{writer.name}-{codec}"
            subprocess.run([*create, topic], stdout=subprocess.DEVNULL, check=True)
            process = self._start([*writer.peer, "produce", self._gateways, topic, codec], stdin=subprocess.PIPE)
            producing[writer.name, codec] = Producing(topic, records(self._count, seed), process)
        half = self._count // 2
        for each in producing.values():
            each.write(each.sent[:half])
        for each in producing.values():
            each.flush()
        # Some read from now on, also while a broker dies: each language from each.
        reading = {
            key: self._consume(each.topic, self._reader_of(number))
            for number, (key, each) in enumerate(producing.items())
        }
        if kill:
            subprocess.run(kill, stdout=subprocess.DEVNULL, check=True, env=self._environment)
        for each in producing.values():
            each.write(each.sent[half:])
        for each in producing.values():
            each.end()
        found = []
        for (writer_name, codec), each in producing.items():
            first = reading[writer_name, codec]
            readers = [first] + [
                self._consume(each.topic, other) for other in self._languages if other.name != first.reader
            ]
            for reader in readers:
                wrong = faults(each.sent, reader.end())
                self._results[writer_name, codec, reader.reader] = "ok" if not wrong else f"{len(wrong)} faults"
                found += [f"{writer_name}, {codec}, read by {reader.reader}: {fault}" for fault in wrong]
        return found

    def _reader_of(self, number: int) -> Language:
        # Codecs follow each other, so each language reads from each.
        return self._languages[(number + number // len(CODECS)) % len(self._languages)]

    def _consume(self, topic: str, reader: Language) -> Consuming:
        process = self._start([*reader.peer, "consume", self._gateways, topic, str(self._count)], stdin=None)
        return Consuming(topic, reader.name, process)

    def _start(self, command: list[str], *, stdin: int | None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command, stdin=stdin or subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=self._environment
        )
        self._running.append(process)
        return process

    def table(self, where: str) -> str:
        """Who reads whom."""
        readers = [language.name for language in self._languages]
        lines = [
            f"interop, {where}: {self._count} records of every kind in each topic",
            f"{'written by':16}read by " + "".join(f"{name:>10}" for name in readers),
        ]
        for writer, codec in dict.fromkeys((writer, codec) for writer, codec, _ in self._results):
            row = "".join(f"{self._results[writer, codec, reader]:>10}" for reader in readers)
            lines.append(f"{writer + ', ' + codec:24}{row}")
        return "\n".join(lines)
