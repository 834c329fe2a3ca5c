"""What happens when a spool is full: raise, drop, or wait, as the user chose; told once, and counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from resilient_exporters.delivery.attempt import described
from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.events import Events
from resilient_exporters.delivery.lane import Lane
from resilient_exporters.exceptions import PoolClosed, SpoolError, SpoolFull
from resilient_exporters.policies import Limits
from resilient_exporters.spool.interface import Payload, Spool

__all__ = ["Shortage", "count_dropped"]

_FRAME = 256
"""Bytes that a record may cost beside its payload, generously: to make room for it."""
_LOOKS = 0.02
"""Seconds between looks for room while a sender is blocked."""
_CALM = 1.0
"""Seconds without shortage after which the next one is announced again."""


class Shortage:
    """Makes room in a full spool, or says that there is none.

    Args:
        name: The pool's, for the log.
        limits: What the user chose.
        clock: Tells the time.
        lanes: The lanes of the moment.
        events: Told of shortages and losses.

    Attributes:
        closed: Whether nobody is to wait for room any more.
    """

    def __init__(
        self, name: str, limits: Limits, clock: Clock, lanes: Callable[[], dict[str, Lane]], events: Events
    ) -> None:
        self.closed = False
        self._name = name
        self._limits = limits
        self._clock = clock
        self._lanes = lanes
        self._events = events
        self._short_at = float("-inf")

    def make_room(self, spool: Spool, error: SpoolFull, payloads: Sequence[Payload], lanes: frozenset[str]) -> bool:
        """Do what the user chose for a full spool; False when the records are dropped.

        Args:
            spool: The one that is full.
            error: What it says.
            payloads: The records that it has no room for.
            lanes: Whom they are for.

        Raises:
            SpoolFull: There is no room, and there will be none.
            PoolClosed: The pool was closed while a sender waited.
        """
        policy = self._limits.when_full
        if policy == "raise":
            raise error
        begins = self._announce(error, policy)
        if policy == "drop_newest":
            self._drop(dict.fromkeys(lanes, len(payloads)), error, begins)
            return False
        if policy == "block":
            self._wait_for_room(error)
            return True
        size = sum(len(p) if isinstance(p, bytes) else _FRAME for p in payloads) + _FRAME * len(payloads)
        lost = spool.drop_oldest(size)
        if not lost:
            raise error
        self._drop(lost, error, begins)
        return True

    def lose(self, error: SpoolError, records: int, lanes: frozenset[str]) -> None:
        """Count and tell records that found no room when it was too late to tell their sender."""
        self._drop(dict.fromkeys(lanes, records), error, begins=True)

    def _wait_for_room(self, error: SpoolFull) -> None:
        if self.closed:
            raise PoolClosed(f"{self._name} was closed while a sender waited for room") from error
        threading.Event().wait(_LOOKS)

    def _announce(self, error: SpoolFull, policy: str) -> bool:
        """Tell that there is no room, when that is news; whether it is."""
        before, self._short_at = self._short_at, self._clock.now()
        begins = self._short_at - before >= _CALM
        if begins:
            line = "pool=%s policy=%s dropping_or_waiting: %s"
            self._events.tell("spool_full", line, self._name, policy, error, error=described(error))
        return begins

    def _drop(self, lost: dict[str, int], error: SpoolError, begins: bool) -> None:
        """Count what a full spool has cost, and tell the first of it."""
        count_dropped(self._lanes(), lost)
        for lane, records in lost.items() if begins else ():
            line, why = "pool=%s exporter=%s records=%d: there may be more, the status counts them", described(error)
            self._events.tell(
                "records_dropped", line, self._name, lane, records, exporter=lane, records=records, error=why
            )


def count_dropped(lanes: Mapping[str, Lane], lost: Mapping[str, int]) -> None:
    """Count what lanes have lost."""
    for name, records in lost.items():
        if name in lanes:
            lanes[name].dropped += records
