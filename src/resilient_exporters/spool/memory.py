"""The spool that keeps owed records in memory: locking, limits, re-entry and dead letters around a `Store`."""

from __future__ import annotations

import os
import sys
import threading
import time as clock
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import count, islice
from typing import NamedTuple

from resilient_exporters.exceptions import PoolClosed, SpoolFull
from resilient_exporters.spool.block import Shape, size_of
from resilient_exporters.spool.fresh import LARGEST, NOTHING_FRESH, Fresh
from resilient_exporters.spool.interface import DeadLetter, Fate, LaneAccount, Payload, Slice, SpoolMoving
from resilient_exporters.spool.store import OVERHEAD, Store, cost_of

__all__ = ["MemorySpool"]

_life = object()  # another object in each forked child, so that one comparison tells whether a spool is ours


def _live_again() -> None:
    global _life
    _life = object()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_live_again)


class _Queued(NamedTuple):
    payloads: Sequence[Payload]
    shape: Shape
    time: float
    first: int | None
    expires: float

    def size(self) -> int:
        """Bytes it will take, overhead included."""
        return size_of(self.payloads) + cost_of(len(self.payloads), self.shape)


class MemorySpool(Store):
    """Keeps owed records in memory; see `Spool` for what each method promises.

    After `close` nothing can be kept or read any more; `account`, `owing`, `size` and `dead_letters` still answer.

    Args:
        first_place: Place of the first record, at least 1; the others follow without gaps.
        limit_bytes: Most bytes that `size()` may reach, or None for no limit.
    """

    def __init__(self, *, first_place: int = 1, limit_bytes: int | None = None) -> None:
        super().__init__(first_place)
        self.run = int.from_bytes(os.urandom(8), "big")
        self._born = self._alive = _life
        self._lock = threading.RLock()
        self._numbers = count(1)
        self._limit = sys.maxsize if limit_bytes is None else limit_bytes
        self._marked = first_place
        self._pins: dict[str, list[int]] = {}
        self._dead: list[DeadLetter] = []
        self._keys = count(1)
        self._appending = False
        self._frozen = False
        self._queue: deque[_Queued] = deque()

    @property
    def next_place(self) -> int:
        if self._born is not _life:
            self._check(closed=True)
        if self._fresh.cells or self._leaving:
            with self._lock:
                self._catch_up()
        return self._end

    def mark(self) -> None:
        self._marked = self.next_place

    def undo_appends(self) -> None:
        self._check()
        with self._lock:
            self._catch_up()
            if self._end > self._marked:
                self._end = self._marked
                self._recover()

    def freeze(self) -> None:
        self._check()
        with self._lock:
            self._catch_up()
            self._appending = self._frozen = True

    def thaw(self) -> None:
        with self._lock:
            self._appending = self._frozen = False

    def draw(self) -> int:
        if self._alive is not _life:
            self._check()
        if self._fresh.cells or self._leaving:
            with self._lock:
                self._catch_up()  # numbers are drawn in the order of the calls
        return next(self._numbers)

    def append_one(self, payload: bytes, lanes: frozenset[str], time: float) -> bool:
        fresh = self._fresh
        cells = fresh.cells
        if lanes is fresh.lanes and len(payload) <= LARGEST and len(cells) < fresh.most and self._alive is _life:
            cells += payload, time  # one step: see `fresh`
            if self._fresh is fresh or self._was_taken(fresh, payload):
                return True
        self.append((payload,), lanes, time=time)
        self._welcome(lanes)
        return True

    def _was_taken(self, fresh: Fresh, payload: bytes) -> bool:
        """Whether a record came in before the others were taken; one that came too late is taken back."""
        with self._lock:
            self._catch_up()
            return fresh.has(payload)

    def _welcome(self, lanes: frozenset[str]) -> None:
        """Have plain records for these lanes come in without a lock from now on."""
        with self._lock:
            self._catch_up()
            if not self._appending:
                self._fresh = Fresh(lanes, self._limit - self._held, OVERHEAD)

    def _catch_up(self) -> None:
        """Let nothing more come in fresh, and put what has come into blocks: whoever looks at them does so first.

        Needs the lock. Within an append of this very thread, which a signal has interrupted then, it is left undone.
        """
        if self._appending or (self._fresh is NOTHING_FRESH and self._leaving is None):
            return
        if self._leaving is None:  # else this goes on with what was broken off
            self._leaving, self._fresh = self._fresh, NOTHING_FRESH
        self._appending = True
        try:
            self._put_fresh(self._leaving)
        except BaseException:
            self._recover()
            raise
        finally:
            self._appending = False
            if self._queue:
                self._drain()

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
        shape = Shape(lanes, self.run if run is None else run, options, flags)
        queued = _Queued(payloads, shape, time, first, expires)
        with self._lock:
            self._catch_up()
            if self._frozen:
                raise SpoolMoving
            if self._appending:
                self._enqueue(queued)
                return
            self._appending = True
            try:
                self._check_room(queued)
                self._put(queued)
            except (SpoolFull, ValueError):
                raise  # found before anything was changed
            except BaseException as error:
                self._recover()
                if isinstance(error, MemoryError):
                    raise SpoolFull("there is no memory for the record") from error
                raise
            finally:
                self._appending = self._frozen
                if self._queue:
                    self._drain()

    def _enqueue(self, queued: _Queued) -> None:
        """Put aside what was appended while this thread appends: in a signal handler or a finalizer."""
        others = tuple(self._queue)  # one call: handlers interrupt each other, too
        self._check_room(queued, waiting=sum(other.size() for other in others))
        self._queue.append(queued)

    def _drain(self) -> None:
        """Keep what was put aside. Looks once more afterwards, because a signal may come between any two lines."""
        while self._queue:
            self._appending = True
            try:
                while self._queue:
                    self._put(self._queue[0])
                    self._queue.popleft()
            except BaseException:
                self._recover()
                raise
            finally:
                self._appending = self._frozen

    def _check_room(self, queued: _Queued, waiting: int = 0) -> None:
        if not queued.shape.lanes:
            raise ValueError("a record that nobody owes cannot be kept")
        if self._held + waiting + queued.size() > self._limit:
            raise self._no_room(size_of(queued.payloads))

    def _put(self, queued: _Queued) -> None:
        first = self._draw_many(len(queued.payloads)) if queued.first is None else queued.first
        times = [queued.time] * len(queued.payloads)
        self._append_many(queued.payloads, queued.shape, times, first, queued.expires)

    def _put_fresh(self, fresh: Fresh) -> None:
        cells = fresh.cells[:]
        if cells:
            first = self._draw_many(len(cells) // 2)
            self._append_many(cells[::2], Shape(fresh.lanes, self.run, b"", 0), cells[1::2], first, fresh=fresh)
        else:
            self._leaving = None

    def _draw_many(self, number: int) -> int:
        """The first of so many numbers in a row; drawn within one C call, so that nobody else draws between."""
        return deque(islice(self._numbers, number), maxlen=1)[0] - number + 1

    def _no_room(self, size: int) -> SpoolFull:
        return SpoolFull(
            f"no room for {size} bytes: {self._held} of {self._limit} bytes are in use. "
            "Raise the limit, or see why the targets do not take what is kept"
        )

    def read(self, lane: str, after: int, records: int, size: int) -> Slice | None:
        self._check()
        with self._lock:
            self._catch_up()
            return self._read(lane, after, records, size)

    def settle(self, lane: str, places: Sequence[int], fate: Fate) -> int:
        self._check()
        with self._lock:
            self._catch_up()
            return self._settle(lane, places)

    def bury(self, lane: str, slice: Slice, reasons: dict[int, str], attempts: int) -> int:
        self._check()
        with self._lock:
            self._catch_up()
            places: list[int] = []
            if slice.places:
                reasons = {at: reason for at, reason in reasons.items() if self._owes(lane, slice.places[at])}
                places = [slice.places[at] for at in reasons]
            letters = self._letters(lane, slice, reasons, attempts)
            size = sum(map(_letter_size, letters))
            if self._held + size - sum(self._freed_by(lane, place) for place in places) > self._limit:
                raise self._no_room(size)
            self._held += size
            self._beside += size
            self._dead += letters
            self._settle(lane, places)
            return len(letters)

    def _letters(self, lane: str, slice: Slice, reasons: dict[int, str], attempts: int) -> list[DeadLetter]:
        died = clock.time()
        return [
            DeadLetter(
                next(self._keys), lane, slice.run, slice.numbers[at], slice.times[at], died, attempts,
                reason, slice.options, slice.flags, slice.payloads[at],
            )
            for at, reason in reasons.items()
        ]  # fmt: skip

    def pin(self, lane: str, places: Sequence[int]) -> None:
        self._check()
        self._pins[lane] = list(places)

    def pinned(self, lane: str) -> list[int] | None:
        self._check()
        with self._lock:
            self._catch_up()
            places = self._pins.get(lane)
            return places if places and all(self._owes(lane, place) for place in places) else None

    def dead_letters(self) -> Iterable[DeadLetter]:
        self._check(closed=True)
        return tuple(self._dead)

    def own_letters(self) -> tuple[DeadLetter, ...]:
        """The dead letters held in memory."""
        return tuple(self._dead)

    def forget_dead(self, keys: Iterable[int]) -> None:
        self._check()
        keys = frozenset(keys)
        with self._lock:
            dropped = sum(_letter_size(letter) for letter in self._dead if letter.key in keys)
            self._dead = [letter for letter in self._dead if letter.key not in keys]
            self._held -= dropped
            self._beside -= dropped

    def account(self, lane: str) -> LaneAccount:
        self._check(closed=True)
        with self._lock:
            self._catch_up()
            return self._account(lane)

    def owing(self) -> tuple[str, ...]:
        self._check(closed=True)
        with self._lock:
            self._catch_up()
            return self._owing()

    def size(self) -> int:
        self._check(closed=True)
        with self._lock:
            self._catch_up()
            return self._held

    def drop_oldest(self, size: int) -> dict[str, int]:
        self._check()
        with self._lock:
            self._catch_up()
            return self._drop_oldest(size)

    def expire(self, now: float) -> dict[str, int]:
        self._check()
        with self._lock:
            self._catch_up()
            return self._expire(now)

    def sync(self) -> None:
        """Return at once: memory never survives a power cut."""
        self._check()

    def close(self) -> None:
        self._check(closed=True)
        with self._lock:
            self._catch_up()
            self._alive, self._fresh = None, NOTHING_FRESH

    def _check(self, *, closed: bool = False) -> None:
        """Raise PoolClosed in a forked child, and after `close` where it matters."""
        if self._born is not _life:
            raise PoolClosed("a forked child cannot use its parent's pool: see docs/how-to/prefork.md")
        if self._alive is None and not closed:
            raise PoolClosed


def _letter_size(letter: DeadLetter) -> int:
    return size_of((letter.payload,)) + OVERHEAD + len(letter.reason) + len(letter.options)
