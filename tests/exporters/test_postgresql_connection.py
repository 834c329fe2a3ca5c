"""PostgreSQLExporter and its connection: arguments, names without secrets, time limits, faults, round trips."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.exceptions import (
    InvalidConfigError,
    MissingConfigError,
    MissingModuleError,
    TargetDown,
    TargetMisconfigured,
)
from resilient_exporters.exporters import ExporterPool, postgresql
from resilient_exporters.exporters.postgresql import PostgreSQLExporter
from resilient_exporters.records import Batch
from resilient_exporters.testing.proxy import FaultProxy
from tests.servers.postgresql import Database, MakeExporter, Server, binaries, database, exporter_of, server

__all__ = ["binaries", "database", "exporter_of", "server"]

MakeBatch = Callable[..., Batch]
SECRET = "s3cr3t!"


@pytest.fixture
def proxy(database: Database) -> Iterator[FaultProxy]:
    """Faults between exporters and the server; there is a table `t (n int)`."""
    database.query("create table t (n int)")
    with FaultProxy("127.0.0.1", database.port) as made:
        yield made


def through(proxy: FaultProxy, database: Database, timeout: float = 10.0) -> PostgreSQLExporter:
    return PostgreSQLExporter(database.conninfo(port=proxy.port), default_table="t", timeout=timeout)


# Arguments


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"target_host": "db", "database": "d"}, "postgresql:db:5432/d"),
        ({"target_host": "db", "database": "d", "target_port": 1, "default_table": "s.t"}, "postgresql:db:1/d/s.t"),
        ({"target_host": "db", "username": "u", "password": SECRET}, "postgresql:db:5432/u"),
        ({"conn_string": f"postgresql://u:{SECRET}@db:1234/d?sslmode=require"}, "postgresql:db:1234/d"),
        ({"conn_string": f"postgres://u:{SECRET}@db/d"}, "postgresql:db:5432/d"),
        ({"conn_string": f"postgresql:///d?host=/tmp&password={SECRET}"}, "postgresql:/tmp:5432/d"),
        ({"conn_string": f"postgresql://u:{SECRET}@a:1,b:2/d"}, "postgresql:a:1,b:2/d"),
        ({"conn_string": "postgresql://[::1]:99/d"}, "postgresql:[::1]:99/d"),
        ({"conn_string": "postgresql://"}, "postgresql:localhost:5432/"),
        ({"conn_string": f"host=db dbname = d password='{SECRET} \\' x' user=u"}, "postgresql:db:5432/d"),
        ({"conn_string": f"password={SECRET} service=main"}, "postgresql:main"),
        ({"conn_string": "dbname=d", "target_host": "db", "target_port": 7}, "postgresql:db:7/d"),
    ],
)
def test_names(arguments: dict[str, Any], name: str) -> None:
    """The name says where records go, and nothing secret; building the exporter contacts nobody."""
    exporter = PostgreSQLExporter(**arguments)
    assert name == exporter.name
    assert SECRET not in repr(exporter)


@pytest.mark.parametrize(
    "conn_string",
    [
        f"postgresql://u:{SECRET}/x@db/d",
        f"postgresql://u:{SECRET}?x@db/d",
        f"postgresql://u:{SECRET}@x@db/d",
        f"postgresql://u:{SECRET}",
        f"mysql://u:{SECRET}@db/d",
        f"host=db password=one {SECRET}",
        f"host=db password='{SECRET}",
        SECRET,
        5,
        b"host=db",
    ],
)
def test_bad_connection_strings(conn_string: Any) -> None:
    """What is no connection string is refused at once, without a word of it in the message."""
    with pytest.raises(InvalidConfigError) as caught:
        PostgreSQLExporter(conn_string)
    assert SECRET not in str(caught.value)


def test_connection_string_that_only_libpq_knows_is_wrong(batch: MakeBatch) -> None:
    """What libpq does not understand holds everything, without a word of it in the error or its causes."""
    exporter = PostgreSQLExporter(f"host=db passwort={SECRET}", default_table="t")
    with pytest.raises(TargetMisconfigured) as caught:
        exporter.export(batch({"n": 1}))
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error)
        error = error.__cause__


@pytest.mark.parametrize(
    "arguments",
    [
        {"target_port": 0},
        {"target_port": 65536},
        {"target_port": "5432"},
        {"target_port": True},
        {"target_host": 5},
        {"database": b"d"},
        {"username": "a\0b"},
        {"password": 5},
        {"default_table": ""},
        {"default_table": 5},
        {"default_table": "resilient_exporters_resolved"},
        {"create": 1},
        {"timeout": 0},
    ],
)
def test_bad_arguments(arguments: dict[str, Any]) -> None:
    """Arguments are checked when the exporter is made."""
    with pytest.raises(InvalidConfigError):
        PostgreSQLExporter(**{"target_host": "db", **arguments})


def test_nothing_to_connect_to() -> None:
    """Where to connect must be said."""
    with pytest.raises(MissingConfigError, match="conn_string"):
        PostgreSQLExporter(database="d")


def test_positions_of_the_predecessor() -> None:
    """The arguments may be given by position, in the old order."""
    exporter = PostgreSQLExporter(None, "db", "d", 1234, "u", SECRET, "t")
    assert "postgresql:db:1234/d/t" == exporter.name


def test_client_library_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without psycopg the constructor says what to install."""
    monkeypatch.setattr(postgresql, "find_spec", lambda name: None)
    with pytest.raises(MissingModuleError, match=r"pip install resilient-exporters\[postgres\]"):
        PostgreSQLExporter("host=db")


