"""Telling what is valid in the bytes of a spool file and what is not: shared by reading, recovery and verifying."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple
from zlib import crc32

from resilient_exporters.spool.frame import (
    FRAME,
    HEADER_SIZE,
    JOINED,
    KIND_SHIFT,
    RECORD,
    RECORD_SIZE,
    RUN_SIZE,
    Context,
    Kind,
)
from resilient_exporters.spool.resync import Damage, resync, self_explaining

__all__ = ["Found", "Gap", "Scan", "scan", "walk"]

# A run frame begins, behind its checksum, with its length and kind; that makes them quick to find.
_RUN_MARK = FRAME.pack(0, RUN_SIZE, Kind.RUN << KIND_SHIFT, 0)[4:]

_new = tuple.__new__
Walked = tuple[int, int, int, int, int, float]


class Found(NamedTuple):
    """A valid frame: where, how long, its `meta` and `extra`, and the run frame in force."""

    at: int
    length: int
    meta: int
    extra: int
    context: Context

    @property
    def kind(self) -> int:
        return self.meta >> KIND_SHIFT


class Gap(NamedTuple):
    """Bytes that are part of no valid frame, or none at all where a piece of the file is missing.

    Args:
        start: First byte.
        stop: One past the last.
        torn: It is the beginning of a frame whose end was never written: nothing that was kept is missing.
    """

    start: int
    stop: int
    torn: bool = False


@dataclass(slots=True)
class Scan:
    """What a file holds.

    Attributes:
        frames: All valid frames, in order.
        gaps: What is between and behind them, zeros at the end left out.
        contexts: Ordinal -> run frame.
        end: One past the last valid frame.
    """

    frames: list[Found] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    contexts: dict[int, Context] = field(default_factory=dict)
    end: int = HEADER_SIZE


def walk(data: bytes, size: int, at: int, base: int, seed: int) -> tuple[list[Walked], int]:
    """Valid frames of one run in a row, from `at` on, and where they end.

    Args:
        data: A piece of the file and at least 12 bytes behind it, of whatever content.
        size: Length of the piece.
        at: Where in the piece to begin.
        base: Where in the file the piece begins.
        seed: The seed of the run frame in force.

    Returns:
        Per frame (at, length, meta, extra, place, time); the last two mean something in record frames only.
    """
    found: list[Walked] = []
    unpack, append = RECORD.unpack_from, found.append
    seed += base
    limit = size - FRAME.size
    while at <= limit:
        crc, length, meta, extra, place, time = unpack(data, at)
        stop = at + length
        # crc32 takes the lower 32 bits of where it is to begin.
        if length < 12 or stop > size or crc != crc32(data[at + 4 : stop], seed + at):
            break
        append((at, length, meta, extra, place, time))
        at = stop
    return found, at


def _run_frames(data: bytes, size: int) -> dict[int, Context]:
    """Ordinal -> run frame, found without knowing where frames begin; those of one file only."""
    contexts: dict[int, Context] = {}
    salt = None
    at = data.find(_RUN_MARK) - 4
    while at >= 0:
        if self_explaining(data, size, at):
            context = Context.unpack(data[at + FRAME.size : at + RUN_SIZE])
            salt = context.salt if salt is None else salt
            if context.salt == salt:
                contexts.setdefault(context.ordinal, context)
        at = data.find(_RUN_MARK, at + 5) - 4
    return contexts


def scan(content: bytes) -> Scan:
    """Read a file from end to end, past whatever is damaged.

    Records whose run frame is lost with all its repetitions count as damage: their ids are not known any more.
    """
    size = len(content)
    data = content + bytes(RECORD_SIZE)
    result = Scan(contexts=_run_frames(data, size))
    at = min(HEADER_SIZE, size)
    current = result.contexts.get(0)
    place = longest = measured = 0
    while at < size:
        moved = current.moved if current is not None else 0
        if (plain := self_explaining(data, size, at, moved)) is not None:
            length, meta, extra, kind = plain
            if kind == Kind.RUN:
                current = _turned(data[at + FRAME.size : at + length], moved, result.contexts) or current
            if current is not None:
                result.frames.append(Found(at, length, meta, extra, current))
            at += length
            continue
        if current is not None:
            frames, stop = walk(data, size, at, 0, current.seed)
            # Not by the constructor of `Found`, which is Python: a backlog has hundreds of thousands of them.
            result.frames += [
                _new(Found, (where, length, meta, extra, current)) for where, length, meta, extra, _, _ in frames
            ]
            numbers = (number for _, _, meta, _, number, _ in reversed(frames) if meta >> KIND_SHIFT in JOINED)
            place = next(numbers, place - 1) + 1
            if stop > at:
                at = stop
                continue
        if not content.strip(b"\0") or not any(memoryview(content)[at:]):
            break
        longest = max([longest, *(frame.length for frame in result.frames[measured:])])
        measured = len(result.frames)
        ordinal = current.ordinal if current is not None else 0
        later = [context for number, context in sorted(result.contexts.items()) if number >= ordinal]
        after = resync(Damage(data, size, at, place, longest, moved, later)) if later else None
        if after is None:
            result.gaps.append(Gap(at, size, torn=_is_torn(data, size, at)))
            break
        # Of no length, where exactly whole frames are missing.
        result.gaps.append(Gap(at, after[0]))
        at, current = after
        result.contexts.setdefault(current.ordinal, current._replace(moved=0))
    result.end = result.frames[-1].at + result.frames[-1].length if result.frames else min(HEADER_SIZE, size)
    return result


def _turned(body: bytes, moved: int, contexts: dict[int, Context]) -> Context | None:
    """The run that a run frame brings into force; None when it is another file's."""
    context = Context.unpack(body)
    if moved and any(known.salt == context.salt for known in contexts.values()):
        # It was looked for where it would have been written.
        contexts.setdefault(context.ordinal, context)
    known = contexts.get(context.ordinal)
    return known and known._replace(moved=moved)


def _is_torn(data: bytes, size: int, at: int) -> bool:
    """Whether what stands at the end of a file is a frame that was never finished, rather than one that went bad."""
    if at + FRAME.size > size:
        return True
    _, length, meta, _ = FRAME.unpack_from(data, at)
    return bool(meta >> KIND_SHIFT) and length > size - at
