"""A block of records in memory: compact columns, rows of bits for what lanes have settled.

What neighbours share (lanes, run, options, flags) is written once, in a span. What a lane has settled is one integer
used as a row of bits, bit i for the record at place `start + i`, so that one operation settles a whole batch.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from resilient_exporters.spool.interface import Payload

__all__ = ["ALL", "BLOCK", "Block", "Shape", "bits", "ranges", "size_of"]

BLOCK = 1024  # records; large enough that a block's own cost vanishes, small enough to be freed often
ALL = (1 << BLOCK) - 1


class Shape(NamedTuple):
    """What neighbours share."""

    lanes: frozenset[str]
    run: int
    options: bytes
    flags: int


class Block:
    """Columns for the records at places `start` to `start + 1023`; the caller says how many of them exist."""

    __slots__ = ("expires", "gone", "numbers", "payloads", "settled", "shapes", "start", "starts", "times")

    def __init__(self, start: int) -> None:
        self.start = start
        self.payloads: list[Payload] = []
        self.numbers = array("Q")
        self.times = array("d")
        self.expires: array[float] | None = None  # made for the first record that has a time to live
        self.starts: list[int] = []  # index at which each span begins
        self.shapes: list[Shape] = []  # what the records of each span share
        self.settled: dict[str, int] = {}
        self.gone = 0  # settled by everybody, payload let go

    def truncate(self, length: int) -> None:
        """Forget what lies at `length` and behind it."""
        del self.payloads[length:], self.numbers[length:], self.times[length:]
        keep = bisect_right(self.starts, length - 1)
        del self.starts[keep:], self.shapes[keep:]
        below = bits(0, length)
        self.settled = {lane: row & below for lane, row in self.settled.items()}
        self.gone &= below
        if self.expires is not None:
            self.expires[length:] = array("d", bytes(8 * (BLOCK - length)))

    def spans(self, first: int, length: int) -> Iterator[tuple[int, int, Shape]]:
        """Ranges of indexes from `first` up to `length`, each with what its records share."""
        at = max(bisect_right(self.starts, first) - 1, 0)
        while first < length:
            shape = self.shapes[at]
            at += 1
            until = min(self.starts[at], length) if at < len(self.starts) else length
            yield first, until, shape
            first = until

    def owed(self, lane: str, first: int, length: int) -> Iterator[tuple[int, int, Shape]]:
        """Ranges of indexes from `first` up to `length` that a lane owes."""
        for start, until, shape in self.spans(first, length):
            if lane in shape.lanes:
                for low, high in ranges(bits(start, until) & ~self.settled.get(lane, 0)):
                    yield low, high, shape

    def same_life(self, low: int, high: int) -> tuple[float, int]:
        """When the record at `low` expires, 0.0 for never, and up to which index, at most `high`, all do so."""
        if self.expires is None:
            return 0.0, high
        expires, until = self.expires[low], low + 1
        while until < high and self.expires[until] == expires:
            until += 1
        return expires, until

    def size(self, mask: int) -> int:
        """Payload bytes of the records in a row of bits."""
        return sum(size_of(self.payloads[low:high]) for low, high in ranges(mask))

    def settled_by_all(self, lanes: Iterable[str], mask: int) -> int:
        """Of a row of bits, those that each of these lanes has settled."""
        for lane in lanes:
            mask &= self.settled.get(lane, 0)
        return mask

    def let_go(self, mask: int) -> None:
        """Free the payloads of a row of bits."""
        for low, high in ranges(mask):
            self.payloads[low:high] = [b""] * (high - low)
        self.gone |= mask


def bits(start: int, until: int) -> int:
    """A row with the bits from `start` up to `until` set."""
    return (1 << until) - (1 << start)


def ranges(mask: int) -> Iterator[tuple[int, int]]:
    """The ranges of set bits, lowest first."""
    low = 0
    while mask:
        skip = (mask & -mask).bit_length() - 1
        mask >>= skip
        length = (mask ^ (mask + 1)).bit_length() - 1
        low += skip
        yield low, low + length
        low += length
        mask >>= length


def size_of(payloads: Sequence[Payload]) -> int:
    """Payload bytes; of data that no codec can write, what the interpreter says of the outermost object."""
    try:
        return sum(map(len, payloads))  # type: ignore[arg-type]  # Opaque has no length: the except is for it
    except TypeError:
        return sum(len(payload) if isinstance(payload, bytes) else sys.getsizeof(payload.data) for payload in payloads)
