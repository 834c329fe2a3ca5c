"""Where the last microsecond goes, of a `send` and of a delivery: what parts cost as bare loops, and what is left."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from struct import Struct
from typing import Any
from zlib import crc32

import resilient_exporters as rex
from bench.pools import Gate, background, each, flushed, many
from bench.subject import CPU, CRASH, Figures, Scale, measurement, stream, timed
from resilient_exporters import codec
from resilient_exporters.exporters.lines import as_lines
from resilient_exporters.spool.filespool import FileSpool
from resilient_exporters.spool.interface import Fate, Slice

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
_DRAIN = {
    "read and settle": "`FileSpool.read` and `settle` of batches of 1000, in a loop by themselves",
    "decode": "`codec.decode_all` of the same batches",
    "lane": "the rest: an object for each record, the batch, the attempt, what came of it, whose turn it is",
}
_FILES = {
    "send": "`send` of each record into a pool whose target is down",
    "read and settle": "`FileSpool.read` and `settle` of batches of 1000 that came one by one; for each file",
    "decode": "`codec.decode_all` of such batches, once for all files",
    "render": "`as_lines` of the same batches: JSON as `json.dumps` spaces it, once for all files",
    "write file": "`os.write` of their lines, for each file",
    "threads": "the rest: the interpreter handed from thread to thread, batches that are short, or rendered again",
}

PROFILES = {
    "profile.send": (
        'One `send` in the background with safety "process" while the target is down, per record.',
        _SEND,
    ),
    "profile.drain": ("Draining a backlog to an exporter that reads each record, per record.", _DRAIN),
    "profile.files 1": ("`send` of each record, and all of them into a local file meanwhile, per record.", _FILES),
    "profile.files 4": ("The same into 4 local files.", _FILES),
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


def _keeping(path: Path) -> Callable[[bytes], object]:
    """Appends a payload to a spool of its own."""
    spool, lanes = FileSpool(path), frozenset(["gate"])
    append_one = spool.append_one

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
    kept = _quickest(payloads, _keeping(folder / "alone")) - loop
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


def _slices(path: Path, batches: int, at_once: int) -> Iterator[Slice]:
    """Batches that a spool hands out, each settled before the next is read."""
    spool = FileSpool(path)
    payloads = [codec.encode(data) for data in stream(_BATCH)]
    for _ in range(batches):
        for first in range(0, _BATCH, at_once):
            spool.append(payloads[first : first + at_once], _LANE, time=0.0)
    after = 0
    while (kept := spool.read("lane", after, _BATCH, 1 << 20)) is not None:
        yield kept
        after = kept.places[-1]
        spool.settle("lane", kept.places, Fate.DELIVERED)
    spool.close()


def _reading(folder: Path, batches: int, at_once: int) -> float:
    """Microseconds of the processor for reading and settling a record, where so many were appended at once."""
    took = []
    for turn in range(_TURNS):
        slices = _slices(folder / f"alone {turn}", batches, at_once)
        next(slices)  # appending comes before the first
        began = time.process_time()
        count = sum(len(kept) for kept in slices)
        took.append((time.process_time() - began) / count)
    return min(took) * 1e6


def _decoding(payloads: list[bytes]) -> float:
    return _quickest([payloads] * 100, codec.decode_all) / _BATCH


@measurement("profile.drain", _SECTION, CRASH)
def drain(scale: Scale, folder: Path) -> Figures:
    """The parts of draining a backlog to an exporter that reads each record."""
    batches = scale.backlog // _BATCH
    read = _reading(folder, batches, _BATCH)
    decoded = _decoding([codec.encode(data) for data in stream(_BATCH)])
    gate = Gate(reads=True)
    pool = background([gate], folder)
    many(pool, batches)
    gate.up = True
    whole = timed(batches * _BATCH, lambda: flushed(pool))[CPU]
    pool.close(0.0)
    return {"read and settle": read, "decode": decoded, "lane": whole - read - decoded, WHOLE: whole}


for _sinks in (1, 4):

    @measurement(f"profile.files {_sinks}", _SECTION, CRASH)
    def files(scale: Scale, folder: Path, sinks: int = _sinks) -> Figures:
        """The parts of bringing records into files."""
        records = list(stream(scale.backlog))
        data = records[:_BATCH]
        lines = as_lines(data).whole
        with open(folder / "lines", "wb", buffering=0) as file:
            written = _quickest([lines] * 100, file.write) / _BATCH * sinks
        (folder / "waiting").mkdir()
        waiting = background([Gate()], folder / "waiting")
        sent = _quickest(records, waiting.send)
        waiting.close(0.0)
        parts = {
            "send": sent,
            "read and settle": _reading(folder, scale.backlog // _BATCH, 1) * sinks,
            "decode": _decoding([codec.encode(one) for one in data]),
            "render": _quickest([data] * 100, as_lines) / _BATCH,
            "write file": written,
        }
        pool = background([rex.FileExporter(folder / f"sink-{number}") for number in range(sinks)], folder)

        def loop() -> None:
            each(pool, records)
            flushed(pool)

        whole = timed(len(records), loop)[CPU]
        pool.close(0.0)
        return {**parts, "threads": whole - sum(parts.values()), WHOLE: whole}
