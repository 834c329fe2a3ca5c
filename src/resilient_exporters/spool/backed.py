"""A memory spool that holds what a file held before, and settles it in the file, too."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from resilient_exporters.spool.block import Block, ranges
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

    def settle(self, lane: str, places: Sequence[int], fate: Fate) -> int:
        settled = super().settle(lane, places, fate)
        if backed := [self.places[place - 1] for place in places if 0 < place <= len(self.places)]:
            self.file.settle(lane, backed, fate)
        return settled

    def _drop(self, block: Block, lanes: Iterable[str], mask: int, lost: dict[str, int]) -> None:
        super()._drop(block, lanes, mask, lost)
        places = [block.start + bit for low, high in ranges(mask) for bit in range(low, high)]
        if backed := [self.places[place - 1] for place in places if place <= len(self.places)]:
            for lane in lanes:
                self.file.settle(lane, backed, Fate.DROPPED)

    def bury(self, lane: str, slice: Slice, reasons: dict[int, str], attempts: int) -> int:
        inside = {i: r for i, r in reasons.items() if not (slice.places and slice.places[i] <= len(self.places))}
        backed = {i: r for i, r in reasons.items() if i not in inside}
        buried = super().bury(lane, slice, inside, attempts) if inside else 0
        if backed:
            places = [self.places[p - 1] if 0 < p <= len(self.places) else 0 for p in slice.places]
            held = Slice(slice.run, slice.options, slice.flags, places, slice.numbers, slice.times, slice.payloads)
            buried += self.file.bury(lane, held, backed, attempts)
            super().settle(lane, [slice.places[i] for i in backed], Fate.DEAD)
        return buried

    def pin(self, lane: str, places: Sequence[int]) -> None:
        super().pin(lane, places)
        if 0 < places[-1] <= len(self.places):
            self.file.pin(lane, [self.places[place - 1] for place in places])

    def _owed_places(self, lane: str) -> Iterator[int]:
        found = self.read(lane, 0, 1000, 1 << 20)
        while found is not None and found.places[0] <= len(self.places):
            yield from found.places
            found = self.read(lane, found.places[-1], 1000, 1 << 20)

    def lost_at_end(self) -> int:
        """Records that are owed and are not in the file."""
        held = len(self.places)
        in_file = {lane: sum(place <= held for place in self._owed_places(lane)) for lane in self.owing()}
        return sum(self.account(lane).records - records for lane, records in in_file.items())

    def dead_letters(self) -> Iterable[DeadLetter]:
        # Both count keys from 1: so those of the file become the even ones here.
        behind = (letter._replace(key=2 * letter.key) for letter in self.file.dead_letters())
        return chain(behind, (letter._replace(key=2 * letter.key + 1) for letter in super().dead_letters()))

    def forget_dead(self, keys: Iterable[int]) -> None:
        keys = list(keys)
        self.file.forget_dead([key // 2 for key in keys if key % 2 == 0])
        super().forget_dead([key // 2 for key in keys if key % 2])

    def sync(self) -> None:
        self.file.sync()

    def close(self) -> None:
        super().close()
        self.file.close()
