"""The end of a daemon: SIGTERM, with and without a handler, leaves what is owed kept, and delivers what it can."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryExporter

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that can be handled")

DAEMON = """
import os, signal, sys, threading
import resilient_exporters as rex
from resilient_exporters.testing import MemoryExporter

def leave(signum, frame):
    raise SystemExit(7)

def close(signum, frame):
    pool.close(timeout=0.2)
    os._exit(8)

how, threads = sys.argv[1], int(sys.argv[2])
if how != "none":
    signal.signal(signal.SIGTERM, leave if how == "leave" else close)
up = rex.FileExporter("lines", name="up")
pool = rex.ExporterPool(
    [up, MemoryExporter("down", up=False)], num_threads=threads, wait_for_result=threads == 1,
    use_memory=False, tmp_file="kept", observers=[lambda event: None],
)
for number in range(50):
    pool.send(number)
print("ready", flush=True)
while True:
    threading.Event().wait(0.05)  # CPython may notice a signal only when a wait ends
"""


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("how", "code"), [("none", -signal.SIGTERM), ("leave", 7), ("close", 8)])
def test_sigterm_leaves_what_is_owed_kept(tmp_path: Path, how: str, code: int, threads: int) -> None:
    """A daemon that gets SIGTERM ends in good time, however it handles it, and the next run has all that is owed."""
    script = tmp_path / "daemon.py"
    script.write_text(textwrap.dedent(DAEMON), encoding="utf-8")
    command = [sys.executable, str(script), how, str(threads)]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        assert "ready\n" == daemon.stdout.readline()
        os.kill(daemon.pid, signal.SIGTERM)
        assert code == daemon.wait(30)
    up, down = MemoryExporter("up"), MemoryExporter("down")
    with rex.ExporterPool([up, down], use_memory=False, tmp_file=tmp_path / "kept") as pool:
        pool.send_unsent_data()
        assert not pool.has_unsent_data()
    assert list(range(50)) == down.got
    found = tmp_path / "lines"
    lines = [int(line) for line in found.read_text().split()] if found.exists() else []
    assert list(range(50)) == sorted({*lines, *up.got})
    if how != "none":
        assert (list(range(50)), []) == (lines, up.got)
