"""Cuts what a lane is owed into slices, each what its target may get as one batch."""

from __future__ import annotations

import sys

from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.sharing import Shared
from resilient_exporters.delivery.sources import Source
from resilient_exporters.delivery.target import Target
from resilient_exporters.delivery.throttle import Throttle
from resilient_exporters.spool.interface import Flag, Slice

__all__ = ["Slices", "older", "part_of"]


_ROW = 64
"""Most records that are read at once for a target of single ones: what it can be handed within a moment."""


class Slices:
    """Reads slices as large as the target takes them now: one record after a failure, then ever larger ones again.

    A target of single records gets them one by one; they are read together because that costs less.

    Args:
        target: The exporter.
        throttle: Its rate, or None.
        clock: Tells the time.
        shared: What other lanes have made of the same records, so that slices end where theirs do.

    Attributes:
        limit: Most records in the next slice.
    """

    def __init__(self, target: Target, throttle: Throttle | None, clock: Clock, shared: Shared) -> None:
        self._most = target.batch_records if target.batches else 1 if target.stable or throttle is not None else _ROW
        self.limit = self._most if target.batches else 1
        self._target = target
        self._throttle = throttle
        self._clock = clock
        self._shared = shared
        self._alone: set[tuple[int, int]] = set()
        """Run and number of new records whose first attempt left a stable target in doubt: it knows each as a batch."""

    def read(self, source: Source, after: int) -> Slice | None:
        """The next slice behind a place; None when nothing is owed there."""
        kept = source.spool.read(source.lane, after, *self._room())
        if kept is None:
            return None
        count = self._part(kept)
        # Read again, for the spool settles at once just what it has handed out.
        return kept if count == len(kept) else source.spool.read(source.lane, after, count, self._target.batch_bytes)

    def _part(self, kept: Slice) -> int:
        """How many records of a slice to take."""
        if kept.flags & Flag.BUNDLED:
            return 1
        if not self._target.batches:
            return len(kept)
        return self._as_tried(kept) if self._alone else self._shared.aligned(kept)

    def recalled(self, source: Source) -> Slice | None:
        """The batch that was in doubt when the target was last tried, maybe by another process."""
        places = source.spool.pinned(source.lane) if self._target.stable else None
        if not places:
            return None
        kept = source.spool.read(source.lane, places[0] - 1, len(places), sys.maxsize)
        return kept if kept is not None and [*kept.places] == places else None

    def grow(self, taken: Slice) -> None:
        """The target has taken some of a slice: the next one may be twice as large."""
        self.limit = min(self.limit * 2, self._most)
        if self._alone:
            self._alone.difference_update((taken.run, number) for number in taken.numbers)

    def expect(self, tried: int) -> None:
        """So many records of a row were tried in time: the next one needs not be much longer."""
        self.limit = min(tried * 2, self._most)

    def shrink(self) -> None:
        """The target failed: find out with a single record, which costs least."""
        self.limit = 1

    def keep_alone(self, tried: Slice) -> None:
        """Let new records that were tried be batches of their own when they are tried again."""
        self._alone.update((tried.run, number) for number in tried.numbers)

    def _room(self) -> tuple[int, int]:
        """Most records and bytes of the next slice."""
        records, size = self.limit, self._target.batch_bytes
        if self._throttle is None:
            return records, size
        most_records, most_bytes = self._throttle.room(self._clock.now())
        return min(records, most_records), min(size, most_bytes)

    def _as_tried(self, kept: Slice) -> int:
        """How many come before the first record that was tried as a batch of its own; 1 when it is the first."""
        ids = [(kept.run, number) for number in kept.numbers]
        return next((i for i, id in enumerate(ids) if id in self._alone), len(kept)) or 1


def older(kept: Slice, number: int) -> Slice | None:
    """The part of a slice before the first record that is not older."""
    end = next((i for i, other in enumerate(kept.numbers) if other >= number), len(kept))
    return part_of(kept, 0, end) if end else None


def part_of(kept: Slice, start: int, stop: int) -> Slice:
    """The records of a slice from one index up to another."""
    if stop - start == len(kept):
        return kept
    columns = (kept.places[start:stop], kept.numbers[start:stop], kept.times[start:stop], kept.payloads[start:stop])
    return Slice(kept.run, kept.options, kept.flags, *columns, expires=kept.expires)
