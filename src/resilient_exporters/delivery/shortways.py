"""The short ways of a plain record: one call with everything looked up beforehand, for where microseconds count.

They take plain records only, and raise `LongWay` when something has to be thought about: then nothing has happened yet,
and the record takes the long way, through `Engine.send`, which comes to the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from resilient_exporters import codec
from resilient_exporters.delivery.background import Background
from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.parcel import Parcel
from resilient_exporters.delivery.reentry import at_work, inside
from resilient_exporters.delivery.solo import Solo
from resilient_exporters.delivery.turns import Waiting
from resilient_exporters.exceptions import DataTypeError, PoolClosed, SpoolError
from resilient_exporters.records import ExportResult
from resilient_exporters.spool.interface import Spool, SpoolMoving

__all__ = ["LongWay", "ShortWay", "at_once", "in_background", "no_short_way"]

ShortWay = Callable[[Any], Any]
"""A function of the data that returns what `send` returns: the list of results, or None in background mode."""


class LongWay(Exception):
    """The record has to take the long way."""


def no_short_way(data: Any) -> Any:
    """What stands for a short way where there is none."""
    raise LongWay


def in_background(spool: Spool, lanes: frozenset[str], sync: bool, background: Background, clock: Clock) -> ShortWay:
    """Keep the record, and wake whoever sleeps. A spool that is full, frozen or closed has kept nothing."""
    encode, append_one, append, now = codec.encode, spool.append_one, spool.append, clock.time

    def send(data: Any) -> None:
        if data is None:
            raise LongWay
        try:
            payload = encode(data)
            if sync or not append_one(payload, lanes, now()):
                append((payload,), lanes, time=now(), sync=sync)
        except (DataTypeError, SpoolError, SpoolMoving, PoolClosed):
            raise LongWay from None
        if background.asleep:
            background.wake()

    return send


def at_once(
    spool: Spool,
    ways: list[Solo],
    clock: Clock,
    go_on: Callable[[Parcel, list[ExportResult], Waiting | None], list[ExportResult]],
    keep: Callable[[Parcel, list[ExportResult], BaseException], None],
) -> ShortWay:
    """Hand the record to each lane that has nothing else to do.

    Args:
        spool: Numbers the record.
        ways: The ways through the lanes, in their order.
        clock: Tells the time.
        go_on: Takes over with what the first lanes answered, and what came of the record in the first lane that did
            not take it; None = it has to think about the record.
        keep: Keeps the record for the lanes that an interrupt has left without it.
    """
    encode, now, run, draw = codec.encode, clock.time, spool.run, spool.draw

    def send(data: Any) -> list[ExportResult]:
        here = inside.here
        if data is None or here.calls:
            raise LongWay
        try:
            parcel = Parcel(run, draw(), now(), encode(data), b"", 0)
        except (DataTypeError, PoolClosed):
            raise LongWay from None
        results: list[ExportResult] = []
        answer: ExportResult | Waiting | None = None
        try:
            here.calls = 1
            for way in ways:
                answer = way(parcel)
                if not isinstance(answer, ExportResult):
                    break
                results.append(answer)
            else:
                return results
        except (KeyboardInterrupt, SystemExit) as interrupt:
            keep(parcel, results, interrupt)
            raise
        finally:
            here.calls = 0
        return at_work(partial(go_on, parcel, results, answer))

    return send
