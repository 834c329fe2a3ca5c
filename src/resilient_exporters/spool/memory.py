"""The spool that keeps owed records in memory: blocks of compact columns, one copy whatever the number of lanes.

A block covers 1024 places. Its records lie in parallel columns; what neighbours share (lanes, run, options, flags) is
written once, in a span. What each lane has settled in a block is one integer used as a row of bits, bit i for the
record at place `start + i`; a bit operation settles a whole batch.

Signals and finalizers may run between any two calls of the code below, other threads wait for the lock. `_end` and the
tallies are therefore changed last, in plain stores without calls between them: what lies behind `_end` does not exist yet.
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time as clock
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice
from typing import NamedTuple

from resilient_exporters.exceptions import PoolClosed, SpoolFull
from resilient_exporters.spool.interface import DeadLetter, Fate, LaneAccount, Payload, Slice

__all__ = ["MemorySpool"]

_BLOCK = 1024  # records; large enough that a block's own cost vanishes, small enough to be freed often
_ALL = (1 << _BLOCK) - 1
_OVERHEAD = 80  # bytes a record costs beside its payload: object header, allocation rounding, columns

_life = object()  # another object in each forked child, so that one comparison tells whether a spool is ours


def _live_again() -> None:
    global _life
    _life = object()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_live_again)


class _Shape(NamedTuple):
    lanes: frozenset[str]
    run: int
    options: bytes
    flags: int


class _Tally:
    __slots__ = ("bytes", "records")

    def __init__(self) -> None:
        self.records = 0
        self.bytes = 0

    def add(self, records: int, size: int) -> None:
        self.records += records
        self.bytes += size


class _Queued(NamedTuple):
    payloads: Sequence[Payload]
    shape: _Shape
    time: float
    first: int | None
    expires: float

    def size(self) -> int:
        """Bytes it will take, overhead included."""
        return _size(self.payloads) + _cost(len(self.payloads), self.shape)


class _Block:
    """Columns for the records at places `start` to `start + 1023`; the caller says how many of them exist."""

    __slots__ = ("expires", "gone", "numbers", "payloads", "settled", "shapes", "start", "starts", "times")

    def __init__(self, start: int) -> None:
        self.start = start
        self.payloads: list[Payload] = []
        self.numbers = array("Q")
        self.times = array("d")
        self.expires: array[float] | None = None  # made for the first record that has a time to live
        self.starts: list[int] = []  # index at which each span begins
        self.shapes: list[_Shape] = []  # what the records of each span share
        self.settled: dict[str, int] = {}
        self.gone = 0  # settled by everybody, payload let go

    def truncate(self, length: int) -> None:
        """Forget what lies at `length` and behind it."""
        del self.payloads[length:], self.numbers[length:], self.times[length:]
        keep = bisect_right(self.starts, length - 1)
        del self.starts[keep:], self.shapes[keep:]
        if self.expires is not None:
            self.expires[length:] = array("d", bytes(8 * (_BLOCK - length)))

    def spans(self, first: int, length: int) -> Iterator[tuple[int, int, _Shape]]:
        """Ranges of indexes from `first` up to `length`, each with what its records share."""
        at = max(bisect_right(self.starts, first) - 1, 0)
        while first < length:
            shape = self.shapes[at]
            at += 1
            until = min(self.starts[at], length) if at < len(self.starts) else length
            yield first, until, shape
            first = until

    def owed(self, lane: str, first: int, length: int) -> Iterator[tuple[int, int, _Shape]]:
        """Ranges of indexes from `first` up to `length` that a lane owes."""
        for start, until, shape in self.spans(first, length):
            if lane in shape.lanes:
                for low, high in _ranges(_bits(start, until) & ~self.settled.get(lane, 0)):
                    yield low, high, shape

    def size(self, mask: int) -> int:
        """Payload bytes of the records in a row of bits."""
        return sum(_size(self.payloads[low:high]) for low, high in _ranges(mask))

    def settled_by_all(self, lanes: Iterable[str], mask: int) -> int:
        for lane in lanes:
            mask &= self.settled.get(lane, 0)
        return mask

    def let_go(self, mask: int) -> None:
        for low, high in _ranges(mask):
            self.payloads[low:high] = [b""] * (high - low)
        self.gone |= mask


def _bits(start: int, until: int) -> int:
    return (1 << until) - (1 << start)


def _ranges(mask: int) -> Iterator[tuple[int, int]]:
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


def _size(payloads: Sequence[Payload]) -> int:
    """Payload bytes; of data that no codec can write, what the interpreter says of the outermost object."""
    try:
        return sum(map(len, payloads))  # type: ignore[arg-type]  # Opaque has no length: the except is for it
    except TypeError:
        return sum(len(payload) if isinstance(payload, bytes) else sys.getsizeof(payload.data) for payload in payloads)


class MemorySpool:
    """Keeps owed records in memory; see `Spool` for what each method promises.

    After `close` nothing can be kept or read any more; `account`, `owing`, `size` and `dead_letters` still answer.

    Args:
        first_place: Place of the first record, at least 1; the others follow without gaps.
        limit_bytes: Most bytes that `size()` may reach, or None for no limit.
    """

    def __init__(self, *, first_place: int = 1, limit_bytes: int | None = None) -> None:
        self.run = secrets.randbits(64)
        self._born = self._alive = _life
        self._lock = threading.RLock()
        self._numbers = count(1)
        self._limit = sys.maxsize if limit_bytes is None else limit_bytes

        self._base = first_place
        self._end = first_place  # place of the next record
        self._marked = first_place
        self._live = _Block(first_place)
        self._full = first_place + _BLOCK  # place at which the live block has no room
        self._blocks = {0: self._live}  # by (start - base) / 1024
        self._shape: _Shape | None = None  # of the last span, while it may grow
        self._tally = _Tally()  # of that span's lanes

        self._sets: dict[frozenset[str], _Tally] = {}  # what somebody owes, by who owed it at first
        self._settled: dict[str, _Tally] = {}  # what a lane has settled of it
        self._floors: dict[str, int] = {}  # place below which a lane owes nothing
        self._held = 0  # bytes, overhead included
        self._soonest = float("inf")  # no time to live ends before

        self._dead: list[DeadLetter] = []
        self._keys = count(1)
        self._appending = False
        self._queue: deque[_Queued] = deque()

    @property
    def next_place(self) -> int:
        return self._end

    def mark(self) -> None:
        self._marked = self._end

    def undo_appends(self) -> None:
        with self._lock:
            self._end = self._marked
            self._recover()
            self._recount()

    def draw(self) -> int:
        self._check()
        return next(self._numbers)

    def append(
        self,
        payloads: Sequence[Payload],
        lanes: frozenset[str],
        *,
        time: float,
        first: int | None = None,
        run: int | None = None,
        options: bytes = b"",
        flags: int = 0,
        expires: float = 0.0,
        sync: bool = False,
    ) -> None:
        if self._alive is not _life:
            self._check()
        shape = (lanes, self.run if run is None else run, options, flags)
        with self._lock:
            if self._appending:
                self._enqueue(_Queued(payloads, _Shape(*shape), time, first, expires))
                return
            self._appending = True
            try:
                if shape != self._shape or self._end == self._full or expires or len(payloads) != 1:
                    queued = _Queued(payloads, _Shape(*shape), time, first, expires)
                    self._check_room(queued)
                    self._append_many(queued)
                    return
                payload = payloads[0]
                size = len(payload) if type(payload) is bytes else _size(payloads)
                cost = size + _OVERHEAD + len(options)
                if self._held + cost > self._limit:
                    raise self._no_room(size)
                block = self._live
                block.payloads.append(payload)
                block.numbers.append(next(self._numbers) if first is None else first)
                block.times.append(time)
                tally = self._tally
                tally.records += 1
                tally.bytes += size
                self._held += cost
                self._end += 1
            except BaseException as error:
                self._recover()
                if isinstance(error, MemoryError):
                    raise SpoolFull("there is no memory for the record") from error
                raise
            finally:
                self._appending = False
                if self._queue:
                    self._drain()

    def _enqueue(self, queued: _Queued) -> None:
        """Put aside what was appended while this thread appends: in a signal handler or a finalizer."""
        self._check_room(queued, waiting=sum(other.size() for other in self._queue))
        self._queue.append(queued)

    def _drain(self) -> None:
        """Keep what was put aside. Looks once more afterwards, because a signal may come between any two lines."""
        while self._queue:
            self._appending = True
            try:
                while self._queue:
                    self._append_many(self._queue[0])
                    self._queue.popleft()
            except BaseException:
                self._recover()
                raise
            finally:
                self._appending = False

    def _check_room(self, queued: _Queued, waiting: int = 0) -> None:
        if not queued.shape.lanes:
            raise ValueError("a record that nobody owes cannot be kept")
        if self._held + waiting + queued.size() > self._limit:
            raise self._no_room(queued.size())

    def _append_many(self, queued: _Queued) -> None:
        payloads, shape, time, first, expires = queued
        if first is None:
            first = self._draw_many(len(payloads))
        end, done = self._end, 0
        self._open_set(shape)
        while done < len(payloads):
            block = self._open_span(end, shape)
            part = payloads[done : done + _BLOCK - len(block.payloads)]
            if expires:
                self._limit_life(block, len(block.payloads), len(part), expires)
            block.payloads.extend(part)
            block.numbers.extend(range(first + done, first + done + len(part)))
            block.times.extend([time] * len(part))
            done += len(part)
            end += len(part)
        size, cost, tally = _size(payloads), queued.size(), self._tally
        tally.records += done
        tally.bytes += size
        self._held += cost
        self._end = end

    def _draw_many(self, number: int) -> int:
        """The first of so many numbers in a row; drawn within one C call, so that nobody else draws between."""
        return deque(islice(self._numbers, number), maxlen=1)[0] - number + 1

    def _open_set(self, shape: _Shape) -> None:
        """Make the tally of the shape's lanes the current one."""
        tally = self._sets.get(shape.lanes)
        if tally is None:
            self._sets = {lanes: old for lanes, old in self._sets.items() if old.records}
            tally = self._sets[shape.lanes] = _Tally()
            for lane in shape.lanes:
                self._settled.setdefault(lane, _Tally())
                self._floors.setdefault(lane, self._end)
        self._tally = tally

    def _open_span(self, end: int, shape: _Shape) -> _Block:
        """The block for the record at place `end`, its last span of that shape."""
        if end == self._full:
            self._live = self._blocks[(end - self._base) // _BLOCK] = _Block(end)
            self._full = end + _BLOCK
            self._shape = None
        block = self._live
        if shape != self._shape:
            block.starts.append(len(block.payloads))
            block.shapes.append(shape)
            self._shape = shape
        return block

    def _limit_life(self, block: _Block, index: int, number: int, expires: float) -> None:
        if block.expires is None:
            block.expires = array("d", bytes(8 * _BLOCK))
        block.expires[index : index + number] = array("d", [expires] * number)
        self._soonest = min(self._soonest, expires)

    def _no_room(self, size: int) -> SpoolFull:
        return SpoolFull(
            f"no room for {size} bytes: {self._held} of {self._limit} bytes are in use. "
            "Raise the limit, or see why the targets do not take what is kept"
        )

    def _recover(self) -> None:
        """After an append was broken off: back to what was there before."""
        while self._live.start > self._end:
            index = (self._live.start - self._base) // _BLOCK - 1
            self._blocks.pop(index + 1, None)
            self._live = self._blocks.get(index) or _Block(self._base + index * _BLOCK)
        self._full = self._live.start + _BLOCK
        self._live.truncate(self._end - self._live.start)
        self._shape = None

    def read(self, lane: str, after: int, records: int, size: int) -> Slice | None:
        self._check()
        with self._lock:
            found: Slice | None = None
            for block, low, high, shape in self._owed(lane, after + 1):
                if found is None:
                    found = Slice(shape.run, shape.options, shape.flags)
                elif (found.run, found.options, found.flags) != shape[1:]:
                    break
                high = min(high, low + records)
                size -= self._copy(found, block, low, high, size)
                records -= high - low
                if records <= 0 or size <= 0:
                    break
            return found

    @staticmethod
    def _copy(found: Slice, block: _Block, low: int, high: int, size: int) -> int:
        """Add records to a slice, no more than needed to reach `size`; their payload bytes."""
        payloads = block.payloads[low:high]
        total = _size(payloads)
        if total > size:
            total = 0
            for index in range(len(payloads)):
                total += _size(payloads[index : index + 1])
                if total >= size:
                    high = low + index + 1
                    break
        found.payloads += block.payloads[low:high]
        found.places += range(block.start + low, block.start + high)
        found.numbers += block.numbers[low:high]
        found.times += block.times[low:high]
        return total

    def _owed(self, lane: str, place: int) -> Iterator[tuple[_Block, int, int, _Shape]]:
        """What a lane owes at `place` and above: block and range of indexes. Moves the lane's floor on its way."""
        end = self._end
        floor = self._floors.get(lane, end)
        found = place > floor
        place = max(place, floor)
        while place < end:
            block = self._blocks.get((place - self._base) // _BLOCK)
            if block is not None:
                for low, high, shape in block.owed(lane, place - block.start, min(_BLOCK, end - block.start)):
                    if not found:
                        self._floors[lane] = block.start + low
                        found = True
                    yield block, low, high, shape
            place += _BLOCK - (place - self._base) % _BLOCK
        if not found and lane in self._floors:
            self._floors[lane] = end

    def settle(self, lane: str, places: Sequence[int], fate: Fate) -> None:
        self._check()
        with self._lock:
            self._settle(lane, places)

    def _settle(self, lane: str, places: Sequence[int]) -> None:
        for block, mask in self._masks(places):
            self._settle_bits(block, lane, mask)

    def _masks(self, places: Sequence[int]) -> Iterator[tuple[_Block, int]]:
        """Places as rows of bits, one for each block that is still there."""
        masks: dict[int, int] = {}
        if places and list(places) == list(range(places[0], places[0] + len(places))):
            low, until = places[0] - self._base, places[0] - self._base + len(places)
            for index in range(low // _BLOCK, -(-until // _BLOCK)):
                begin = index * _BLOCK
                masks[index] = _bits(max(low - begin, 0), min(until - begin, _BLOCK))
        else:
            for place in places:
                index, bit = divmod(place - self._base, _BLOCK)
                masks[index] = masks.get(index, 0) | 1 << bit
        for index, mask in masks.items():
            block = self._blocks.get(index)
            if block is not None:
                yield block, mask

    def _settle_bits(self, block: _Block, lane: str, mask: int) -> int:
        """Settle the records in a row of bits; how many of them the lane did owe."""
        first = (mask & -mask).bit_length() - 1
        until = min(mask.bit_length(), self._end - block.start)
        number = 0
        for start, stop, shape in block.spans(first, until):
            if lane not in shape.lanes:
                continue
            part = mask & _bits(start, stop) & ~block.settled.get(lane, 0)
            if part:
                self._settle_span(block, lane, shape, part)
                number += part.bit_count()
        return number

    def _settle_span(self, block: _Block, lane: str, shape: _Shape, mask: int) -> None:
        records, size = mask.bit_count(), block.size(mask)
        tally = self._settled[lane]
        settled = block.settled.get(lane, 0) | mask
        block.settled[lane] = settled
        tally.records += records
        tally.bytes += size
        gone = block.settled_by_all(shape.lanes, mask)
        if gone:
            self._let_go(block, shape, gone)

    def _let_go(self, block: _Block, shape: _Shape, mask: int) -> None:
        """Free what everybody has settled; it leaves all tallies."""
        records, size = mask.bit_count(), block.size(mask)
        cost = size + _cost(records, shape)
        try:
            self._sets[shape.lanes].add(-records, -size)
            for lane in shape.lanes:
                self._settled[lane].add(-records, -size)
            self._held -= cost
            block.let_go(mask)
        except BaseException:
            self._recount()
            raise
        if block.gone == _ALL:
            self._blocks.pop((block.start - self._base) // _BLOCK, None)

    def _recount(self) -> None:
        """After a settle was broken off (KeyboardInterrupt): make the tallies anew from the blocks."""
        self._sets = {lanes: _Tally() for lanes in self._sets}
        self._settled = {lane: _Tally() for lane in self._settled}
        held = sum(map(_letter_size, self._dead))
        for block in self._blocks.values():
            for start, until, shape in block.spans(0, min(_BLOCK, self._end - block.start)):
                span = _bits(start, until)
                block.let_go(block.settled_by_all(shape.lanes, span))
                mask = span & ~block.gone
                self._sets[shape.lanes].add(mask.bit_count(), block.size(mask))
                held += block.size(mask) + _cost(mask.bit_count(), shape)
                for lane in shape.lanes:
                    settled = block.settled_by_all((lane,), mask)
                    self._settled[lane].add(settled.bit_count(), block.size(settled))
        self._held = held
        self._shape = None

    def bury(self, lane: str, slice: Slice, reasons: dict[int, str], attempts: int) -> None:
        self._check()
        died = clock.time()
        with self._lock:
            for index, reason in reasons.items():
                place = slice.places[index] if slice.places else 0
                if place and not self._owes(lane, place):
                    continue
                letter = DeadLetter(
                    next(self._keys), lane, slice.run, slice.numbers[index], slice.times[index], died, attempts,
                    reason, slice.options, slice.flags, slice.payloads[index],
                )  # fmt: skip
                size = _letter_size(letter)
                self._held += size
                self._dead.append(letter)
                if place:
                    self._settle(lane, (place,))

    def _owes(self, lane: str, place: int) -> bool:
        return any(block.start + low == place for block, low, _, _ in islice(self._owed(lane, place), 1))

    def dead_letters(self) -> Iterable[DeadLetter]:
        self._check(closed=True)
        return tuple(self._dead)

    def forget_dead(self, keys: Iterable[int]) -> None:
        self._check()
        keys = frozenset(keys)
        with self._lock:
            dropped = sum(_letter_size(letter) for letter in self._dead if letter.key in keys)
            self._dead = [letter for letter in self._dead if letter.key not in keys]
            self._held -= dropped

    def account(self, lane: str) -> LaneAccount:
        self._check(closed=True)
        with self._lock:
            settled = self._settled.get(lane)
            if settled is None:
                return LaneAccount(0, 0, None)
            mine = [tally for lanes, tally in self._sets.items() if lane in lanes]
            records = sum(tally.records for tally in mine) - settled.records
            size = sum(tally.bytes for tally in mine) - settled.bytes
            oldest = next((block.times[low] for block, low, _, _ in self._owed(lane, 0)), None) if records else None
            return LaneAccount(records, size, oldest)

    def owing(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(lane for lane in self._settled if self.account(lane).records)

    def size(self) -> int:
        self._check(closed=True)
        return self._held

    def drop_oldest(self, size: int) -> dict[str, int]:
        self._check()
        lost: dict[str, int] = {}
        with self._lock:
            for block in list(self._blocks.values()):
                for start, stop, shape in block.spans(0, min(_BLOCK, self._end - block.start)):
                    mask = 0
                    for low, high in _ranges(_bits(start, stop) & ~block.gone):
                        while size > 0 and low < high:
                            size -= _size(block.payloads[low : low + 1]) + _cost(1, shape)
                            low += 1
                            mask |= 1 << low - 1
                    self._drop(block, shape.lanes, mask, lost)
                    if size <= 0:
                        return lost
        return lost

    def expire(self, now: float) -> dict[str, int]:
        self._check()
        lost: dict[str, int] = {}
        with self._lock:
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
                for start, stop, shape in block.spans(0, min(_BLOCK, self._end - block.start)):
                    self._drop(block, shape.lanes, over & _bits(start, stop) & ~block.gone, lost)
            self._soonest = soonest
        return lost

    def _drop(self, block: _Block, lanes: Iterable[str], mask: int, lost: dict[str, int]) -> None:
        for lane in lanes:
            number = self._settle_bits(block, lane, mask) if mask else 0
            if number:
                lost[lane] = lost.get(lane, 0) + number

    def sync(self) -> None:
        """Return at once: memory never survives a power cut."""
        self._check()

    def close(self) -> None:
        self._check(closed=True)
        self._alive = None

    def _check(self, *, closed: bool = False) -> None:
        """Raise PoolClosed in a forked child, and after `close` where it matters."""
        if self._born is not _life:
            raise PoolClosed("a forked child cannot use its parent's pool: see docs/how-to/prefork.md")
        if self._alive is None and not closed:
            raise PoolClosed


def _cost(records: int, shape: _Shape) -> int:
    """Bytes that records take beside their payloads."""
    return records * (_OVERHEAD + len(shape.options))


def _letter_size(letter: DeadLetter) -> int:
    return _size((letter.payload,)) + _OVERHEAD + len(letter.reason) + len(letter.options)
