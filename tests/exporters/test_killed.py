"""Pools with the built-in exporters in processes that are killed at any moment."""

from __future__ import annotations

import itertools
import os
import random
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import resilient_exporters as rex
from resilient_exporters.exporters.file import FileExporter
from resilient_exporters.exporters.sqlite import SQLiteExporter
from tests.children import Child
from tests.counts import KILLS


def exporters(folder: Path) -> list[rex.Exporter]:
    """A database, and files of few lines."""
    return [SQLiteExporter(folder / "target.db", name="db"), FileExporter(folder / "x", max_lines=50, name="file")]


def send_until_killed(folder: Path, first: int, background: bool) -> None:
    """Send from `first` on, and say so after each."""
    threads = 2 if background else 1
    pool = rex.ExporterPool(exporters(folder), None, threads, not background, False, tmp_file=folder / "kept")
    for number in itertools.count(first):
        pool.send(number)
        os.write(1, b"%d\n" % number)


def killed_sender(folder: Path, first: int, after: int, *, background: bool) -> int:
    """Send from `first` on in a process that is killed when it said `after` times that a record was sent."""
    with Child(send_until_killed, folder, first, background) as child:
        return int([*child.hear(after), *child.kill()][-1])


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kill -9 is POSIX")
@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
def test_killed_again_and_again(tmp_path: Path, background: bool) -> None:
    """However often the program is killed, each record is in the database once and in the file at least once."""
    chance = random.Random(f"{background} {KILLS}")
    sent: list[int] = []
    first = 0
    for _ in range(KILLS // 4):
        last = killed_sender(tmp_path, first, chance.randint(1, 80), background=background)
        sent += range(first, last + 1)
        first = last + 1000
    with rex.ExporterPool(exporters(tmp_path), use_memory=False, tmp_file=tmp_path / "kept") as pool:
        pool.send_unsent_data()
        assert not pool.has_unsent_data()
    with closing(sqlite3.connect(tmp_path / "target.db")) as connection:
        rows = [row for (row,) in connection.execute("select data from records order by rowid")]
    files = [path.read_text().split() for path in tmp_path.glob("x*")]
    assert len(set(rows)) == len(rows)
    assert set(sent) <= set(rows)
    assert set(sent) <= {int(line) for file in files for line in file}
    assert all(len(file) <= 50 for file in files)
