"""HTTPExporter passes the suite that every exporter must pass, with a real server behind a proxy that breaks things."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from resilient_exporters.exporters.http import HTTPExporter
from resilient_exporters.testing.proxy import FaultProxy
from resilient_exporters.testing.suite import ExporterSuite
from tests.servers.http import web_server


class TestHTTPExporter(ExporterSuite):
    """One request a record."""

    bad_record = "bad"
    keywords = {"path": "somewhere"}
    secrets = ("s3cret", "t0ken")
    batch = False
    honours = False

    @pytest.fixture(autouse=True)
    def _server(self) -> Iterator[None]:
        with web_server(honours=self.honours) as server, FaultProxy("127.0.0.1", server.server_port) as proxy:
            self.proxy, self.server = proxy, server
            yield

    def make_exporter(self) -> HTTPExporter:
        assert self.proxy is not None
        return HTTPExporter(f"http://user:s3cret@127.0.0.1:{self.proxy.port}/in?key=t0ken", batch=self.batch)

    def arrived(self) -> list[Any]:
        return self.server.got


class TestHTTPExporterInBatches(TestHTTPExporter):
    """Many records in one request."""

    batch = True


class TestHTTPExporterWithAnHonestServer(TestHTTPExporter):
    """A server that honours the keys has each record once, after any doubt."""

    honours = True

    def check(self, expected: list[Any], *, doubt: bool = False) -> None:
        super().check(expected)


class TestHTTPExporterInBatchesWithAnHonestServer(TestHTTPExporterWithAnHonestServer):
    """The same with batches, which are repeated as they were."""

    batch = True