def test_client_library_is_imported_late() -> None:
    """Making an exporter loads no client library."""
    code = (
        "import sys, resilient_exporters.exporters.postgresql as p; p.PostgreSQLExporter('host=db'); "
        "sys.exit('psycopg' in sys.modules)"
    )
    assert 0 == subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode


# Down and up again


def test_refused_then_up(database: Database, proxy: FaultProxy, batch: MakeBatch) -> None:
    """While nobody listens the target is down; then the same exporter goes on."""
    with through(proxy, database) as exporter:
        proxy.refuse = True
        with pytest.raises(TargetDown, match=r"postgresql:127\.0\.0\.1:\d+/postgres/t: .*refused"):
            exporter.export(batch({"n": 1}))
        with pytest.raises(TargetDown):
            exporter.probe()
        proxy.heal()
        exporter.probe()
        exporter.export(batch({"n": 1}))
    assert [(1,)] == database.query("select n from t")


def test_no_answer_in_time(database: Database, proxy: FaultProxy, batch: MakeBatch) -> None:
    """A connection on which nothing moves any more is given up when the time is over, and made anew."""
    with through(proxy, database, timeout=0.5) as exporter:
        exporter.export(batch({"n": 1}))
        proxy.stalled = True
        began = time.monotonic()
        late = batch({"n": 2}, first=2)
        late.deadline = began + 0.3
        with pytest.raises(TargetDown, match="no answer in time"):
            exporter.export(late)
        assert time.monotonic() - began < 5
        proxy.heal()
        exporter.export(batch({"n": 2}, first=2))
    assert [(1,), (2,)] == database.query("select n from t order by n")


def test_a_pooler_that_loses_prepared_statements(
    database: Database, exporter_of: MakeExporter, batch: MakeBatch
) -> None:
    """Behind a pooler that hands out another connection of the server each time, statements are not prepared."""
    database.query("create table t (n int)")
    exporter = exporter_of()
    for n in range(1, 8):
        exporter.export(batch({"n": n}, first=n))
    assert exporter._session is not None
    exporter._session.run("do $$ begin execute 'deallocate all'; end $$", prepare=False)
    with pytest.raises(TargetDown, match="26000"):
        exporter.export(batch({"n": 8}, first=8))
    for n in range(8, 16):
        exporter.export(batch({"n": n}, first=n))
        assert [] == exporter._session.run("select name from pg_prepared_statements", prepare=False)
    assert [(n,) for n in range(1, 16)] == database.query("select n from t order by n")


