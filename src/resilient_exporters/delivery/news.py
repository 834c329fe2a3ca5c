"""Tells what changes with one target: once, and what comes and goes only once in a while."""

from __future__ import annotations

import logging
from collections.abc import Callable

from resilient_exporters.delivery.attempt import Again, Hold, Outcome, Refused, described
from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.events import Events
from resilient_exporters.status import EventName

__all__ = ["News"]

_log = logging.getLogger("resilient_exporters")

_QUIET = 60.0
"""Seconds in which a target that comes and goes, or one bad record between good ones, is announced once."""


class News:
    """What an operator gets to know of one lane. Whoever tells holds no mutex.

    Args:
        lane: Its name.
        clock: Tells the time.
        events: Where it is told.
        owed: How many records wait for the exporter.
    """

    def __init__(self, lane: str, clock: Clock, events: Events, owed: Callable[[], int]) -> None:
        self._lane = lane
        self._clock = clock
        self._events = events
        self._owed = owed
        self._said: dict[str, float] = {}
        self._loud = False
        """Whether the trouble that lasts was told, so that its end must be, too."""

    def up(self) -> None:
        """The target takes records again."""
        loud, self._loud = self._loud, False
        self._change("target_up", "owed=%d", self._owed(), loud=loud)

    def trouble(self, trouble: Again | Hold) -> None:
        """The target has begun to take none."""
        what: EventName = "target_held" if isinstance(trouble, Hold) else "target_down"
        loud, error = self._is_due(what), described(trouble.error)
        self._loud = self._loud or loud
        self._change(what, "error=%s", error, loud=loud, error=error)

    def dead(self, records: int, outcome: Outcome | None) -> None:
        """Records have become dead letters."""
        if self._is_due("records_dead"):
            error = described(outcome.error) if isinstance(outcome, Refused) else None
            line = "exporter=%s records=%d error=%s: they are dead letters"
            self._events.tell(
                "records_dead", line, self._lane, records, error, exporter=self._lane, records=records, error=error
            )

    def stuck(self, timeout: float) -> None:
        """A call has not returned within `timeout` seconds."""
        line = "exporter=%s timeout=%s: the call has not returned; its records stay kept"
        error, owed = f"TimeoutError: the call has not returned within {timeout} s", self._owed()
        self._events.tell("target_stuck", line, self._lane, timeout, exporter=self._lane, records=owed, error=error)

    def _change(self, what: EventName, detail: str, value: object, *, loud: bool, error: str | None = None) -> None:
        line = f"exporter=%s {detail}"
        if loud:
            self._events.tell(what, line, self._lane, value, exporter=self._lane, records=self._owed(), error=error)
        else:
            _log.debug(f"{what} {line}", self._lane, value)

    def _is_due(self, what: EventName) -> bool:
        """Whether it was not told for a while; then it counts as told now."""
        now = self._clock.now()
        due = now - self._said.get(what, -_QUIET) >= _QUIET
        if due:
            self._said[what] = now
        return due
