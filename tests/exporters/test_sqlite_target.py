"""SQLiteExporter on real databases: values, columns, refused rows, exactly once, kills, restored backups."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient_exporters.exceptions import InvalidConfigError, RecordsRefused, TargetDown, TargetMisconfigured
from resilient_exporters.exporters.sqlite import SQLiteExporter
from resilient_exporters.records import Batch
from tests.counts import EXAMPLES
from tests.exporters.handmade import made

MakeBatch = Callable[..., Batch]
MakeExporter = Callable[..., SQLiteExporter]


class Colour(Enum):
    RED = "red"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "target.db"


@pytest.fixture
def exporter(path: Path) -> Iterator[MakeExporter]:
    """Makes exporters to the database, and closes them."""
    with ExitStack() as stack:

        def make(*args: Any, **options: Any) -> SQLiteExporter:
            made = SQLiteExporter(path, *args, **options)
            stack.callback(made.close)
            return made

        yield make


def query(path: Path, statement: str, *values: Any) -> list[Any]:
    """What a statement returns; single columns without their tuples."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        rows = connection.execute(statement, values).fetchall()
    return [row[0] if len(row) == 1 else row for row in rows]


# Values and columns


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (None, None),
        (5, 5),
        (True, 1),
        (-(2**63), -(2**63)),
        (2**63, "9223372036854775808"),
        (1.5, 1.5),
        (float("inf"), float("inf")),
        (float("nan"), None),
        ("007", "007"),
        ("", ""),
        ("a\0b", "a\0b"),
        (b"\xff\x00", b"\xff\x00"),
        (bytearray(b"a"), b"a"),
        (Decimal("1.10"), "1.10"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime(2024, 2, 3, 4, 5, tzinfo=UTC), "2024-02-03T04:05:00+00:00"),
        (date(2024, 2, 3), "2024-02-03"),
        (timedelta(minutes=1), 60.0),
        (Colour.RED, "red"),
        ([1, {"a": None}], '[1,{"a":null}]'),
        ({2, 1}, "[1,2]"),
        ((), "[]"),
        ({"k": 1}, '{"k":1}'),
    ],
)
def test_value(path: Path, exporter: MakeExporter, batch: MakeBatch, value: Any, stored: Any) -> None:
    """Each type has one form, whatever type the column's first value had."""
    exporter().export(batch({"first": 1, "v": 1}, {"first": 2, "v": value}))
    got = query(path, "select v from records where first = 2")
    assert [stored] == got
    assert type(stored) is type(got[0])


@pytest.mark.parametrize(("data", "stored"), [("text", "text"), (5, 5), ([1], "[1]"), (b"x", b"x")])
def test_other_data(path: Path, exporter: MakeExporter, batch: MakeBatch, data: Any, stored: Any) -> None:
    """What is not a dict fills the column `data`."""
    exporter().export(batch(data))
    assert [stored] == query(path, "select data from records")


def test_order(path: Path, exporter: MakeExporter, batch: MakeBatch) -> None:
    """Rows come in the order of the records, whatever columns each has."""
    exporter().export(batch({"a": 1}, {"b": 2}, "three", {"b": 4, "a": 4}, {}, {"a": 6}))
    expected = [
        (1, None, None),
        (None, 2, None),
        (None, None, "three"),
        (4, 4, None),
        (None, None, None),
        (6, None, None),
    ]
    assert expected == query(path, "select a, b, data from records order by rowid")


def test_later_columns(path: Path, exporter: MakeExporter, batch: MakeBatch) -> None:
    """A key that comes later becomes a column; case matters only beyond a to z."""
    target = exporter()
    target.export(batch({"a": 1, "\u00e4": 1}))
    target.export(batch({"A": 2, "\u00c4": 2, 'od"d; drop table x': 3, 7: 4}, first=2))
    assert ["a", "\u00e4", "\u00c4", 'od"d; drop table x', "7"] == query(
        path, "select name from pragma_table_info('records')"
    )
    assert [(1, 1, None), (2, None, 2)] == query(path, 'select a, "\u00e4", "\u00c4" from records')