def test_locked_table(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """A statement that waits for a lock for too long is taken back at the server, too."""
    database.query("create table t (n int)")
    exporter = exporter_of()
    exporter.export(batch({"n": 1}))
    database.query("begin")
    database.query("lock table t")
    late = batch({"n": 2}, first=2)
    late.deadline = time.monotonic() + 0.2
    with pytest.raises(TargetDown, match="no answer in time"):
        exporter.export(late)
    waiting = (
        "select count(*) from pg_locks join pg_stat_activity using (pid) where not granted "
        "and application_name = 'resilient_exporters'"
    )
    ends = time.monotonic() + 30
    while database.query(waiting) != [(0,)]:
        assert time.monotonic() < ends
    database.query("commit")
    exporter.export(batch({"n": 2}, first=2))
    assert [(1,), (2,)] == database.query("select n from t order by n")


def test_read_only_after_a_failover(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """A server that became a read-only one is down, and asked anew by a new connection."""
    database.query("create table t (n int)")
    role = f"role_{database.schema}"
    database.query(f"create role {role} login superuser")
    exporter = PostgreSQLExporter(database.conninfo(user=role), default_table="t")
    exporter.export(batch({"n": 1}))
    database.query(f"alter role {role} set default_transaction_read_only = on")
    exporter.close()
    with pytest.raises(TargetDown, match="read-only"):
        exporter.export(batch({"n": 2}, first=2))
    database.query(f"alter role {role} reset default_transaction_read_only")
    exporter.export(batch({"n": 2}, first=2))
    exporter.close()


def test_too_many_connections(database: Database, batch: MakeBatch) -> None:
    """No free connection means: later."""
    database.query("create table t (n int)")
    role = f"role_{database.schema}"
    database.query(f"create role {role} login connection limit 0")
    with pytest.raises(TargetDown, match="too many connections"):
        PostgreSQLExporter(database.conninfo(user=role), default_table="t").export(batch({"n": 1}))


def test_password(binaries: Path, batch: MakeBatch) -> None:
    """A password opens the door; a wrong one leaves the target down, and is in no message."""
    own = Server(binaries, password=SECRET)
    try:
        own.start()
        where: dict[str, Any] = {"target_host": "127.0.0.1", "database": "postgres", "target_port": own.port}
        where["username"] = "app"
        with PostgreSQLExporter(**where, password=SECRET, default_table="t", create=True) as exporter:
            exporter.export(batch({"n": 1}))
        with PostgreSQLExporter(own.conninfo(password=SECRET), default_table="t") as exporter:
            exporter.export(batch({"n": 2}))
        wrong = PostgreSQLExporter(**where, password=f"not {SECRET}", default_table="t")
        with pytest.raises(TargetDown, match="authentication failed") as caught:
            wrong.export(batch({"n": 3}))
        assert SECRET not in f"{caught.value} {caught.value.__cause__} {wrong!r}"
    finally:
        own.remove()


# Reach


def test_few_round_trips(database: Database, proxy: FaultProxy, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """A thousand records need one round trip, and five more before them to connect and to look around.

    So with 50 ms for each they take 0.3 s, and 0.05 s from then on: the benchmark measures it.
    """
    exporter_of().export(batch({"n": 0}))
    proxy.delay = 0.05
    with through(proxy, database) as exporter:
        began = time.monotonic()
        exporter.export(batch(*({"n": n} for n in range(1000)), run=8))
        assert 6 == proxy.round_trips
        assert time.monotonic() - began >= 6 * proxy.delay
        exporter.export(batch(*({"n": n} for n in range(1000)), first=1001, run=8))
        assert 7 == proxy.round_trips
    assert [(2001,)] == database.query("select count(*) from t")


def test_in_a_pool(database: Database, exporter_of: MakeExporter) -> None:
    """In the background of a pool, records of several tables arrive in order."""
    database.query("create table t (id serial, n int)")
    database.query("create table u (id serial, n int primary key, v int)")
    with ExporterPool([exporter_of()], num_threads=2, wait_for_result=False, name="pool") as pool:
        for n in range(3000):
            pool.send({"n": n})
            if n % 100 == 0:
                pool.send({"n": n % 3, "v": n}, table="u", upsert_on="n")
        assert pool.flush(60)
    assert [(n,) for n in range(3000)] == database.query("select n from t order by id")
    assert [(0, 2700), (1, 2800), (2, 2900)] == database.query("select n, v from u order by n")


def test_alone_held_then_released(database: Database, exporter_of: MakeExporter) -> None:
    """Without its table an exporter keeps what it is sent, and delivers it when there is one."""
    exporter = exporter_of()
    result = exporter.send({"n": 1})
    assert (False, True) == (result.successful, result.kept)
    assert isinstance(result.error, TargetMisconfigured)
    database.query("create table t (n int)")
    exporter.send_unsent_data()
    assert not exporter.has_unsent_data()
    assert exporter.send({"n": 2}).successful
    assert [(1,), (2,)] == database.query("select n from t")
