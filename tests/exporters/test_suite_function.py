"""CallableExporter passes the suite that every exporter must pass."""

from __future__ import annotations

from typing import Any

import pytest

from resilient_exporters.exceptions import RecordsRefused
from resilient_exporters.exporters.function import CallableExporter
from resilient_exporters.testing.suite import ExporterSuite


class TestCallableExporter(ExporterSuite):
    """A function that may be told to fail."""

    bad_record = "bad"
    keywords = {"table": "t"}

    @pytest.fixture(autouse=True)
    def _list(self) -> None:
        self.got: list[Any] = []
        self.up = True

    def make_exporter(self) -> CallableExporter:
        return CallableExporter(self.take)

    def take(self, data: Any, table: str = "none") -> str:
        if not self.up:
            raise ConnectionError("down on command")
        if data == "bad":
            raise RecordsRefused(permanent={0: "bad"})
        self.got.append(data)
        return table

    def arrived(self) -> list[Any]:
        return self.got

    def break_target(self) -> None:
        self.up = False

    def heal_target(self) -> None:
        self.up = True
