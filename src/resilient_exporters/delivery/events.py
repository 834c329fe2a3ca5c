"""Tells what an operator must know, to the log and to the pool's observers: from one place, so that they agree."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable

from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.reentry import at_work
from resilient_exporters.status import Event, EventName

__all__ = ["Events", "Observer"]

_log = logging.getLogger("resilient_exporters")

Observer = Callable[[Event], object]


class Events:
    """Logs an event, then hands it to each observer, in the thread that met it.

    The callers hold no mutex; the lane that an event is about may be this thread's to drive. So observers run marked as
    being at work: what they send is kept and waits for no lane.

    Args:
        pool: Name of the pool.
        clock: Tells the time.
        observers: Called in this order; what they return is ignored.
    """

    def __init__(self, pool: str, clock: Clock, observers: Iterable[Observer] = ()) -> None:
        self._pool = pool
        self._clock = clock
        self._observers = tuple(observers)
        self._failed: set[int] = set()

    def tell(
        self,
        what: EventName,
        line: str,
        *values: object,
        exporter: str | None = None,
        records: int = 0,
        error: str | None = None,
    ) -> None:
        """Log a warning and notify the observers.

        Args:
            what: The event; also the first word of the log line.
            line: The rest of the log line, with a place for each of `values`.
            values: Go into the log line.
            exporter: The exporter it is about, by its path; None = the pool.
            records: Number of records it is about.
            error: What happened, "Type: message".
        """
        _log.warning(f"{what} {line}", *values)
        self.notify(what, exporter=exporter, records=records, error=error)

    def notify(
        self, what: EventName, *, exporter: str | None = None, records: int = 0, error: str | None = None
    ) -> None:
        """Tell the observers alone of what has been logged elsewhere."""
        if self._observers:
            event = Event(what, self._pool, exporter, records, error, self._clock.time())
            for number, observer in enumerate(self._observers):
                self._call(number, observer, event)

    def _call(self, number: int, observer: Observer, event: Event) -> None:
        try:
            at_work(functools.partial(observer, event))
        except Exception as failure:  # the user's own code: delivery goes on whatever it does
            if number not in self._failed:
                self._failed.add(number)
                _log.warning(
                    "observer_failed pool=%s event=%s error=%s: it is called again, its next failures are not logged",
                    self._pool,
                    event.what,
                    type(failure).__name__,
                    exc_info=True,
                )
