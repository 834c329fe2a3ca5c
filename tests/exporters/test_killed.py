"""Pools with the built-in exporters in processes that are killed at any moment."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import resilient_exporters as rex
from resilient_exporters.exporters.file import FileExporter
from resilient_exporters.exporters.sqlite import SQLiteExporter

KILLS = int(os.environ.get("CI_KILLS", "8")) // 2
SENDER = """
import sys
import resilient_exporters as rex
folder, first, background = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "background"
database = rex.SQLiteExporter(f"{folder}/target.db", name="db")
lines = rex.FileExporter(f"{folder}/x", max_lines=50, name="file")
options = {"num_threads": 2, "wait_for_result": False} if background else {}
pool = rex.ExporterPool([database, lines], use_memory=False, tmp_file=f"{folder}/kept", **options)
for number in range(first, first + 100_000):
    pool.send(number)
    print(number, flush=True)
"""


def killed_sender(folder: Path, first: int, mode: str, after: int) -> int:
    """Send from `first` on in a process that is killed when it said `after` times that a record was sent."""
    command = [sys.executable, "-c", SENDER, str(folder), str(first), mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [int(process.stdout.readline()) for _ in range(after)]
        process.send_signal(signal.SIGKILL)
        said += [int(line) for line in process.stdout if line.endswith("\n")]
    return said[-1]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kill -9 is POSIX")
@pytest.mark.parametrize("mode", ["foreground", "background"])
def test_killed_again_and_again(tmp_path: Path, mode: str) -> None:
    """However often the program is killed, each record is in the database once and in the file at least once."""
    chance = random.Random(f"{mode} {KILLS}")
    sent: list[int] = []
    first = 0
    for _ in range(KILLS):
        last = killed_sender(tmp_path, first, mode, chance.randint(1, 300))
        sent += range(first, last + 1)
        first = last + 1000
    exporters = [
        SQLiteExporter(tmp_path / "target.db", name="db"),
        FileExporter(tmp_path / "x", max_lines=50, name="file"),
    ]
    with rex.ExporterPool(exporters, use_memory=False, tmp_file=tmp_path / "kept") as pool:
        pool.send_unsent_data()
        assert not pool.has_unsent_data()
    with closing(sqlite3.connect(tmp_path / "target.db")) as connection:
        rows = [row for (row,) in connection.execute("select data from records order by rowid")]
    files = [path.read_text().split() for path in tmp_path.glob("x*")]
    assert len(set(rows)) == len(rows)
    assert set(sent) <= set(rows)
    assert set(sent) <= {int(line) for file in files for line in file}
    assert all(len(file) <= 50 for file in files)
