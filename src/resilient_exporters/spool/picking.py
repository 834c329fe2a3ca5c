"""Picking from windows what a lane owes, into one slice."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

from resilient_exporters.spool.cursor import Places
from resilient_exporters.spool.interface import Slice
from resilient_exporters.spool.window import Entry, Window

__all__ = ["Pick"]


class Pick:
    """Collects what a lane owes into one slice.

    Args:
        settled: Places at which the lane owes nothing; where records of others lie between its own, they are added.
        place: Where to begin.
        records: At most that many.
        size: Stop when the payloads reach that many bytes; at least one record is taken.

    Attributes:
        place: All records of the lane before it were looked at.
        found: The slice, None before the first record.
        full: Nothing more goes in.
    """

    __slots__ = ("_records", "_settled", "_size", "found", "full", "place")

    def __init__(self, settled: Places, place: int, records: int, size: int) -> None:
        self._settled = settled
        self._records = records
        self._size = size
        self.place = place
        self.found: Slice | None = None
        self.full = False

    def take(self, window: Window, index: int, mine: set[int]) -> int:
        """Take records of a window from an entry on, where lane sets in `mine` are the lane's; where to go on."""
        for at in range(index, len(window.entries)):
            entry = window.entries[at]
            if entry.set in mine and entry.last >= self.place:
                self._take(entry)
                if self.full:
                    return at
        return len(window.entries)

    def _take(self, entry: Entry) -> None:
        """Take what is owed of an entry."""
        for first, last in list(self._settled.missing(max(self.place, entry.first), entry.last)):
            found = self.found
            if found is None:
                found = self.found = Slice(entry.run, entry.options, entry.flags, expires=entry.expires)
            elif (found.run, found.options, found.flags, found.expires) != (
                entry.run, entry.options, entry.flags, entry.expires
            ):  # fmt: skip
                self.full = True
            if self.full:
                return
            if first > self.place:
                # Nothing is owed in between, and nobody has to look again.
                self._settled.add(self.place, first - 1)
            self._put(found, entry, first - entry.first, last - entry.first + 1)

    def _put(self, found: Slice, entry: Entry, start: int, stop: int) -> None:
        """Take as many as still go in of the records from one index to another."""
        stop = min(stop, start + self._records)
        payloads = entry.payloads[start:stop]
        size = sum(map(len, payloads))
        if size >= self._size:
            stop = start + 1 + bisect_left(list(accumulate(map(len, payloads))), self._size)
            payloads = payloads[: stop - start]
        found.places.extend(range(entry.first + start, entry.first + stop))
        found.numbers.extend(range(entry.number + start, entry.number + stop))
        found.times.extend(entry.times[start:stop])
        found.payloads.extend(payloads)
        self.place = entry.first + stop
        self._records -= stop - start
        self._size -= size
        self.full = self._records <= 0 or self._size <= 0
