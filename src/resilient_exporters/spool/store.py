"""Owed records in memory: at which places they stand, who owes them, how much that is; its owner does the locking.

Signals and finalizers may run between any two calls of the code below. `_end` and the tallies are therefore changed
last, in plain stores without calls between them: behind `_end` nothing exists yet. What an exception breaks off is put
right by `_recover` and `_recount`.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from resilient_exporters.spool.block import ALL, BLOCK, Block, Shape, bits, ranges, size_of
from resilient_exporters.spool.fresh import NOTHING_FRESH, Fresh
from resilient_exporters.spool.interface import LaneAccount, Payload, Slice

__all__ = ["OVERHEAD", "Store", "cost_of"]

OVERHEAD = 80  # bytes a record costs beside its payload: object header, allocation rounding, columns


class _Tally:
    __slots__ = ("bytes", "records")

    def __init__(self) -> None:
        self.records = 0
        self.bytes = 0

    def add(self, records: int, size: int) -> None:
        self.records += records
        self.bytes += size


def cost_of(records: int, shape: Shape) -> int:
    """Bytes that records take beside their payloads."""
    return records * (OVERHEAD + len(shape.options))


class Store:
    """Blocks by place, and tallies of them.

    Args:
        first_place: Place of the first record, at least 1; the others follow without gaps.
    """

    def __init__(self, first_place: int) -> None:
        self._base = first_place
        self._end = first_place  # place of the next record
        self._live = Block(first_place)
        self._full = first_place + BLOCK  # place at which the live block has no room
        self._blocks = {0: self._live}  # by (start - base) / 1024
        self._shape: Shape | None = None  # of the last span, while it may grow
        self._tally = _Tally()  # of that span's lanes

        self._sets: dict[frozenset[str], _Tally] = {}  # what somebody owes, by who owed it at first
        self._settled: dict[str, _Tally] = {}  # what a lane has settled of it
        self._floors: dict[str, int] = {}  # place below which a lane owes nothing
        self._held = 0  # bytes, overhead included
        self._beside = 0  # how many of them belong to something else than records
        self._soonest = float("inf")  # no time to live ends before

        self._fresh = NOTHING_FRESH  # where plain records come in now
        self._leaving: Fresh | None = None  # whose records are being put into blocks

    def _append_many(
        self,
        payloads: Sequence[Payload],
        shape: Shape,
        times: list[float],
        first: int,
        expires: float = 0.0,
        fresh: Fresh | None = None,
    ) -> None:
        """Put records into blocks; those that were fresh count as taken in the moment in which they are there."""
        end, done = self._end, 0
        self._open_set(shape)
        while done < len(payloads):
            block = self._open_span(end, shape)
            until = min(done + BLOCK - len(block.payloads), len(payloads))
            if expires:
                self._limit_life(block, len(block.payloads), until - done, expires)
            block.payloads.extend(payloads[done:until])
            block.numbers.extend(range(first + done, first + until))
            block.times.fromlist(times[done:until])
            end += until - done
            done = until
        size, tally = size_of(payloads), self._tally
        cost = size + cost_of(done, shape)
        tally.records += done
        tally.bytes += size
        self._held += cost
        self._end = end
        if fresh is not None:
            fresh.taken = 2 * done
            self._leaving = None

    def _open_set(self, shape: Shape) -> None:
        """Make the tally of the shape's lanes the current one."""
        tally = self._sets.get(shape.lanes)
        if tally is None:
            for lane in shape.lanes:
                self._settled.setdefault(lane, _Tally())
                self._floors.setdefault(lane, self._end)
            tally = _Tally()
            # Last: a set that is here is complete, also for one that was interrupted above and comes again.
            self._sets = {lanes: old for lanes, old in self._sets.items() if old.records} | {shape.lanes: tally}
        self._tally = tally

    def _open_span(self, end: int, shape: Shape) -> Block:
        """The block for the record at place `end`, its last span of that shape."""
        if end == self._full:
            self._live = self._blocks[(end - self._base) // BLOCK] = Block(end)
            self._full = end + BLOCK
            self._shape = None
        block = self._live
        if shape != self._shape:
            block.starts.append(len(block.payloads))
            block.shapes.append(shape)
            self._shape = shape
        return block

    def _limit_life(self, block: Block, index: int, number: int, expires: float) -> None:
        if block.expires is None:
            block.expires = array("d", bytes(8 * BLOCK))
        block.expires[index : index + number] = array("d", [expires] * number)
        self._soonest = min(self._soonest, expires)

    def _recover(self) -> None:
        """After an append was broken off: back to what is there below `_end`."""
        while self._live.start > self._end:
            index = (self._live.start - self._base) // BLOCK - 1
            self._blocks.pop(index + 1, None)
            self._live = self._blocks.get(index) or Block(self._base + index * BLOCK)
        self._full = self._live.start + BLOCK
        self._live.truncate(self._end - self._live.start)
        self._floors = {lane: min(floor, self._end) for lane, floor in self._floors.items()}
        self._recount()

    def _read(self, lane: str, after: int, records: int, size: int) -> Slice | None:
        found: Slice | None = None
        for block, low, high, shape in self._owed(lane, after + 1):
            end = min(high, low + records)
            expires, high = block.same_life(low, end)
            if found is None:
                found = Slice(shape.run, shape.options, shape.flags, expires=expires)
            elif (found.run, found.options, found.flags, found.expires) != (*shape[1:], expires):
                break
            size -= self._copy(found, block, low, high, size)
            records -= high - low
            if records <= 0 or size <= 0 or high < end:
                break
        return found

    @staticmethod
    def _copy(found: Slice, block: Block, low: int, high: int, size: int) -> int:
        """Add records to a slice, no more than needed to reach `size`; their payload bytes."""
        payloads = block.payloads[low:high]
        total = size_of(payloads)
        if total > size:
            total = 0
            for index in range(len(payloads)):
                total += size_of(payloads[index : index + 1])
                if total >= size:
                    high = low + index + 1
                    break
        found.payloads += block.payloads[low:high]
        found.places += range(block.start + low, block.start + high)
        found.numbers += block.numbers[low:high]
        found.times += block.times[low:high]
        return total

    def _owed(self, lane: str, place: int) -> Iterator[tuple[Block, int, int, Shape]]:
        """What a lane owes at `place` and above: block and range of indexes. Moves the lane's floor on its way."""
        end = self._end
        floor = self._floors.get(lane, end)
        found = place > floor
        place = max(place, floor)
        while place < end:
            block = self._blocks.get((place - self._base) // BLOCK)
            if block is not None:
                for low, high, shape in block.owed(lane, place - block.start, min(BLOCK, end - block.start)):
                    if not found:
                        self._floors[lane] = block.start + low
                        found = True
                    yield block, low, high, shape
            place += BLOCK - (place - self._base) % BLOCK
        if not found and lane in self._floors:
            self._floors[lane] = end

    def _owes(self, lane: str, place: int) -> bool:
        return any(block.start + low == place for block, low, _, _ in islice(self._owed(lane, place), 1))

    def _account(self, lane: str) -> LaneAccount:
        settled = self._settled.get(lane)
        if settled is None:
            return LaneAccount(0, 0, None)
        mine = [tally for lanes, tally in self._sets.items() if lane in lanes]
        records = sum(tally.records for tally in mine) - settled.records
        size = sum(tally.bytes for tally in mine) - settled.bytes
        oldest = next((block.times[low] for block, low, _, _ in self._owed(lane, 0)), None) if records else None
        return LaneAccount(records, size, oldest)

    def _owing(self) -> tuple[str, ...]:
        """Lanes that owe something; one walk over the sets, however many names there were."""
        owed: Counter[str] = Counter()
        for lanes, tally in self._sets.items():
            for lane in lanes if tally.records else ():
                owed[lane] += tally.records
        return tuple(lane for lane, settled in self._settled.items() if owed[lane] > settled.records)

    def _settle(self, lane: str, places: Sequence[int]) -> int:
        return sum(self._settle_bits(block, lane, mask) for block, mask in self._masks(places))

    def _freed_by(self, lane: str, place: int) -> int:
        """Bytes that are given back when a lane settles a record that it owes."""
        index, at = divmod(place - self._base, BLOCK)
        block, mask = self._blocks[index], 1 << at
        _, _, shape = next(block.spans(at, at + 1))
        if not block.settled_by_all(shape.lanes - {lane}, mask):
            return 0
        return block.size(mask) + cost_of(1, shape)

    def _masks(self, places: Sequence[int]) -> Iterator[tuple[Block, int]]:
        """Places as rows of bits, one for each block that is still there."""
        masks: dict[int, int] = {}
        if places and list(places) == list(range(places[0], places[0] + len(places))):
            low, until = places[0] - self._base, places[0] - self._base + len(places)
            for index in range(low // BLOCK, -(-until // BLOCK)):
                begin = index * BLOCK
                masks[index] = bits(max(low - begin, 0), min(until - begin, BLOCK))
        else:
            for place in places:
                index, bit = divmod(place - self._base, BLOCK)
                masks[index] = masks.get(index, 0) | 1 << bit
        for index, mask in masks.items():
            block = self._blocks.get(index)
            if block is not None:
                yield block, mask

    def _settle_bits(self, block: Block, lane: str, mask: int) -> int:
        """Settle the records in a row of bits; how many of them the lane did owe."""
        first = (mask & -mask).bit_length() - 1
        until = min(mask.bit_length(), self._end - block.start)
        number = 0
        for start, stop, shape in block.spans(first, until):
            if lane not in shape.lanes:
                continue
            part = mask & bits(start, stop) & ~block.settled.get(lane, 0)
            if part:
                self._settle_span(block, lane, shape, part)
                number += part.bit_count()
        return number

    def _settle_span(self, block: Block, lane: str, shape: Shape, mask: int) -> None:
        records, size = mask.bit_count(), block.size(mask)
        tally = self._settled[lane]
        try:
            block.settled[lane] = block.settled.get(lane, 0) | mask
            tally.records += records
            tally.bytes += size
            gone = block.settled_by_all(shape.lanes, mask)
            if gone:
                self._let_go(block, shape, gone)
        except BaseException:
            self._recount()
            raise

    def _let_go(self, block: Block, shape: Shape, mask: int) -> None:
        """Free what everybody has settled; it leaves all tallies."""
        records, size = mask.bit_count(), block.size(mask)
        cost = size + cost_of(records, shape)
        self._sets[shape.lanes].add(-records, -size)
        for lane in shape.lanes:
            self._settled[lane].add(-records, -size)
        self._held -= cost
        block.let_go(mask)
        if block.gone == ALL:
            self._blocks.pop((block.start - self._base) // BLOCK, None)

    def _recount(self) -> None:
        """After something was broken off: make the tallies anew from the blocks."""
        self._sets = {lanes: _Tally() for lanes in self._sets}
        self._settled = {lane: _Tally() for lane in self._settled}
        held = self._beside
        for block in self._blocks.values():
            for start, until, shape in block.spans(0, min(BLOCK, self._end - block.start)):
                span = bits(start, until)
                block.let_go(block.settled_by_all(shape.lanes, span))
                mask = span & ~block.gone
                if not mask:
                    continue  # its tally may be gone, too
                self._sets[shape.lanes].add(mask.bit_count(), block.size(mask))
                held += block.size(mask) + cost_of(mask.bit_count(), shape)
                for lane in shape.lanes:
                    settled = block.settled_by_all((lane,), mask)
                    self._settled[lane].add(settled.bit_count(), block.size(settled))
        self._blocks = {index: block for index, block in self._blocks.items() if block.gone != ALL}
        self._held = held
        self._shape = None

    def _drop_oldest(self, size: int) -> dict[str, int]:
        lost: dict[str, int] = {}
        for block in list(self._blocks.values()):
            for start, stop, shape in block.spans(0, min(BLOCK, self._end - block.start)):
                mask = 0
                for low, high in ranges(bits(start, stop) & ~block.gone):
                    while size > 0 and low < high:
                        size -= size_of(block.payloads[low : low + 1]) + cost_of(1, shape)
                        low += 1
                        mask |= 1 << low - 1
                self._drop(block, shape.lanes, mask, lost)
                if size <= 0:
                    return lost
        return lost

    def _expire(self, now: float) -> dict[str, int]:
        lost: dict[str, int] = {}
        if now < self._soonest:
            return lost
        soonest = float("inf")
        for block in list(self._blocks.values()):
            if block.expires is None:
                continue
            over = 0
            for index, expires in enumerate(block.expires):
                if 0 < expires <= now:
                    over |= 1 << index
                elif expires:
                    soonest = min(soonest, expires)
            for start, stop, shape in block.spans(0, min(BLOCK, self._end - block.start)):
                self._drop(block, shape.lanes, over & bits(start, stop) & ~block.gone, lost)
        self._soonest = soonest
        return lost

    def _drop(self, block: Block, lanes: Iterable[str], mask: int, lost: dict[str, int]) -> None:
        for lane in lanes:
            number = self._settle_bits(block, lane, mask) if mask else 0
            if number:
                lost[lane] = lost.get(lane, 0) + number
