"""What was handed out last: lanes side by side that come to the same place take the same slice, already picked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from resilient_exporters.spool.cursor import Places
from resilient_exporters.spool.interface import Slice
from resilient_exporters.spool.segment import Segment
from resilient_exporters.spool.window import Window

__all__ = ["Handout", "Recent", "own_sets"]

# Bytes of payloads that are held: lanes that are some batches apart still share, and it is no great size.
_MOST = 1 << 20
# A slice is taken if it is at least this part of what there is: a lane that is behind would else never take more.
_SHORTEST = 16


class Handout(NamedTuple):
    """A slice without holes, and what it takes to know whose it is.

    Args:
        slice: The records.
        size: Bytes of their payloads.
        limit: With how many bytes it was to end.
        sets: Segment -> numbers of the lane sets that were the lane's, of the segments it was picked from.
        segment: Where the lane went on, with the two below.
        window: A stretch of that segment.
        entry: Index of the next entry in it.
    """

    slice: Slice
    size: int
    limit: int
    sets: Mapping[Segment, set[int]]
    segment: Segment | None
    window: Window | None
    entry: int


class Recent:
    """The slices that were handed out last, by their first places."""

    __slots__ = ("_handouts", "_size")

    def __init__(self) -> None:
        self._handouts: dict[int, Handout] = {}
        self._size = 0

    def note(self, handout: Handout) -> None:
        """Remember a slice, unless it has holes."""
        places = handout.slice.places
        if places[-1] - places[0] != len(places) - 1:
            return
        self._forget(places[0])
        self._handouts[places[0]] = handout
        self._size += handout.size
        while self._size > _MOST and len(self._handouts) > 1:
            self._forget(next(iter(self._handouts)))

    def find(self, place: int, name: str, settled: Places, records: int, size: int, available: int) -> Handout | None:
        """A slice that begins at a place and is just what a lane would be handed there, or the first part of that.

        Args:
            place: Where the lane goes on.
            name: The lane's.
            settled: Places at which it owes nothing.
            records: Most that it wants.
            size: Most bytes that it wants.
            available: Records that there are from that place on, at most.
        """
        found = self._handouts.get(place)
        if found is None:
            return None
        count = len(found.slice)
        if count > records or found.size >= size < found.limit:
            return None
        if count * _SHORTEST < min(records, available):
            return None
        if settled.touches(place, found.slice.places[-1]):
            return None
        same = all(numbers == own_sets(segment, name) for segment, numbers in found.sets.items())
        return found if same else None

    def clear(self) -> None:
        """Forget all of them."""
        self._handouts.clear()
        self._size = 0

    def _forget(self, place: int) -> None:
        handout = self._handouts.pop(place, None)
        self._size -= 0 if handout is None else handout.size


def own_sets(segment: Segment, name: str) -> set[int]:
    """Numbers of the lane sets of a segment that hold a lane."""
    return {number for number, names in segment.sets.items() if name in names}
