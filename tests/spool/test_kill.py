"""A real process is killed while it works on a file spool, again and again: nothing kept is lost, nothing invented."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from resilient_exporters.spool.filespool import FileSpool
from resilient_exporters.spool.interface import Fate, Spool
from resilient_exporters.spool.stream import StreamSpool
from tests.children import Child
from tests.counts import KILLS

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


def live(kind: str, path: str, serial: int, seed: int) -> None:
    """Append, settle and bury until killed; run in a process of its own."""
    rng = random.Random(seed)
    with opened(kind, path) as spool:
        while True:
            serial = work(spool, serial, rng)


def work(spool: Spool, serial: int, rng: random.Random) -> int:
    """Append, then settle or bury; the serial number of the next record."""
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
        return serial
    settled = [serial_of(payload) for payload in part.payloads]
    if rng.random() < 0.1:
        say("bury", lane, settled[0])
        spool.bury(lane, part, {0: "refused"}, 1)
    else:
        say("settle", lane, *settled)
        spool.settle(lane, part.places, Fate.DELIVERED)
    return serial


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
    for kill in range(KILLS // 2):
        rng = random.Random(kill)
        serial = max(told.begun, default=0) + 1
        with Child(live, kind, path, serial, kill) as child:
            for line in child.hear(rng.choice([1, 2, 5, 50, 300])) + child.kill():
                told.hear(line)
        with opened(kind, path) as spool:
            told.check(spool)
    assert len(told.kept) > KILLS // 2
