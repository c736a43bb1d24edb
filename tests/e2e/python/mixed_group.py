"""Members of one group in several languages: they share a topic, some die without a word, and whoever comes later goes
on where the group was."""

from __future__ import annotations

import subprocess
import time

from matrix import Consuming, Language, Line, Producing, brief, records

#: Members in each language; one of them dies.
MEMBERS = 2
#: Nothing new for so long: what is missing will not come.
PATIENCE = 60.0
_LOOK = 0.01

GROUP = "mixed"
TOPIC = "shared"


class MixedGroup:
    """See the module's description."""

    def __init__(self, languages: list[Language], gateways: str, environment: dict[str, str], count: int) -> None:
        self._languages = languages
        self._gateways = gateways
        self._environment = environment
        self._sent = records(count, seed=99)
        self._processes: list[subprocess.Popen[str]] = []

    def run(self, *, create: list[str]) -> list[str]:
        """Runs it. What is wrong."""
        try:
            return self._run(create)
        finally:
            for process in self._processes:
                process.kill()
                process.wait()

    def _run(self, create: list[str]) -> list[str]:
        subprocess.run([*create, TOPIC], stdout=subprocess.DEVNULL, check=True)
        writer = Producing(TOPIC, self._sent, self._start(self._languages[0], "produce", "none"))
        members = [self._join(language) for language in self._languages for _ in range(MEMBERS)]
        half = len(self._sent) // 2
        writer.write(self._sent[:half])
        writer.flush()
        faults = _missing(members, self._sent[:half])
        for dying in members[::MEMBERS]:
            dying.process.kill()
        writer.write(self._sent[half:-1])
        writer.flush()
        survivors = [member for at, member in enumerate(members) if at % MEMBERS]
        faults += _missing(members, self._sent[:-1])
        for member in survivors:
            faults += _leave(member)
        for language in self._languages:
            faults += self._goes_on(language, writer, is_last=language == self._languages[-1])
        return faults

    def _goes_on(self, language: Language, writer: Producing, *, is_last: bool) -> list[str]:
        """A member that comes when all others are gone reads what is new, and nothing else."""
        newest = self._sent[-1]
        later = self._join(language)
        writer.write([newest])
        if is_last:
            writer.end()
        else:
            writer.flush()
        faults = _missing([later], [newest]) + _leave(later)
        others = [line for line in later.lines if line["timestamp"] != newest["timestamp"]]
        return faults + [f"{later.reader} begins with {brief(line)}, which was committed" for line in others[:3]]

    def _join(self, language: Language) -> Consuming:
        return Consuming(TOPIC, language.name, self._start(language, "group", GROUP))

    def _start(self, language: Language, command: str, last: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*language.peer, command, self._gateways, TOPIC, last],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment,
        )
        self._processes.append(process)
        return process


def _missing(members: list[Consuming], expected: list[Line]) -> list[str]:
    """Waits until these have come to somebody; what has not."""
    wanted = {line["timestamp"]: line for line in expected}
    count, since = 0, time.monotonic()
    while True:
        seen = {line["timestamp"] for member in members for line in list(member.lines)}
        if wanted.keys() <= seen:
            return []
        if len(seen) > count:
            count, since = len(seen), time.monotonic()
        if time.monotonic() > since + PATIENCE:
            return [f"{brief(line)} came to nobody" for at, line in wanted.items() if at not in seen][:5]
        time.sleep(_LOOK)


def _leave(member: Consuming) -> list[str]:
    assert member.process.stdin is not None
    member.process.stdin.close()
    member.end()
    return (
        []
        if member.process.returncode == 0
        else [f"a member in {member.reader} ended with {member.process.returncode}"]
    )
