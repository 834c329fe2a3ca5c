"""PostgreSQLExporter passes the suite that every exporter must pass, with a real server behind a proxy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from resilient_exporters.exporters.postgresql import PostgreSQLExporter
from resilient_exporters.testing.proxy import FaultProxy
from resilient_exporters.testing.suite import ExporterSuite
from tests.servers.postgresql import Database, binaries, database, server

__all__ = ["binaries", "database", "server"]


class TestPostgreSQLExporter(ExporterSuite):
    """A table of a schema of its own."""

    request = b"insert"
    bad_record = {"number": "not a number", "text": "bad"}
    keywords = {"table": "records"}
    secrets = ("s3cret",)

    @pytest.fixture(autouse=True)
    def _database(self, database: Database) -> Iterator[None]:
        self.database = database
        database.query("create table records (position serial, number int, text text)")
        with FaultProxy("127.0.0.1", database.port) as proxy:
            self.proxy = proxy
            yield

    def make_exporter(self) -> PostgreSQLExporter:
        assert self.proxy is not None
        conninfo = self.database.conninfo(port=self.proxy.port, password="s3cret", sslmode="disable")
        return PostgreSQLExporter(conninfo, default_table="records")

    def arrived(self) -> list[Any]:
        rows = self.database.query("select number, text from records order by position")
        return [{"number": number, "text": text} for number, text in rows]
