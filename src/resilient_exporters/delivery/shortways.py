"""The short ways of a plain record: one call with everything looked up beforehand, for where microseconds count.

They take plain records only, and return None when something has to be thought about: then nothing has happened yet, and
the record takes the long way, through `Engine.send`, which comes to the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resilient_exporters import codec
from resilient_exporters.delivery.background import Background
from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.lane import Lane
from resilient_exporters.delivery.parcel import Parcel
from resilient_exporters.delivery.reentry import at_work, inside
from resilient_exporters.exceptions import DataTypeError, PoolClosed, SpoolError
from resilient_exporters.records import ExportResult
from resilient_exporters.spool.interface import Spool, SpoolMoving

__all__ = ["ShortWay", "at_once", "in_background"]

ShortWay = Callable[[Any], list[ExportResult] | bool | None]
"""A function of the data that returns the results, True in background mode, None when it cannot."""


def in_background(spool: Spool, lanes: frozenset[str], sync: bool, background: Background, clock: Clock) -> ShortWay:
    """Keep the record, and wake whoever sleeps. A spool that is full, frozen or closed has kept nothing."""
    encode, append, now = codec.encode, spool.append, clock.time

    def send(data: Any) -> bool | None:
        if data is None:
            return None
        try:
            append((encode(data),), lanes, time=now(), sync=sync)
        except (DataTypeError, SpoolError, SpoolMoving, PoolClosed):
            return None
        if background.asleep:
            background.wake()
        return True

    return send


def at_once(
    spool: Spool,
    lanes: list[Lane],
    clock: Clock,
    go_on: Callable[[Parcel, list[Lane], list[ExportResult], ExportResult | None], list[ExportResult]],
    keep: Callable[[Parcel, list[Lane], list[ExportResult], BaseException], None],
) -> ShortWay:
    """Hand the record to each lane that has nothing else to do.

    Args:
        spool: Numbers the record.
        lanes: The lanes, in their order.
        clock: Tells the time.
        go_on: Takes over at the first lane that did not take the record, or has to think about it (None).
        keep: Keeps the record for the lanes that an interrupt has left without it.
    """
    encode, now, run, draw = codec.encode, clock.time, spool.run, spool.draw

    def send(data: Any) -> list[ExportResult] | None:
        if data is None or inside.calls:
            return None
        try:
            parcel = Parcel(run, draw(), now(), encode(data), b"", 0)
        except (DataTypeError, PoolClosed):
            return None
        results: list[ExportResult] = []
        last: ExportResult | None = None
        try:
            inside.calls = 1
            for lane in lanes:
                last = lane.solo(parcel)
                if last is None or not last[1]:
                    break
                results.append(last)
            else:
                return results
        except (KeyboardInterrupt, SystemExit) as interrupt:
            keep(parcel, lanes, results, interrupt)
            raise
        finally:
            inside.calls = 0
        return at_work(lambda: go_on(parcel, lanes, results, last))

    return send
