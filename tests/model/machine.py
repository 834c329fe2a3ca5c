"""The pool and the model beside it: what each lane was to get, and what became of it, checked after every step."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import resilient_exporters as rex
from resilient_exporters.spool.backed import BackedSpool
from resilient_exporters.status import LaneStatus, Orphan
from tests.model.world import KINDS, Diary, buried_in, clocks, content, disk, keywords, owed_in, spool_of

__all__ = ["Lane", "World"]


@dataclass
class Lane:
    """The model of one lane.

    Attributes:
        owed: Numbers of the records it owes, in the order in which they were sent.
        dormant: Those in a file that the pool, being in memory, has not looked at yet.
        loaded: Those that the pool loaded from its file, which has them, too, until they are settled.
        buried: Its dead letters, each as often as there are letters.
        ever: All that it ever was to get.
        twice: Those that may come again: what was settled, but perhaps not durably.
        seen: How many entries of the target's diary are accounted for.
        since: Entries of the diary before the last time that something might come again.
        mixed: Whether older records of a file have joined what it owed, of which a batch in doubt goes first.
        delivered: How many this pool delivered.
        dead: How many this pool buried.
        dropped: How many this pool dropped.
    """

    diary: Diary = field(default_factory=Diary)
    owed: list[int] = field(default_factory=list)
    dormant: list[int] = field(default_factory=list)
    loaded: set[int] = field(default_factory=set)
    buried: Counter[int] = field(default_factory=Counter)
    ever: set[int] = field(default_factory=set)
    twice: set[int] = field(default_factory=set)
    seen: int = 0
    since: int = 0
    mixed: bool = False
    delivered: int = 0
    dead: int = 0
    dropped: int = 0

    def accept(self, numbers: Iterable[int]) -> None:
        """It is to get these, behind what it owes."""
        numbers = list(numbers)
        self.owed += numbers
        self.ever.update(numbers)

    def on_file(self, *, memory: bool) -> list[int]:
        """What a new pool finds in the file."""
        if not memory:
            return list(self.owed)
        return self.dormant + [number for number in self.owed if number in self.loaded]


class World:
    """A real pool in tiny files, its targets, and the model.

    Args:
        overtaking: Whether things are done that let records overtake each other.
    """

    def __init__(self, *, overtaking: bool) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="model-"))
        self.folder = self.home / "0"
        self.folder.mkdir()
        self.overtaking = overtaking
        self.lanes = {name: Lane() for name in KINDS}
        self.number = 0
        self.expires: dict[int, float] = {}
        self.expired: set[int] = set()
        self.unsettled = False
        """Whether something was settled while the disk was full: that may not be written yet."""
        disk.full = False
        self.open(list(KINDS)[:1], memory=False)

    # The pool

    def open(self, names: Sequence[str], *, memory: bool) -> None:
        """Make a pool on the files that are there."""
        exporters = [KINDS[name](name, self.lanes[name].diary) for name in names]
        self.present = list(names)
        self.memory = memory
        self.manual = False
        self.pool = rex.ExporterPool(
            exporters, use_memory=memory, tmp_file=self.folder / "kept", name="world", limits=rex.Limits(free_floor=0)
        )

    def reopen(self, names: Sequence[str], *, memory: bool) -> None:
        """Make a pool anew after the last one ended; what was in memory only is gone."""
        for lane in self.lanes.values():
            lane.owed = lane.on_file(memory=self.memory)
            lane.dormant = []
            lane.loaded = set()
            lane.delivered = lane.dead = lane.dropped = 0
            lane.mixed, lane.since = False, lane.seen
            if self.unsettled:
                lane.twice = set(lane.ever)
            if memory:
                lane.dormant, lane.owed = lane.owed, []
        all_there = not (self.memory or memory or self.unsettled)
        self.unsettled = False
        self.open(names, memory=memory)
        for name, lane in self.lanes.items():
            buried = Counter(self.buried_now(name))
            assert not all_there or lane.buried == buried, "a dead letter is gone"
            self.exhume(lane, buried)
            lane.dead = sum(buried.values()) if name in names else 0  # those that lie there count from the beginning

    def join(self, name: str) -> None:
        """Add an exporter; dead letters of its name that lie there count from the beginning."""
        lane = self.lanes[name]
        lane.dead = len(self.buried_now(name))
        self.pool.add_exporter(KINDS[name](name, lane.diary))
        self.present.append(name)

    def exhume(self, lane: Lane, buried: Counter[int]) -> None:
        """The pool looks at a file with dead letters."""
        assert set(buried) <= lane.ever & lane.diary.never
        lane.buried = buried

    def copy_files(self) -> None:
        """What a kill leaves: the files as they are, in a new place where nobody holds them."""
        folder = self.home / str(int(self.folder.name) + 1)
        shutil.copytree(self.folder, folder)
        self.folder = folder

    def flip(self, rng: random.Random) -> None:
        """Flip a bit somewhere in the files."""
        files = [path for path in self.folder.iterdir() if path.stat().st_size and path.suffix != ".lock"]
        if files:
            path = rng.choice(sorted(files))
            data = bytearray(path.read_bytes())
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(bytes(data))

    def end(self) -> None:
        """Delete everything."""
        disk.full = False
        self.pool.close()
        shutil.rmtree(self.home)

    # Sending

    def numbers(self, count: int, ttl: float | None = None) -> list[int]:
        """Numbers of new records, all with the keyword arguments of the first."""
        while count > 1 and self.number % 3:
            self.number += 1
        numbers = list(range(self.number, self.number + min(count, 3)))
        self.number += len(numbers)
        if ttl is not None:
            self.expires.update(dict.fromkeys(numbers, clocks.time + ttl))
        return numbers

    def send(self, ttl: float | None = None) -> None:
        """Send a record to all, and hear what became of it."""
        (number,) = self.numbers(1, ttl)
        sender: Any = self.pool if ttl is None else self.pool.using(ttl=ttl)
        for name in self.present:
            self.lanes[name].accept([number])
        try:
            results = sender.send(content(number), **keywords(number))
        except rex.SpoolError:
            assert disk.full
            self.take_back([number])
            return
        assert self.present == [result.exporter for result in results]
        for name, result in zip(self.present, results, strict=True):
            if isinstance(result.error, rex.SpoolError):
                assert disk.full
                assert not result.kept
                self.lose(self.lanes[name], [number])

    def send_many(self, count: int) -> None:
        """Send a few records at once."""
        numbers = self.numbers(count)
        for name in self.present:
            self.lanes[name].accept(numbers)
        try:
            results = self.pool.send_many(map(content, numbers), **keywords(numbers[0]))
        except rex.SpoolError:
            assert disk.full
            self.take_back(numbers)
            return
        for name, result in zip(self.present, results, strict=True):
            if isinstance(result.error, rex.SpoolError):
                assert disk.full
                kept = set(self.owed_now(name))
                got = self.lanes[name].diary.got[self.lanes[name].seen :]
                assert sum(number in got for number in numbers) == result.returned
                dead = set(self.buried_now(name))
                self.lose(self.lanes[name], [n for n in numbers if n not in kept and n not in got and n not in dead])

    def save(self, names: list[str], name: str) -> None:
        """Keep a record by hand for some lanes, which together have that name."""
        (number,) = self.numbers(1)
        for each in names:
            self.lanes[each].accept([number])
        try:
            self.pool.save_unsent_data(content(number), keywords(number), name)
        except rex.SpoolError:
            assert disk.full
            self.take_back([number])

    def take_back(self, numbers: list[int]) -> None:
        """Nobody has these: the pool said that they can be sent again."""
        for lane in self.lanes.values():
            assert not set(numbers) & set(lane.diary.got)
            lane.owed = [number for number in lane.owed if number not in numbers]
            lane.ever.difference_update(numbers)

    def lose(self, lane: Lane, numbers: list[int]) -> None:
        """The pool said that these are lost for a lane."""
        lane.owed = [number for number in lane.owed if number not in numbers]
        lane.dropped += len(numbers)

    # What is there

    def owed_now(self, name: str) -> list[int]:
        """What the pool owes to a lane."""
        engine = self.pool._rex.engine()
        spools = [source.spool for source in engine.lanes[name].sources] if name in engine.lanes else [engine.spool]
        return [number for spool in spools for number in owed_in(spool, name)]

    def buried_now(self, name: str) -> list[int]:
        """The dead letters of a lane."""
        return buried_in(spool_of(self.pool), name)

    # Checking

    def turn(self, *, now: float, time: float) -> None:
        """Turn the clocks."""
        clocks.now += now
        clocks.time += time
        self.expired.update(number for number, at in self.expires.items() if at <= clocks.time)

    def check(self) -> None:
        """The pool and the model agree, lane by lane."""
        status = self.pool.status()
        told = {lane.name: lane for lane in status.exporters}
        orphans = {orphan.name: orphan for orphan in status.orphans}
        assert self.present == list(told)
        for name, lane in self.lanes.items():
            self.check_lane(name, lane, told.get(name), orphans.get(name))
        assert self.pool.has_unsent_data() == any(lane.owed for lane in self.lanes.values())

    def check_lane(self, name: str, lane: Lane, status: LaneStatus | None, orphan: Orphan | None) -> None:
        """Everything a lane was to get is delivered, owed, dead or dropped, once and in order."""
        owed = self.owed_now(name)
        settled = self.account(name, lane, owed)
        if disk.full and settled:
            self.unsettled = True
        lane.owed = owed
        assert owed == sorted(set(owed)), "owed in another order, or twice"
        if lane.mixed:
            lane.mixed, lane.since = bool(owed), lane.seen
        recent = lane.diary.got[lane.since :]
        without_room = lane.diary.never & {*owed, *recent}  # refused for good, but no room for a dead letter: they wait
        if not self.overtaking and not without_room:
            assert recent == sorted(set(recent)), "delivered in another order"
            assert not owed or not recent or recent[-1] < owed[0] or set(recent) & lane.twice, "overtaken"
        if status is None:
            assert len(owed) == (orphan.owed if orphan is not None else 0)
            lane.dropped = 0  # of a lane that nobody serves the log tells, and no status
            return
        assert orphan is None
        expected = (len(owed), lane.delivered, lane.dead, lane.dropped)
        assert expected == (status.owed, status.delivered, status.dead, status.dropped), name

    def account(self, name: str, lane: Lane, owed: list[int]) -> bool:
        """Find out what became of what was owed; whether anything did."""
        new = lane.diary.got[lane.seen :]
        buried = Counter(self.buried_now(name))
        dead = buried - lane.buried
        assert not lane.buried - buried, "a dead letter is gone"
        missing = Counter(lane.owed)
        again = Counter(owed) - missing
        assert not set(again) - lane.twice, f"{name} owes what it does not owe: {again}"
        missing += again
        missing.subtract(new)
        missing.subtract(dead)
        missing.subtract(owed)
        assert all(count >= 0 for count in missing.values()), f"{name} got twice, or invented: {missing}"
        gone = {number for number, count in missing.items() if count}
        assert not gone - self.expired, f"{name} lost {gone}"
        lane.seen += len(new)
        lane.buried = buried
        lane.delivered += len(new)
        lane.dead += dead.total()
        lane.dropped += len(gone)
        return bool(new or dead or gone)

    def adopt(self) -> None:
        """The pool goes on in the file: what is dormant there is before what it owes."""
        for name, lane in self.lanes.items():
            lane.mixed = lane.mixed or bool(lane.dormant)
            lane.owed = lane.dormant + lane.owed
            lane.dormant = []
            lane.loaded = set()
            buried = Counter(self.buried_now(name))
            assert not lane.buried - buried, "a dead letter is gone"
            if name in self.present:
                lane.dead += (buried - lane.buried).total()
            self.exhume(lane, buried)

    def load(self) -> None:
        """The pool has loaded what its file holds."""
        assert isinstance(spool_of(self.pool), BackedSpool)
        for lane in self.lanes.values():
            lane.loaded = set(lane.owed)
