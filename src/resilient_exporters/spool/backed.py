"""A memory spool that holds what a file held before, and settles it in the file, too."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import chain

from resilient_exporters.spool.interface import DeadLetter, Fate, Slice, Spool
from resilient_exporters.spool.memory import MemorySpool

__all__ = ["BackedSpool"]


class BackedSpool(MemorySpool):
    """After a switch to memory: a kill then loses nothing of what the file holds, for the file still has it.

    Args:
        file: The spool whose records were, or will be, appended here first, in its order.
        limit_bytes: As for `MemorySpool`.
    """

    def __init__(self, file: Spool, *, limit_bytes: int | None = None) -> None:
        super().__init__(limit_bytes=limit_bytes)
        self.file = file
        self.places = array("Q")
        """Place in the file for each of the first records here."""

    def loaded(self, places: Iterable[int]) -> None:
        """Tell the places in the file of the first records here."""
        self.places.extend(places)

    def settle(self, lane: str, places: Sequence[int], fate: Fate) -> None:
        super().settle(lane, places, fate)
        if backed := [self.places[place - 1] for place in places if 0 < place <= len(self.places)]:
            self.file.settle(lane, backed, fate)

    def bury(self, lane: str, slice: Slice, reasons: dict[int, str], attempts: int) -> None:
        inside = {i: r for i, r in reasons.items() if not (slice.places and slice.places[i] <= len(self.places))}
        backed = {i: r for i, r in reasons.items() if i not in inside}
        if inside:
            super().bury(lane, slice, inside, attempts)
        if backed:
            places = [self.places[p - 1] if p <= len(self.places) else 0 for p in slice.places]
            held = Slice(slice.run, slice.options, slice.flags, places, slice.numbers, slice.times, slice.payloads)
            self.file.bury(lane, held, backed, attempts)
            super().settle(lane, [slice.places[i] for i in backed], Fate.DEAD)

    def dead_letters(self) -> Iterable[DeadLetter]:
        return chain(self.file.dead_letters(), super().dead_letters())

    def sync(self) -> None:
        self.file.sync()

    def close(self) -> None:
        super().close()
        self.file.close()
