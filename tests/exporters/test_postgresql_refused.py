"""PostgreSQLExporter on a real server: which records are refused, and what is held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from resilient_exporters.exceptions import TargetMisconfigured
from resilient_exporters.exporters.postgresql import PostgreSQLExporter
from resilient_exporters.records import Batch
from tests.servers.postgresql import Database, MakeExporter, binaries, database, exporter_of, refusal, server

__all__ = ["binaries", "database", "exporter_of", "server"]

MakeBatch = Callable[..., Batch]


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        ("int", 2**31),
        ("int", "x"),
        ("int", 1.5),
        ("int", [1]),
        ("int not null", None),
        ("int unique", 1),
        ("int check (v > 0)", -1),
        ("int references other", 99),
        ("numeric(4,2)", 100),
        ("float8", "1e999"),
        ("text", "nul\0byte"),
        ("text", "lone \ud800 surrogate"),
        ("text", object()),
        ("varchar(3)", "abcd"),
        ("bit(2)", "101"),
        ("date", "2026-02-30"),
        ("timestamptz", "yesterday or so"),
        ("uuid", "123"),
        ("jsonb", "{broken"),
        ("jsonb", {"nul": "\0"}),
        ("int[]", ["x"]),
        ("int[]", [[1], [1, 2]]),
        ("int generated always as (w * 2) stored", 3),
    ],
    ids=repr,
)
def test_refused_alone(database: Database, exporter_of: MakeExporter, batch: MakeBatch, kind: str, bad: Any) -> None:
    """A value its column does not take refuses its record, with a reason, and no other."""
    database.query("create table other (id int primary key)")
    database.query(f"create table t (v {kind}, w int)")
    if "unique" in kind:
        database.query("insert into t values (1, 0)")
    good = [{"w": i, "v": i} if "not null" in kind else {"w": i} for i in range(2, 9)]
    error = refusal(exporter_of(), batch({"w": 1, "v": bad}, *good))
    assert {0} == error.permanent.keys()
    assert not error.later
    assert error.permanent[0]
    assert [(i,) for i in range(2, 9)] == database.query("select w from t where w > 0 order by w")


def test_many_refused(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """Bad records anywhere in a batch are all found, the good ones all stored."""
    database.query("create table t (a int)")
    values = ["bad" if i % 37 == 5 or i in (0, 998, 999) else i for i in range(1000)]
    error = refusal(exporter_of(), batch(*({"a": value} for value in values)))
    assert {i for i, value in enumerate(values) if value == "bad"} == error.permanent.keys()
    assert [(value,) for value in values if value != "bad"] == database.query("select a from t order by a")


def test_trigger_and_deferred_constraint(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """A trigger that raises, and a constraint that is checked at the commit, refuse the record as well."""
    database.query("create table t (a int unique deferrable initially deferred)")
    database.query(
        "create function f() returns trigger language plpgsql as "
        "$$ begin if new.a = 7 then raise exception 'no sevens'; end if; return new; end $$"
    )
    database.query("create trigger g before insert on t for each row execute function f()")
    error = refusal(exporter_of(), batch(*({"a": a} for a in (1, 7, 2, 1))))
    assert "no sevens [P0001]" == error.permanent[1]
    assert {1, 3} == error.permanent.keys()
    assert [(1,), (2,)] == database.query("select * from t")


def test_trigger_that_skips(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """A trigger that lets a row vanish is the database's own decision."""
    database.query("create table t (a int)")
    database.query("create function f() returns trigger language plpgsql as $$ begin return null; end $$")
    database.query("create trigger g before insert on t for each row execute function f()")
    exporter_of().export(batch({"a": 1}, {"a": 2}))
    assert [] == database.query("select * from t")


def test_out_of_time(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """When the time is over, what was not tried waits."""
    database.query("create table t (a int)")
    late = batch({"a": "bad"}, {"a": 1})
    exporter = exporter_of()
    exporter.open()
    late.deadline = 0.0
    error = refusal(exporter, late)
    assert not error.permanent
    assert {0, 1} == error.later.keys()


def test_no_permission(database: Database, batch: MakeBatch) -> None:
    """Without the right to insert everything is held, until the right is given."""
    role = f"role_{database.schema}"
    database.query(f"create role {role} login")
    database.query("create table t (a int)")
    exporter = PostgreSQLExporter(database.conninfo(user=role), default_table="t")
    with pytest.raises(TargetMisconfigured, match=r"allow it, or run it yourself: create table"):
        exporter.export(batch({"a": 1}))
    database.query(f"grant usage, create on schema {database.schema} to {role}")
    with pytest.raises(TargetMisconfigured, match="permission denied for table t"):
        exporter.export(batch({"a": 1}))
    database.query(f"grant insert on t to {role}")
    exporter.export(batch({"a": 1}))
    exporter.close()
    assert [(1,)] == database.query("select * from t")
