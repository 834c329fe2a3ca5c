"""The short way of one plain record through one lane that has nothing else to do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from resilient_exporters import codec
from resilient_exporters.delivery.attempt import judged, outcome_of
from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.lane import Lane
from resilient_exporters.delivery.parcel import Parcel
from resilient_exporters.delivery.turns import Waiting
from resilient_exporters.records import ExportResult, Record, RecordId

__all__ = ["Solo", "solo"]

Solo = Callable[[Parcel], ExportResult | Waiting | None]
"""Tries a record: the result of a lane that took it, what came of it in one that did not, None if it was not tried."""

_NO_KEYWORDS: dict[str, Any] = {}


def solo(lane: Lane, clock: Clock) -> Solo:
    """The way of a record to an exporter that takes single ones, with everything looked up beforehand."""
    target, name, now, send = lane.target, lane.name, clock.now, lane.target.send
    new, decode, clear, at_once = tuple.__new__, codec.decode, lane.clear, lane.turns.at_once

    def hand_over(parcel: Parcel) -> ExportResult | Waiting:
        payload = parcel.payload
        id = new(RecordId, (parcel.run, parcel.number))
        record = Record(id, parcel.time, _NO_KEYWORDS, lambda: decode(payload))  # type: ignore[arg-type]  # bytes
        outer = sys.exception()
        began = lane.since = now()
        try:
            answer: object = send(record)
            if isinstance(answer, ExportResult) and answer[1]:
                lane.took_one()
                result: ExportResult = new(ExportResult, (answer[0], True))
                result.exporter = name
                return result
            outcome = judged(answer)
        except (KeyboardInterrupt, SystemExit):
            target.disconnect()
            raise
        except BaseException as error:  # whatever an exporter does becomes an outcome
            outcome = outcome_of(error, outer, target, name, 1)
        finally:
            lane.since = None
        return lane.failed_one(parcel, outcome, now() - began)

    def try_it(parcel: Parcel) -> ExportResult | Waiting | None:
        if lane.state != "up" or not clear():
            return None
        return at_once(hand_over, parcel)

    return try_it
