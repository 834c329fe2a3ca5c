"""The file spool: segments, a state file and a dead-letter file beside each other, for one holder at a time."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from resilient_exporters.exceptions import InvalidConfigError, SpoolError, SpoolInUse
from resilient_exporters.spool.dead import DeadLetters
from resilient_exporters.spool.files import OS, Files, Unlockable, read_all, write_all
from resilient_exporters.spool.ledger import Lane, Ledger
from resilient_exporters.spool.log import Log
from resilient_exporters.spool.logspool import LogSpool, Parts
from resilient_exporters.spool.placing import Placing, translated
from resilient_exporters.spool.recovery import Recovery, set_aside
from resilient_exporters.spool.room import Room
from resilient_exporters.spool.segment import Segment
from resilient_exporters.spool.state import State

__all__ = ["FileSpool"]

logger = logging.getLogger("resilient_exporters")

SEGMENT_SIZE = 1 << 24


class FileSpool(LogSpool):
    """Keeps records in files at `path` and at siblings whose names start with it.

    What `append` took survives the death of the process; with `sync`, a power cut.

    Args:
        path: The live segment.
        files: The operating system, for tests.
        owner: Who holds it, told to others who want it.
        segment_size: Bytes at which a segment is sealed; with `limit_bytes` at most an eighth of that.
        limit_bytes: Bytes that everything together may use, or None.
        free_floor: Bytes of the file system that must stay free; None = a hundredth of it, at most 50 MB.
        make_parents: Make the directory if it is missing.

    Raises:
        SpoolInUse: Another process or spool holds it.
        InvalidConfigError: The file is something else, or the file system cannot lock.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        files: Files = OS,
        owner: str = "",
        segment_size: int = SEGMENT_SIZE,
        limit_bytes: int | None = None,
        free_floor: int | None = 0,
        make_parents: bool = False,
    ) -> None:
        super().__init__(files)
        self.path = str(Path(os.path.realpath(path)))
        self.owner = owner
        if limit_bytes is not None:
            segment_size = min(segment_size, max(limit_bytes // 8, 4096))
        self._segment_size = segment_size
        self._marked_number = 1
        self._make_parents = make_parents
        self._lock: int | None = None
        self._directory = os.path.dirname(self.path)
        self._limit = limit_bytes
        self._floor = free_floor
        try:
            self._parts = self._open()
        except SpoolError as error:
            # The share is not mounted, the directory not made yet: appending tries again.
            logger.info("spool_not_open path=%r error=%r", self.path, str(error))
        except BaseException:
            self._closed = True
            raise

    # ---------------------------------------------------------------- opening

    def _open(self) -> Parts:
        # Opened again after an interruption, it keeps the lock whatever happens.
        held = self._lock is not None
        try:
            if not held:
                self._claim()
            return self._recover()
        except BaseException as error:
            if not held:
                self._let_go()
            if isinstance(error, OSError):
                raise translated(error, "opening", self.path) from error
            raise

    def _claim(self) -> None:
        """Take the lock, or say who has it."""
        if self._make_parents:
            self._files.make_dirs(self._directory)
        path = f"{self.path}.lock"
        handle = self._files.open_lock(path)
        try:
            taken = self._files.lock(handle)
        except Unlockable as error:
            self._files.close(handle)
            raise InvalidConfigError(
                f"the file system of {self.path} cannot lock files ({error}), so two programs could not be kept from "
                f"writing it at once; give a path on a local disk"
            ) from error
        except BaseException:
            self._files.close(handle)
            raise
        if not taken:
            holder = read_all(self._files, handle, 1024).decode(errors="replace").strip()
            self._files.close(handle)
            raise SpoolInUse(
                f"{self.path} is held by {holder or 'another process'}; one pool at a time may use it: give each its "
                f"own name= or tmp_file=, and with pre-forking servers see docs/how-to/prefork.md"
            )
        self._lock = handle
        name = f"process {os.getpid()}{f' ({self.owner})' if self.owner else ''}\n".encode()
        with contextlib.suppress(OSError):  # a full disk: then refusals name nobody
            self._files.truncate(handle, 0)
            write_all(self._files, handle, name, 0)

    def _recover(self) -> Parts:
        """Open what an earlier run left."""
        found = Recovery(self._files, self.path).run()
        spool = self.run if found.spool is None else found.spool
        room = Room(self._files, self._directory, self._limit, self._floor)
        state = State(self._files, f"{self.path}.state", spool)
        log = Log(
            Placing(self._files, self.path, reuse=found.reuse, prepare=state.reserve),
            spool=spool,
            run=self.run,
            segment_size=self._segment_size,
            room=room.grant,
            numbers=self._numbers,
        )
        ledger = Ledger(log, self._syncer.retire)
        dead = DeadLetters(self._files, f"{self.path}.dead", spool, room=log.room_for_others)
        parts = Parts(log, ledger, state, dead)
        sizes = self._files.siblings(self.path)
        state.size, dead.size = sizes.get(".state", 0), sizes.get(".dead", 0)
        room.used = parts.used
        for segment in found.segments:
            log.segments[segment.number] = segment
            log.next_number = max(log.next_number, segment.number + 1)
            log.next_place = max(log.next_place, segment.next)
        for name, places in found.states.items():
            ledger.lanes[name] = Lane(name, places)
            # state 18
            log.next_place = max(log.next_place, places.top + 1)
        for segment in found.segments:
            ledger.open_balance(segment)
            if segment.sealed and segment is not found.live and segment not in found.damaged:
                self._syncer.retire(segment)
        if found.live is not None:
            self._resume(log, found.live)
        self._tell(parts, found.damaged, found.records, found.bytes)
        # state 10: settled, not yet deleted
        self._reap(parts)
        return parts

    def _resume(self, log: Log, live: Segment) -> None:
        """Go on with the live segment of the last run, if it is whole."""
        log.resume(live)
        if live.sealed or live.gaps:
            # state 5, state 7: never append behind damage or a footer
            log.seal()
            return
        assert live.handle is not None
        # state 4, state 6
        if self._files.size(live.handle) > live.end:
            self._files.truncate(live.handle, live.end)

    # ---------------------------------------------------------------- taking back

    def _set_mark(self, parts: Parts) -> None:
        # From here on in segments of their own: then taking back is deleting files, which needs no room.
        if parts.log.live is not None:
            parts.log.seal()
        self._marked_number = parts.log.next_number

    def _take_back(self, parts: Parts) -> None:
        for segment in reversed(parts.ledger.segments()):
            if segment.number >= self._marked_number:
                self._files.unlink(segment.path)
                del parts.log.segments[segment.number]
                self._syncer.retire(segment)

    def _drop_from(self, parts: Parts, segment: Segment, size: int, lost: dict[str, int]) -> int:
        # Only a whole file gives its room back.
        if not segment.sealed:
            parts.log.seal()
        for name in segment.owed():
            self._drop(parts, name, range(segment.base, segment.next), lost)
        return segment.end

    # ---------------------------------------------------------------- damage

    def _report(self, parts: Parts) -> None:
        segments, parts.ledger.found_gaps = parts.ledger.found_gaps, []
        records, parts.ledger.lost = parts.ledger.lost, 0
        size = sum(gap.stop - gap.start for segment in segments for gap in segment.gaps)
        self._tell(parts, segments, records, size)

    def _tell(self, parts: Parts, segments: list[Segment], records: int, size: int) -> None:
        """Set damage aside, remember it, and say how much it is."""
        if not size and not records:
            return
        if segments:
            set_aside(self._files, self.path, segments)
        for segment in segments:
            if segment.sealed and segment.handle is not None:
                with contextlib.suppress(OSError):  # the next opening finds it again
                    segment.seal_again()
        self.damage = self.damage[0] + records, self.damage[1] + size
        logger.warning("spool_damaged path=%r records_lost=%d bytes_set_aside=%d", self.path, records, size)

    # ---------------------------------------------------------------- closing

    def close(self) -> None:
        """See `Spool.close`."""
        super().close()
        if self._pid == os.getpid():
            self._let_go()

    def _let_go(self) -> None:
        handle, self._lock = self._lock, None
        if handle is not None:
            with contextlib.suppress(OSError):  # the lock is gone all the same
                self._files.close(handle)

    def _forget(self) -> None:
        super()._forget()
        self._let_go()

    def __del__(self) -> None:
        if hasattr(self, "_lock"):  # else the constructor did not get that far
            self.close()
