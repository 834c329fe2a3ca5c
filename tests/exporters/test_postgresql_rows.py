"""PostgreSQLExporter on a real server: keys choose columns, tables are found, made and upserted into."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from resilient_exporters.exceptions import TargetMisconfigured
from resilient_exporters.records import Batch
from tests.servers.postgresql import Database, MakeExporter, binaries, database, exporter_of, refusal, server

__all__ = ["binaries", "database", "exporter_of", "server"]

MakeBatch = Callable[..., Batch]
NOON = datetime(2026, 3, 4, 12, 30, 15, 123456)


# Columns


def test_keys_choose_columns(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """Records of different keys share a batch; what one lacks is the default, or NULL."""
    database.query("create table t (id serial, a int, b text default 'fallback')")
    exporter_of().export(batch({"a": 1, "b": "x"}, {"a": 2}, {"b": None}, {"b": "y"}, {}))
    rows = database.query("select a, b from t")
    assert {(1, "x"), (2, "fallback"), (None, None), (None, "y"), (None, "fallback")} == set(rows)
    assert 5 == len(rows)


def test_names_are_exact_or_folded(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """A name that is not there as it is written is read as SQL reads one that is not quoted."""
    database.query('create table mixed ("Exact" int, "100%""s" int, lower int)')
    exporter_of("MIXED").export(batch({"Exact": 1, '100%"s': 2, "Lower": 3}))
    assert [(1, 2, 3)] == database.query("select * from mixed")


def test_two_keys_for_one_column(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """Which of two values is meant cannot be known."""
    database.query("create table t (a int)")
    error = refusal(exporter_of(), batch({"a": 1, "A": 2}, {"a": 3}))
    assert {0: "data has two keys for the column 'a'"} == error.permanent
    assert [(3,)] == database.query("select * from t")


@pytest.mark.parametrize("key", [5, "", "a\0b", "\ud800", "x" * 64, None])
def test_impossible_names(database: Database, exporter_of: MakeExporter, batch: MakeBatch, key: Any) -> None:
    """A key that cannot name a column refuses its record, even where columns are made."""
    database.query("create table t (a int)")
    error = refusal(exporter_of(create=True), batch({"a": 1}, {key: 2}))
    assert {1} == error.permanent.keys()
    assert [(1,)] == database.query("select * from t")


def test_other_schema_and_partitions(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """A table may be named with its schema, and be partitioned."""
    other = f"{database.schema}_other"
    database.query(f"create schema {other}")
    database.query(f"create table {other}.t (a int) partition by list (a)")
    database.query(f"create table {other}.t1 partition of {other}.t for values in (1)")
    error = refusal(exporter_of(f"{other}.t"), batch({"a": 1}, {"a": 2}))
    assert {1} == error.permanent.keys()
    assert [(1,)] == database.query(f"select * from {other}.t")


def test_view(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """A view that can be written to is a table like any other; its check option refuses."""
    database.query("create table t (a int)")
    database.query("create view v as select a from t where a > 0 with check option")
    error = refusal(exporter_of("v"), batch({"a": 1}, {"a": -1}))
    assert {1} == error.permanent.keys()
    assert [(1,)] == database.query("select * from t")


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("jsonb", "hello", "hello"),
        ("jsonb", '{"a": 1}', '{"a": 1}'),
        ("jsonb", 5, 5),
        ("jsonb", [1, "b"], [1, "b"]),
        ("jsonb", NOON, NOON.isoformat()),
        ("text", "hello", "hello"),
        ("text", [1], "[1]"),
        ("bytea", b"\x00", b"\x00"),
        ("int", 5, 5),
    ],
)
def test_not_a_dict(
    database: Database, exporter_of: MakeExporter, batch: MakeBatch, kind: str, value: Any, expected: Any
) -> None:
    """Data that is not a dict goes to the column `data`, a text into a JSON column as a JSON text."""
    database.query(f"create table t (data {kind})")
    exporter_of().export(batch(value, value))
    assert [(expected,), (expected,)] == database.query("select data from t")


# Upserts


def test_upsert(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """A row that is there is updated in the columns the record has, the last record of a batch wins."""
    database.query("create table t (id int primary key, a int, b int)")
    exporter = exporter_of()
    exporter.export(batch({"id": 1, "a": 1, "b": 1}, {"id": 2, "a": 2}), upsert_on="id")
    again = batch({"id": 1, "a": 5}, {"id": 3, "b": 3}, {"id": 1, "b": 6}, {"id": 1, "a": 7}, first=3)
    exporter.export(again, upsert_on=["id"])
    assert [(1, 7, 6), (2, 2, None), (3, None, 3)] == database.query("select * from t order by id")


def test_upsert_on_several_columns(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """The key may have several columns, and be all that there is."""
    database.query("create table t (a int, b int, unique (a, b))")
    exporter = exporter_of()
    for first in (1, 3):
        exporter.export(batch({"a": 1, "b": 1}, {"a": 1, "b": 2}, first=first), upsert_on=("a", "b"))
    assert [(1, 1), (1, 2)] == database.query("select * from t order by b")


def test_upsert_null_is_unlike_null(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """Rows whose key is NULL are all stored, since they update nothing."""
    database.query("create table t (id int unique, a int)")
    exporter_of().export(batch({"id": None, "a": 1}, {"id": None, "a": 2}, {"a": 3}), upsert_on="id")
    assert [(1,), (2,), (3,)] == database.query("select a from t order by a")


def test_upsert_keys_that_are_equal_only_to_the_database(
    database: Database, exporter_of: MakeExporter, batch: MakeBatch
) -> None:
    """1 and "1" are one key for an int column; all records are taken in turn."""
    database.query("create table t (id int primary key, a int)")
    exporter_of().export(batch({"id": 1, "a": 1}, {"id": "1", "a": 2}, {"id": 1.0, "a": 3}), upsert_on="id")
    assert [(1, 3)] == database.query("select * from t")


def test_upsert_without_index(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """Without a unique index nothing can be upserted, until there is one."""
    database.query("create table t (id int, a int)")
    exporter = exporter_of()
    with pytest.raises(TargetMisconfigured, match="42P10"):
        exporter.export(batch({"id": 1, "a": 1}), upsert_on="id")
    database.query("create unique index on t (id)")
    exporter.export(batch({"id": 1, "a": 1}), upsert_on="id")
    assert [(1, 1)] == database.query("select * from t")


@pytest.mark.parametrize("upsert_on", [5, [5], "", "a\0", ["a", None]])
def test_impossible_upsert(exporter_of: MakeExporter, batch: MakeBatch, upsert_on: Any) -> None:
    """A key that names no columns refuses its records, before the server is asked."""
    error = refusal(exporter_of(), batch({"a": 1}, {"a": 2}), upsert_on=upsert_on)
    assert {0, 1} == error.permanent.keys()


# Tables and columns that are missing


def test_table_missing_then_made(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """A missing table holds everything; when it is there, the same exporter goes on."""
    exporter = exporter_of()
    with pytest.raises(TargetMisconfigured, match="no table 't'"):
        exporter.export(batch({"a": 1}))
    database.query("create table t (a int)")
    exporter.export(batch({"a": 1}))
    assert [(1,)] == database.query("select * from t")


def test_column_missing_then_added(
    database: Database, exporter_of: MakeExporter, batch: MakeBatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A record with a key that is no column waits, holds up nobody, and is said once; then it goes in."""
    database.query("create table t (a int)")
    exporter = exporter_of()
    with caplog.at_level(logging.WARNING, "resilient_exporters"):
        for first in (1, 4):
            error = refusal(exporter, batch({"a": 1}, {"a": 2, "new": "x"}, {"a": 3}, first=first))
            assert ({}, {1: "the table 't' has no column 'new'"}) == (error.permanent, error.later)
    assert 1 == sum("column_missing" in record.message for record in caplog.records)
    database.query("alter table t add new text")
    exporter.export(batch({"a": 2, "new": "x"}, first=2))
    assert [(1, None), (1, None), (2, "x"), (3, None), (3, None)] == database.query("select * from t order by a, new")


