"""A real web server for tests: it takes what is posted, and may honour the keys of requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["WebServer", "web_server"]

_PATIENCE = 30.0
"""Seconds until a server that does not end is taken for broken."""


class WebServer(ThreadingHTTPServer):
    """Takes what is posted, and refuses what says that it is bad.

    Args:
        honours: Whether it remembers the keys of requests, and takes each once.

    Attributes:
        got: The data that arrived.
    """

    daemon_threads = True

    def __init__(self, honours: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[Any] = []
        self._keys: set[str] = set()
        self._honours = honours
        self._lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is what these tests are about."""

    def take(self, key: str, data: list[Any]) -> int:
        """Take data; the status to answer."""
        with self._lock:
            if self._honours and key in self._keys:
                return 200
            if "bad" in data:
                return 422
            self._keys.add(key)
            self.got += data
            return 200


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WebServer

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


@contextmanager
def web_server(*, honours: bool) -> Iterator[WebServer]:
    """A server that runs on a thread of its own."""
    server = WebServer(honours)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(_PATIENCE)
