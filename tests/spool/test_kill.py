"""A real process is killed while it works on a file spool, again and again: nothing kept is lost, nothing invented."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from resilient_exporters.spool.filespool import FileSpool
from resilient_exporters.spool.interface import Fate, Spool
from resilient_exporters.spool.stream import StreamSpool

KILLS = int(os.environ.get("CI_KILLS", "20"))
LANES = ("a", "b")


@contextmanager
def opened(kind: str, path: str) -> Iterator[Spool]:
    """A spool of files, or of a file object that a user opened."""
    if kind == "file":
        with closing(FileSpool(path, segment_size=3000)) as spool:
            yield spool
        return
    with open(path, "r+b" if os.path.exists(path) else "w+b") as file, closing(StreamSpool(file)) as stream:
        yield stream


def say(*words: object) -> None:
    """Tell the parent, at once, what is about to happen or has happened."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def work(spool: Spool, serial: int, rng: random.Random) -> None:
    """Append, settle and bury for ever; run in a process of its own, until it is killed."""
    while True:
        count = rng.choice([1, 1, 1, 5])
        numbers = range(serial, serial + count)
        serial += count
        say("begin", *numbers)
        payloads = [b"%d:" % number + bytes(number % 300) for number in numbers]
        spool.append(payloads, frozenset(LANES), time=1.0, sync=rng.random() < 0.05)
        say("kept", *numbers)
        lane = rng.choice(LANES)
        part = spool.read(lane, 0, rng.randint(1, 12), 1 << 20)
        if part is None or rng.random() < 0.3:
            continue
        settled = [serial_of(payload) for payload in part.payloads]
        if rng.random() < 0.1:
            say("bury", lane, settled[0])
            spool.bury(lane, part, {0: "refused"}, 1)
        else:
            say("settle", lane, *settled)
            spool.settle(lane, part.places, Fate.DELIVERED)


def serial_of(payload: object) -> int:
    assert isinstance(payload, bytes)
    serial, _, rest = payload.partition(b":")
    assert rest == bytes(int(serial) % 300), "altered"
    return int(serial)


@dataclass
class Told:
    """What the children said."""

    begun: set[int] = field(default_factory=set)
    kept: set[int] = field(default_factory=set)
    settling: set[tuple[str, int]] = field(default_factory=set)
    burying: set[tuple[str, int]] = field(default_factory=set)

    def hear(self, line: str) -> None:
        what, *words = line.split()
        match what:
            case "begin":
                self.begun.update(map(int, words))
            case "kept":
                self.kept.update(map(int, words))
            case "settle":
                self.settling.update((words[0], int(word)) for word in words[1:])
            case "bury":
                self.burying.update((words[0], int(word)) for word in words[1:])

    def check(self, spool: Spool) -> None:
        letters = {(letter.lane, serial_of(letter.payload)) for letter in spool.dead_letters()}
        assert letters <= self.burying
        for lane in LANES:
            found: list[int] = []
            after = 0
            while part := spool.read(lane, after, 100, 1 << 20):
                after = part.places[-1]
                found += map(serial_of, part.payloads)
            assert found == sorted(set(found)), "in order, and each once"
            assert len(found) == spool.account(lane).records
            assert set(found) <= self.begun, "invented"
            gone = {serial for name, serial in self.settling | letters if name == lane}
            assert self.kept - set(found) - gone == set(), "lost"


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("kind", ["file", "stream"])
def test_killed_again_and_again(kind: str, tmp_path: Path) -> None:
    """Killed at any moment, opened again, killed again: what was kept is there until it was settled."""
    told, path = Told(), str(tmp_path / "spool")
    for kill in range(KILLS):
        rng = random.Random(kill)
        serial = max(told.begun, default=0) + 1
        command = [sys.executable, __file__, kind, path, str(serial), str(kill)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            for _ in range(rng.choice([1, 2, 5, 50, 300])):
                told.hear(child.stdout.readline().decode())
            child.kill()
            for line in child.stdout:
                told.hear(line.decode())
        assert child.returncode < 0, "it ended by itself"
        with opened(kind, path) as spool:
            told.check(spool)
    assert len(told.kept) > KILLS


if __name__ == "__main__":
    with opened(sys.argv[1], sys.argv[2]) as spool:
        work(spool, int(sys.argv[3]), random.Random(sys.argv[4]))
