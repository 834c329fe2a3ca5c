"""A spool over a log: what is appended, read back and synced."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence

from resilient_exporters.exceptions import SpoolError, SpoolFull
from resilient_exporters.spool.interface import Fate, LaneAccount, Payload, Slice, SpoolMoving
from resilient_exporters.spool.living import Parts
from resilient_exporters.spool.locks import if_free
from resilient_exporters.spool.placing import translated
from resilient_exporters.spool.settling import SettlingSpool

__all__ = ["LogSpool", "Parts"]

logger = logging.getLogger("resilient_exporters")

# Files of sealed segments that are left open before appending closes some.
_OPEN = 32


class LogSpool(SettlingSpool):
    """What spools in files and in file objects have in common; see `spool.interface.Spool`."""

    _marked = 0

    # ---------------------------------------------------------------- appending

    def freeze(self) -> None:
        """See `Spool.freeze`."""
        self._check()
        with self._gate:
            self._busy = self._frozen = True

    def thaw(self) -> None:
        """See `Spool.thaw`."""
        self._check()
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

        def work(parts: Parts) -> bool:
            if self._busy or parts.log.next_place == self._marked:
                return False
            # Even if it fails half way, the files are what is true.
            self._suspect = True
            self._take_back(parts)
            for lane in parts.ledger.lanes.values():
                lane.places.cut(self._marked)
            return True

        self._check()
        with self._gate:
            if self._using(work, False):
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
        if self._closed:
            self._check()
        call = (payloads, lanes, time, first, run, options, flags, expires)
        place = 0
        with self._gate:
            if self._busy or (self._reading and self._inside()):
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

    def append_one(self, payload: bytes, lanes: frozenset[str], time: float) -> bool:
        """See `Spool.append_one`."""
        if self._closed:  # also set in a forked child, where a thread that is not there any more may hold the gate
            self._check()
        with self._gate:
            parts = self._parts
            if parts is None or self._busy or self._suspect or (self._reading and self._inside()):
                return False
            self._busy = True
            try:
                return parts.log.append_one(payload, lanes, time)
            except BaseException:
                self._suspect = True
                raise
            finally:
                self._busy = False
                if self._waiting:
                    self._drain()

    def _drain(self) -> None:
        # A signal may come between any two lines: its append is queued while `_busy` is set, and otherwise done by its
        # own call, which may also empty the queue.
        while self._waiting and not self._busy:
            self._busy = True
            try:
                if self._waiting and not self._append_waiting():
                    return
            except BaseException:
                self._suspect = True
                raise
            finally:
                self._busy = False

    def _append_waiting(self) -> bool:
        """Append the oldest that waits; False when it must go on waiting."""
        log = self._ready().log
        before = log.next_place
        call = self._waiting.popleft()
        try:
            log.append(*call)
        except SpoolError as error:  # its caller is gone: it is tried again behind the next append
            logger.warning("spool_append_waits records=%d error=%r", len(call[0]), str(error))
            return False
        finally:
            if log.next_place == before:
                self._waiting.appendleft(call)
        return True

    def _prune(self, parts: Parts) -> None:
        """Close files of sealed segments, unless somebody is reading; called with the gate held."""
        if_free(self._books, lambda: None if self._reading else parts.ledger.prune(), None)

    # ---------------------------------------------------------------- reading

    def read(self, lane: str, after: int, records: int, size: int) -> Slice | None:
        """See `Spool.read`. None, too, when called from a signal handler inside another call on this thread."""

        def work(parts: Parts) -> Slice | None:
            if parts.ledger.balance(lane)[0] <= 0:
                return None
            return parts.ledger.read(parts.ledger.lane(lane), after, records, size)

        return self._using(work, None)

    def account(self, lane: str) -> LaneAccount:
        """See `Spool.account`."""
        parts = self._opened()
        if parts is None:
            return LaneAccount(0, 0, None)
        records, size = parts.ledger.balance(lane)
        return LaneAccount(records, size, self._oldest(lane) if records > 0 else None)

    def _oldest(self, name: str) -> float | None:
        def work(parts: Parts) -> float | None:
            lane = parts.ledger.lane(name)
            if lane.oldest is None or lane.oldest[0] in lane.places:
                with contextlib.suppress(OSError):  # reading for real will report it
                    parts.ledger.read(lane, 0, 1, 1)
            return lane.oldest[1] if lane.oldest else None

        return self._using(work, None)

    def owing(self) -> tuple[str, ...]:
        """See `Spool.owing`."""
        parts = self._opened()
        if parts is None:
            return ()
        return tuple(parts.ledger.owing())

    def size(self) -> int:
        """See `Spool.size`."""
        parts = self._opened()
        return parts.used() if parts is not None else 0

    # ---------------------------------------------------------------- syncing

    def sync(self) -> None:
        """See `Spool.sync`.

        Raises:
            SpoolError: The data cannot be made safe.
        """
        parts = self._opened()
        if parts is None:
            raise SpoolError("the spool cannot be opened")
        self._sync_log(parts)
        with self._books:
            try:
                if self._unwritten and not self._write_state(parts, "", Fate.DELIVERED, []):
                    raise SpoolError(f"{parts.state.path} cannot be written")
                parts.state.sync()
                parts.dead.sync()
            except OSError as error:
                raise translated(error, "syncing", parts.state.path) from error

    def _sync_log(self, parts: Parts) -> None:
        try:
            self._syncer.sync(parts.log)
        except SpoolError:
            raise
        except BaseException:
            # A segment may have got another file, and nobody noted it.
            self._suspect = True
            raise

    def _sync_appended(self, lanes: frozenset[str], place: int, count: int) -> None:
        try:
            parts = self._parts
            if parts is None:  # given up meanwhile: then what is read anew is synced
                with self._gate:
                    parts = self._ready()
            self._sync_log(parts)
        except SpoolError:
            # The caller is told that nothing was kept, so nothing may be delivered later.
            lost: dict[str, int] = {}

            def work(reading: Parts) -> None:
                for name in lanes:
                    self._drop(reading, name, range(place, place + count), lost)

            self._using(work, None)
            raise
