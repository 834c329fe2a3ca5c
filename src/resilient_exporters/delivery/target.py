"""What a lane asks of the exporter it serves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from resilient_exporters.policies import Rate
from resilient_exporters.records import Batch, ExportResult, Record

__all__ = ["Target"]


class Target(Protocol):
    """An exporter as delivery sees it: called by one thread at a time."""

    @property
    def timeout(self) -> float:
        """Seconds one attempt may take."""

    @property
    def batches(self) -> bool:
        """Whether it takes batches; otherwise one record per call."""

    @property
    def atomic(self) -> bool:
        """Whether an all-or-nothing refusal can be narrowed down by smaller batches."""

    @property
    def stable(self) -> bool:
        """Whether a batch in doubt must be repeated with the same bounds."""

    @property
    def batch_records(self) -> int:
        """Most records in a batch."""

    @property
    def batch_bytes(self) -> int:
        """A batch ends when its payloads reach that many bytes."""

    @property
    def batch_age(self) -> float:
        """Seconds for which a batch that is not full waits for more records."""

    @property
    def rate(self) -> Rate | None:
        """What it may be handed per second, or None."""

    def accepted(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword arguments that it takes, of those given."""

    def transform(self, data: Any) -> Any:
        """Run the exporter's own transform on a private copy."""

    def send(self, record: Record) -> ExportResult:
        """Hand over one record."""

    def export(self, batch: Batch, kwargs: Mapping[str, Any]) -> None:
        """Hand over a batch."""

    def probe(self) -> None:
        """Ask whether the target is there, after a failure, before the next batch."""

    def disconnect(self) -> None:
        """Drop a connection that may be broken."""
