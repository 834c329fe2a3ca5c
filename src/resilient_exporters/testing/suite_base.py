"""What the suite for exporters asks of its subclasses, and the tools of its tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.exporters.exporter import Exporter
from resilient_exporters.exporters.pool import ExporterPool
from resilient_exporters.testing.between import Between
from resilient_exporters.testing.proxy import FaultProxy

__all__ = ["PATIENCE", "SuiteBase"]

PATIENCE = 30.0
"""Seconds until something that must happen is taken for not happening."""


class SuiteBase:
    """How the tests make an exporter, look into its target, and break what is between them; see `ExporterSuite`."""

    proxy: FaultProxy | None = None
    request: bytes = b""
    bad_record: Any = None
    keywords: dict[str, Any] = {}  # noqa: RUF012  # replaced by subclasses, never changed
    secrets: tuple[str, ...] = ()
    folder: Path
    """A folder of the test's own."""

    # What subclasses write

    def make_exporter(self) -> Exporter:
        """A new exporter, each time to the same target; the target may be down."""
        raise NotImplementedError

    def arrived(self) -> list[Any]:
        """The data that is in the target, in the order in which it came; empty when nothing is there yet."""
        raise NotImplementedError

    def record(self, number: int) -> Any:
        """Data to send; different for each number, and equal to what `arrived` gives back."""
        return {"number": number, "text": f"nº {number}"}

    def break_target(self) -> None:
        """Make the target unreachable until `heal_target`."""
        if self.proxy is None:
            pytest.skip("this suite cannot break its target: no `proxy`, and `break_target` is not overridden")
        self.proxy.refuse = True
        self.proxy.reset_all()

    def heal_target(self) -> None:
        """Undo `break_target`."""
        if self.proxy is not None:
            self.proxy.heal()

    # Tools

    @pytest.fixture(autouse=True)
    def _around(self, tmp_path: Path) -> Iterator[None]:
        self.set_up(tmp_path)
        yield
        self.tear_down()

    def set_up(self, folder: Path) -> None:
        """Begin a test in an empty folder."""
        self.folder = folder
        self._pools: list[ExporterPool] = []

    def tear_down(self) -> None:
        """End a test: close what it has opened."""
        for pool in self._pools:
            pool.close(timeout=0.0)

    def pool(self, *exporters: Exporter, **options: Any) -> ExporterPool:
        """A pool that is closed at the end of the test."""
        pool = ExporterPool(exporters, **options)
        self._pools.append(pool)
        return pool

    def kept_in_file(self, *exporters: Exporter) -> ExporterPool:
        """A pool that keeps what is owed in one and the same file."""
        return self.pool(*exporters, use_memory=False, tmp_file=self.folder / "owed")

    def records(self, count: int, first: int = 0) -> list[Any]:
        """Some data to send."""
        return [self.record(number) for number in range(first, first + count)]

    def send(self, pool: ExporterPool, number: int) -> None:
        """Send a record that must be taken at once."""
        (result,) = pool.send(self.record(number))
        assert result.successful, f"not taken: {result!r}, {result.error.__cause__ if result.error else None!r}"

    def check(self, expected: list[Any], *, doubt: bool = False) -> None:
        """Fail unless exactly this arrived; after doubt, an exporter that is not exact may have repeated some."""
        arrived = self.arrived()
        if doubt and self.make_exporter().guarantee != "exact":
            arrived = [one for i, one in enumerate(arrived) if one not in arrived[:i]]
        assert arrived == expected, f"the target has {arrived!r}, not {expected!r}"

    def deliver(self, pool: ExporterPool) -> None:
        """Have everything that is owed delivered, in a few passes at most; the accounts must balance meanwhile."""
        (before,) = pool.status().exporters
        for _ in range(5):
            pool.send_unsent_data()
        (after,) = pool.status().exporters
        assert not pool.has_unsent_data(), f"still owed: {after}"
        assert before.accepted == after.accepted, f"records have vanished: {before} became {after}"
        assert not after.dropped, f"records were dropped: {after}"

    def network(self) -> FaultProxy:
        """The proxy; without one the test is skipped."""
        if self.proxy is None:
            pytest.skip("this suite has no `proxy`")
        return self.proxy

    def failing(self, exporter: Exporter, errors: list[BaseException], *, late: bool) -> Between:
        """Have the exporter's next calls raise these errors: before it does anything, or when all was done."""
        return Between(exporter, errors, late)
