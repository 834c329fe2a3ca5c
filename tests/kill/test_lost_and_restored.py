"""State and log lost, restored from a snapshot, or cloned: no record is ever taken for another one."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import resilient_exporters as rex
from resilient_exporters.exporters.sqlite import SQLiteExporter
from tests.kill.sender import small_segments


class Database(SQLiteExporter):
    """A database that can be out of reach."""

    up = True

    def export(self, batch: rex.Batch, *, table: str | None = None) -> None:
        """Store the rows, if it can be reached."""
        if not self.up:
            raise rex.TargetDown("out of reach")
        super().export(batch, table=table)


@pytest.fixture(autouse=True)
def tiny() -> Iterator[None]:
    """Segments of a few records."""
    with small_segments():
        yield


@contextmanager
def program(files: Path, database: Path) -> Iterator[tuple[rex.ExporterPool, Database]]:
    """A run of a program that sends to a database and keeps what it must in a folder."""
    files.mkdir(exist_ok=True)
    target = Database(database, name="db")
    with rex.ExporterPool([target], use_memory=False, tmp_file=files / "kept", name="program") as pool:
        yield pool, target


def send(pool: rex.ExporterPool, numbers: range) -> None:
    for number in numbers:
        pool.send({"n": number, "pad": "x" * 100})


def rows(database: Path) -> list[int]:
    with closing(sqlite3.connect(database)) as connection:
        return [number for (number,) in connection.execute("select n from records order by rowid")]


def send_half(files: Path, database: Path) -> None:
    """A run that delivers 0 to 9, keeps 10 to 49, and delivers some of these late."""
    with program(files, database) as (pool, target):
        send(pool, range(10))
        target.up = False
        send(pool, range(10, 30))
        target.up = True
        pool.flush()
        target.up = False
        send(pool, range(30, 50))


@pytest.mark.parametrize("lost", ["kept.state", "kept", "kept*"])
def test_lost_files(tmp_path: Path, lost: str) -> None:
    """Whatever file is lost, what is left of the log arrives once, and everything new arrives."""
    files, database = tmp_path / "files", tmp_path / "target.db"
    send_half(files, database)
    for path in files.glob(lost):
        path.unlink()
    with program(files, database) as (pool, target):
        target.up = False
        send(pool, range(100, 130))
        target.up = True
        assert pool.flush()
    found = rows(database)
    assert len(set(found)) == len(found)
    assert {*range(30), *range(100, 130)} <= set(found)
    if lost == "kept.state":
        assert {*range(50), *range(100, 130)} == set(found)


def test_a_snapshot_restored(tmp_path: Path) -> None:
    """After an old snapshot was put back, its records do not come twice, and none of the new ones is missing."""
    files, database, snapshot = tmp_path / "files", tmp_path / "target.db", tmp_path / "snapshot"
    send_half(files, database)
    shutil.copytree(files, snapshot)
    for first in (50, 100, 150):
        with program(files, database) as (pool, target):
            target.up = False
            send(pool, range(first, first + 20))
            target.up = True
            send(pool, range(first + 20, first + 30))
            assert pool.flush()
        shutil.rmtree(files)
        shutil.copytree(snapshot, files)
    assert sorted([*range(80), *range(100, 130), *range(150, 180)]) == sorted(rows(database))


def test_a_snapshot_taken_at_work(tmp_path: Path) -> None:
    """The same when the snapshot was taken while records were on their way out."""
    files, database, snapshot = tmp_path / "files", tmp_path / "target.db", tmp_path / "snapshot"
    with program(files, database) as (pool, target):
        target.up = False
        send(pool, range(40))
        shutil.copytree(files, snapshot)
        target.up = True
        send(pool, range(40, 60))
        assert pool.flush()
    with program(snapshot, database) as (pool, _):
        send(pool, range(100, 140))
        assert pool.flush()
    assert sorted([*range(60), *range(100, 140)]) == sorted(rows(database))


def test_two_clones_at_work(tmp_path: Path) -> None:
    """Two clones of a machine deliver what both had once, and what each sent itself."""
    files, database, clone = tmp_path / "files", tmp_path / "target.db", tmp_path / "clone"
    send_half(files, database)
    shutil.copytree(files, clone)
    with program(files, database) as (one, first), program(clone, database) as (two, second):
        first.up = second.up = False
        send(one, range(100, 120))
        send(two, range(200, 220))
        first.up = True
        send(one, range(120, 130))
        second.up = True
        send(two, range(220, 230))
        send(one, range(130, 140))
        assert one.flush()
        assert two.flush()
    assert sorted([*range(50), *range(100, 140), *range(200, 230)]) == sorted(rows(database))