def test_declared_columns(path: Path, exporter: MakeExporter, batch: MakeBatch) -> None:
    """Declarations given are those of the table that is made, with other keys behind."""
    exporter(columns={"id": "integer primary key", "at": "text not null"}).export(batch({"x": 1, "ID": 5, "at": "now"}))
    assert [("id", "INTEGER"), ("at", "TEXT"), ("x", "")] == query(
        path, "select name, type from pragma_table_info('records')"
    )
    assert [5] == query(path, "select id from records")


def test_table_keyword(path: Path, exporter: MakeExporter, batch: MakeBatch) -> None:
    """`table=` chooses the table, whatever its name."""
    target = exporter("usual")
    target.export(batch("a"))
    target.export(batch("b", first=2), table='odd "name"; --')
    assert ["a"] == query(path, "select data from usual")
    assert ["b"] == query(path, 'select data from "odd ""name""; --"')


@pytest.mark.parametrize("table", ["", "a\0b", "\ud800", "sqlite_x", "Resilient_Exporters_Resolved", 5])
def test_impossible_table(path: Path, exporter: MakeExporter, batch: MakeBatch, table: Any) -> None:
    """A name that no table can have is refused: by the constructor, and with each record sent to it."""
    with pytest.raises(InvalidConfigError, match="table"):
        SQLiteExporter(path, table)
    with pytest.raises(RecordsRefused) as caught:
        exporter().export(batch("a", "b"), table=table)
    assert {0, 1} == caught.value.permanent.keys()


# Refused rows


def test_refused_rows(path: Path, exporter: MakeExporter, batch: MakeBatch) -> None:
    """A constraint refuses its rows only: the others are there, in order, and a repetition changes nothing."""
    query(path, "create table records (id integer primary key, n int check (n < 10))")
    work = batch({"id": 1, "n": 1}, {"id": 1, "n": 2}, {"id": 2, "n": 99}, {"id": "x", "n": 1}, {"id": 3, "n": 3})
    target = exporter()
    for _ in range(2):
        with pytest.raises(RecordsRefused) as caught:
            target.export(work)
        assert {1, 2, 3} == caught.value.permanent.keys()
    assert "UNIQUE constraint failed: records.id" == caught.value.permanent[1]
    assert "CHECK" in caught.value.permanent[2]
    assert "mismatch" in caught.value.permanent[3]
    assert [(1, 1), (3, 3)] == query(path, "select id, n from records order by rowid")


def test_refused_row_may_come_again(path: Path, exporter: MakeExporter, batch: MakeBatch) -> None:
    """A refused record does not count as had: after the table was changed it is stored."""
    query(path, "create table records (n int check (n < 10))")
    target = exporter()
    with pytest.raises(RecordsRefused):
        target.export(batch({"n": 1}, {"n": 99}))
    query(path, "drop table records")
    target.export(batch({"n": 1}, {"n": 99}))
    assert [99] == query(path, "select n from records")


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"a": "\ud800"}, "surrogates"),
        ({"a": [object()]}, "object"),
        ({"\ud800": 1}, "a key of data"),
        ({"a": 1, "A": 2}, "one column"),
        ({1: 1, "1": 2}, "one column"),
        ({"": 1}, "cannot name a column"),
        ({"a\0": 1}, "cannot name a column"),
        ({"k" * 1001: 1}, "cannot name a column"),
        ({(1,): 1}, "key of type tuple"),
        ({True: 1}, "key of type bool"),
        ({f"c{i}": i for i in range(2001)}, "more than 2000 columns"),
    ],
)
def test_records_that_cannot_be_rows(
    path: Path, exporter: MakeExporter, batch: MakeBatch, data: Any, named: str
) -> None:
    """A record that cannot be a row is refused by name, and the others are stored."""
    with pytest.raises(RecordsRefused, match=named) as caught:
        exporter().export(batch({"a": "before"}, data, {"a": "after"}))
    assert [1] == list(caught.value.permanent)
    assert ["before", "after"] == query(path, "select a from records")


