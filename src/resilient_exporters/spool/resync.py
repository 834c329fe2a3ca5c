"""Finds the next valid frame behind damage, also where a missing piece has moved it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

from resilient_exporters.spool.checksum import begun_with
from resilient_exporters.spool.frame import (
    FRAME,
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

__all__ = ["Damage", "resync", "self_explaining"]

# Frames that are neither records nor dead letters are shorter than this, in bytes: lane sets, footers, states.
_SMALL = 1 << 24
# Bytes that may be missing beside the records that places tell of: runs, lane sets, states, a record of unusual length.
_BESIDE = 1 << 16


class Damage(NamedTuple):
    """Where frames stop being valid, and what is known of those before.

    Args:
        data: The whole file, and zeros behind it, enough to unpack a head.
        size: Length of the file.
        start: Where the first frame that is not valid begins.
        place: Relative place behind the last record before it.
        longest: Length of the longest frame before it.
        moved: By how much the frames before it stand in front of where they were written.
        contexts: The run in force, and those that may follow; not empty.
    """

    data: bytes
    size: int
    start: int
    place: int
    longest: int
    moved: int
    contexts: list[Context]

    def missing(self, at: int, moved: int) -> int:
        """Bytes that were written between the valid frames before and one that stands at `at`."""
        return at - self.start + abs(moved - self.moved)


def self_explaining(data: bytes, size: int, at: int, moved: int = 0) -> tuple[int, int, int, int] | None:
    """Length, meta, extra and kind of the run frame or footer at `at`."""
    if at + FRAME.size > size:
        return None
    crc, length, meta, extra = FRAME.unpack_from(data, at)
    kind = meta >> KIND_SHIFT
    if kind not in (Kind.RUN, Kind.FOOTER) or not FRAME.size <= length <= size - at:
        return None
    if kind == Kind.RUN and length != RUN_SIZE:
        return None
    begun = (SELF_SEED + at + moved) & MASK
    return (length, meta, extra, kind) if crc == crc32(data[at + 4 : at + length], begun) else None


def resync(damage: Damage) -> tuple[int, Context] | None:
    """The first valid frame behind damage, and the run in force there; None when there is none.

    Mostly it stands as far from where it was written as those before it. If a piece is missing, that is more; which is
    asked only of what lies before the next frame that needs no such explanation.
    """
    known = [_first(damage, damage.size, moved) for moved in {damage.moved, 0}]
    found = min((each for each in known if each), default=None, key=lambda each: each[0])
    stop = found[0] if found else damage.size
    moved = _moved(damage, stop)
    return found if moved is None else _first(damage, stop, moved) or found


def _heads(damage: Damage, stop: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Where frames may begin: at, checksum, length, kind, and place, if it is one of records."""
    data, size, start = damage.data, damage.size, damage.start
    top = min((size - start) >> 24, 0x7F)
    # Behind 7 bytes the highest one of the length; then the byte of `meta` that holds a kind other than 0.
    pattern = re.compile(rb"(?s)(?=.{7}[\x00-\x%02x].[\x20-\xff])" % top if top else rb"(?s)(?=.{7}\x00.[\x20-\xff])")
    # Up to the last head that begins before `stop`.
    for match in pattern.finditer(data, start, min(stop + 9, size)):
        at = match.start()
        crc, length, meta, _, place, _ = RECORD.unpack_from(data, at)
        kind = meta >> KIND_SHIFT
        shortest = RECORD_SIZE if kind in JOINED else FRAME.size
        if shortest <= length <= size - at:
            yield at, crc, length, kind, place


def _first(damage: Damage, stop: int, moved: int) -> tuple[int, Context] | None:
    """The first valid frame before `stop`, and its run, among those that stand so far from where they were written.

    A checksum alone would now and then hold by chance over megabytes of rubbish, so lengths, kinds and places
    must make sense, too.
    """
    data, size, contexts = damage.data, damage.size, damage.contexts
    seeds = [(context.seed + moved, context) for context in contexts]
    for at, crc, length, kind, place in _heads(damage, stop):
        if kind in (Kind.RUN, Kind.FOOTER):
            if self_explaining(data, size, at, moved):
                context = contexts[0] if kind == Kind.FOOTER else Context.unpack(data[at + FRAME.size : at + length])
                if context.salt == contexts[0].salt and context.ordinal >= contexts[0].ordinal:
                    return at, context._replace(moved=moved)
            continue
        # Every record that is missing took at least two bytes.
        if kind in JOINED and not damage.place <= place <= damage.place + damage.missing(at, moved) // 2:
            continue
        if kind not in JOINED and kind != Kind.DEAD and length > _SMALL:
            continue
        for seed, context in seeds:
            if crc == crc32(data[at + 4 : at + length], (seed + at) & MASK):
                return at, context._replace(moved=moved)
    return None


def _moved(damage: Damage, stop: int) -> int | None:
    """By how much frames before `stop` stand in front of where they were written, if there are some; None if not.

    The checksum of any bytes at all can be explained by some distance. So it has to hold for the next frame, too, and
    to be one that the lost records explain, or the salt: else the frames of a spool file that was sent as the payload
    of a record would pass. It only ever grows: a copy of what this file held before would need a smaller one.
    """
    data = damage.data
    for at, crc, length, kind, place in _heads(damage, stop):
        if not _precedes(damage, at, length, kind, place):
            continue
        begun = begun_with(crc, data[at + 4 : at + length])
        if kind == Kind.RUN:
            context = Context.unpack(data[at + FRAME.size : at + length])
            ways = [(context, SELF_SEED)] if context.salt == damage.contexts[0].salt else []
        else:
            ways = [(context, context.seed) for context in damage.contexts]
        for context, seed in ways:
            moved = (begun - seed - at) & MASK
            explained = kind == Kind.RUN or _explained(damage, at, length, kind, place, moved)
            # Half of all numbers stand for distances in the other direction.
            if damage.moved < moved <= MASK // 2 and explained and _holds(damage, at + length, context.seed, moved):
                return moved
    return None


def _precedes(damage: Damage, at: int, length: int, kind: int, place: int) -> bool:
    """Whether what stands behind a frame looks like the next one."""
    follows = at + length
    if kind == Kind.FOOTER or (kind == Kind.RUN and length != RUN_SIZE) or (kind in JOINED and place < damage.place):
        return False
    if follows + FRAME.size > damage.size:
        return False
    _, next_length, meta, _, next_place, _ = RECORD.unpack_from(damage.data, follows)
    if meta >> KIND_SHIFT in JOINED and kind in JOINED and next_place <= place:
        return False
    return bool(meta >> KIND_SHIFT) and FRAME.size <= next_length <= damage.size - follows


def _explained(damage: Damage, at: int, length: int, kind: int, place: int, moved: int) -> bool:
    """Whether so many bytes can be missing."""
    missing = damage.missing(at, moved)
    records = place - damage.place if kind in JOINED else 0
    return records <= missing // 2 and missing <= _BESIDE + (records + 2) * max(damage.longest, length)


def _holds(damage: Damage, at: int, seed: int, moved: int) -> bool:
    """Whether the frame at `at` is valid."""
    if self_explaining(damage.data, damage.size, at, moved):
        return True
    crc, length, _, _ = FRAME.unpack_from(damage.data, at)
    return bool(crc == crc32(damage.data[at + 4 : at + length], (seed + moved + at) & MASK))
