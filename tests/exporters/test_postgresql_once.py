"""PostgreSQLExporter stores each record once: lost replies, restarts, second writers, restored backups."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resilient_exporters.exceptions import RecordsRefused, TargetDown, TargetMisconfigured
from resilient_exporters.exporters import ExporterPool
from resilient_exporters.exporters.postgresql import PostgreSQLExporter
from resilient_exporters.records import Batch
from resilient_exporters.testing.proxy import FaultProxy
from tests.counts import EXAMPLES, KILLS
from tests.servers.postgresql import Database, MakeExporter, binaries, database, exporter_of, refusal, server

__all__ = ["binaries", "database", "exporter_of", "server"]

MakeBatch = Callable[..., Batch]


@pytest.fixture
def proxy(database: Database) -> Iterator[FaultProxy]:
    """Faults between exporters and the server; there is a table `t (n int)`."""
    database.query("create table t (n int)")
    with FaultProxy("127.0.0.1", database.port) as made:
        yield made


@pytest.fixture
def exporter(database: Database, proxy: FaultProxy) -> Iterator[PostgreSQLExporter]:
    """An exporter that reaches the server through the proxy."""
    with PostgreSQLExporter(database.conninfo(port=proxy.port), default_table="t", timeout=10.0) as made:
        yield made


def stored(database: Database) -> list[int]:
    return [n for (n,) in database.query("select n from t order by n")]


def numbered(batch: MakeBatch, first: int, last: int, **more: Any) -> Batch:
    """Records whose data are their numbers."""
    return batch(*({"n": n} for n in range(first, last + 1)), first=first, **more)


# Lost replies


def test_reply_swallowed(database: Database, proxy: FaultProxy, exporter: PostgreSQLExporter, batch: MakeBatch) -> None:
    """The commit happened, the reply was lost: each time the batch comes again, and nothing is there twice."""
    for i in range(KILLS):
        part = numbered(batch, i * 3 + 1, i * 3 + 3)
        proxy.swallow_replies(to=b"claimed")
        with pytest.raises(TargetDown):
            exporter.export(part)
        exporter.export(part)
    assert KILLS == proxy.faults
    assert list(range(1, KILLS * 3 + 1)) == stored(database)


def test_reply_swallowed_then_a_different_batch(
    database: Database, proxy: FaultProxy, exporter: PostgreSQLExporter, batch: MakeBatch
) -> None:
    """What follows a lost reply may be cut differently: only what the database lacks is stored."""
    proxy.swallow_replies(to=b"claimed")
    with pytest.raises(TargetDown):
        exporter.export(numbered(batch, 3, 6))
    exporter.export(numbered(batch, 1, 4))
    exporter.export(numbered(batch, 5, 9))
    assert list(range(1, 10)) == stored(database)


def test_reply_swallowed_twice_in_different_runs(
    database: Database, proxy: FaultProxy, exporter: PostgreSQLExporter, batch: MakeBatch
) -> None:
    """Runs and lanes have numbers of their own."""
    for options in ({"run": 1}, {"run": 2}, {"run": 2, "lane": "other"}):
        proxy.swallow_replies(to=b"claimed")
        part = numbered(batch, 1, 2, **options)
        with pytest.raises(TargetDown):
            exporter.export(part)
        exporter.export(part)
        exporter.export(part)
    assert [1, 1, 1, 2, 2, 2] == stored(database)


def test_request_lost(database: Database, proxy: FaultProxy, exporter: PostgreSQLExporter, batch: MakeBatch) -> None:
    """A statement that did not arrive, whole or in part, is stored when it comes again."""
    exporter.open()
    for after in (0, 1, 5, 300, 700):
        proxy.reset_requests(after=after)
        with pytest.raises(TargetDown):
            exporter.export(numbered(batch, 1, 50))
    exporter.export(numbered(batch, 1, 50))
    assert list(range(1, 51)) == stored(database)


FAULTS = st.sampled_from(["none", "swallow", "request", "reply"])
RUNS = itertools.count(1000)
STEPS = st.lists(
    st.tuples(FAULTS, st.integers(0, 400), st.lists(st.integers(1, 12), min_size=1, max_size=6, unique=True)),
    min_size=1,
    max_size=8,
)


@settings(max_examples=EXAMPLES // 2, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=STEPS, bad=st.sets(st.integers(1, 12), max_size=3))
def test_any_course_of_events(
    database: Database,
    proxy: FaultProxy,
    exporter: PostgreSQLExporter,
    batch: MakeBatch,
    steps: list[tuple[str, int, list[int]]],
    bad: set[int],
) -> None:
    """Whatever is sent in whatever order, and wherever connections break: each good record once, no bad one ever."""
    database.query("truncate t")
    run = next(RUNS)
    for fault, after, numbers in steps:
        arm(proxy, fault, after)
        attempt(exporter, batch(*(row(n, bad) for n in numbers), numbers=numbers, run=run))
    proxy.heal()
    sent = sorted({n for _, _, numbers in steps for n in numbers})
    last = batch(*(row(n, bad) for n in sent), numbers=sent, run=run)
    attempt(exporter, last)  # a connection that broke just behind its last reply shows only now
    refused = set(attempt(exporter, last))
    assert [n for n in sent if n not in bad] == stored(database)
    assert {i for i, n in enumerate(sent) if n in bad} == refused


def row(n: int, bad: set[int]) -> dict[str, Any]:
    return {"n": "bad" if n in bad else n}


def arm(proxy: FaultProxy, fault: str, after: int) -> None:
    if fault == "swallow":
        proxy.swallow_replies(to=b"claimed")
    elif fault == "request":
        proxy.reset_requests(after=after)
    elif fault == "reply":
        proxy.cut_replies(after=after)


def attempt(exporter: PostgreSQLExporter, part: Batch) -> dict[int, str]:
    """Export; the refused ones, none when the connection broke."""
    try:
        exporter.export(part)
    except TargetDown:
        return {}
    except RecordsRefused as error:
        return error.permanent
    return {}


# Overtaken and refused records


def test_overtaken_records_are_stored(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """A record that later ones have overtaken is not taken for one that is there."""
    database.query("create table t (n int)")
    exporter = exporter_of()
    exporter.export(numbered(batch, 5, 9))
    exporter.export(numbered(batch, 1, 2))
    exporter.export(numbered(batch, 1, 12))
    assert list(range(1, 13)) == stored(database)


def test_a_refused_record_is_not_resolved(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """What was refused is stored when the table takes it after all, and refused again until then."""
    database.query("create table t (n int check (n <> 2))")
    exporter = exporter_of()
    for _ in range(2):
        assert {1} == refusal(exporter, numbered(batch, 1, 3)).permanent.keys()
    database.query("alter table t drop constraint t_n_check")
    exporter.export(numbered(batch, 1, 3))
    assert [1, 2, 3] == stored(database)


def test_no_identity_no_memory(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """Records of run 0 have no identity: each call stores them."""
    database.query("create table t (n int)")
    for _ in range(2):
        exporter_of().export(numbered(batch, 1, 2, run=0))
    assert [1, 1, 2, 2] == stored(database)


# Second writers


def test_two_writers(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """Two exporters that send the same records of the same run at the same time store each once."""
    database.query("create table t (n int)")
    failures: list[BaseException] = []
    together = threading.Barrier(2)

    def write(exporter: PostgreSQLExporter, seed: int) -> None:
        dice = random.Random(seed)
        together.wait(60)
        for first in range(1, 400, 10):
            while True:
                try:
                    exporter.export(numbered(batch, max(1, first - dice.randrange(15)), first + 9))
                    break
                except TargetDown as error:
                    failures.append(error)

    writers = [threading.Thread(target=write, args=(exporter_of(), seed)) for seed in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert not failures
    assert list(range(1, 401)) == stored(database)


def test_a_zombie_comes_too_late(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """A writer with an old idea of what the database has stores nothing twice."""
    database.query("create table t (n int)")
    old, new = exporter_of(), exporter_of()
    old.export(numbered(batch, 1, 2))
    new.export(numbered(batch, 1, 6))
    old.export(numbered(batch, 3, 8))
    assert list(range(1, 9)) == stored(database)


# Restored backups


@pytest.mark.parametrize("loss", ["delete from {ledger}", "update {ledger} set version = 1", "drop table {ledger}"])
def test_restored_backup(database: Database, exporter_of: MakeExporter, batch: MakeBatch, loss: str) -> None:
    """A database that has less than it had holds everything, until the program is started again."""
    database.query("create table t (n int)")
    exporter = exporter_of()
    exporter.export(numbered(batch, 1, 1))
    exporter.export(numbered(batch, 2, 2))
    database.query(loss.format(ledger="resilient_exporters_resolved"))
    if "drop" in loss:
        with pytest.raises(TargetMisconfigured):
            exporter.export(numbered(batch, 3, 3))
    for _ in range(2):
        with pytest.raises(TargetMisconfigured, match="restored from a backup"):
            exporter.export(numbered(batch, 3, 3))
    exporter_of().export(numbered(batch, 3, 3))
    assert [1, 2, 3] == stored(database)


def test_damaged_ledger(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """A ledger that cannot be read holds everything."""
    database.query("create table t (n int)")
    exporter_of().export(numbered(batch, 1, 1))
    database.query("update resilient_exporters_resolved set resolved = 'rubbish'")
    with pytest.raises(TargetMisconfigured, match="damaged"):
        exporter_of().export(numbered(batch, 2, 2))


def test_long_past_runs_are_forgotten(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """A new run lets go of rows that nobody has touched for more than a year, and of no others."""
    database.query("create table t (n int)")
    exporter = exporter_of()
    for run in (1, 2):
        exporter.export(numbered(batch, 1, 1, run=run))
    database.query("update resilient_exporters_resolved set updated = now() - interval '366 days' where run like '%1'")
    exporter.export(numbered(batch, 1, 1, run=3))
    runs = database.query("select run from resilient_exporters_resolved order by run")
    assert [f"{run:016x}" for run in (2, 3)] == [run for (run,) in runs]


# Restarts


def test_server_restarted_midway(database: Database, batch: MakeBatch) -> None:
    """A crash of the server in the middle of a stream loses and doubles nothing."""
    database.query("create table t (n int)")
    exporter = PostgreSQLExporter(database.conninfo(), default_table="t")
    exporter.batch_records = 50
    with ExporterPool([exporter], num_threads=2, wait_for_result=False, name="pool") as pool:
        for n in range(2000):
            pool.send({"n": n})
            if n == 700:
                assert pool.flush(60)
            if n == 1000:
                database.server.stop()
            if n == 1400:
                database.server.start()
        assert pool.flush(60)
    database.reconnect()
    assert list(range(2000)) == stored(database)


def test_terminated_backend(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """A connection that the administrator ends is made anew."""
    database.query("create table t (n int)")
    exporter = exporter_of()
    for i in range(5):
        exporter.export(numbered(batch, 2 * i + 1, 2 * i + 1))
        database.query(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where application_name = 'resilient_exporters' and pid <> pg_backend_pid()"
        )
        part = numbered(batch, 2 * i + 1, 2 * i + 2)
        with pytest.raises(TargetDown):
            exporter.export(part)
        exporter.export(part)
    assert list(range(1, 11)) == stored(database)
