"""HTTP batches whose answer was lost: repeated under the same key with the same records, also by another process."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import resilient_exporters as rex

PATIENCE = 60.0
"""Seconds until something that does not come is given up."""
SENDER = """
import sys, threading
import resilient_exporters as rex
path, url, place = sys.argv[1:]
file = open(path, "w+b") if place == "object" else path
web = rex.HTTPExporter(url, batch=True, name="web", timeout=60.0)
pool = rex.ExporterPool([web], use_memory=False, tmp_file=file, manual_reexport=True)
for number in range(5):
    pool.save_unsent_data(number, {}, "web")
threading.Thread(target=pool.send_unsent_data).start()
sys.stdin.readline()
for number in range(5, 10):
    pool.save_unsent_data(number, {}, "web")
print("kept", flush=True)
"""


class Receiver(ThreadingHTTPServer):
    """Notes what it gets, and swallows its answers until it is told to give them.

    Attributes:
        got: Key and lines of each request.
        arrived: Set when there was one.
        answers: Whether it answers.
        ends: Set when requests without an answer are to end.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[str | None, list[str]]] = []
        self.arrived = threading.Event()
        self.answers = False
        self.ends = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/in"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.got.append((self.headers["Idempotency-Key"], body.split()))
        self.server.arrived.set()
        if self.server.answers:
            self.send_response(204)
            self.end_headers()
        else:
            self.server.ends.wait(PATIENCE)
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A web server on a thread."""
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.ends.set()
        server.shutdown()
        thread.join(PATIENCE)


@pytest.mark.parametrize("place", ["path", "object"])
def test_a_killed_program_repeats_the_batch(receiver: Receiver, tmp_path: Path, place: str) -> None:
    """After `kill -9` the batch whose answer was lost comes first, under its key, without the records kept since."""
    path = tmp_path / "kept"
    command = [sys.executable, "-c", SENDER, str(path), receiver.url, place]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert receiver.arrived.wait(PATIENCE)
        process.stdin.write("go on\n")
        process.stdin.flush()
        assert process.stdout.readline() == "kept\n"
        process.kill()
    receiver.answers = True
    with ExitStack() as stack:
        file = stack.enter_context(path.open("r+b")) if place == "object" else path
        web = rex.HTTPExporter(receiver.url, batch=True, name="web")
        pool = stack.enter_context(rex.ExporterPool([web], use_memory=False, tmp_file=file, manual_reexport=True))
        assert all(result.successful for result in pool.send_unsent_data())
        assert not pool.has_unsent_data()
    (first, lost), (again, repeated), (other, rest) = receiver.got
    assert [str(number) for number in range(5)] == lost == repeated
    assert first is not None
    assert first == again != other
    assert [str(number) for number in range(5, 10)] == rest


def test_a_switch_of_place_keeps_the_bounds(receiver: Receiver, tmp_path: Path) -> None:
    """A batch in doubt is repeated as it was after what is kept has moved into memory and back."""
    web = rex.HTTPExporter(receiver.url, batch=True, name="web", timeout=0.2)
    with rex.ExporterPool([web], use_memory=False, tmp_file=tmp_path / "kept", manual_reexport=True) as pool:
        for number in range(3):
            pool.save_unsent_data(number, {}, "web")
        assert not any(result.successful for result in pool.send_unsent_data())
        pool.save_unsent_data(3, {}, "web")
        pool.use_memory = True
        pool.use_memory = False
        receiver.answers = True
        assert all(result.successful for result in pool.send_unsent_data())
    (first, lost), (again, repeated), _ = receiver.got
    assert (first, lost) == (again, repeated)
    assert ["0", "1", "2"] == repeated