def test_table_changes_meanwhile(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """Columns that change type, go, or come, and a table made anew, are noticed without a restart."""
    exporter = exporter_of()
    database.query("create table t (a text, b int)")
    exporter.export(batch({"a": "x", "b": 1}))
    database.query("alter table t alter a type jsonb using to_jsonb(a)")
    exporter.export(batch({"a": {"k": 1}, "b": 2}, first=2))
    database.query("alter table t alter b type text")
    exporter.export(batch({"a": {"k": 2}, "b": "two"}, first=3))
    database.query("alter table t drop b")
    assert {0} == refusal(exporter, batch({"a": [], "b": 1}, first=4)).later.keys()
    database.query("drop table t")
    database.query("create table t (c int, a text)")
    exporter.export(batch({"a": "x"}, {"c": 1}, first=5))
    assert [(None, "x"), (1, None)] == database.query("select * from t")


def test_no_table_named(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """Without any table a record waits: the next start of the program may know one."""
    exporter = exporter_of(None)
    assert {0} == refusal(exporter, batch({"a": 1})).later.keys()
    database.query("create table other (a int)")
    exporter.export(batch({"a": 1}), table="other")
    assert [(1,)] == database.query("select * from other")


@pytest.mark.parametrize("table", [5, "", "a\0", "\ud800", "x" * 64, "resilient_exporters_resolved"])
def test_impossible_table(exporter_of: MakeExporter, batch: MakeBatch, table: Any) -> None:
    """A name that no table can have refuses its records."""
    assert {0} == refusal(exporter_of(), batch({"a": 1}), table=table).permanent.keys()


def test_names_are_no_sql(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """Names that look like SQL are names."""
    database.query("create table victim (a int)")
    for first, name in enumerate(('t"; drop table victim; --', "victim; drop table victim", "%s"), 1):
        exporter_of(name, create=True).export(batch({'a" int); drop table victim; --': 1, "%(rows)s": 2}, first=first))
    assert [] == database.query("select * from victim")
    assert [(1, 2)] == database.query('select * from "%s"')


# create=True


def test_create(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """A table is made with types by the values; columns are added as they come; a later fraction fits."""
    exporter = exporter_of("New Table", create=True)
    exporter.export(batch({"n": 1, "t": "x", "j": {"a": 1}, "z": NOON.replace(tzinfo=UTC), "later": None}, "whole"))
    more = ({"n": 1.5, "later": b"\x00"}, {"n": None, "u": UUID(int=1), "d": date(2026, 1, 1)}, {"n": 2**70})
    exporter.export(batch(*more, first=3))
    types = database.query(
        "select attname, format_type(atttypid, -1) from pg_attribute "
        "where attrelid = '\"New Table\"'::regclass and attnum > 0"
    )
    expected = {"n": "numeric", "t": "text", "j": "jsonb", "z": "timestamp with time zone", "data": "jsonb"}
    assert expected | {"later": "bytea", "u": "uuid", "d": "date"} == dict(types)
    assert [(Decimal(1),), (Decimal("1.5"),), (Decimal(2**70),)] == database.query(
        'select n from "New Table" where n is not null order by n'
    )
    assert [("whole",)] == database.query('select data from "New Table" where data is not null')


def test_create_with_key(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """What is upserted on becomes the primary key."""
    exporter = exporter_of(create=True)
    exporter.export(batch({"id": "a", "n": 1}), upsert_on="id")
    exporter.export(batch({"id": "a", "n": 2}, first=2), upsert_on="id")
    assert [("a", Decimal(2))] == database.query("select id, n from t")


def test_create_with_nothing(exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """A record without a value says nothing about a table."""
    assert {0, 1} == refusal(exporter_of(create=True), batch({}, {"a": None})).permanent.keys()


def test_create_too_many_columns(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """A record with more keys than a table can have columns is refused, others are not."""
    database.query("create table t (a int)")
    error = refusal(exporter_of(create=True), batch({"a": 1}, {f"c{i}": i for i in range(1700)}))
    assert {1} == error.permanent.keys()
    assert [(1,)] == database.query("select * from t")