def test_nothing_made_for_refused_records(path: Path, exporter: MakeExporter, batch: MakeBatch) -> None:
    """Records that are all refused make no table."""
    with pytest.raises(RecordsRefused):
        exporter().export(batch({"": 1}))
    assert [] == query(path, "select name from sqlite_master where name = 'records'")


def test_no_creation(path: Path, exporter: MakeExporter, batch: MakeBatch) -> None:
    """create=False makes neither file nor table nor column: they are somebody else's."""
    target = exporter(create=False)
    with pytest.raises(TargetDown):
        target.export(batch({"a": 1}))
    assert not path.exists()
    query(path, "create table other (a)")
    with pytest.raises(TargetMisconfigured, match="no table 'records'"):
        target.export(batch({"a": 1}))
    query(path, "create table records (a)")
    with pytest.raises(RecordsRefused, match="no column 'b'"):
        target.export(batch({"a": 1}, {"b": 1}))
    assert [1] == query(path, "select a from records")


def test_constraint_that_undoes_the_transaction(path: Path, exporter: MakeExporter, batch: MakeBatch) -> None:
    """A table that undoes the whole batch for one row is held, with the way out, and nothing is half there."""
    query(path, "create table records (id int unique on conflict rollback)")
    target = exporter()
    with pytest.raises(TargetMisconfigured, match="abort the statement instead"):
        target.export(batch({"id": 1}, {"id": 1}))
    assert [] == query(path, "select id from records")
    target.export(batch({"id": 1}))
    assert [1] == query(path, "select id from records")


# Exactly once


def test_repeated_batches(path: Path, exporter: MakeExporter, batch: MakeBatch) -> None:
    """Whatever of a run is there already is not stored again, by this exporter or the next, in any grouping."""
    first = exporter()
    first.export(batch("a", "b", "c"))
    first.export(batch("b", "c", "d", first=2))
    second = exporter()
    second.export(batch("a", first=1))
    second.export(batch("d", "e", first=4))
    second.export(batch("g", first=7))
    second.export(batch("e", "f", "g", first=5))
    assert list("abcdegf") == query(path, "select data from records order by rowid")


def test_runs_and_lanes_are_apart(path: Path, exporter: MakeExporter, batch: MakeBatch) -> None:
    """Numbers mean something only within one run and lane."""
    target = exporter()
    target.export(batch("a", run=1))
    target.export(batch("b", run=2))
    target.export(batch("c", run=1, lane="other"))
    assert ["a", "b", "c"] == query(path, "select data from records order by rowid")


