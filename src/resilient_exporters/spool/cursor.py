"""The set of places at which a lane owes nothing: a floor and a few ranges above it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Places", "runs"]

#        floor        ranges above it
#          v          v           v
#   |######|..owed..|####|.owed.|##|...everything above is owed...
#   1                                                        places


def runs(places: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ascending places, each once, as (first, last) ranges of neighbours."""
    if places and places[-1] - places[0] == len(places) - 1:
        yield places[0], places[-1]
        return
    first = last = -1
    for place in places:
        if place != last + 1 or first < 0:
            if first >= 0:
                yield first, last
            first = place
        last = place
    if first >= 0:
        yield first, last


class Places:
    """A set of places, which count from 1, kept as ranges; small as long as it has few holes.

    Not safe for use from several threads at once: its owner's lock guards it.

    Args:
        floor: All places from 1 to this one are in the set.
        ranges: Further (first, last) ranges, in any order.

    Attributes:
        pinned: Ranges of places outside the set that belong to one batch; of no meaning once one of them is in the set.
    """

    __slots__ = ("_firsts", "_lasts", "floor", "pinned")

    def __init__(self, floor: int = 0, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self.floor = floor
        self.pinned: list[tuple[int, int]] = []
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in ranges:
            self.add(first, last)

    def __contains__(self, place: int) -> bool:
        if place <= self.floor:
            return True
        at = bisect_right(self._firsts, place) - 1
        return at >= 0 and place <= self._lasts[at]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Places):
            return NotImplemented
        return self.floor == other.floor and self._firsts == other._firsts and self._lasts == other._lasts

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"Places({self.floor}, {self.ranges()})"

    @property
    def top(self) -> int:
        """The highest place in the set, 0 when it is empty."""
        return self._lasts[-1] if self._lasts else self.floor

    def ranges(self) -> list[tuple[int, int]]:
        """The ranges above the floor, ascending; neither touching each other nor the floor."""
        return list(zip(self._firsts, self._lasts, strict=True))

    def add(self, first: int, last: int) -> int:
        """Put all places from `first` to `last` in; how many were not in yet."""
        if first <= self.floor + 1:
            if last <= self.floor:
                return 0
            return self._raise_floor(last)
        # The ranges [low, high) overlap or touch the new one and become part of it.
        low = bisect_left(self._lasts, first - 1)
        high = bisect_right(self._firsts, last + 1)
        new = last - first + 1
        if low < high:
            new -= self._overlap(low, high, first, last)
            first, last = min(first, self._firsts[low]), max(last, self._lasts[high - 1])
        # No call below: a signal handler that raises finds both lists changed or neither.
        self._firsts[low:high] = [first]
        self._lasts[low:high] = [last]
        return new

    def cut(self, place: int) -> None:
        """Take this place and all above it out."""
        self.floor = min(self.floor, place - 1)
        high = bisect_left(self._firsts, place)
        top = min(self._lasts[high - 1], place - 1) if high else 0
        del self._firsts[high:], self._lasts[high:]
        if high:
            self._lasts[-1] = top

    def _raise_floor(self, last: int) -> int:
        high = bisect_right(self._firsts, last + 1)
        new = last - self.floor - self._overlap(0, high, self.floor + 1, last)
        # No call below, as in `add`.
        self.floor = max(last, self._lasts[high - 1]) if high else last
        del self._firsts[:high], self._lasts[:high]
        return new

    def _overlap(self, low: int, high: int, first: int, last: int) -> int:
        return sum(max(0, min(last, self._lasts[at]) - max(first, self._firsts[at]) + 1) for at in range(low, high))

    def missing(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """The ranges within `first`..`last` that are not in the set, ascending."""
        first = max(first, self.floor + 1)
        at = bisect_left(self._lasts, first)
        while first <= last:
            if at == len(self._firsts) or self._firsts[at] > last:
                yield first, last
                return
            if first < self._firsts[at]:
                yield first, self._firsts[at] - 1
            first = self._lasts[at] + 1
            at += 1

    def after(self, place: int) -> int:
        """The lowest place above `place` that is not in the set."""
        place = max(place, self.floor) + 1
        at = bisect_right(self._firsts, place) - 1
        return self._lasts[at] + 1 if at >= 0 and place <= self._lasts[at] else place

    def around(self, place: int) -> tuple[int, int]:
        """The whole range that `place`, which is in the set, belongs to."""
        if place <= self.floor:
            return 1, self.floor
        at = bisect_right(self._firsts, place) - 1
        return self._firsts[at], self._lasts[at]

    def covers(self, first: int, last: int) -> bool:
        """Whether all places from `first` to `last` are in the set."""
        return next(self.missing(first, last), None) is None

    def touches(self, first: int, last: int) -> bool:
        """Whether any place from `first` to `last` is in the set."""
        return first <= last and next(self.missing(first, last), None) != (first, last)
