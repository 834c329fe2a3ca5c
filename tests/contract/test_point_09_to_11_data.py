"""Points 9 to 11: which data may be sent, that it arrives unchanged, and that nobody sees anybody else's changes."""

from __future__ import annotations

import copy
import io
import math
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import resilient_exporters as rex
from resilient_exporters.testing import MemoryExporter
from tests.counts import EXAMPLES

MakePool = Callable[..., rex.ExporterPool]


@dataclass
class Reading:
    """A user's own type."""

    sensor: str
    values: list[int] = field(default_factory=list)


def shape(value: Any) -> Any:
    """The types in a hashable value."""
    if isinstance(value, tuple):
        return (tuple, *map(shape, value))
    if isinstance(value, frozenset):
        return (frozenset, frozenset(Counter(map(shape, value)).items()))
    return type(value)


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal in value and type, all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a.items(), b.items(), strict=True))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, (set, frozenset)):
        return bool(a == b and Counter(map(shape, a)) == Counter(map(shape, b)))
    if isinstance(a, datetime):
        return bool((a, a.utcoffset(), a.fold, str(a.tzinfo)) == (b, b.utcoffset(), b.fold, str(b.tzinfo)))
    if isinstance(a, Decimal):
        return bool(a.as_tuple() == b.as_tuple())
    return bool(a == b)


VALUES: list[Any] = [
    "text",
    "",
    "ünïcödé \0 \U0001f600\n",
    b"bytes\xff\0",
    b"",
    0,
    -1,
    2**63,
    2**64,
    -(2**63) - 1,
    10**400,
    1.5,
    -0.0,
    math.inf,
    -math.inf,
    math.nan,
    5e-324,
    True,
    False,
    [],
    {},
    (),
    set(),
    frozenset(),
    [None, [None, {"a": None}]],
    (1, (2, [3, (4,)])),
    {1, "a", None, (1, 2), b"x"},
    frozenset({frozenset({1}), 2}),
    {1: "int", None: "none", (1, 2): "tuple", b"b": "bytes", 1.5: "float", frozenset({1}): "set", "s": "str"},
    {date(2024, 2, 29): 1, UUID(int=5): 2, datetime(2024, 1, 1): 3, Decimal("1.10"): 4, time(1): 5, timedelta(1): 6},
    {True: "bool", 2: "int"},
    datetime(2024, 2, 29, 1, 2, 3, 4),
    datetime(2024, 2, 29, tzinfo=UTC),
    datetime(2024, 2, 29, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    datetime.min,
    datetime.max,
    date(1, 1, 1),
    time(23, 59, 59, 999999),
    time(1, 2, tzinfo=UTC),
    timedelta(days=-1, microseconds=1),
    Decimal("-1.100"),
    Decimal("NaN"),
    Decimal("1E+500"),
    UUID("12345678-1234-5678-1234-567812345678"),
    "x" * 1_000_000,
    list(range(10_000)),
]


@pytest.mark.parametrize("place", ["memory", "file", "stream"])
def test_late_equals_at_once_in_value_and_type(make_pool: MakePool, tmp_path: Path, place: str) -> None:
    """What an exporter gets late equals what it would have got at once, in value and in type."""
    tmp_file: Any = io.BytesIO() if place == "stream" else tmp_path / "kept"
    at_once, late = MemoryExporter("at once"), MemoryExporter("late", up=False)
    pool = make_pool([at_once, late], use_memory=place == "memory", tmp_file=tmp_file)
    for value in VALUES:
        pool.send(value, option=value)
    assert [] == late.got
    late.up = True
    pool.send_unsent_data()
    for value, now, then in zip(VALUES, at_once.got, late.got, strict=True):
        assert same(value, now), (value, now)
        assert same(value, then), (value, then)
    for value, options in zip(VALUES, late.kwargs, strict=True):
        assert same({"option": value}, options), (value, options)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = (
    texts
    | st.binary(max_size=20)
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.none()
    | st.datetimes(timezones=st.none() | st.just(UTC))
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals()
    | st.uuids()
)
keys = texts | st.integers() | st.binary(max_size=20) | st.dates() | st.uuids()
hashables = st.recursive(
    keys, lambda inner: st.lists(inner, max_size=3).map(tuple) | st.lists(inner, max_size=3).map(frozenset)
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.lists(st.tuples(hashables, inner), max_size=4).map(dict)
        | st.lists(hashables, max_size=4).map(set)
        | st.lists(hashables, max_size=4).map(frozenset)
    ),
    max_leaves=15,
)


@settings(max_examples=EXAMPLES)
@given(st.lists(anything.map(lambda value: 0 if value is None else value), min_size=1, max_size=5))
def test_any_nesting_arrives_as_it_was_sent(values: list[Any]) -> None:
    """Values of all kinds, nested at will, come out of the file as they went in."""
    target = MemoryExporter("t", up=False)
    pool = rex.ExporterPool([target], use_memory=False, tmp_file=io.BytesIO())
    for value in values:
        pool.send(value)
    target.up = True
    pool.send_unsent_data()
    pool.close()
    assert len(values) == len(target.got)
    assert all(same(value, got) for value, got in zip(values, target.got, strict=True)), (values, target.got)


