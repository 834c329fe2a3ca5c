"""Where the last microsecond goes, of a `send` and of a delivery: what parts cost as bare loops, and what is left."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from struct import Struct
from typing import Any
from zlib import crc32

import resilient_exporters as rex
from bench.pools import Gate, background, each, flushed, many
from bench.subject import CPU, CRASH, LINES, MEMORY, Figures, Scale, measurement, stream, timed
from resilient_exporters import codec
from resilient_exporters.delivery.lane import Lane
from resilient_exporters.delivery.sharing import Shared
from resilient_exporters.spool.filespool import FileSpool
from resilient_exporters.spool.interface import Fate, Slice, Spool
from resilient_exporters.spool.memory import MemorySpool

__all__ = ["PROFILES", "WHOLE"]

_TURNS = 5
"""Each loop is run so often, and the quickest counts: what disturbs only makes it slower."""
_BATCH = 1000
_LANE = frozenset(["lane"])
_SECTION = "Where the last microsecond goes"

WHOLE = "all"
"""Name of the sum of all parts."""

_SEND = {
    "loop": "going from record to record and calling a function of Python",
    "encode": "`codec.encode`: the private snapshot, with every type kept",
    "head and checksum": "packing the head of a frame, the checksum of head and payload, joining them; by itself",
    "write": "`os.pwrite` of such frames, one behind the other; by itself",
    "account": "the rest of the spool's part: whose turn it is, place and number, which segment, who is owed what",
    "pool": "the rest: is anything to be thought about, what time is it, is a worker asleep",
}
_MEMORY = {
    "loop": _SEND["loop"],
    "encode": _SEND["encode"],
    "account": "`MemorySpool.append_one` by itself: place and number, the row of what is kept",
    "pool": _SEND["pool"],
}
_DRAIN = {
    "read and settle": "`FileSpool.read` and `settle` of batches of 1000, in a loop by themselves",
    "decode": "`codec.decode_all` of the same batches",
    "lane": "the rest: the batch, the attempt, what came of it, whose turn it is, room for 1000 records at once",
}
_FILES = {
    "send": "`send` or `send_many`, in the thread that sends",
    "read": "`FileSpool.read`, for each file",
    "decode and render": "`Shared.rendered`: `codec.decode_all`, and JSON or text as lines; once for all files",
    "write file": "the rest of `FileExporter.export`, for each file",
    "settle": "`FileSpool.settle`, for each file",
    "lane": "the rest of `Lane.step`: the batch, the attempt, what came of it, for each file",
    "turns": "the rest: whose turn it is, sleeping, being woken",
}

PROFILES = {
    "profile.send": (
        'One `send` in the background with safety "process" while the target is down, per record.',
        _SEND,
    ),
    "profile.memory send": ("One `send` in the background into memory, per record.", _MEMORY),
    "profile.drain": ("Draining a backlog to an exporter that reads each record, per record.", _DRAIN),
    "profile.files 1": ("`send` of each record, and all of them into a local file meanwhile, per record.", _FILES),
    "profile.files 4": ("The same into 4 local files.", _FILES),
    "profile.lines in bulk 1": ("Ready-made lines of 200 bytes, `send_many` of 1000, into a local file.", _FILES),
    "profile.lines in bulk 4": ("The same into 4 local files.", _FILES),
}
"""Measurement -> what it takes apart, and its parts with what they are."""


def _quickest(items: Sequence[Any], do: Callable[[Any], object]) -> float:
    """Microseconds of the processor for doing something with each item, going round included."""
    took = []
    for _ in range(_TURNS):
        began = time.process_time()
        for item in items:
            do(item)
        took.append(time.process_time() - began)
    return min(took) / len(items) * 1e6


def _framing() -> Callable[[bytes], bytes]:
    """Makes the frame of a payload."""
    head, checksum, join = Struct("<IHHId").pack, Struct("<I").pack, b"".join

    def frame(payload: bytes) -> bytes:
        begin = head(len(payload), 1, 2, 3, 4.0)
        return join((checksum(crc32(payload, crc32(begin))), begin, payload))

    return frame


def _writing(path: Path) -> Callable[[bytes], object]:
    """Writes a frame behind the one before."""
    fd, end = os.open(path, os.O_WRONLY | os.O_CREAT), 0
    pwrite = os.pwrite

    def write(frame: bytes) -> None:
        nonlocal end
        end += pwrite(fd, frame, end)

    return write


def _keeping(spool: Spool) -> Callable[[bytes], object]:
    """Appends a payload to a spool."""
    append_one, lanes = spool.append_one, frozenset(["gate"])

    def keep(payload: bytes) -> None:
        if not append_one(payload, lanes, 0.0):
            spool.append([payload], lanes, time=0.0)

    return keep


def _nothing(item: object) -> None: ...


@measurement("profile.send", _SECTION, CRASH)
def send(scale: Scale, folder: Path) -> Figures:
    """The parts of a `send` in the background with safety "process" while the target is down."""
    records = list(stream(scale.records // _TURNS))
    payloads = [codec.encode(data) for data in records]
    frame = _framing()
    frames = [frame(payload) for payload in payloads]
    # Each loop but those of C functions calls a function of Python, which costs what `_nothing` does.
    loop = _quickest(records, _nothing)
    encode = _quickest(records, codec.encode) - loop
    framed = _quickest(payloads, frame) - loop
    written = _quickest(frames, _writing(folder / "frames")) - loop
    kept = _quickest(payloads, _keeping(FileSpool(folder / "alone"))) - loop
    pool = background([Gate()], folder)
    whole = _quickest(records, pool.send)
    pool.close(0.0)
    return {
        "loop": loop,
        "encode": encode,
        "head and checksum": framed,
        "write": written,
        "account": kept - framed - written,
        "pool": whole - loop - encode - kept,
        WHOLE: whole,
    }


@measurement("profile.memory send", _SECTION, MEMORY)
def memory_send(scale: Scale, folder: Path) -> Figures:
    """The parts of a `send` in the background into memory."""
    records = list(stream(scale.records // _TURNS))
    payloads = [codec.encode(data) for data in records]
    loop = _quickest(records, _nothing)
    encode = _quickest(records, codec.encode) - loop
    kept = _quickest(payloads, _keeping(MemorySpool())) - loop
    pool = background([Gate()], folder, use_memory=True)
    whole = _quickest(records, pool.send)
    pool.close(0.0)
    return {"loop": loop, "encode": encode, "account": kept, "pool": whole - loop - encode - kept, WHOLE: whole}


def _slices(path: Path, batches: int) -> Iterator[Slice]:
    """Batches that a spool hands out, each settled before the next is read."""
    spool = FileSpool(path)
    payloads = [codec.encode(data) for data in stream(_BATCH)]
    for _ in range(batches):
        spool.append(payloads, _LANE, time=0.0)
    after = 0
    while (kept := spool.read("lane", after, _BATCH, 1 << 20)) is not None:
        yield kept
        after = kept.places[-1]
        spool.settle("lane", kept.places, Fate.DELIVERED)
    spool.close()


def _reading(folder: Path, batches: int) -> float:
    """Microseconds of the processor for reading and settling a record."""
    took = []
    for turn in range(_TURNS):
        slices = _slices(folder / f"alone {turn}", batches)
        next(slices)  # appending comes before the first
        began = time.process_time()
        count = sum(len(kept) for kept in slices)
        took.append((time.process_time() - began) / count)
    return min(took) * 1e6


@measurement("profile.drain", _SECTION, CRASH)
def drain(scale: Scale, folder: Path) -> Figures:
    """The parts of draining a backlog to an exporter that reads each record."""
    batches = scale.backlog // _BATCH
    read = _reading(folder, batches)
    payloads = [codec.encode(data) for data in stream(_BATCH)]
    decoded = _quickest([payloads] * 100, codec.decode_all) / _BATCH
    gate = Gate(reads=True)
    pool = background([gate], folder)
    many(pool, batches)
    gate.up = True
    whole = timed(batches * _BATCH, lambda: flushed(pool))[CPU]
    pool.close(0.0)
    return {"read and settle": read, "decode": decoded, "lane": whole - read - decoded, WHOLE: whole}


class _Clocks:
    """Takes the time of methods while they do their work, each on the clock of the thread that calls it."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._undo: list[Callable[[], None]] = []

    def take(self, kind: type, name: str) -> None:
        """Take the time of a method from now on."""
        method = getattr(kind, name)

        def timed_method(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds[f"{kind.__name__}.{name}"] += time.thread_time() - began

        setattr(kind, name, timed_method)
        self._undo.append(lambda: setattr(kind, name, method))

    def stop(self) -> None:
        """Leave the methods as they were."""
        for undo in self._undo:
            undo()


_PARTS = ((FileSpool, "read"), (FileSpool, "settle"), (rex.FileExporter, "export"))
_METHODS = ((Lane, "step"), (Shared, "rendered"), *_PARTS)


def _into_files(count: int, folder: Path, sinks: int, feed: Callable[[rex.ExporterPool], object]) -> Figures:
    """The parts of bringing so many records into files."""
    clocks = _Clocks()
    for kind, name in _METHODS:
        clocks.take(kind, name)
    pool = background([rex.FileExporter(folder / f"sink-{number}") for number in range(sinks)], folder)

    def loop() -> None:
        began = time.thread_time()
        feed(pool)
        clocks.seconds["send"] += time.thread_time() - began
        flushed(pool)

    whole = timed(count, loop)[CPU]
    pool.close(0.0)
    clocks.stop()
    took = {name: seconds / count * 1e6 for name, seconds in clocks.seconds.items()}
    parts = {
        "send": took["send"],
        "read": took["FileSpool.read"],
        "decode and render": took["Shared.rendered"],
        "write file": took["FileExporter.export"] - took["Shared.rendered"],
        "settle": took["FileSpool.settle"],
        "lane": took["Lane.step"] - sum(took[f"{kind.__name__}.{name}"] for kind, name in _PARTS),
    }
    return {**parts, "turns": whole - sum(parts.values()), WHOLE: whole}


for _sinks in (1, 4):

    @measurement(f"profile.files {_sinks}", _SECTION, CRASH)
    def files(scale: Scale, folder: Path, sinks: int = _sinks) -> Figures:
        """The parts of bringing records into files."""
        records = list(stream(scale.backlog))
        return _into_files(len(records), folder, sinks, lambda pool: each(pool, records))

    @measurement(f"profile.lines in bulk {_sinks}", _SECTION, CRASH)
    def lines_in_bulk(scale: Scale, folder: Path, sinks: int = _sinks) -> Figures:
        """The parts of bringing ready-made lines into files, 1000 at a time."""
        batches = scale.records // 1000
        return _into_files(batches * 1000, folder, sinks, lambda pool: many(pool, batches, LINES))
