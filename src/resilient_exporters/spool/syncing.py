"""Making the log safe against power cuts: callers share a sync, and a failed one is never trusted."""

from __future__ import annotations

import contextlib
import logging
import threading

from resilient_exporters.exceptions import SpoolError
from resilient_exporters.spool.files import Files
from resilient_exporters.spool.locks import if_free
from resilient_exporters.spool.log import Log
from resilient_exporters.spool.placing import translated
from resilient_exporters.spool.segment import Segment

__all__ = ["Syncer"]

logger = logging.getLogger("resilient_exporters")


class _Round:
    """Callers who share one sync: they wait at its door, and the first one through does it for all."""

    __slots__ = ("done", "door")

    def __init__(self) -> None:
        self.door = threading.RLock()
        self.done: Log | None = None  # what was synced: after an interruption a spool goes on with another log


class Syncer:
    """Syncs segments, without holding up those who append; callers who come while a sync runs share the next one.

    Args:
        files: The operating system.
        gate: The lock of those who append; never taken before `lock`.
    """

    def __init__(self, files: Files, gate: threading.RLock) -> None:
        self.files = files
        self.lock = threading.RLock()
        self._gate = gate
        self._gathering = _Round()
        # Numbers of segments of which a sync has failed.
        self._doubted: set[int] = set()
        # Files that nobody needs any more, though a sync may still be using them.
        self._unused: list[int] = []

    def sync(self, log: Log) -> None:
        """Return when all that was appended before is safe.

        Raises:
            SpoolError: It cannot be made safe.
        """
        mine = self._gathering
        with mine.door:
            if mine.done is log:
                return
            following = _Round()
            with following.door:
                # Who came before has appended what is synced now; who comes from here on waits until this is through.
                # So nobody whose records are safe ever waits for the sync of others.
                self._gathering = following
                self._sync(log)
                mine.done = log

    def _sync(self, log: Log) -> None:
        with self._gate:
            wanted = [(segment, segment.end) for segment in list(log.segments.values())]
        with self.lock:
            try:
                for segment, end in wanted:
                    if segment.synced < end and segment.number in log.segments:
                        self._sync_segment(log, segment)
                if log.names_unsynced:
                    log.names_unsynced = False
                    try:
                        log.placing.sync_names()
                    except OSError:
                        log.names_unsynced = True
                        raise
            except OSError as error:
                raise translated(error, "syncing", log.placing.path) from error
            finally:
                self.close_unused()

    def try_again(self, log: Log) -> None:
        """Before closing, which forgets the doubt: sync once more what a failed sync has left in doubt."""
        if not self._doubted:
            return
        try:
            self.sync(log)
        except SpoolError as error:
            logger.warning(
                "spool_closed_unsynced path=%r error=%r: a power cut may still take records that were kept since the "
                "last sync that worked",
                log.placing.path,
                str(error),
            )

    def _sync_segment(self, log: Log, segment: Segment) -> None:
        end = segment.end
        handle = segment.handle
        borrowed = handle is None
        try:
            if handle is None:
                handle = self.files.open(segment.path)
            if segment.number in self._doubted:
                raise OSError(f"an earlier sync of {segment.path} failed")
            self.files.sync(handle)
        except FileNotFoundError:
            return  # settled and deleted meanwhile
        except OSError as error:
            # The system may have dropped the data, and will call the next sync good.
            self._doubted.add(segment.number)
            logger.warning("spool_sync_failed path=%r error=%r; writing a new copy", segment.path, str(error))
            self._write_again(log, segment)
            return
        finally:
            if borrowed and handle is not None:
                self.files.close(handle)
        segment.synced = end

    def _write_again(self, log: Log, segment: Segment) -> None:
        """Write a segment out anew; frames stay valid where they are."""
        with self._gate:
            handle = segment.handle if segment.handle is not None else self.files.open(segment.path)
            new = log.placing.write_again(segment, handle)
            if new != handle:
                log.adopt(segment, new)
                self._unused.append(handle)
            segment.synced = segment.end
            self._doubted.discard(segment.number)
            log.names_unsynced = True

    def retire(self, segment: Segment) -> None:
        """Close a segment's file, later if a sync may be using it."""
        handle, segment.handle = segment.handle, None
        if handle is None:
            return
        self._unused.append(handle)
        if_free(self.lock, self.close_unused, None)

    def close_unused(self) -> None:
        """Close what nobody needs any more."""
        while self._unused:
            with contextlib.suppress(OSError):  # closing reports old write errors; these files are done with
                self.files.close(self._unused.pop())

    def abandon(self, segment: Segment) -> None:
        """Note a segment's file for closing, taking no lock."""
        handle, segment.handle = segment.handle, None
        if handle is not None:
            self._unused.append(handle)
