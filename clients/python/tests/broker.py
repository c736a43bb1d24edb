"""A real broker: ``minikafka dev`` as a process of its own, which can be killed and started again."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

REPOSITORY = Path(__file__).parents[3]

_READY_WITHIN = 30.0
#: Little memory and little disk, for a machine that is shared.
_SMALL = ("--memory-per-shard", "64M", "--segment-bytes-max", "8M", "--recycled-bytes-max", "64M")


def binary() -> Path | None:
    """The broker's binary: as the environment says, or as it was built."""
    named = os.environ.get("MINIKAFKA_BINARY")
    built = [REPOSITORY / "target" / kind / "minikafka" for kind in ("release", "debug")]
    candidates = [Path(named)] if named else built
    return next((path for path in candidates if path.is_file()), None)


class Broker:
    """``minikafka dev`` on free ports, with data on a disk: a temporary directory may be memory."""

    def __init__(self, *arguments: str) -> None:
        found = binary()
        assert found is not None, "build it first: cargo build -p minikafka"
        self._binary = found
        self._arguments = arguments
        target = REPOSITORY / "target"
        target.mkdir(exist_ok=True)
        self._directory = Path(tempfile.mkdtemp(prefix="python-client-", dir=target))
        self._log = (self._directory / "log").open("w+b")
        self._process: subprocess.Popen[bytes] | None = None
        self.gateway = "127.0.0.1:0"
        self._port_base = "0"

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        self._log.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts it, at the addresses that it had before if it was there before, and waits until it is ready."""
        seen = self._log.seek(0, os.SEEK_END)
        self._process = subprocess.Popen(
            [
                str(self._binary),
                "dev",
                *("--data-dir", str(self._directory / "data")),
                *("--cores", "1", "--port-base", self._port_base),
                *("--gateway-listen", self.gateway, "--http", "127.0.0.1:0"),
                *(self._arguments or _SMALL),
            ],
            stdout=self._log,
            stderr=self._log,
        )
        deadline = time.monotonic() + _READY_WITHIN
        while True:
            self._log.seek(seen)
            said = self._log.read().decode(errors="replace")
            ready = re.search(r"gateway +(\S+:\d+).*?shards +\S+:(\d+)", said, re.DOTALL)
            if ready:
                self.gateway, self._port_base = ready.group(1), ready.group(2)
                return
            assert self._process.poll() is None and time.monotonic() < deadline, f"the broker did not start: {said}"
            time.sleep(0.01)

    def kill(self) -> None:
        """Kills it, as a power cut would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
