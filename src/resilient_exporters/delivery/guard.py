"""Keeps a target whose schema has changed from turning everything that is sent to it into dead letters."""

from __future__ import annotations

from collections import deque

from resilient_exporters.delivery.attempt import Delivered, Hold, Outcome, Refused
from resilient_exporters.exceptions import TargetMisconfigured

__all__ = ["Guard"]

_RECORDS = 200
"""Records in a row after which their refusals are judged together: fewer may well be bad by chance."""
_BATCH = 100
"""A batch that large which is refused to the last record tells enough by itself."""


class Guard:
    """Judges refusals by those before them.

    When more than half of the last 200 records were refused for good, or a whole batch of at least 100, the target
    counts as misconfigured: refused records stay owed instead of becoming dead letters. They are tried again with every
    pass, and what the target takes it gets meanwhile; when it takes most records again, single refusals are
    believed again.

    Attributes:
        taken: Records that the target took since the last verdict; counted up by whoever delivers.
    """

    def __init__(self) -> None:
        self.taken = 0
        self._judged: deque[tuple[int, int]] = deque()
        self._records = self._refused = 0

    def judge(self, outcome: Outcome, count: int) -> Outcome:
        """The outcome of an attempt at `count` records; without its permanent refusals when too many are refused."""
        if isinstance(outcome, Delivered):
            self.taken += count
        if not isinstance(outcome, Refused):
            return outcome
        taken, self.taken = self.taken, 0
        self._note(taken, 0)
        refused = len(outcome.permanent) + outcome.unjudged
        self._note(count - len(outcome.later) + outcome.unjudged, refused)
        if not outcome.permanent or not self._too_many(count, refused):
            return outcome
        last = outcome.permanent[max(outcome.permanent)]
        error = TargetMisconfigured(
            f"{self._refused} of {self._records} records refused, the last with: {last}; this looks like a changed"
            " schema, so none becomes a dead letter: all are kept and tried again until the target takes most of them"
        )
        owed = {**outcome.later, **outcome.permanent}
        return Refused(error, {}, owed, then=outcome.then or Hold(error, only_these=True))

    def _too_many(self, count: int, refused: int) -> bool:
        if refused == count >= _BATCH:
            return True
        return self._records >= _RECORDS and self._refused * 2 > self._records

    def _note(self, records: int, refused: int) -> None:
        """Take note of a verdict, and forget those before the last 200 records; a batch counts whole or not at all."""
        self._judged.append((records, refused))
        self._records += records
        self._refused += refused
        while (excess := self._records - _RECORDS) > 0:
            oldest, of_those = self._judged[0]
            if of_those and oldest > excess:
                return
            gone = min(oldest, excess)
            self._records -= gone
            self._refused -= of_those
            if gone == oldest:
                self._judged.popleft()
            else:
                self._judged[0] = (oldest - gone, 0)
