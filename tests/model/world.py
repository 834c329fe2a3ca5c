"""The world of the model tests: targets that obey, a disk that can be full, and clocks turned by hand."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import pytest

import resilient_exporters as rex
from resilient_exporters import codec, spool
from resilient_exporters.delivery.clock import SystemClock
from resilient_exporters.spool.files import Files
from resilient_exporters.spool.interface import Payload, Spool

Mood = Literal["up", "down", "broken", "busy", "misconfigured"]
MOODS: list[Mood] = ["up", "up", "down", "broken", "busy", "misconfigured"]
"""How a target can be; `up` twice, so that something is delivered now and then."""

SEGMENT = 700
"""Bytes of a segment: a few records, so that sealing and deleting happen all the time."""


class Disk(Files):
    """A disk that can be full: files can be made, moved, shortened and deleted, but none gets longer.

    Attributes:
        full: Whether it is.
    """

    full = False

    def pwrite(self, handle: int, data: Any, offset: int) -> int:
        fits = os.fstat(handle).st_size - offset
        if self.full and fits < len(data):
            if fits <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            data = memoryview(data)[:fits]
        return os.pwrite(handle, data, offset)

    def allocate(self, handle: int, size: int) -> None:
        if self.full and size > self.size(handle):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().allocate(handle, size)

    def sync(self, handle: int) -> None:
        """Nothing: no power cuts here, and thousands of syncs would take most of the time."""

    def sync_dir(self, path: str) -> None:
        """Nothing, as `sync`."""


@dataclass
class Clocks:
    """Both clocks of delivery; seconds."""

    now: float = 1000.0
    time: float = 1.7e9


disk = Disk()
clocks = Clocks()


@contextmanager
def small_files() -> Iterator[None]:
    """File spools have tiny segments and live on `disk`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "FileSpool", partial(spool.FileSpool, segment_size=SEGMENT, files=disk))
        yield


@contextmanager
def turned_by_hand() -> Iterator[None]:
    """Delivery goes by `clocks`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SystemClock, "now", staticmethod(lambda: clocks.now))
        patch.setattr(SystemClock, "time", staticmethod(lambda: clocks.time))
        yield


def content(number: int) -> dict[str, Any]:
    """The data of a record: of many sizes, and of types that only the right codec brings back."""
    return {"n": number, "t": (number,), "pad": b"x" * (number * 37 % 211)}


def keywords(number: int) -> dict[str, Any]:
    """The keyword arguments that a record is sent with: runs of three have the same."""
    return [{}, {"table": "a"}, {"table": "b"}][number // 3 % 3]


@dataclass
class Diary:
    """What a target has seen, over all lives of its pool, and how it is to behave.

    Attributes:
        mood: How it is.
        got: Numbers of the records that it took.
        never: Numbers that it refuses for good.
        later: Numbers that it does not take now.
    """

    mood: Mood = "up"
    got: list[int] = field(default_factory=list)
    never: set[int] = field(default_factory=set)
    later: set[int] = field(default_factory=set)

    def answer(self) -> None:
        """Fail as a target in this mood does."""
        match self.mood:
            case "down":
                raise rex.TargetDown("down on command")
            case "busy":
                raise rex.TargetDown("busy", retry_after=5.0)
            case "broken":
                raise RuntimeError("broken on command")
            case "misconfigured":
                raise rex.TargetMisconfigured("misconfigured on command")

    def take(self, data: Any, kwargs: dict[str, Any]) -> None:
        """Note a record, which must be as it was sent."""
        number = data["n"]
        assert content(number) == data
        assert keywords(number) == kwargs
        self.got.append(number)


class Single(rex.Exporter):
    """Takes one record at a time."""

    def __init__(self, name: str, diary: Diary) -> None:
        super().__init__(name=name)
        self.diary = diary

    def send(self, data: Any, **kwargs: Any) -> rex.ExportResult:
        """Take it, or fail as told."""
        if self.diary.mood == "down" or data["n"] in self.diary.later:
            return rex.ExportResult(None, False)
        self.diary.answer()
        self.diary.take(data, kwargs)
        return rex.ExportResult(data["n"], True)


class Batches(rex.Exporter):
    """Takes a few records at a time and refuses single ones."""

    batch_records = 4

    def __init__(self, name: str, diary: Diary) -> None:
        super().__init__(name=name)
        self.diary = diary

    def export(self, batch: rex.Batch, /, **kwargs: Any) -> None:
        """Take what is not refused, or fail as told."""
        diary = self.diary
        diary.answer()
        numbers = [record.data["n"] for record in batch]
        never = {i: "never" for i, number in enumerate(numbers) if number in diary.never}
        later = {i: "later" for i, number in enumerate(numbers) if number in diary.later and i not in never}
        for i, record in enumerate(batch):
            if i not in never and i not in later:
                diary.take(record.data, kwargs)
        if never or later:
            raise rex.RecordsRefused(permanent=never, later=later)


class Stable(Batches):
    """Wants a batch in doubt again as it was."""

    stable_batches = True


KINDS: dict[str, type[Single | Batches]] = {"single": Single, "batch": Batches, "stable": Stable}


def number_of(payload: Payload) -> int:
    """The number of a kept record, which must be as it was sent."""
    assert isinstance(payload, bytes)
    data = codec.decode(payload)
    assert content(data["n"]) == data
    return int(data["n"])


def owed_in(spool: Spool, lane: str) -> list[int]:
    """Numbers of the records that a spool owes to a lane, in order."""
    numbers: list[int] = []
    part = spool.read(lane, 0, 5, 1 << 20)
    while part is not None:
        numbers += map(number_of, part.payloads)
        part = spool.read(lane, part.places[-1], 5, 1 << 20)
    return numbers


def buried_in(spool: Spool, lane: str) -> list[int]:
    """Numbers of the dead letters of a lane."""
    return [number_of(letter.payload) for letter in spool.dead_letters() if letter.lane == lane]


def spool_of(pool: rex.ExporterPool) -> Spool:
    """Where a pool keeps its records now."""
    return pool._rex.engine().spool