@pytest.mark.parametrize("use_memory", [True, False])
def test_none_is_refused(make_pool: MakePool, tmp_path: Path, use_memory: bool) -> None:
    """`None` gets a DataTypeError, before any exporter saw it."""
    target = MemoryExporter()
    pool = make_pool([target], use_memory=use_memory, tmp_file=tmp_path / "kept")
    with pytest.raises(rex.DataTypeError):
        pool.send(None)
    assert 0 == target.calls
    assert not pool.has_unsent_data()


def nested(depth: int) -> Any:
    """A list in a list in a list."""
    value: Any = "core"
    for _ in range(depth):
        value = [value]
    return value


CYCLE: list[Any] = []
CYCLE.append(CYCLE)

REFUSED: list[tuple[Any, str]] = [
    ({"a": [0, 1, 2, lambda: 1]}, "data['a'][3]"),
    ({"a": {"b": object()}}, "data['a']['b']"),
    ((1, [Reading("x")]), "data[1][0]"),
    (Reading("x"), "data"),
    ("lone \ud800 surrogate", "data"),
    ({"k": {1: {2: open}}}, "data['k'][1][2]"),
    (nested(600), "data[0]"),
    (CYCLE, "data[0]"),
    ([1, {2, Reading}], "data[1]"),
    ({"deep": [{"x": threading.Lock()}]}, "data['deep'][0]['x']"),
]


@pytest.mark.parametrize(("data", "path"), REFUSED, ids=[path for _, path in REFUSED])
@pytest.mark.parametrize("up", [True, False])
def test_what_cannot_be_kept_on_disk_is_refused_at_once(
    make_pool: MakePool, tmp_path: Path, data: Any, path: str, up: bool
) -> None:
    """Data that cannot be kept on disk raises DataTypeError with path and way out, before any exporter saw it."""
    target = MemoryExporter(up=up)
    pool = make_pool([target], use_memory=False, tmp_file=tmp_path / "kept")
    with pytest.raises(rex.DataTypeError) as refused:
        pool.send(data)
    assert path in str(refused.value)
    assert "transform" in str(refused.value)
    assert 0 == target.calls
    assert not pool.has_unsent_data()
    with pytest.raises(rex.DataTypeError):
        pool.save_unsent_data(data, {}, target.name)


def test_keyword_arguments_follow_the_same_rule(make_pool: MakePool, tmp_path: Path) -> None:
    """A keyword argument that cannot be kept raises DataTypeError naming it and the offending part."""
    target = MemoryExporter()
    pool = make_pool([target], use_memory=False, tmp_file=tmp_path / "kept")
    with pytest.raises(rex.DataTypeError) as refused:
        pool.send("x", table="t", options={"a": [object()]})
    assert "options['a'][0]" in str(refused.value)
    assert 0 == target.calls


def test_the_error_is_also_a_type_error() -> None:
    """`DataTypeError` is a TypeError and one of the library's own."""
    assert issubclass(rex.DataTypeError, TypeError)
    assert issubclass(rex.DataTypeError, rex.ResilientExporterException)


@pytest.mark.parametrize("data", [lambda: 1, threading.Lock(), Reading("x", [1]), object(), io.BytesIO(b"x")])
def test_in_memory_anything_may_be_kept(make_pool: MakePool, data: Any) -> None:
    """In memory, what the file would refuse is kept and delivered."""
    target = MemoryExporter(up=False)
    pool = make_pool([target])
    assert pool.send(data)[0].kept
    target.up = True
    pool.send_unsent_data()
    (got,) = target.got
    assert type(data) is type(got)


def test_what_can_be_copied_is_kept_as_a_copy(make_pool: MakePool) -> None:
    """In memory a user's own object is kept as a deep copy."""
    target = MemoryExporter(up=False)
    pool = make_pool([target])
    reading = Reading("x", [1])
    pool.send({"reading": reading})
    reading.values.append(2)
    target.up = True
    pool.send_unsent_data()
    assert [{"reading": Reading("x", [1])}] == target.got


def test_what_cannot_be_copied_is_kept_as_it_is(make_pool: MakePool) -> None:
    """In memory what cannot be copied is kept as the very object."""
    target = MemoryExporter(up=False)
    pool = make_pool([target])
    lock = threading.Lock()
    pool.send({"lock": lock})
    target.up = True
    pool.send_unsent_data()
    assert lock is target.got[0]["lock"]


class Hostile:
    """Resists being copied, compared, hashed, shown and measured."""

    def resist(self, *args: Any) -> Any:
        raise RuntimeError("hands off")

    __deepcopy__ = __copy__ = __reduce_ex__ = __eq__ = __repr__ = __str__ = __bool__ = __len__ = __iter__ = resist
    __hash__ = None  # type: ignore[assignment]  # on purpose


