"""What a lane was handed and has not settled: sizes, slice by slice, so that settling need not look them up."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

__all__ = ["Handed"]

# Records that are remembered at most, and slices.
_RECORDS, _SLICES = 1 << 18, 1 << 12


class _Block:
    """The places of one slice, and the payload size of each."""

    __slots__ = ("places", "sizes")

    def __init__(self, places: Sequence[int], sizes: array[int]) -> None:
        # A slice without holes, as most are, needs no room for its places.
        whole = places[-1] - places[0] == len(places) - 1
        self.places: Sequence[int] = range(places[0], places[-1] + 1) if whole else array("Q", places)
        self.sizes = sizes


class Handed:
    """The slices that were read, by their first places; those read last where they overlap."""

    __slots__ = ("_blocks", "_firsts", "_records")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._blocks: list[_Block] = []
        self._records = 0

    def note(self, places: Sequence[int], payloads: Sequence[bytes]) -> None:
        """Remember a slice that is handed out.

        Args:
            places: Ascending, at least one.
            payloads: One for each.
        """
        self.forget(places[0])
        at = bisect_left(self._firsts, places[0])
        self._firsts.insert(at, places[0])
        self._blocks.insert(at, _Block(places, array("L", map(len, payloads))))
        self._records += len(places)
        if self._records > _RECORDS or len(self._blocks) > _SLICES:
            half = len(self._blocks) // 2
            del self._firsts[:half], self._blocks[:half]
            self._records = sum(len(block.sizes) for block in self._blocks)

    def forget(self, first: int) -> None:
        """Forget the slice that begins at this place, if there is one."""
        at = bisect_left(self._firsts, first)
        if at < len(self._firsts) and self._firsts[at] == first:
            self._records -= len(self._blocks[at].sizes)
            del self._firsts[at], self._blocks[at]

    def forget_up_to(self, floor: int) -> None:
        """Forget the slices that end at this place or before: nothing of them is owed any more."""
        done = 0
        while done < len(self._blocks) and self._blocks[done].places[-1] <= floor:
            self._records -= len(self._blocks[done].sizes)
            done += 1
        if done:
            del self._firsts[:done], self._blocks[:done]

    def whole(self, places: Sequence[int]) -> tuple[Sequence[int], Sequence[int]] | None:
        """Places and sizes of a slice if it was handed out with just these places."""
        at = bisect_left(self._firsts, places[0])
        if at == len(self._firsts) or self._firsts[at] != places[0]:
            return None
        block = self._blocks[at]
        return (block.places, block.sizes) if list(block.places) == list(places) else None

    def size(self, place: int) -> int:
        """The size of a record, -1 when it is not known."""
        at = bisect_right(self._firsts, place) - 1
        if at < 0:
            return -1
        block = self._blocks[at]
        index = bisect_left(block.places, place)
        return block.sizes[index] if index < len(block.places) and block.places[index] == place else -1
