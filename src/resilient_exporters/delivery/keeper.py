"""Keeps records: the one spool of the moment, what happens when it is full, and the move to another one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.events import Events
from resilient_exporters.delivery.lane import Lane
from resilient_exporters.delivery.moving import (
    check_for,
    copy_letters,
    copy_owed,
    letter_slice,
    numbered,
    of_one_time,
    owed_slices,
)
from resilient_exporters.delivery.parcel import Lot, Parcel
from resilient_exporters.delivery.shortage import Shortage, count_dropped
from resilient_exporters.exceptions import DataTypeError, SpoolError, SpoolFull
from resilient_exporters.policies import Limits
from resilient_exporters.spool.backed import BackedSpool
from resilient_exporters.spool.interface import Fate, Payload, Slice, Spool, SpoolMoving
from resilient_exporters.spool.memory import MemorySpool

__all__ = ["Keep", "Keeper"]

_READ = 1000
"""Records that change hands at a time."""
_SIZE = 1 << 20
"""Bytes that change hands at a time."""
_EXPIRY_LOOKS = 0.1
"""Seconds between looks for records that have outlived their time."""


@dataclass(frozen=True, slots=True)
class Keep:
    """How a record is to be kept.

    Args:
        sync: Whether it is safe against a power cut when the call returns.
        ttl: Seconds after which it may be dropped; None = never.
    """

    sync: bool = False
    ttl: float | None = None


class _Late(NamedTuple):
    """An append that a signal handler makes while its own thread exchanges the spools."""

    append: Callable[[], None]
    payloads: Sequence[Payload]
    lanes: frozenset[str]


class Keeper:
    """Owns the spool, and exchanges it under way: an append that meets a frozen one waits at the gate.

    Args:
        name: The pool's, for the log.
        spool: Where owed records wait.
        limits: What happens when there is no room.
        clock: Tells the time.
        lanes: The lanes of the moment.
        events: Told of shortages and losses.
    """

    def __init__(
        self,
        name: str,
        spool: Spool,
        limits: Limits,
        clock: Clock,
        lanes: Callable[[], dict[str, Lane]],
        events: Events | None = None,
    ) -> None:
        self.name = name
        self.spool = spool
        self.once = MemorySpool()
        """Where records wait for their one attempt when nothing is to be kept."""
        self._clock = clock
        self._lanes = lanes
        self._gate = threading.RLock()
        self._moving = False
        self._late: deque[_Late] = deque()
        self._expired_at = float("-inf")
        self._events = events or Events(name, clock)
        self._shortage = Shortage(name, limits, clock, lanes, self._events)
        self._damage = (0, 0)

    def in_place(self) -> AbstractContextManager[object]:
        """Hold the spool of the moment in its place: nothing moves to another one meanwhile."""
        return self._gate

    def stop(self) -> None:
        """Have nobody wait for room any more."""
        self._shortage.closed = True

    # Keeping

    def keep(self, parcel: Parcel, lanes: frozenset[str], how: Keep) -> bool:
        """Keep a record for lanes; False when the user's policy dropped it.

        Raises:
            SpoolError: It could not be kept.
        """
        first, run, time = parcel.number, parcel.run, parcel.time
        return self._keep([parcel.payload], parcel.options, parcel.flags, lanes, how, first=first, run=run, time=time)

    def keep_lot(self, lot: Lot, how: Keep) -> bool:
        """Keep records in one append, numbered as they are kept; False when the user's policy dropped them."""
        return self._keep(lot.payloads, lot.options, lot.flags, lot.lanes, how, time=self._clock.time())

    def keep_once(self, lot: Lot) -> None:
        """Hold records in memory until their first attempt."""
        self.once.append(lot.payloads, lot.lanes, time=self._clock.time(), options=lot.options, flags=lot.flags)

    def _keep(
        self,
        payloads: Sequence[Payload],
        options: bytes,
        flags: int,
        lanes: frozenset[str],
        how: Keep,
        *,
        time: float,
        first: int | None = None,
        run: int | None = None,
        expires: float = 0.0,
    ) -> bool:
        if how.ttl is not None:
            expires = time + how.ttl

        def append() -> None:
            self.spool.append(
                payloads,
                lanes,
                time=time,
                first=first,
                run=None if run == self.spool.run else run,
                options=options,
                flags=flags,
                expires=expires,
                sync=how.sync,
            )

        return self._append(append, payloads, lanes)

    def _append(self, append: Callable[[], None], payloads: Sequence[Payload], lanes: frozenset[str]) -> bool:
        """Append, as the user's policy has it where there is no room; False when that dropped the records."""
        while True:
            try:
                append()
                return True
            except SpoolMoving:
                if self._comes_late(_Late(append, payloads, lanes)):
                    return True
            except SpoolFull as error:
                if not self._shortage.make_room(self.spool, error, payloads, lanes):
                    return False

    def _comes_late(self, late: _Late) -> bool:
        """Wait for the move; True if this very thread makes it, in a signal handler: `late` then comes behind it."""
        with self._gate:
            if self._moving:
                self._late.append(late)
            return self._moving

    def _keep_late(self) -> None:
        """Keep what signal handlers have sent during the move; what finds no room is counted: its sender is gone."""
        while self._late:
            late = self._late.popleft()
            try:
                self._append(*late)
            except SpoolError as error:
                self._shortage.lose(error, len(late.payloads), late.lanes)

    def expire(self, at_once: bool = False) -> None:
        """Drop what has outlived its time; looks ten times a second at most, unless it has to be at once."""
        self.look_for_damage()
        now = self._clock.now()
        if at_once or now - self._expired_at >= _EXPIRY_LOOKS:
            self._expired_at = now
            lost = self.spool.expire(self._clock.time())
            count_dropped(self._lanes(), lost)
            for lane, records in lost.items():
                if not records:
                    continue
                line = "pool=%s exporter=%s records=%d"
                self._events.tell("records_expired", line, self.name, lane, records, exporter=lane, records=records)

    def look_for_damage(self) -> None:
        """Tell the observers what the spool has found damaged since the last look; it has logged that itself.

        A spool finds damage while it is locked, and knows no observers: so it is asked, at the next send or pass.
        """
        spool = self.spool.file if isinstance(self.spool, BackedSpool) else self.spool
        damage: tuple[int, int] = getattr(spool, "damage", (0, 0))  # memory has none
        if damage != self._damage:
            (records, size), self._damage = self._damage, damage
            lost, error = max(damage[0] - records, 0), f"{max(damage[1] - size, 0)} bytes are of no use"
            self._events.notify("spool_damaged", records=lost, error=error)

    def bury(self, lane: str, slice: Slice, reasons: dict[int, str], attempts: int = 1) -> None:
        """Make dead letters of records that were never kept.

        Raises:
            SpoolError: There is no room for them.
        """
        with self._gate:
            self.spool.bury(lane, slice, reasons, attempts)

    def take_letters(self, spool: Spool, renamed: Callable[[str], str] = str) -> None:
        """Take over the dead letters of a spool that is given up; what is taken is forgotten there.

        Raises:
            SpoolError: There is no room for those that are still there.
        """
        for letter in tuple(spool.dead_letters()):
            check_for(self.spool)(letter.payload)
            self.bury(renamed(letter.lane), letter_slice(letter), {0: letter.reason}, letter.attempts)
            spool.forget_dead([letter.key])

    # Another spool

    def take(self, spool: Spool, how: Keep) -> None:
        """Keep everything that another spool owes, in as few appends as can be; what is kept is settled there.

        Raises:
            SpoolError: There is no room for what is still owed there.
        """
        for part, lanes in owed_slices(spool):
            for start, end in numbered(part.numbers):
                self._keep(
                    part.payloads[start:end],
                    part.options,
                    part.flags,
                    lanes,
                    how,
                    first=part.numbers[start],
                    run=part.run,
                    time=part.times[start],
                    expires=part.expires,
                )
                for lane in lanes:
                    spool.settle(lane, part.places[start:end], Fate.DELIVERED)

    def carry(self, spool: Spool | None, owed_as: str, lane: str | None, *, anew: bool = True) -> int:
        """Keep for one lane some of what a spool owes to another name, and settle it there, as dropped; how many.

        Every record is kept, safely when that is asked of the spool, before it is settled: a crash in between doubles.

        Args:
            spool: Where it waits; None = the pool's own spool.
            owed_as: The name it waits under.
            lane: Who gets it; None = nobody.
            anew: Whether as new records, with ids of their own.

        Raises:
            SpoolError: There is no room for all of it; what was kept is kept, and all stays owed where it was.
            DataTypeError: Something kept in memory cannot be written to a file.
        """
        with self._gate:
            source = spool or self.spool
            part = source.read(owed_as, 0, _READ, _SIZE)
            if part is None:
                return 0
            if lane is not None:
                self._append_slice(part, frozenset((lane,)), anew)
                self.spool.sync()
            return source.settle(owed_as, part.places, Fate.DROPPED)

    def _append_slice(self, part: Slice, lanes: frozenset[str], anew: bool) -> None:
        """Append the records of a slice, each with its own time; needs the gate."""
        check = check_for(self.spool)
        for payload in part.payloads:
            check(payload)
        for start, end in numbered(part.numbers):
            for at, many in of_one_time(part.times, start, end):
                self.spool.append(
                    part.payloads[at : at + many],
                    lanes,
                    time=part.times[at],
                    first=None if anew else part.numbers[at],
                    run=None if anew or part.run == self.spool.run else part.run,
                    options=part.options,
                    flags=part.flags,
                    expires=part.expires,
                )

    def bring(self, spool: Spool, renamed: Callable[[str], str]) -> bool:
        """Take over what a memory spool owes; False when it, or the rest of it, must be read in place."""
        if not isinstance(spool, MemorySpool) or isinstance(spool, BackedSpool):
            return False
        try:
            self.take_letters(spool, renamed)
            for part, lanes in owed_slices(spool):
                for i, payload in enumerate(part.payloads):
                    check_for(self.spool)(payload)
                    named = frozenset(map(renamed, lanes))
                    self._keep(
                        [payload],
                        part.options,
                        part.flags,
                        named,
                        Keep(),
                        first=part.numbers[i],
                        run=part.run,
                        time=part.times[i],
                        expires=part.expires,
                    )
                    for lane in lanes:
                        spool.settle(lane, part.places[i : i + 1], Fate.DELIVERED)
        except (DataTypeError, SpoolError):
            return False
        spool.close()
        return True

    def switch(self, new: Spool) -> None:
        """Carry all that is owed into another spool and go on there.

        Args:
            new: The spool to use from now on; a `BackedSpool` keeps the old one behind it.

        Raises:
            SpoolError: It could not take everything: nothing has changed.
            DataTypeError: Something kept in memory cannot be written to a file: nothing has changed.
        """
        with self._standing_still() as lanes:
            old, start = self.spool, new.next_place
            try:
                places = copy_owed(old, new, check=check_for(new))
                copy_letters(old, new)
            except BaseException:
                new.undo_appends()
                raise
            if isinstance(new, BackedSpool):
                new.loaded(places)
            self._adopt(old, new, {place: start + i for i, place in enumerate(places)}, lanes)
            if not isinstance(new, BackedSpool):
                old.close()

    def switch_back(self) -> None:
        """Go on in the file that a `BackedSpool` has behind it: append to it what it does not hold.

        Raises:
            SpoolError, DataTypeError: As for `switch`.
        """
        with self._standing_still() as lanes:
            old = self.spool
            assert isinstance(old, BackedSpool)
            file, loaded = old.file, old.places
            start = file.next_place
            file.thaw()
            try:
                places = copy_owed(old, file, after=len(loaded), check=check_for(file))
                copy_letters(old, file)
            except BaseException:
                file.undo_appends()
                file.freeze()
                raise
            moved = {i + 1: place for i, place in enumerate(loaded)} | {p: start + i for i, p in enumerate(places)}
            self._adopt(old, file, moved, lanes)

    def _adopt(self, old: Spool, new: Spool, moved: dict[int, int], lanes: list[Lane]) -> None:
        for lane in lanes:
            lane.move(old, new, moved)
        self.spool = new

    @contextmanager
    def _standing_still(self) -> Iterator[list[Lane]]:
        """Nothing is appended, read or settled meanwhile; calls into exporters go on."""
        with self._gate:
            self._moving = True
            old = self.spool
            old.freeze()
            lanes = list(self._lanes().values())
            for lane in lanes:
                lane.mutex.acquire()
            try:
                yield lanes
            finally:
                for lane in lanes:
                    lane.mutex.release()
                if self.spool is old:
                    old.thaw()
                self._moving = False
                self._keep_late()
