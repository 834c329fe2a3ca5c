"""Calls an exporter, and turns whatever it does into an outcome: the only place where exporters are called."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from typing import Any

from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.target import Target
from resilient_exporters.exceptions import (
    ConnectionError,
    ExportError,
    RecordsRefused,
    TargetDown,
    TargetMisconfigured,
    TimeoutError,
)
from resilient_exporters.records import Batch, ExportResult

__all__ = [
    "Again",
    "Delivered",
    "Hold",
    "Outcome",
    "Refused",
    "attempt",
    "bare",
    "described",
    "judged",
    "outcome_of",
    "progressed",
    "trouble_of",
]

_log = logging.getLogger("resilient_exporters")

_REFUSALS = 64
"""Most refusals that one batch is worth: one bad record in 1000 takes ten, and six of them fit in here."""


@dataclass(slots=True)  # not frozen, which would cost more than all else about it
class Delivered:
    """The target has all of it."""

    returned: Any = None


@dataclass(frozen=True, slots=True)
class Again:
    """All of it is to be tried again later.

    Args:
        error: Why.
        returned: What the exporter handed back along with its failure.
        after: Seconds the target asked to wait, or None.
        down: Whether it is certain that the target, and not a record, is to blame.
    """

    error: BaseException
    returned: Any = None
    after: float | None = None
    down: bool = False


@dataclass(frozen=True, slots=True)
class Hold:
    """The target takes nothing until somebody changes a configuration.

    Args:
        error: Why.
        only_these: Whether it may take other records all the same, so that a pass goes on.
    """

    error: BaseException
    only_these: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The target has all records but these.

    Args:
        error: What the exporter raised.
        permanent: Index -> reason of those it will never take.
        later: Index -> reason of those to try again.
        unjudged: How many of `later` were refused, but only along with others.
        then: What kept the target from taking more of it, or None.
    """

    error: BaseException
    permanent: dict[int, str]
    later: dict[int, str]
    unjudged: int = 0
    then: Again | Hold | None = None


Outcome = Delivered | Again | Hold | Refused


def trouble_of(outcome: Outcome) -> Again | Hold | None:
    """What an outcome says against the target, and not against single records."""
    if isinstance(outcome, Refused):
        return outcome.then
    return None if isinstance(outcome, Delivered) else outcome


def progressed(outcome: Outcome, count: int) -> bool:
    """Whether the target has given its verdict on some of `count` records."""
    if isinstance(outcome, Refused):
        return len(outcome.later) < count
    return isinstance(outcome, Delivered)


def attempt(target: Target, batch: Batch, kwargs: dict[str, Any], clock: Clock) -> Outcome:
    """Hand a batch to a target: once, and in parts when an atomic target refused it as a whole.

    Args:
        target: The exporter.
        batch: At least one record.
        kwargs: The keyword arguments of its records.
        clock: Tells when the batch's deadline has come.

    Raises:
        KeyboardInterrupt, SystemExit: As they come; whether the target has the batch is then unknown.
    """
    outcome = _call(target, batch, kwargs)
    narrows = target.atomic and not target.stable
    if narrows and isinstance(outcome, Refused) and len(outcome.permanent) == len(batch) > 1:
        return _Bisection(target, batch, kwargs, clock, outcome).run()
    return outcome


def _call(target: Target, batch: Batch, kwargs: dict[str, Any]) -> Outcome:
    """Hand a batch to a target once."""
    outer = sys.exception()
    try:
        if batch.doubt:
            target.probe()
        if not target.batches:
            return judged(target.send(batch.records[0]))
        target.export(batch, kwargs)
        return Delivered()
    except (KeyboardInterrupt, SystemExit):
        target.disconnect()
        raise
    except BaseException as error:  # whatever an exporter does must not reach the sender: it becomes the result
        return outcome_of(error, outer, target, batch.lane, len(batch))


def outcome_of(error: BaseException, outer: BaseException | None, target: Target, lane: str, count: int) -> Outcome:
    """What an error tells that a target has raised.

    Args:
        error: The error; no interrupt.
        outer: The error that the sender was handling meanwhile.
        target: The exporter: its connection is dropped when it may be broken.
        lane: Its lane, for the log.
        count: How many records it was handed.
    """
    if isinstance(error, RecordsRefused):
        return _refused(error, count, outer)
    if isinstance(error, TargetMisconfigured):
        return Hold(bare(error, outer))
    if isinstance(error, TargetDown):
        return Again(bare(error, outer), after=error.retry_after, down=True)
    if not isinstance(error, Exception):
        _log.warning("exporter_raised_base_exception exporter=%s error=%s", lane, described(error))
    target.disconnect()
    unreachable = isinstance(error, ConnectionError | TimeoutError | OSError)
    return Again(bare(error, outer), down=target.batches and unreachable)


