"""Serves senders that wait: lanes try a record, and it is kept, once, for those that do not have it then."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from resilient_exporters.delivery.foreground import Answers, Foreground, Shipment
from resilient_exporters.delivery.keeper import Keep, Keeper
from resilient_exporters.delivery.lane import Lane
from resilient_exporters.delivery.parcel import Parcel
from resilient_exporters.delivery.settings import Settings
from resilient_exporters.delivery.turns import Waiting
from resilient_exporters.exceptions import SpoolError
from resilient_exporters.records import ExportResult

__all__ = ["Senders"]


class Senders:
    """What a `send` does when it waits.

    Args:
        settings: What the user chose.
        keeper: Keeps what lanes did not take.
        foreground: Drives the lanes.
        lanes: The lanes of the moment.
    """

    def __init__(
        self, settings: Settings, keeper: Keeper, foreground: Foreground, lanes: Callable[[], dict[str, Lane]]
    ) -> None:
        self._settings = settings
        self._keeper = keeper
        self._foreground = foreground
        self._lanes = lanes

    def deliver(self, shipments: Sequence[Shipment], answers: Answers, how: Keep) -> None:
        """Have lanes try the record, and keep it for those that do not have it then, interrupted or not."""
        try:
            self._foreground.deliver(shipments, answers)
        finally:
            self.keep_failed(shipments, answers, how)

    def keep_failed(self, shipments: Sequence[Shipment], answers: Answers, how: Keep) -> None:
        """Keep a record once, for the lanes that do not have it."""
        trouble: SpoolError | None = None
        results = answers.results
        try:
            for shipment in shipments:
                owing = [
                    result
                    for name in shipment.lanes
                    if (result := results.get(name)) and not result.successful and name not in answers.dead
                ]
                trouble = (self._keep_for(shipment.parcel, owing, how) if owing else None) or trouble
        finally:
            for run in answers.abandoned:
                run.kept.set()
        if trouble is None:
            return
        if not any(result.successful or result.kept for result in results.values()):
            raise trouble
        for name, result in results.items():
            if result.error is trouble:
                self._count_dropped(name)

    def _keep_for(self, parcel: Parcel, owing: list[ExportResult], how: Keep) -> SpoolError | None:
        """Keep a record for the lanes of these results; why it could not be."""
        lanes = frozenset(str(result.exporter) for result in owing)
        if not self._settings.saves:
            for name in lanes:
                self._count_dropped(name)
            return None
        try:
            kept = self._keeper.keep(parcel, lanes, how)
        except SpoolError as error:
            for result in owing:
                error.__cause__ = error.__cause__ or result.error
                result.error = error
            return error
        for result in owing:
            result.kept = kept
        return None

    def go_on(
        self, how: Keep, names: list[str], parcel: Parcel, done: list[ExportResult], failed: Waiting | None
    ) -> list[ExportResult]:
        """Go on with a record that the first lanes have, and that one has not taken or has to think about."""
        answers, shipment = Answers(), Shipment(parcel, names)
        answers.results = {str(result.exporter): result for result in done}
        lane = self._lanes().get(names[len(done)])
        if failed is not None and lane is not None:
            self._foreground.answer(lane, shipment, failed, answers)
        self.deliver([shipment], answers, how)
        return [answers.results[name] for name in names]

    def keep_interrupted(
        self, how: Keep, names: list[str], parcel: Parcel, done: list[ExportResult], interrupt: BaseException
    ) -> None:
        """Keep a record for the lanes that an interrupt has left without it."""
        answers = Answers()
        answers.results = {str(result.exporter): result for result in done}
        for name in names[len(done) :]:
            answers.results[name] = ExportResult(None, False, error=interrupt, exporter=name)
        self.keep_failed([Shipment(parcel, names)], answers, how)

    def _count_dropped(self, name: str) -> None:
        lane = self._lanes().get(name)
        if lane is not None:  # else it was removed meanwhile, and its account with it
            lane.dropped += 1
