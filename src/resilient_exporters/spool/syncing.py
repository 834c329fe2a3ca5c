"""Making the log safe against power cuts: callers share a sync, and a failed one is never trusted."""

from __future__ import annotations

import contextlib
import logging
import threading

from .files import Files
from .log import Log, translated
from .segment import Segment, read_all, write_all

__all__ = ["Syncer"]

logger = logging.getLogger("resilient_exporters")


class Syncer:
    """Syncs segments, one caller at a time, without holding up those who append.

    Args:
        files: The operating system.
        gate: The lock of those who append; never taken before `lock`.
    """

    def __init__(self, files: Files, gate: threading.RLock) -> None:
        self.files = files
        self.lock = threading.RLock()
        self._gate = gate
        # Numbers of segments of which a sync has failed.
        self._doubted: set[int] = set()
        # Files that nobody needs any more, though a sync may still be using them.
        self._unused: list[int] = []

    def sync(self, log: Log) -> None:
        """Return when all that was appended before is safe; callers that come while a sync runs share the next one.

        Raises:
            SpoolError: It cannot be made safe.
        """
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
        """Write a segment to a new file that takes its place; frames stay valid where they are."""
        with self._gate:
            handle = segment.handle if segment.handle is not None else self.files.open(segment.path)
            content = read_all(self.files, handle, segment.end)
            path = f"{segment.path}.copy"
            with contextlib.suppress(FileNotFoundError):
                self.files.unlink(path)
            new = self.files.open(path, create=True)
            try:
                write_all(self.files, new, content, 0)
                if segment.sealed:
                    write_all(self.files, new, segment.footer(), segment.end)
                self.files.sync(new)
                self.files.rename(path, segment.path)
            except BaseException:
                self.files.close(new)
                raise
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
        if self.lock.acquire(blocking=False):
            try:
                self.close_unused()
            finally:
                self.lock.release()

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
