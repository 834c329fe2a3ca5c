"""The set of record numbers of one run that a target has, small however many they are."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Self

__all__ = ["Resolved"]

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Resolved:
    """An immutable set of numbers from 1 up: all up to a floor, and the ranges above it.

    Records arrive almost in order, so nearly always the floor says it all; each gap (a record that was refused, or
    overtaken) costs one range. As bytes:

        +---------+-------+---------------+-----+---------------+
        | version | floor | gap | length  | ... | gap | length  |      each a varint: 7 bits a byte, lowest first,
        +---------+-------+---------------+-----+---------------+      the top bit set in all bytes but the last

    A gap is how many numbers are missing before the range, at least 1; a length how many the range has, at least 1.
    So each set has exactly one form.

    Args:
        floor: All numbers from 1 to this are in the set; 0 = none.
        ranges: First and last number of each range above, ascending, none touching another or the floor.
    """

    floor: int = 0
    ranges: tuple[tuple[int, int], ...] = ()

    def __contains__(self, number: int) -> bool:
        if number <= self.floor:
            return number >= 1
        index = bisect_right(self.ranges, number, key=_first)
        return index > 0 and number <= self.ranges[index - 1][1]

    def add(self, numbers: Iterable[int]) -> Self:
        """The set with these numbers as well.

        Args:
            numbers: In any order, each at least 1; those that are in the set already change nothing.

        Raises:
            ValueError: A number is below 1.
        """
        added = sorted(set(numbers))
        if added and added[0] < 1:
            raise ValueError(f"record numbers count from 1, {added[0]} is none")
        single = ((number, number) for number in added)
        spans = list(_joined(sorted(chain([(1, self.floor)], self.ranges, _joined(single)))))
        floor = spans[0][1] if spans[0][0] == 1 else 0
        return type(self)(floor, tuple(spans[1:]))

    def to_bytes(self) -> bytes:
        """The set as bytes, see the drawing."""
        values = [_VERSION, self.floor]
        previous = self.floor
        for first, last in self.ranges:
            values += (first - previous - 1, last - first + 1)
            previous = last
        return b"".join(map(_varint, values))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The set that `to_bytes` wrote.

        Raises:
            ValueError: It is damaged, or of a later version.
        """
        values = list(_varints(data))
        if len(values) < 2 or len(values) % 2 or values[0] != _VERSION:
            raise ValueError("not a set of record numbers, or one of a later version")
        previous = floor = values[1]
        ranges = []
        for gap, length in zip(values[2::2], values[3::2], strict=True):
            if gap < 1 or length < 1:
                raise ValueError("a set of record numbers has an empty gap or range")
            ranges.append((previous + gap + 1, previous + gap + length))
            previous += gap + length
        return cls(floor, tuple(ranges))


def _first(span: tuple[int, int]) -> int:
    return span[0]


def _joined(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ascending spans, those that overlap or touch made one."""
    first = last = None
    for start, stop in spans:
        if first is None or last is None:
            first, last = start, stop
        elif start <= last + 1:
            last = max(last, stop)
        else:
            yield first, last
            first, last = start, stop
    if first is not None and last is not None:
        yield first, last


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _varints(data: bytes) -> Iterator[int]:
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            if byte == 0 and shift > 7:
                raise ValueError("a set of record numbers holds a number that is longer than needed")
            yield value
            value = shift = 0
    if shift:
        raise ValueError("a set of record numbers is cut off")
