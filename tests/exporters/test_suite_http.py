"""HTTPExporter passes the suite that every exporter must pass, with a real server behind a proxy that breaks things."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from resilient_exporters.exporters.http import HTTPExporter
from resilient_exporters.testing.proxy import FaultProxy
from resilient_exporters.testing.suite import ExporterSuite


class Server(ThreadingHTTPServer):
    """Takes what is posted, and refuses what says that it is bad.

    Attributes:
        got: The data that arrived.
        honours: Whether it remembers the keys of requests, and takes each once.
    """

    daemon_threads = True

    def __init__(self, honours: bool) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.got: list[Any] = []
        self.keys: set[str] = set()
        self.honours = honours
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is what these tests are about."""

    def take(self, key: str, data: list[Any]) -> int:
        """Take data; the status to answer."""
        with self.lock:
            if self.honours and key in self.keys:
                return 200
            if "bad" in data:
                return 422
            self.keys.add(key)
            self.got += data
            return 200


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:
            return
        text = self.headers["Content-Type"].startswith("text/")
        data = [body.decode()] if text else [json.loads(line) for line in body.splitlines()]
        self.send_response(self.server.take(self.headers["Idempotency-Key"], data))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing to say."""


class TestHTTPExporter(ExporterSuite):
    """One request a record."""

    bad_record = "bad"
    keywords = {"path": "somewhere"}
    secrets = ("s3cret", "t0ken")
    batch = False
    honours = False

    @pytest.fixture(autouse=True)
    def _server(self) -> Iterator[None]:
        server = Server(self.honours)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        with FaultProxy("127.0.0.1", server.server_port) as proxy:
            self.proxy, self.server = proxy, server
            yield
        server.shutdown()
        server.server_close()
        thread.join()

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
