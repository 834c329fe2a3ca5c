"""Delivers lots of records in the time of the caller, each out of a spool of its own; only what is left is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.foreground import Foreground
from resilient_exporters.delivery.keeper import Keep, Keeper
from resilient_exporters.delivery.lane import Lane
from resilient_exporters.delivery.moving import numbered
from resilient_exporters.delivery.parcel import Lot
from resilient_exporters.delivery.settings import Settings
from resilient_exporters.exceptions import Queued, SpoolError
from resilient_exporters.records import ExportResult
from resilient_exporters.spool.memory import MemorySpool

__all__ = ["Lots"]


class Lots:
    """What `send_many` does when it waits.

    Args:
        settings: What the user chose.
        keeper: Keeps what is left.
        foreground: Drives the lanes.
        clock: Tells the time.
        lanes: The lanes of the moment.
    """

    def __init__(
        self,
        settings: Settings,
        keeper: Keeper,
        foreground: Foreground,
        clock: Clock,
        lanes: Callable[[], dict[str, Lane]],
    ) -> None:
        self._settings = settings
        self._keeper = keeper
        self._foreground = foreground
        self._clock = clock
        self._lanes = lanes

    def deliver(self, lot: Lot, how: Keep, reentrant: bool, totals: dict[str, ExportResult]) -> None:
        """Have each lane deliver a lot, keep what is left, and add up what came of it.

        Args:
            lot: The records.
            how: How they are kept.
            reentrant: Whether they are only to be kept.
            totals: By lane: `returned` is the number of records taken so far.

        Raises:
            SpoolError: Nobody took any of it and it could not be kept: nothing of it was accepted.
        """
        waiting = self._spool_of(lot)
        names = [name for name in self._lanes() if name in lot.lanes]
        errors = {} if reentrant else self._foreground.visit(names, waiting)
        left = {name: waiting.account(name).records for name in lot.lanes}
        dead = Counter(letter.lane for letter in waiting.dead_letters())
        trouble = self._keep_rest(waiting, how)
        if trouble is not None and all(waiting.account(name).records == len(lot.payloads) for name in lot.lanes):
            raise trouble
        self._count_dropped(waiting)
        for name in lot.lanes:
            missing = left[name] + dead[name]
            error = trouble or errors.get(name) or (Queued(0) if missing else None)
            total = totals.get(name) or ExportResult(0, True, exporter=name)
            totals[name] = ExportResult(
                total.returned + len(lot.payloads) - missing,
                total.successful and not missing,
                error=total.error or (error if missing else None),
                exporter=name,
                kept=total.kept or bool(left[name] and trouble is None and self._settings.saves),
            )

    def _spool_of(self, lot: Lot) -> MemorySpool:
        """The lot in a spool of its own, numbered in the run of the pool's."""
        waiting, spool, now = MemorySpool(), self._keeper.spool, self._clock.time()
        run = spool.run
        numbers = [spool.draw() for _ in lot.payloads]  # other threads may draw some of those between
        for start, end in numbered(numbers):
            waiting.append(
                lot.payloads[start:end],
                lot.lanes,
                time=now,
                first=numbers[start],
                run=run,
                options=lot.options,
                flags=lot.flags,
            )
        return waiting

    def _keep_rest(self, waiting: MemorySpool, how: Keep) -> SpoolError | None:
        """Keep what lanes did not take, and its dead letters; why that could not be, what was not kept stays there."""
        if not self._settings.saves:
            return None
        try:
            self._keeper.take_letters(waiting)
            self._keeper.take(waiting, how)
        except SpoolError as error:
            return error
        return None

    def _count_dropped(self, waiting: MemorySpool) -> None:
        """What is still there was neither taken nor kept."""
        lanes = self._lanes()
        for letter in waiting.dead_letters():
            if letter.lane in lanes:
                lanes[letter.lane].dead -= 1
                lanes[letter.lane].dropped += 1
        for name in waiting.owing():
            if name in lanes:
                lanes[name].dropped += waiting.account(name).records