def judged(result: object) -> Outcome:
    """What a target's `send` has answered."""
    if not isinstance(result, ExportResult):
        return Again(ExportError(f"the exporter's send returned {_brief(result)} where an ExportResult is due"))
    if result.successful:
        return Delivered(result.returned)
    return Again(result.error or ExportError("the exporter reported a failure"), result.returned)


def _refused(error: RecordsRefused, count: int, outer: BaseException | None) -> Outcome:
    """Take a refusal at its word, but for indexes that no record has."""
    permanent = _of_batch(error.permanent, count)
    later = {index: reason for index, reason in _of_batch(error.later, count).items() if index not in permanent}
    if not permanent and not later:
        return Again(ExportError(f"the exporter refused records that are not in the batch of {count}"))
    return Refused(bare(error, outer), permanent, later)


def _of_batch(reasons: dict[Any, Any], count: int) -> dict[int, str]:
    """The reasons for records that are in a batch of `count`, as text."""
    return {
        int(index): reason if isinstance(reason, str) else _text(reason)
        for index, reason in reasons.items()
        if isinstance(index, int) and index in range(count)
    }


class _Bisection:
    """Finds the records for which a target refused a whole batch: hands over one half, then the other, left to right.

    Only a definite refusal is narrowed down, so nothing of the batch is at the target when this begins. It ends early
    when the target goes down, the time is over, or it has cost too many refusals; the rest is tried again later.
    """

    def __init__(self, target: Target, batch: Batch, kwargs: dict[str, Any], clock: Clock, whole: Refused) -> None:
        self._target = target
        self._batch = batch
        self._kwargs = kwargs
        self._clock = clock
        self._error = whole.error
        self._permanent: dict[int, str] = {}
        self._later: dict[int, str] = {}
        self._refusals = 1
        self._unjudged = 0
        self._then: Again | Hold | None = None
        self._parts: list[range] = []
        self._halve(range(len(batch)))

    def run(self) -> Outcome:
        """What came of the batch in the end."""
        while self._parts:
            part = self._parts.pop()
            if self._then is not None:
                self._later.update(dict.fromkeys(part, described(self._then.error)))
            elif self._refusals >= _REFUSALS or self._clock.now() >= self._batch.deadline:
                self._unjudged += len(part)
                self._later.update(dict.fromkeys(part, f"refused along with others: {described(self._error)}"))
            else:
                self._try(part)
        if not self._permanent and not self._later:
            return Delivered()
        return Refused(self._error, self._permanent, self._later, self._unjudged, self._then)

    def _try(self, part: range) -> None:
        outcome = _call(self._target, _part_of(self._batch, part), self._kwargs)
        if isinstance(outcome, Again | Hold):
            self._then = outcome
            self._parts.append(part)
        elif isinstance(outcome, Refused):
            self._refusals += 1
            self._error = outcome.error
            if len(outcome.permanent) == len(part) > 1:
                self._halve(part)
            else:
                self._permanent |= {part[index]: reason for index, reason in outcome.permanent.items()}
                self._later |= {part[index]: reason for index, reason in outcome.later.items()}

    def _halve(self, part: range) -> None:
        middle = len(part) // 2
        self._parts += [part[middle:], part[:middle]]


def _part_of(batch: Batch, part: range) -> Batch:
    """Some records of a batch that follow each other, as a batch."""
    return Batch(
        batch.records[part.start : part.stop],
        lane=batch.lane,
        run=batch.run,
        numbers=batch.numbers[part.start : part.stop],
        deadline=batch.deadline,
        doubt=batch.doubt,
    )


def described(error: BaseException) -> str:
    """The error as text, also when it cannot be printed."""
    return f"{type(error).__name__}: {_text(error)}"


def _text(value: object) -> str:
    """The value as text, also when it cannot be printed: what an exporter's author made may raise in `__str__`."""
    try:
        return str(value)
    except Exception:  # a foreign object's own
        return f"a {type(value).__name__} that cannot be printed"


def _brief(value: object) -> str:
    """A value for a message: its type, and itself when that is short."""
    try:
        text = repr(value)
    except Exception:  # a foreign object
        return f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"a {type(value).__name__}"


def bare(error: BaseException, outer: BaseException | None = None) -> BaseException:
    """The error without tracebacks: their frames would keep a dropped pool, and its file, alive.

    Args:
        error: What an exporter raised.
        outer: The error that the sender was handling meanwhile, which is the sender's own: it stays as it is.
    """
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and link is not outer and id(link) not in seen:
        seen.add(id(link))
        link.__traceback__ = None
        if link.__context__ is outer:
            link.__context__ = None
        link = link.__cause__ or link.__context__
    return error