@pytest.mark.parametrize("data", [nested(600), Hostile(), [Hostile()], (number for number in range(3))])
def test_in_memory_what_resists_is_kept_as_it_is(make_pool: MakePool, data: Any) -> None:
    """In memory, data that is too deep or refuses to be copied is kept as the very object."""
    target, late = MemoryExporter("t"), MemoryExporter("late", up=False)
    pool = make_pool([target, late])
    assert [True, False] == [result.successful for result in pool.send(data)]
    late.up = True
    pool.send_unsent_data()
    assert [type(data)] * 2 == [type(got[0]) for got in (target.got, late.got)]


class Vandal(rex.Exporter):
    """Takes or refuses a record after having changed whatever it can reach."""

    def __init__(self, name: str, up: bool) -> None:
        super().__init__(name=name)
        self.up = up
        self.got: list[Any] = []

    def send(self, data: Any, **kwargs: Any) -> rex.ExportResult:
        self.got.append(copy.deepcopy((data, kwargs)))
        data["list"].append("vandal")
        data["deep"]["a"]["b"] = "vandal"
        data.clear()
        kwargs["option"].append("vandal")
        return rex.ExportResult(None, self.up)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("use_memory", [True, False])
def test_an_exporter_that_misbehaves_harms_nobody(
    make_pool: MakePool, tmp_path: Path, threads: int, use_memory: bool
) -> None:
    """What an exporter does to the data reaches neither the caller, nor other exporters, nor what is kept."""
    first, bad, last = (Vandal("first", up=True), Vandal("bad", up=False), Vandal("last", up=True))
    pool = make_pool([first, bad, last], num_threads=threads, use_memory=use_memory, tmp_file=tmp_path / "kept")
    data: dict[str, Any] = {"list": [1], "deep": {"a": {"b": 2}}}
    option = [5]
    expected = copy.deepcopy((data, {"option": option}))
    pool.send(data, option=option)
    bad.up = True
    pool.send_unsent_data()
    assert expected == (data, {"option": option})
    assert [expected] == first.got == last.got
    assert [expected, expected] == bad.got


@pytest.mark.parametrize("use_memory", [True, False])
def test_altering_after_send_alters_nothing_kept(make_pool: MakePool, tmp_path: Path, use_memory: bool) -> None:
    """The caller's object is not watched: changes after `send` reach neither what is kept nor what was delivered."""
    at_once, late = MemoryExporter("at once"), MemoryExporter("late", up=False)
    pool = make_pool([at_once, late], use_memory=use_memory, tmp_file=tmp_path / "kept")
    data: dict[str, Any] = {"i": 1, "deep": [[1]]}
    option = {"x": [1]}
    pool.send(data, option=option)
    data["i"] = 2
    data["deep"][0].append(2)
    option["x"].append(2)
    late.up = True
    pool.send_unsent_data()
    assert [{"i": 1, "deep": [[1]]}] == late.got == at_once.got
    assert [{"option": {"x": [1]}}] == late.kwargs == at_once.kwargs


@pytest.mark.parametrize("owner", ["pool", "exporter", "alone"])
def test_a_transform_may_change_its_argument(make_pool: MakePool, owner: str) -> None:
    """`transform` may change its argument at any depth without the caller or another exporter noticing."""

    def transform(data: Any) -> Any:
        data["deep"][0]["x"] += 1
        data["new"] = True
        return data

    plain = MemoryExporter("plain")
    target = MemoryExporter("t", transform=None if owner == "pool" else transform)
    data = {"deep": [{"x": 1}]}
    if owner == "alone":
        target.send(data)
    else:
        make_pool([plain, target], transform if owner == "pool" else None).send(data)
    changed = {"deep": [{"x": 2}], "new": True}
    assert {"deep": [{"x": 1}]} == data
    assert [changed] == target.got
    if owner != "alone":
        assert [changed if owner == "pool" else data] == plain.got


def test_what_a_transform_holds_on_to_is_not_what_is_kept(make_pool: MakePool) -> None:
    """A `transform` may return an object that it goes on using."""
    shared: dict[str, Any] = {}

    def transform(data: Any) -> Any:
        shared["value"] = data
        return shared

    target = MemoryExporter(up=False)
    pool = make_pool([target], transform)
    pool.send(1)
    pool.send(2)
    target.up = True
    pool.send_unsent_data()
    assert [{"value": 1}, {"value": 2}] == target.got


@pytest.mark.parametrize("use_memory", [True, False])
def test_an_attempt_in_vain_does_not_change_the_next(make_pool: MakePool, tmp_path: Path, use_memory: bool) -> None:
    """Each attempt at a kept record starts from what was sent, whatever the attempt before did to it."""
    target = Vandal("t", up=False)
    pool = make_pool([target], use_memory=use_memory, tmp_file=tmp_path / "kept")
    pool.send({"list": [], "deep": {"a": {}}}, option=[])
    for _ in range(3):
        pool.send_unsent_data()
    target.up = True
    pool.send_unsent_data()
    assert [({"list": [], "deep": {"a": {}}}, {"option": []})] * 5 == target.got
