"""Reading a segment: a stretch of it at a time, checked, and taken apart into records that follow each other."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import NamedTuple
from zlib import crc32

from resilient_exporters.spool.files import Files, read_all
from resilient_exporters.spool.frame import (
    FLAG_SHIFT,
    FRAME,
    KIND_SHIFT,
    MASK,
    MAX_FLAGS,
    PLAIN,
    RECORD_SIZE,
    SELF_SEED,
    Context,
    Kind,
    unpack_json,
    unpack_records,
)
from resilient_exporters.spool.scan import Walked, walk

__all__ = ["CHUNK", "Damaged", "Entry", "Window", "entry_of", "read_window"]

# Bytes read at a time when records are fetched: large enough to be cheap, small enough for many lanes.
CHUNK = 1 << 18
# `meta` of all record frames is below this.
_RECORDS = Kind.RUN << KIND_SHIFT


class Damaged(Exception):
    """A frame that was valid is not any more."""


class Entry(NamedTuple):
    """Records that follow each other, in places and in numbers, and share everything else but time and payload.

    Args:
        first: Place of the first record.
        set: Number of the lane set.
        flags: `Flag` bits.
        run: Run of the numbers.
        number: Number of the first record.
        options: Encoded keyword arguments.
        expires: Seconds since the epoch, 0 = never.
        times: When each was accepted.
        payloads: The data of each.
    """

    first: int
    set: int
    flags: int
    run: int
    number: int
    options: bytes
    expires: float
    times: Sequence[float]
    payloads: list[bytes]

    @property
    def last(self) -> int:
        """Place of the last record."""
        return self.first + len(self.payloads) - 1


class Window(NamedTuple):
    """A stretch of a segment with one run in force, read and checked.

    Args:
        entries: Its records, in order.
        sets: Number -> names, of the lane sets that are defined in it.
        stop: Where in the file the next window begins.
        context: The run frame in force there.
    """

    entries: list[Entry]
    sets: dict[int, frozenset[str]]
    stop: int
    context: Context

    def last(self) -> int:
        """Place of its last record, 0 when there is none."""
        return self.entries[-1].last if self.entries else 0


def read_window(files: Files, handle: int, offset: int, end: int, context: Context, size: int = CHUNK) -> Window:
    """Read on in a segment.

    Args:
        files: The operating system.
        handle: The segment's file.
        offset: Where in the file a frame begins.
        end: One past the last byte that may be read.
        context: The run frame in force at `offset`.
        size: Bytes to read.

    Raises:
        Damaged: The frame at `offset`, or one behind it, is not valid.
    """
    # With a bit of what follows, so that there is enough to unpack behind the last frame, too.
    data = read_all(files, handle, min(size, end - offset) + RECORD_SIZE, offset)
    have = min(len(data), size, end - offset)
    if len(data) < have + RECORD_SIZE:
        data += bytes(RECORD_SIZE)
    now, at = context, 0
    frames: list[Walked] = []
    while at < have:
        found, at = walk(data, have, at, offset, now.seed)
        frames += found
        if at + FRAME.size > have:
            break
        crc, length, meta, _ = FRAME.unpack_from(data, at)
        if at + length > have:
            break
        if crc != crc32(data[at + 4 : at + length], (SELF_SEED + now.moved + offset + at) & MASK):
            raise Damaged
        if meta >> KIND_SHIFT == Kind.RUN:
            context = Context.unpack(data[at + FRAME.size : at + length])._replace(moved=now.moved)
            if context.ordinal != now.ordinal:
                if frames:
                    # One run a window: the next one begins with this very frame.
                    context = now
                    break
                now = context
        at += length
    if at == 0:
        # Not even one frame fits: read as much as it says it has, if the segment has that.
        length = FRAME.unpack_from(data)[1] if have >= FRAME.size else 0
        if not size < length <= end - offset:
            raise Damaged
        return read_window(files, handle, offset, end, context, length)
    return Window(*_taken_apart(data, frames, now), offset + at, context)


def _taken_apart(data: bytes, frames: list[Walked], context: Context) -> tuple[list[Entry], dict[int, frozenset[str]]]:
    """The records of some frames, plain ones that follow each other in one entry; and the lane sets."""
    entries: list[Entry] = []
    sets: dict[int, frozenset[str]] = {}
    row: list[Walked] = []
    like, following = -1, -1
    for frame in frames:
        at, length, meta, extra, place, _ = frame
        if meta == like and place == following and extra == row[0][3]:
            row.append(frame)
            following += 1
            continue
        if row:
            entries.append(_row(data, row, context))
            row, like = [], -1
        if meta < PLAIN:
            row, like, following = [frame], meta, place + 1
        elif meta < _RECORDS:
            entry = entry_of(data, frame, context)
            if entry is None:
                raise Damaged
            entries.append(entry)
        elif meta >> KIND_SHIFT == Kind.LANES:
            sets[meta & 0xFF] = frozenset(unpack_json(data[at + FRAME.size : at + length]))
    if row:
        entries.append(_row(data, row, context))
    return entries, sets


def _row(data: bytes, row: list[Walked], context: Context) -> Entry:
    """Plain frames of one record each, with places and numbers that follow each other."""
    _, _, meta, extra, place, _ = row[0]
    return Entry(
        first=context.base + place,
        set=meta & 0xFF,
        flags=meta >> FLAG_SHIFT & MAX_FLAGS,
        run=context.run,
        number=place + context.shift + extra,
        options=b"",
        expires=0.0,
        times=[time for _, _, _, _, _, time in row],
        payloads=[data[at + RECORD_SIZE : at + length] for at, length, _, _, _, _ in row],
    )


def entry_of(data: bytes, frame: Walked, context: Context) -> Entry | None:
    """The records of any one record frame whose checksum holds; None when its lengths do not add up."""
    at, length, meta, extra, place, time = frame
    found = unpack_records(data, at, length, meta)
    if found is None:
        return None
    file = BytesIO(data)
    file.seek(found.start)
    return Entry(
        first=context.base + place,
        set=meta & 0xFF,
        flags=meta >> FLAG_SHIFT & MAX_FLAGS,
        run=context.run,
        number=place + context.shift + extra,
        options=found.options,
        expires=found.expires,
        times=[time] * len(found.lengths),
        payloads=list(map(file.read, found.lengths)),
    )
