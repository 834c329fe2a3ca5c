"""Telling what is valid in the bytes of a spool file and what is not: shared by reading, recovery and verifying."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple
from zlib import crc32

from resilient_exporters.spool.frame import (
    FRAME,
    HEADER_SIZE,
    JOINED,
    KIND_SHIFT,
    MASK,
    RECORD,
    RECORD_SIZE,
    RUN_SIZE,
    SELF_SEED,
    Context,
    Kind,
)

__all__ = ["Found", "Gap", "Scan", "scan", "walk"]

# A run frame begins, behind its checksum, with its length and kind; that makes them quick to find.
_RUN_MARK = FRAME.pack(0, RUN_SIZE, Kind.RUN << KIND_SHIFT, 0)[4:]
# Frames that are neither records nor dead letters are shorter than this, in bytes: lane sets, footers, states.
_SMALL = 1 << 24


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
    """Bytes that are part of no valid frame.

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


def _self_explaining(data: bytes, size: int, at: int) -> tuple[int, int, int, int] | None:
    """Length, meta, extra and kind of the run frame or footer at `at`."""
    if at + FRAME.size > size:
        return None
    crc, length, meta, extra = FRAME.unpack_from(data, at)
    kind = meta >> KIND_SHIFT
    if kind not in (Kind.RUN, Kind.FOOTER) or not FRAME.size <= length <= size - at:
        return None
    if kind == Kind.RUN and length != RUN_SIZE:
        return None
    return (length, meta, extra, kind) if crc == crc32(data[at + 4 : at + length], (SELF_SEED + at) & MASK) else None


def _run_frames(data: bytes, size: int) -> dict[int, Context]:
    """Ordinal -> run frame, found without knowing where frames begin; those of one file only."""
    contexts: dict[int, Context] = {}
    salt = None
    at = data.find(_RUN_MARK) - 4
    while at >= 0:
        if _self_explaining(data, size, at):
            context = Context.unpack(data[at + FRAME.size : at + RUN_SIZE])
            salt = context.salt if salt is None else salt
            if context.salt == salt:
                contexts.setdefault(context.ordinal, context)
        at = data.find(_RUN_MARK, at + 5) - 4
    return contexts


def _resync(data: bytes, size: int, start: int, place: int, candidates: list[Context]) -> tuple[int, Context] | None:
    """The first valid frame behind `start`, and its run; None when there is none.

    A checksum alone would now and then hold by chance over megabytes of rubbish, so lengths, kinds and places
    must make sense, too.
    """
    top = min((size - start) >> 24, 0x7F)
    # Behind 7 bytes the highest one of the length; then the byte of `meta` that holds a kind other than 0.
    pattern = re.compile(rb"(?s)(?=.{7}[\x00-\x%02x].[\x20-\xff])" % top if top else rb"(?s)(?=.{7}\x00.[\x20-\xff])")
    seeds = [(context.seed, context) for context in candidates]
    for match in pattern.finditer(data, start + 1, size):
        at = match.start()
        crc, length, meta, _, number, _ = RECORD.unpack_from(data, at)
        if not FRAME.size <= length <= size - at:
            continue
        kind = meta >> KIND_SHIFT
        if kind in (Kind.RUN, Kind.FOOTER):
            if _self_explaining(data, size, at):
                ordinal = Context.unpack(data[at + 12 : at + length]).ordinal if kind == Kind.RUN else None
                for context in candidates:
                    if ordinal is None or context.ordinal == ordinal:
                        return at, context
            continue
        if kind in JOINED:
            # Every record of the gap took at least two bytes.
            if length < RECORD_SIZE or not place <= number <= place + (at - start) // 2:
                continue
        elif kind != Kind.DEAD and length > _SMALL:
            continue
        for seed, context in seeds:
            if crc == crc32(data[at + 4 : at + length], (seed + at) & MASK):
                return at, context
    return None


def scan(content: bytes) -> Scan:
    """Read a file from end to end, past whatever is damaged.

    Records whose run frame is lost with all its repetitions count as damage: their ids are not known any more.
    """
    size = len(content)
    data = content + bytes(RECORD_SIZE)
    result = Scan(contexts=_run_frames(data, size))
    at = min(HEADER_SIZE, size)
    current = result.contexts.get(0)
    place = 0
    while at < size:
        if (plain := _self_explaining(data, size, at)) is not None:
            length, meta, extra, kind = plain
            if kind == Kind.RUN:
                context = result.contexts.get(Context.unpack(data[at + FRAME.size : at + length]).ordinal)
                current = context or current
            if current is not None:
                result.frames.append(Found(at, length, meta, extra, current))
            at += length
            continue
        if current is not None:
            frames, stop = walk(data, size, at, 0, current.seed)
            for where, length, meta, extra, number, _ in frames:
                result.frames.append(Found(where, length, meta, extra, current))
                if meta >> KIND_SHIFT in JOINED:
                    place = number + 1
            if stop > at:
                at = stop
                continue
        if not content.strip(b"\0") or not any(memoryview(content)[at:]):
            break
        ordinal = current.ordinal if current is not None else 0
        later = [context for number, context in sorted(result.contexts.items()) if number >= ordinal]
        after = _resync(data, size, at, place, later)
        if after is None:
            result.gaps.append(Gap(at, size, torn=_is_torn(data, size, at)))
            break
        result.gaps.append(Gap(at, after[0]))
        at, current = after
    result.end = result.frames[-1].at + result.frames[-1].length if result.frames else min(HEADER_SIZE, size)
    return result


def _is_torn(data: bytes, size: int, at: int) -> bool:
    """Whether what stands at the end of a file is a frame that was never finished, rather than one that went bad."""
    if at + FRAME.size > size:
        return True
    _, length, meta, _ = FRAME.unpack_from(data, at)
    return bool(meta >> KIND_SHIFT) and length > size - at
