"""A target in a process of its own: an HTTP server that writes down what it got, python -m demo.receiver PORT FILE."""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["main"]


class _Receiver(ThreadingHTTPServer):
    """Appends to one file; a record is in it before the sender hears so."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, file: str) -> None:
        self.file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        super().__init__(("127.0.0.1", port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Receiver

    def do_POST(self) -> None:  # named by http.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        token = self.headers["Idempotency-Key"]
        lines = [json.dumps({"token": token, "key": json.loads(line)["key"]}) for line in body.splitlines()]
        os.write(self.server.file, "".join(f"{line}\n" for line in lines).encode())
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the file tells."""


def main(port: int, file: str) -> None:
    """Serve until killed."""
    _Receiver(port, file).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
