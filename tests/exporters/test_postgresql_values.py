"""PostgreSQLExporter on a real server: each value arrives in its column as what it is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resilient_exporters.records import Batch
from tests.counts import EXAMPLES
from tests.servers.postgresql import Database, MakeExporter, binaries, database, exporter_of, server

__all__ = ["binaries", "database", "exporter_of", "server"]

MakeBatch = Callable[..., Batch]


class Color(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: float


PLUS_TWO = timezone(timedelta(hours=2))
NOON = datetime(2026, 3, 4, 12, 30, 15, 123456)
ODD_TEXT = 'it\'s \\ a "text"\t\r\nof % {many} \x1f é 😀 characters'

VALUES: list[tuple[str, Any, Any]] = [
    ("int", 5, 5),
    ("int", -(2**31), -(2**31)),
    ("bigint", 2**63 - 1, 2**63 - 1),
    ("int", "17", 17),
    ("int", 3.0, 3),
    ("int", True, 1),
    ("smallint", None, None),
    ("numeric", 10**40, 10**40),
    ("numeric", Decimal("1.10"), Decimal("1.10")),
    ("numeric", Decimal("1E+5"), Decimal("100000")),
    ("numeric", 0.1, Decimal("0.1")),
    ("numeric(5,2)", 1.25, Decimal("1.25")),
    ("float8", 0.1, 0.1),
    ("float8", math.inf, math.inf),
    ("float8", -math.inf, -math.inf),
    ("float8", 5e-324, 5e-324),
    ("float8", 3, 3.0),
    ("real", 1.5, 1.5),
    ("bool", True, True),
    ("bool", "no", False),
    ("text", ODD_TEXT, ODD_TEXT),
    ("text", "null", "null"),
    ("text", "", ""),
    ("text", 5, "5"),
    ("text", {"a": 1}, '{"a":1}'),
    ("text", Color.RED, "red"),
    ("varchar(3)", "abc", "abc"),
    ("char(3)", "ab", "ab "),
    ('"char"', "x", "x"),
    ("bit(3)", "101", "101"),
    ("bytea", b"\x00\xff\\", b"\x00\xff\\"),
    ("bytea", bytearray(b"ab"), b"ab"),
    ("timestamptz", NOON.replace(tzinfo=PLUS_TWO), NOON.replace(tzinfo=PLUS_TWO)),
    ("timestamptz", "2026-03-04T12:00:00Z", datetime(2026, 3, 4, 12, tzinfo=UTC)),
    ("timestamp", NOON, NOON),
    ("timestamp", NOON.replace(tzinfo=PLUS_TWO), NOON - timedelta(hours=2)),
    ("date", date(2026, 3, 4), date(2026, 3, 4)),
    ("date", "2026-03-04", date(2026, 3, 4)),
    ("date", datetime(2026, 3, 4, 1, tzinfo=PLUS_TWO), date(2026, 3, 3)),
    ("time", time(1, 2, 3, 4), time(1, 2, 3, 4)),
    ("timetz", time(1, 2, tzinfo=PLUS_TWO), time(1, 2, tzinfo=PLUS_TWO)),
    ("interval", timedelta(days=-3, seconds=7, microseconds=5), timedelta(days=-3, seconds=7, microseconds=5)),
    ("float8", timedelta(seconds=1.5), 1.5),
    ("uuid", UUID(int=7), UUID(int=7)),
    ("jsonb", {"a": [1, None, {"b": "c"}]}, {"a": [1, None, {"b": "c"}]}),
    ("json", [1, 2.5, True], [1, 2.5, True]),
    ("jsonb", '{"text": "is JSON"}', {"text": "is JSON"}),
    ("jsonb", 5, 5),
    ("jsonb", Decimal("1.5"), "1.5"),
    ("jsonb", UUID(int=7), str(UUID(int=7))),
    ("jsonb", (1, {"b"}), [1, ["b"]]),
    ("jsonb", Point(1, 2.0), {"x": 1, "y": 2.0}),
    ("jsonb", {5: "key"}, {"5": "key"}),
    ("int[]", [1, 2, None], [1, 2, None]),
    ("int[]", (), []),
    ("int[]", [[1, 2], [3, 4]], [[1, 2], [3, 4]]),
    ("int[]", "{1,2}", [1, 2]),
    ("text[]", ['a"b', "c,d", "", "null"], ['a"b', "c,d", "", "null"]),
    ("float8[]", [1.5, math.inf], [1.5, math.inf]),
    ("bytea[]", [b"\x00"], [b"\x00"]),
    ("timestamptz[]", [NOON.replace(tzinfo=UTC)], [NOON.replace(tzinfo=UTC)]),
    ("inet", "10.0.0.1/8", "10.0.0.1/8"),
]


@pytest.mark.parametrize(("kind", "value", "expected"), VALUES, ids=lambda value: repr(value)[:40])
@pytest.mark.parametrize("count", [1, 3])
def test_values(
    database: Database, exporter_of: MakeExporter, batch: MakeBatch, kind: str, value: Any, expected: Any, count: int
) -> None:
    """A value arrives as what it is, alone and in a batch."""
    database.query(f"create table t (v {kind})")
    exporter_of().export(batch(*[{"v": value}] * count))
    shown = "v::text" if kind == "inet" else "v"
    assert [(expected,)] * count == database.query(f"select {shown} from t")


def test_nan(database: Database, exporter_of: MakeExporter, batch: MakeBatch) -> None:
    """Not a number stays that, and does not become NULL, beside a real NULL."""
    database.query("create table t (f float8, n numeric, a float8[])")
    exporter_of().export(batch({"f": math.nan, "n": math.nan, "a": [math.nan]}, {"f": None}))
    assert [("NaN", "NaN", "{NaN}"), (None, None, None)] == database.query("select f::text, n::text, a::text from t")


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))
JSON = st.recursive(
    # jsonb keeps numbers as numeric: a float beyond 1e15 comes back as an int that is not quite equal.
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(-1e15, 1e15) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
COLUMNS: dict[str, tuple[str, st.SearchStrategy[Any]]] = {
    "i": ("bigint", st.integers(-(2**63), 2**63 - 1)),
    "n": ("numeric", st.decimals(allow_nan=False, allow_infinity=False, places=5)),
    "f": ("float8", st.floats(allow_nan=False)),
    "b": ("bool", st.booleans()),
    "t": ("text", TEXTS),
    "o": ("bytea", st.binary()),
    "z": ("timestamptz", MOMENTS.map(lambda moment: moment.replace(tzinfo=UTC))),
    "d": ("timestamp", MOMENTS),
    "u": ("uuid", st.uuids()),
    "j": ("jsonb", st.lists(JSON, max_size=2) | st.dictionaries(TEXTS, JSON, max_size=3)),
    "a": ("text[]", st.lists(TEXTS | st.none(), max_size=3)),
}
RUNS = itertools.count(1000)
ROWS = st.lists(
    st.fixed_dictionaries({}, optional={name: strategy | st.none() for name, (_, strategy) in COLUMNS.items()}),
    min_size=1,
    max_size=5,
)


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(rows=ROWS)
def test_any_rows(database: Database, exporter_of: MakeExporter, batch: MakeBatch, rows: list[dict[str, Any]]) -> None:
    """Whatever rows go in come out equal, whichever columns they have."""
    database.query("drop table if exists t")
    database.query(f"create table t ({', '.join(f'{name} {kind}' for name, (kind, _) in COLUMNS.items())})")
    with exporter_of() as exporter:
        exporter.export(batch(*rows, run=next(RUNS)))
    assert [tuple(row.get(name) for name in COLUMNS) for row in rows] == database.query("select * from t")
