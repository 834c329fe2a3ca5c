"""A spool over a log: appending under one lock, reading and settling under another, syncing under a third."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
import time as clock
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..exceptions import PoolClosed, SpoolError, SpoolFull
from .dead import DeadKeeper
from .files import Files
from .interface import DeadLetter, Fate, LaneAccount, Payload, Slice, SpoolMoving
from .ledger import Lane, Ledger
from .log import Log, Numbers, translated
from .segment import Segment
from .state import StateKeeper
from .syncing import Syncer

__all__ = ["LogSpool", "Parts"]

logger = logging.getLogger("resilient_exporters")

_living: weakref.WeakSet[LogSpool] = weakref.WeakSet()
# Files of sealed segments that are left open before appending closes some.
_OPEN = 32
_FORKED = (
    "this pool belongs to the parent process; make one pool per process, after the fork, each with its own file: "
    "docs/how-to/prefork.md"
)


class Parts:
    """The parts of an open spool: they come and go together.

    Args:
        log: Guarded by the gate.
        ledger: Guarded by the books, as are the others.
    """

    __slots__ = ("dead", "ledger", "log", "state")

    def __init__(self, log: Log, ledger: Ledger, state: StateKeeper, dead: DeadKeeper) -> None:
        self.log = log
        self.ledger = ledger
        self.state = state
        self.dead = dead

    def used(self) -> int:
        """Bytes in use."""
        return sum(segment.end for segment in self.ledger.segments()) + self.state.size + self.dead.size


class LogSpool:
    """What spools in files and in file objects have in common; see `spool.interface.Spool`.

    Locks, in the order in which they are taken: the syncer's, `_gate` (appending), `_books` (reading and settling).
    The holder of the gate only ever tries the books, so an append from inside a read cannot block itself.

    Args:
        files: The operating system.
    """

    def __init__(self, files: Files) -> None:
        self.run = secrets.randbits(64)
        self.damage = (0, 0)
        self._files = files
        self._pid = os.getpid()
        self._numbers = Numbers()
        self._gate = threading.RLock()
        self._busy = False
        self._frozen = False
        self._waiting: deque[tuple[Any, ...]] = deque()
        self._books = threading.RLock()
        self._reading = False
        self._later: deque[tuple[str, Sequence[int], Fate]] = deque()
        self._syncer = Syncer(files, self._gate)
        self._closed = False
        self._parts: Parts | None = None
        self._unwritten = False
        self._marked = 0
        # An exception from outside (Ctrl-C) cut a change short: what memory says is not to be trusted.
        self._suspect = False
        _living.add(self)

    # ---------------------------------------------------------------- opening, checking

    def _open(self) -> Parts:
        """Open what is there; called with the gate held and nothing open."""
        raise NotImplementedError

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise PoolClosed(_FORKED)
        if self._closed:
            raise PoolClosed("the spool is closed")

    def _opened(self) -> Parts | None:
        """The parts, or None when they cannot be opened now."""
        self._check()
        if self._parts is None or self._suspect:
            with self._gate, contextlib.suppress(SpoolError):  # nothing can be read then; appending says why
                if not self._busy:
                    return self._ready()
        return self._parts

    def _ready(self) -> Parts:
        """The parts, opened (again) if need be; called with the gate held."""
        self._check()  # again: it may have been closed while this thread waited for the gate
        if self._suspect:
            with self._books:
                if self._reading:
                    raise SpoolError("an interrupted call is still on its way out")
                self._suspect = False
                if (parts := self._parts) is not None:
                    self._write_state(parts, "", Fate.DELIVERED, [])
                    self._parts = None
                    self._close_parts(parts)
        if self._parts is None:
            self._parts = self._open()
        return self._parts

    # ---------------------------------------------------------------- appending

    def freeze(self) -> None:
        """See `Spool.freeze`."""
        self._check()
        with self._gate:
            self._busy = self._frozen = True

    def thaw(self) -> None:
        """See `Spool.thaw`."""
        with self._gate:
            self._busy = self._frozen = False

    def draw(self) -> int:
        """See `Spool.draw`."""
        if self._closed:
            self._check()
        return self._numbers.next()

    @property
    def next_place(self) -> int:
        """See `Spool.next_place`."""
        parts = self._opened()
        return parts.log.next_place if parts is not None else 1

    def mark(self) -> None:
        """See `Spool.mark`."""
        self._check()
        with self._gate:
            if not self._busy:
                parts = self._ready()
                self._set_mark(parts)
                self._marked = parts.log.next_place

    def _set_mark(self, parts: Parts) -> None:
        """Prepare for taking back what is appended from here on."""
        raise NotImplementedError

    def _take_back(self, parts: Parts) -> None:
        """Remove what was appended since the mark from the files; what is in memory is read anew afterwards."""
        raise NotImplementedError

    def undo_appends(self) -> None:
        """See `Spool.undo_appends`.

        Raises:
            SpoolError: It is still there.
        """
        self._check()
        with self._gate, self._reader() as parts:
            if parts is None or self._busy or parts.log.next_place == self._marked:
                return
            self._take_back(parts)
            for lane in parts.ledger.lanes.values():
                lane.places.cut(self._marked)
            self._suspect = True
        with self._gate:
            self._ready().log.next_place = self._marked

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
        """See `Spool.append`."""
        if self._closed:  # also set in a forked child
            self._check()
        call = (payloads, lanes, time, first, run, options, flags, expires)
        place = 0
        with self._gate:
            if self._busy or (self._reading and self._books is self._gate):
                if self._frozen:
                    raise SpoolMoving
                # From a signal handler or finalizer inside a call on this thread: the outer one does it.
                self._waiting.append(call)
                return
            self._busy = True
            try:
                parts = self._parts
                if parts is None or self._suspect:
                    parts = self._ready()
                place = parts.log.next_place
                try:
                    parts.log.append(*call)  # type: ignore[arg-type]
                    if len(parts.log.open) > _OPEN:
                        self._prune(parts)
                except SpoolFull:
                    if not self._reclaim(parts):
                        raise
                    parts.log.append(*call)  # type: ignore[arg-type]
            except SpoolError:
                raise
            except BaseException:
                self._suspect = True
                raise
            finally:
                self._busy = False
                if self._waiting:
                    self._drain()
        if sync:
            self._sync_appended(lanes, place, len(payloads))

    def _drain(self) -> None:
        """Do the appends that were called while one ran.

        A signal may come between any two lines: its append is queued while `_busy` is set, and otherwise done by its
        own call, which may also empty the queue.
        """
        while self._waiting:
            self._busy = True
            try:
                if self._waiting and not self._append_waiting():
                    return
            finally:
                self._busy = False

    def _append_waiting(self) -> bool:
        """Append the oldest that waits; False when it must go on waiting."""
        call = self._waiting[0]
        try:
            self._ready().log.append(*call)
        except SpoolError as error:  # its caller is gone: it is tried again behind the next append
            logger.warning("spool_append_waits records=%d error=%r", len(call[0]), str(error))
            return False
        self._waiting.popleft()
        return True

    def _prune(self, parts: Parts) -> None:
        """Close files of sealed segments, unless somebody is reading; called with the gate held."""
        if self._books.acquire(blocking=False):
            try:
                if not self._reading:
                    parts.ledger.prune()
            finally:
                self._books.release()

    def _reclaim(self, parts: Parts) -> bool:
        """Make room by dropping segments in which nothing is owed; called with the gate held."""
        if not self._books.acquire(blocking=False):
            return False
        try:
            live = parts.log.live
            if live is not None and live.next > live.base and live.is_settled():
                with contextlib.suppress(SpoolError):  # then it stays; the caller reports the lack of room
                    parts.log.seal()
            return self._reap(parts) > 0
        finally:
            self._books.release()

    # ---------------------------------------------------------------- reading

    @contextlib.contextmanager
    def _reader(self) -> Iterator[Parts | None]:
        """The books, with the parts; None when this thread has them already, or nothing can be opened."""
        parts = self._opened()
        with self._books:
            if self._reading or parts is None:
                yield None
                return
            self._reading = True
            try:
                yield parts
            except OSError as error:
                raise translated(error, "using", parts.log.placing.path) from error
            except BaseException:
                self._suspect = True
                raise
            finally:
                self._reading = False
                if self._waiting and self._books is self._gate:
                    self._drain()
                if self._later:
                    self._settle_later(parts)
                if parts.ledger.found_gaps:
                    self._report(parts)

    def read(self, lane: str, after: int, records: int, size: int) -> Slice | None:
        """See `Spool.read`. None, too, when called from a signal handler inside another call on this thread."""
        with self._reader() as parts:
            if parts is None or parts.ledger.balance(lane)[0] <= 0:
                return None
            return parts.ledger.read(parts.ledger.lane(lane), after, records, size)

    def account(self, lane: str) -> LaneAccount:
        """See `Spool.account`."""
        parts = self._opened()
        if parts is None:
            return LaneAccount(0, 0, None)
        records, size = parts.ledger.balance(lane)
        return LaneAccount(records, size, self._oldest(lane) if records > 0 else None)

    def _oldest(self, name: str) -> float | None:
        with self._reader() as parts:
            if parts is None:
                return None
            lane = parts.ledger.lane(name)
            if lane.oldest is None or lane.oldest[0] in lane.places:
                with contextlib.suppress(OSError):  # reading for real will report it
                    parts.ledger.read(lane, 0, 1, 1)
            return lane.oldest[1] if lane.oldest else None

    def owing(self) -> tuple[str, ...]:
        """See `Spool.owing`."""
        parts = self._opened()
        if parts is None:
            return ()
        return tuple(name for name in parts.ledger.names() if parts.ledger.balance(name)[0] > 0)

    def size(self) -> int:
        """See `Spool.size`."""
        parts = self._opened()
        return parts.used() if parts is not None else 0

    # ---------------------------------------------------------------- settling

    def settle(self, lane: str, places: Sequence[int], fate: Fate) -> int:
        """See `Spool.settle`."""
        with self._reader() as parts:
            if parts is None:
                # From a signal handler inside another call: that one does it.
                self._later.append((lane, places, fate))
                return 0
            settled = self._settle(parts, parts.ledger.lane(lane), places, fate)
            self._reap(parts)
            return settled

    def _settle_later(self, parts: Parts) -> None:
        while self._later:
            name, places, fate = self._later.popleft()
            self._settle(parts, parts.ledger.lane(name), places, fate)

    def _settle(self, parts: Parts, lane: Lane, places: Iterable[int], fate: Fate) -> int:
        """Settle and write that down; how many records it was."""
        before = lane.settled.records
        try:
            if isinstance(places, range):
                ranges = parts.ledger.take_off(lane, parts.ledger.owed_between(lane, places.start, places.stop - 1))
            else:
                ranges = parts.ledger.settle(lane, places)
        except OSError as error:
            logger.warning("spool_settle_unreadable lane=%r error=%r", lane.name, str(error))
            return 0
        unwritten = (ranges or self._unwritten) and not self._write_state(parts, lane.name, fate, ranges)
        # No room, not even the reserve: deleting what is settled says the same, and makes some.
        if unwritten and self._make_room(parts):
            self._write_state(parts, lane.name, fate, ranges)
        return lane.settled.records - before

    def _make_room(self, parts: Parts) -> bool:
        """Drop what is settled, unless somebody is appending; called with the books held."""
        if not self._gate.acquire(blocking=False):
            return False
        try:
            return not self._busy and self._reclaim(parts)
        finally:
            self._gate.release()

    def _write_state(self, parts: Parts, name: str, fate: Fate, ranges: list[tuple[int, int]]) -> bool:
        lanes = {lane.name: lane.places for lane in parts.ledger.lanes.values()}
        try:
            parts.state.write(name, fate, ranges, lanes)
        except OSError as error:
            if not self._unwritten:
                logger.warning("spool_state_unwritten path=%r error=%r", parts.state.path, str(error))
            self._unwritten = True
            return False
        self._unwritten = False
        return True

    def _reap(self, parts: Parts) -> int:
        """Delete sealed segments in which nothing is owed; how many. Called with the books held."""
        settled = [segment for segment in parts.ledger.segments() if segment.sealed and segment.is_settled()]
        if not settled:
            return 0
        # Before any unlink: else, after a power cut, the missing segment looks like a loss.
        try:
            parts.state.sync()
        except OSError as error:
            logger.warning("spool_state_unsynced path=%r error=%r", parts.state.path, str(error))
        reaped = 0
        for segment in settled:
            try:
                self._files.unlink(segment.path)
            except FileNotFoundError:
                pass
            except OSError as error:
                logger.warning("spool_segment_undeletable path=%r error=%r", segment.path, str(error))
                continue
            del parts.log.segments[segment.number]
            parts.log.names_unsynced = True
            self._syncer.retire(segment)
            reaped += 1
        return reaped

    # ---------------------------------------------------------------- dead letters

    def bury(self, lane: str, slice: Slice, reasons: dict[int, str], attempts: int) -> int:
        """See `Spool.bury`.

        Raises:
            SpoolFull: No room for the letters; the records stay owed.
            SpoolError: They cannot be written; the records stay owed.
        """
        with self._reader() as parts:
            if parts is None:
                raise SpoolError("dead letters cannot be kept from inside another call on the spool")
            if not slice.places:  # it was never kept, so nothing is to be settled
                self._add_letters(parts, list(_letters(lane, slice, reasons, attempts)))
                return len(reasons)
            keeper = parts.ledger.lane(lane)
            owed = parts.ledger.sizes(keeper, [slice.places[at] for at in reasons])
            known = {at: reason for at, reason in reasons.items() if slice.places[at] in owed}
            if known:
                self._add_letters(parts, list(_letters(lane, slice, known, attempts)))
                # The letters first: a crash between the two leaves records owed and dead, never neither.
                self._settle(parts, keeper, list(owed), Fate.DEAD)
            self._reap(parts)
            return len(known)

    def _add_letters(self, parts: Parts, letters: list[DeadLetter]) -> None:
        try:
            parts.dead.add(letters)
        except OSError as error:
            if not isinstance(translated(error, "writing", parts.dead.path), SpoolFull) or not self._make_room(parts):
                raise
            parts.dead.add(letters)

    def dead_letters(self) -> Iterable[DeadLetter]:
        """See `Spool.dead_letters`."""
        with self._reader() as parts:
            return list(parts.dead.letters()) if parts is not None else []

    def forget_dead(self, keys: Iterable[int]) -> None:
        """See `Spool.forget_dead`."""
        with self._reader() as parts:
            if parts is not None:
                parts.dead.forget(keys)

    # ---------------------------------------------------------------- dropping

    def drop_oldest(self, size: int) -> dict[str, int]:
        """See `Spool.drop_oldest`."""
        lost: dict[str, int] = {}
        if self._opened() is None:
            return lost
        with self._gate, self._reader() as parts:
            if parts is None or self._busy:
                return lost
            for segment in parts.ledger.segments():
                if size <= 0:
                    break
                size -= self._drop_from(parts, segment, size, lost)
            self._reap(parts)
        return lost

    def _drop_from(self, parts: Parts, segment: Segment, size: int, lost: dict[str, int]) -> int:
        """Drop what is oldest in a segment; how many bytes that frees."""
        raise NotImplementedError

    def _drop(self, parts: Parts, name: str, places: Iterable[int], lost: dict[str, int]) -> None:
        dropped = self._settle(parts, parts.ledger.lane(name), places, Fate.DROPPED)
        if dropped:
            lost[name] = lost.get(name, 0) + dropped

    def expire(self, now: float) -> dict[str, int]:
        """See `Spool.expire`."""
        lost: dict[str, int] = {}
        with self._reader() as parts:
            if parts is None:
                return lost
            for segment in parts.ledger.segments():
                if segment.expires and segment.expires <= now:
                    self._expire(parts, segment, now, lost)
            self._reap(parts)
        return lost

    def _expire(self, parts: Parts, segment: Segment, now: float, lost: dict[str, int]) -> None:
        over: dict[str, list[int]] = {}
        for window in parts.ledger.windows(segment):
            for entry in window.entries():
                if 0.0 < entry.records.expires <= now:
                    for name in segment.sets.get(entry.set, ()):
                        over.setdefault(name, []).extend(range(entry.first, entry.last + 1))
        for name, places in over.items():
            self._drop(parts, name, places, lost)

    # ---------------------------------------------------------------- syncing

    def sync(self) -> None:
        """See `Spool.sync`.

        Raises:
            SpoolError: The data cannot be made safe.
        """
        parts = self._opened()
        if parts is None:
            raise SpoolError("the spool cannot be opened")
        self._syncer.sync(parts.log)
        with self._books:
            try:
                if self._unwritten and not self._write_state(parts, "", Fate.DELIVERED, []):
                    raise SpoolError(f"{parts.state.path} cannot be written")
                parts.state.sync()
                parts.dead.sync()
            except OSError as error:
                raise translated(error, "syncing", parts.state.path) from error

    def _sync_appended(self, lanes: frozenset[str], place: int, count: int) -> None:
        parts = self._parts
        if parts is None:
            return
        try:
            self._syncer.sync(parts.log)
        except SpoolError:
            # The caller is told that nothing was kept, so nothing may be delivered later.
            lost: dict[str, int] = {}
            with self._reader() as reading:
                if reading is not None:
                    for name in lanes:
                        self._drop(reading, name, range(place, place + count), lost)
            raise

    # ---------------------------------------------------------------- closing

    def _report(self, parts: Parts) -> None:
        """Say what damage was found since the last time, and set it aside."""
        raise NotImplementedError

    def close(self) -> None:
        """See `Spool.close`."""
        if self._pid != os.getpid() or self._closed:
            return
        with self._gate, self._books:
            self._closed = True
            parts, self._parts = self._parts, None
            if parts is not None:
                if self._unwritten:
                    self._write_state(parts, "", Fate.DELIVERED, [])
                self._close_parts(parts)
        with self._syncer.lock:
            self._syncer.close_unused()

    def _close_parts(self, parts: Parts) -> None:
        for segment in parts.ledger.segments():
            self._syncer.abandon(segment)
        for part in (parts.state, parts.dead):
            with contextlib.suppress(OSError):  # all was written; what close reports are old errors
                part.close()

    def _forget(self) -> None:
        """In a forked child: close all files and do nothing else; the parent goes on with them.

        No lock is taken: a thread of the parent may have held it at the fork, and will never let go of it here.
        """
        self._closed = True
        parts, self._parts = self._parts, None
        if parts is not None:
            self._close_parts(parts)
        self._syncer.close_unused()


def _letters(lane: str, slice: Slice, reasons: dict[int, str], attempts: int) -> Iterator[DeadLetter]:
    now = clock.time()
    for at, reason in sorted(reasons.items()):
        yield DeadLetter(
            key=0,
            lane=lane,
            run=slice.run,
            number=slice.numbers[at],
            accepted=slice.times[at],
            died=now,
            attempts=attempts,
            reason=reason,
            options=slice.options,
            flags=slice.flags,
            payload=slice.payloads[at],
        )


def _after_fork_in_child() -> None:
    for spool in list(_living):
        spool._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