def test_two_writers(path: Path, exporter: MakeExporter, batch: MakeBatch) -> None:
    """Two connections that deliver the same records at once wait for each other, and each record is there once."""
    writers = [exporter(), exporter()]
    for writer in writers:
        writer.open()
    start = threading.Barrier(2)

    def write(writer: SQLiteExporter, failures: list[Exception]) -> None:
        start.wait()
        try:
            for number in range(1, 100):
                writer.export(batch(number, first=number))
        except TargetDown as error:
            failures.append(error)

    failures: list[Exception] = []
    threads = [threading.Thread(target=write, args=(writer, failures)) for writer in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == failures
    assert list(range(1, 100)) == query(path, "select data from records order by rowid")


@settings(max_examples=EXAMPLES // 2)
@given(
    st.lists(st.lists(st.integers(1, 12), max_size=5, unique=True), max_size=8),
    st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_each_number_once(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]], reopen: list[bool]
) -> None:
    """In whatever batches numbers come and come again, each is stored once, in the order of first arrival."""
    path = tmp_path_factory.mktemp("once") / "target.db"
    target = SQLiteExporter(path)
    expected: list[int] = []
    try:
        for numbers, again in zip(batches, reopen, strict=False):
            if again:
                target.close()
                target = SQLiteExporter(path)
            target.export(made(*numbers, numbers=numbers))
            expected += [number for number in numbers if number not in expected]
    finally:
        target.close()
    if expected:
        assert expected == query(path, "select data from records order by rowid")


@pytest.mark.parametrize("moment", ["before commit", "after commit"])
def test_kill_around_commit(path: Path, exporter: MakeExporter, batch: MakeBatch, moment: str) -> None:
    """A kill right before or right after the commit neither loses nor doubles a row when the batch comes again."""
    script = (
        "import os, sys\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from tests.exporters.handmade import made\n"
        "from resilient_exporters.exporters import sqlite\n"
        "target = sqlite.SQLiteExporter(sys.argv[1])\n"
        "target.export(made('a', 'b'))\n"
        "def die(*args): os.kill(os.getpid(), 9)\n"
        "if sys.argv[3] == 'before commit': sqlite._note = die\n"
        "else: target._found = die\n"
        "target.export(made('c', 'd', first=3))\n"
    )
    command = [sys.executable, "-c", script, str(path), str(Path(__file__).parents[2]), moment]
    assert -signal.SIGKILL == subprocess.run(command, check=False).returncode
    there = ["a", "b"] if moment == "before commit" else ["a", "b", "c", "d"]
    assert there == query(path, "select data from records order by rowid")
    exporter().export(batch("c", "d", first=3))
    assert ["a", "b", "c", "d"] == query(path, "select data from records order by rowid")


@pytest.mark.parametrize("kept", ["file", "file, in the background"])
def test_kill_between_commit_and_settle(path: Path, tmp_path: Path, kept: str) -> None:
    """A program killed after the commit, before the library noted it, delivers the rest later and doubles nothing."""
    script = (
        "import os, sys\n"
        "import resilient_exporters as rex\n"
        "from resilient_exporters.exporters.sqlite import SQLiteExporter\n"
        "class Dying(SQLiteExporter):\n"
        "    deaths = int(sys.argv[4])\n"
        "    def export(self, batch, *, table=None):\n"
        "        super().export(batch, table=table)\n"
        "        if Dying.deaths and batch.numbers[-1] >= Dying.deaths: os.kill(os.getpid(), 9)\n"
        "options = dict(num_threads=2, wait_for_result=False) if 'background' in sys.argv[3] else {}\n"
        "pool = rex.ExporterPool([Dying(sys.argv[1], name='db')], use_memory=False, tmp_file=sys.argv[2], **options)\n"
        "if sys.argv[4] == '0':\n"
        "    pool.send_unsent_data()\n"
        "    assert not pool.has_unsent_data()\n"
        "    pool.close()\n"
        "else:\n"
        "    for i in range(1, 41): pool.save_unsent_data(i, {}, 'db')\n"
        "    pool.send_unsent_data()\n"
    )

    def run(death: int) -> int:
        command = [sys.executable, "-c", script, str(path), str(tmp_path / "kept"), kept, str(death)]
        return subprocess.run(command, check=False, timeout=60).returncode

    assert -signal.SIGKILL == run(25)
    assert 0 == run(0)
    assert list(range(1, 41)) == query(path, "select data from records order by rowid")


def test_old_runs_are_forgotten(
    path: Path, exporter: MakeExporter, batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run's numbers go when they are old and many newer runs are there; a wrong clock alone removes nothing."""
    monkeypatch.setattr("resilient_exporters.exporters.sqlite._KEPT_ROWS", 3)
    target = exporter()
    for run in range(1, 4):
        target.export(batch("x", run=run))
    query(path, "update resilient_exporters_resolved set updated = 0")
    target.export(batch("x", run=4))
    target.export(batch("x", run=5))
    assert [f"{run:016x}" for run in (3, 4, 5)] == query(
        path, "select run from resilient_exporters_resolved order by run"
    )


def test_young_runs_are_kept(
    path: Path, exporter: MakeExporter, batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many newer runs there are, the numbers of a run of the last months stay."""
    monkeypatch.setattr("resilient_exporters.exporters.sqlite._KEPT_ROWS", 0)
    target = exporter()
    for run in range(1, 5):
        target.export(batch("x", run=run))
    target.export(batch("x", run=1))
    assert ["x"] * 4 == query(path, "select data from records")


# What goes wrong


def test_restored_backup(path: Path, tmp_path: Path, exporter: MakeExporter, batch: MakeBatch) -> None:
    """A backup put back while in use is noticed, and nothing is written to it until somebody decides."""
    target = exporter()
    target.export(batch("a"))
    target.close()
    shutil.copy(path, tmp_path / "backup.db")
    target.export(batch("b", first=2))
    target.close()
    shutil.copy(tmp_path / "backup.db", path)
    for _ in range(2):
        with pytest.raises(TargetMisconfigured, match="restored from a backup"):
            target.export(batch("c", first=3))
    assert ["a"] == query(path, "select data from records")
    exporter().export(batch("c", first=3))
    assert ["a", "c"] == query(path, "select data from records")


def test_deleted_while_open(path: Path, exporter: MakeExporter, batch: MakeBatch) -> None:
    """A database that was deleted under the exporter does not swallow records: the batch fails and is held."""
    target = exporter()
    target.export(batch("a"))
    for leftover in path.parent.glob("target.db*"):
        leftover.unlink()
    with pytest.raises(TargetDown, match="moved or deleted"):
        target.export(batch("b", first=2))
    with pytest.raises(TargetMisconfigured, match="was replaced"):
        target.export(batch("b", first=2))


def test_deleted_before_anything_was_stored(path: Path, exporter: MakeExporter, batch: MakeBatch) -> None:
    """A database deleted between connecting and the first record is made anew."""
    target = exporter()
    target.open()
    for leftover in path.parent.glob("target.db*"):
        leftover.unlink()
    with pytest.raises(TargetDown, match="moved or deleted"):
        target.export(batch("a"))
    target.export(batch("a"))
    assert ["a"] == query(path, "select data from records")


def test_locked(path: Path, exporter: MakeExporter, batch: MakeBatch) -> None:
    """A database that stays locked is down, and the batch is stored when it is free."""
    target = exporter(timeout=0.05)
    target.export(batch("a"))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(TargetDown, match="locked"):
            target.export(batch("b", first=2))
    target.export(batch("b", first=2))
    assert ["a", "b"] == query(path, "select data from records")


def test_absent_folder_heals(tmp_path: Path, batch: MakeBatch) -> None:
    """A share that is not mounted is down, and the same exporter stores as soon as it is there."""
    target = SQLiteExporter(tmp_path / "share" / "x.db")
    with pytest.raises(TargetDown, match="unable to open"):
        target.export(batch("a"))
    (tmp_path / "share").mkdir()
    target.export(batch("a"))
    target.close()
    assert ["a"] == query(tmp_path / "share" / "x.db", "select data from records")


@pytest.mark.parametrize("small_disk", [512], indirect=True)
def test_full_disk(small_disk: Path, batch: MakeBatch) -> None:
    """On a full disk nothing of a batch is stored, and it is stored whole when there is room."""
    ballast = small_disk / "ballast"
    target = SQLiteExporter(small_disk / "x.db")
    try:
        target.export(batch("a"))
        with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(b"x" * 1024)
        with pytest.raises(TargetDown):
            target.export(batch(*["b" * 5000] * 20, first=2))
        ballast.unlink()
        target.export(batch(*["b" * 5000] * 20, first=2))
    finally:
        target.close()
    assert 21 == len(query(small_disk / "x.db", "select data from records"))


def test_not_a_database(path: Path, exporter: MakeExporter, batch: MakeBatch) -> None:
    """A file that is something else is a matter of configuration, and stays as it is."""
    path.write_text("something else " * 100)
    with pytest.raises(TargetMisconfigured, match="not a database"):
        exporter().export(batch("a"))
    assert "something else " * 100 == path.read_text()


def test_folder_in_place_of_the_database(path: Path, exporter: MakeExporter, batch: MakeBatch) -> None:
    """A folder is a matter of configuration."""
    path.mkdir()
    with pytest.raises(TargetMisconfigured, match="must be a file"):
        exporter().export(batch("a"))


def test_dropped_ledger(path: Path, exporter: MakeExporter, batch: MakeBatch) -> None:
    """When the table of resolved records is dropped under the exporter nothing is stored without it."""
    target = exporter()
    target.export(batch("a"))
    query(path, "drop table resilient_exporters_resolved")
    for _ in range(2):
        with pytest.raises(TargetMisconfigured):
            target.export(batch("b", first=2))
    assert ["a"] == query(path, "select data from records")


def test_damaged_ledger(path: Path, exporter: MakeExporter, batch: MakeBatch) -> None:
    """A damaged set of numbers is not taken for an empty one."""
    target = exporter()
    target.export(batch("a"))
    query(path, "update resilient_exporters_resolved set resolved = x'010580'")
    with pytest.raises(TargetMisconfigured, match="damaged"):
        target.export(batch("b", first=2))
    assert ["a"] == query(path, "select data from records")


def test_interrupted(path: Path, exporter: MakeExporter, batch: MakeBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt in the middle undoes the batch, and the connection can be used again."""

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    target = exporter()
    with monkeypatch.context() as patch:
        patch.setattr("resilient_exporters.exporters.sqlite._note", interrupt)
        with pytest.raises(KeyboardInterrupt):
            target.export(batch("a"))
    target.export(batch("a"))
    assert ["a"] == query(path, "select data from records")


def test_another_thread(path: Path, exporter: MakeExporter, batch: MakeBatch) -> None:
    """Batches may come from different threads, one at a time."""
    target = exporter()
    target.export(batch("a"))
    thread = threading.Thread(target=target.export, args=(batch("b", first=2),))
    thread.start()
    thread.join()
    assert ["a", "b"] == query(path, "select data from records")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"path": ""}, "path is empty"),
        ({"path": ":memory:"}, "ends with its connection"),
        ({"path": 5}, "path must be a path"),
        ({"path": "x", "create": 1}, "create must be"),
        ({"path": "x", "columns": ["a"]}, "columns must be a mapping"),
        ({"path": "x", "columns": {"a": 5}}, "both str"),
        ({"path": "x", "columns": {"": "int"}}, "columns: .* cannot name a column"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], named: str) -> None:
    """A wrong argument is named when the exporter is made."""
    with pytest.raises(InvalidConfigError, match=named):
        SQLiteExporter(**arguments)


def test_made_without_touching_the_target(tmp_path: Path) -> None:
    """Making an exporter makes no file, and its name is that of the target."""
    assert f"sqlite:{tmp_path / 'x.db'}:t" == SQLiteExporter(tmp_path / "x.db", "t").name
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a b#c?d%20e.db", "\u00e9.db"])
def test_odd_file_names(tmp_path: Path, batch: MakeBatch, name: str) -> None:
    """A file name is taken as it is."""
    target = SQLiteExporter(tmp_path / name)
    target.export(batch("a"))
    target.close()
    assert ["a"] == query(tmp_path / name, "select data from records")


def test_speed_of_batches(path: Path, exporter: MakeExporter, batch: MakeBatch) -> None:
    """A batch is one transaction, not one per record."""
    commits: list[str] = []
    target = exporter()
    target.open()
    assert target._connection is not None
    target._connection.set_trace_callback(lambda text: commits.append(text) if text.lower() == "commit" else None)
    target.export(batch(*range(500)))
    assert ["commit"] == commits
