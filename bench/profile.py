"""Where the last microsecond of a `send` goes: what its parts cost as bare loops, and what is left for the library."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from struct import Struct
from typing import Any
from zlib import crc32

from bench.pools import Gate, background
from bench.subject import CRASH, Figures, Scale, measurement, stream
from resilient_exporters import codec
from resilient_exporters.spool.filespool import FileSpool

__all__ = ["PARTS", "PROFILE", "WHOLE"]

_TURNS = 5
"""Each loop is run so often, and the quickest counts: what disturbs only makes it slower."""

PROFILE, WHOLE = "profile.send", "send"
PARTS = {
    "loop": "going from record to record and calling a function of Python",
    "encode": "`codec.encode`: the private snapshot, with every type kept",
    "head and checksum": "packing the head of a frame, the checksum of head and payload, joining them; by itself",
    "write": "`os.pwrite` of such frames, one behind the other; by itself",
    "account": "the rest of the spool's part: whose turn it is, place and number, which segment, who is owed what",
    "pool": "the rest: is anything to be thought about, what time is it, is a worker asleep",
}
"""The parts of a `send`, and what they are."""


def _quickest(items: Sequence[Any], do: Callable[[Any], object]) -> float:
    """Microseconds that it takes to do something with each item, going round included."""
    took = []
    for _ in range(_TURNS):
        began = time.perf_counter()
        for item in items:
            do(item)
        took.append(time.perf_counter() - began)
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


@measurement(PROFILE, "Where the last microsecond goes", CRASH)
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
