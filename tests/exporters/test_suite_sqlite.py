"""SQLiteExporter passes the suite that every exporter must pass."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from resilient_exporters.exporters.sqlite import SQLiteExporter
from resilient_exporters.testing.suite import ExporterSuite


class TestSQLiteExporter(ExporterSuite):
    """A database in a folder that may be missing."""

    bad_record = {"no column \x00": 1}
    keywords = {"table": "records"}

    def make_exporter(self) -> SQLiteExporter:
        if not (self.folder / "away").exists():
            (self.folder / "share").mkdir(exist_ok=True)
        return SQLiteExporter(self.folder / "share" / "db")

    def arrived(self) -> list[Any]:
        if not (self.folder / "share" / "db").exists():
            return []
        with closing(sqlite3.connect(self.folder / "share" / "db")) as connection:
            rows = connection.execute("select number, text from records order by rowid").fetchall()
        return [{"number": number, "text": text} for number, text in rows]

    def break_target(self) -> None:
        (self.folder / "share").mkdir(exist_ok=True)
        (self.folder / "share").rename(self.folder / "away")

    def heal_target(self) -> None:
        if (self.folder / "away").exists():
            (self.folder / "away").rename(self.folder / "share")


class TestSQLiteExporterLocked(TestSQLiteExporter):
    """The same, down because somebody else has locked the database."""

    @pytest.fixture(autouse=True)
    def _locker(self, _around: None) -> None:
        self._lock: sqlite3.Connection | None = None

    def make_exporter(self) -> SQLiteExporter:
        exporter = super().make_exporter()
        exporter.timeout = 0.02
        return exporter

    def break_target(self) -> None:
        (self.folder / "share").mkdir(exist_ok=True)
        self._lock = sqlite3.connect(self.folder / "share" / "db", isolation_level=None)
        self._lock.execute("begin exclusive")

    def heal_target(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None
