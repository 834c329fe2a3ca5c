"""Calls an exporter, and turns whatever it does into an outcome: the only place where exporters are called."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

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

__all__ = ["Again", "Delivered", "Hold", "Outcome", "Refused", "attempt", "bare", "described"]

_log = logging.getLogger("resilient_exporters")


@dataclass(frozen=True, slots=True)
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
    """The target takes nothing until somebody changes a configuration."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Refused:
    """The target has all records but these.

    Args:
        error: What the exporter raised.
        permanent: Index -> reason of those it will never take.
        later: Index -> reason of those to try again.
    """

    error: BaseException
    permanent: dict[int, str]
    later: dict[int, str]


Outcome = Delivered | Again | Hold | Refused


def attempt(target: Target, batch: Batch, kwargs: dict[str, Any]) -> Outcome:
    """Hand a batch to a target once.

    Raises:
        KeyboardInterrupt, SystemExit: As they come; whether the target has the batch is then unknown.
    """
    try:
        if target.batches:
            target.export(batch, kwargs)
            return Delivered()
        return _judge(target.send(batch.records[0]))
    except RecordsRefused as error:
        return _refused(error, len(batch))
    except TargetMisconfigured as error:
        return Hold(bare(error))
    except TargetDown as error:
        return Again(bare(error), after=error.retry_after, down=True)
    except (KeyboardInterrupt, SystemExit):
        target.disconnect()
        raise
    except BaseException as error:  # whatever an exporter does must not reach the sender: it becomes the result
        if not isinstance(error, Exception):
            _log.warning("exporter_raised_base_exception exporter=%s error=%s", batch.lane, described(error))
        target.disconnect()
        return Again(bare(error), down=target.batches and isinstance(error, ConnectionError | TimeoutError | OSError))


def _judge(result: object) -> Outcome:
    if not isinstance(result, ExportResult):
        return Again(ExportError(f"the exporter's send returned {_brief(result)} where an ExportResult is due"))
    if result.successful:
        return Delivered(result.returned)
    return Again(result.error or ExportError("the exporter reported a failure"), result.returned)


def _refused(error: RecordsRefused, count: int) -> Outcome:
    """Take a refusal at its word, but for indexes that no record has."""
    permanent = {index: str(reason) for index, reason in error.permanent.items() if index in range(count)}
    later = {i: str(reason) for i, reason in error.later.items() if i in range(count) and i not in permanent}
    if not permanent and not later:
        return Again(ExportError(f"the exporter refused records that are not in the batch of {count}"))
    return Refused(bare(error), permanent, later)


def described(error: BaseException) -> str:
    """The error as text, also when it cannot be printed."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # an error of the exporter's author may raise in __str__
        return f"{type(error).__name__} (which cannot be printed)"


def _brief(value: object) -> str:
    """A value for a message: its type, and itself when that is short."""
    try:
        text = repr(value)
    except Exception:  # a foreign object
        return f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"a {type(value).__name__}"


def bare(error: BaseException) -> BaseException:
    """The error without tracebacks: their frames would keep a dropped pool, and its file, alive."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
