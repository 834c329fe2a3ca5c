"""What the sender of a record, or who asked for a pass, is told of an outcome."""

from __future__ import annotations

from resilient_exporters.delivery.attempt import Again, Delivered, Outcome, Refused
from resilient_exporters.records import ExportResult

__all__ = ["result_of", "results_of"]


def results_of(outcome: Outcome, count: int, exporter: str, *, kept: bool) -> list[ExportResult]:
    """One result per record of a batch; equal ones are one object, so that a long list stays small."""
    if isinstance(outcome, Refused):
        return [result_of(outcome, index, exporter, kept=kept) for index in range(count)]
    return [result_of(outcome, 0, exporter, kept=kept)] * count


def result_of(outcome: Outcome, index: int, exporter: str, *, kept: bool = False) -> ExportResult:
    """The result of one record.

    Args:
        outcome: What came of its batch.
        index: Which of the batch it is.
        exporter: Whose result it is.
        kept: Whether it stays owed if it was not taken.
    """
    if isinstance(outcome, Delivered):
        return ExportResult(outcome.returned, True, exporter=exporter)
    if isinstance(outcome, Refused):
        if index in outcome.permanent:
            return ExportResult(None, False, error=outcome.error, exporter=exporter)
        if index not in outcome.later:
            return ExportResult(None, True, exporter=exporter)
    returned = outcome.returned if isinstance(outcome, Again) else None
    return ExportResult(returned, False, error=outcome.error, exporter=exporter, kept=kept)
