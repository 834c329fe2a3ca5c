"""Reads segments a window at a time; lanes that read the same share it, and few files are open."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from resilient_exporters.spool.frame import Context
from resilient_exporters.spool.log import Log
from resilient_exporters.spool.segment import Segment
from resilient_exporters.spool.window import CHUNK, Damaged, Window

__all__ = ["Reader"]

# Sealed segments whose files stay open for reading.
_OPEN = 16
# Bytes of the windows that are kept for the lanes that come behind.
_RECENT = 4 * CHUNK


class Reader:
    """The windows of a log's segments.

    Args:
        log: The log.
        retire: Closes a segment's file as soon as nobody uses it.
    """

    def __init__(self, log: Log, retire: Callable[[Segment], object]) -> None:
        self.log = log
        self._retire = retire
        # Segment and offset -> window.
        self._recent: dict[tuple[int, int], Window] = {}
        self._recent_size = 0

    def _rescan(self, segment: Segment) -> None:
        """Find out what a segment that turned out to be damaged still holds."""
        raise NotImplementedError

    def windows(self, segment: Segment, place: int = 0) -> Iterator[Window]:
        """The windows of a segment from the one on that may hold `place`."""
        _, offset, context = segment.mark_before(place)
        while (window := self.window(segment, offset, context)) is not None:
            yield window
            offset, context = window.stop, window.context

    def window(self, segment: Segment, offset: int, context: Context) -> Window | None:
        """Read on in a segment; damage that is met is counted and stepped over."""
        key = segment.number, offset
        # One that another lane has read may be short by now: what has come since is in the windows behind it.
        window = self._recent.get(key)
        if window is None and (window := self._read(segment, offset, context)) is not None:
            self._recent[key] = window
            self._recent_size += window.stop - offset
            while self._recent_size > _RECENT and len(self._recent) > 1:
                oldest = next(iter(self._recent))
                self._recent_size -= self._recent.pop(oldest).stop - oldest[1]
        return window

    def _forget_windows(self) -> None:
        """Read everything anew from now on."""
        self._recent.clear()
        self._recent_size = 0

    def prune(self, using: Segment | None = None) -> None:
        """Close sealed segments that were opened longest ago, so that a long backlog does not use up all handles."""
        for number in list(self.log.open)[:-_OPEN]:
            segment = self.log.open.pop(number)
            if segment is not using:
                self._retire(segment)

    def _read(self, segment: Segment, offset: int, context: Context) -> Window | None:
        self._opened(segment)
        if segment.gaps and not segment.scanned:
            self._rescan(segment)
        try:
            return segment.window(offset, context)
        except Damaged:
            self._rescan(segment)
        return segment.window(offset, context)

    def _opened(self, segment: Segment) -> None:
        if segment.handle is None:
            segment.handle = self.log.files.open(segment.path)
            self.log.open[segment.number] = segment
            self.prune(segment)
