"""Rendering of data as lines: every type of point 10, and what has no form."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections import namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from resilient_exporters.exceptions import DataTypeError
from resilient_exporters.exporters.lines import as_json, as_line, as_lines

Pair = namedtuple("Pair", "left right")


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Reading:
    sensor: str
    value: Decimal


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ("a", b"a\n"),
        ("a\n", b"a\n"),
        ("a\n\n", b"a\n\n"),
        ("", b"\n"),
        ("a\nb", b"a\nb\n"),
        ("\u00e9\u4e16", "\u00e9\u4e16\n".encode()),
        (b"\xff\x00", b"\xff\x00\n"),
        (b"a\n", b"a\n\n"),
        (bytearray(b"a"), b"a\n"),
        (memoryview(b"abcd")[::2], b"ac\n"),
        ({"a": [1, None, True]}, b'{"a": [1, null, true]}\n'),
        (5, b"5\n"),
        ((), b"[]\n"),
    ],
)
def test_line(data: Any, line: bytes) -> None:
    """Text and bytes are lines as they are, anything else is JSON, and each ends in a newline."""
    assert line == as_line(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ((1, (2,)), [1, [2]]),
        (Pair(1, 2), [1, 2]),
        ({10, 9, 1}, [1, 9, 10]),
        (frozenset({"b", "a"}), ["a", "b"]),
        ({1, "a", None}, ["a", 1, None]),
        (Decimal("1.10"), "1.10"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime(2024, 2, 3, 4, 5, 6, 7), "2024-02-03T04:05:06.000007"),
        (datetime(2024, 2, 3, tzinfo=UTC), "2024-02-03T00:00:00+00:00"),
        (date(2024, 2, 3), "2024-02-03"),
        (time(1, 2), "01:02:00"),
        (time(1, 2, tzinfo=timezone(timedelta(hours=2))), "01:02:00+02:00"),
        (timedelta(minutes=1.5), 90.0),
        (b"\xff\xfe", "//4="),
        (bytearray(b"a"), "YQ=="),
        (float("nan"), None),
        (float("-inf"), None),
        (2**64, 2**64),
        (-(2**200), -(2**200)),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Reading("s", Decimal("1.5")), {"sensor": "s", "value": "1.5"}),
        ({1: "a", None: "b", 2.5: "c"}, {"1": "a", "null": "b", "2.5": "c"}),
        ({date(2024, 1, 1): 1, UUID(int=1): 2, False: 3, Colour.RED: 4, Decimal("0.5"): 5},
         {"2024-01-01": 1, "00000000-0000-0000-0000-000000000001": 2, "false": 3, "red": 4, "0.5": 5}),
    ],
)  # fmt: skip
def test_types(data: Any, expected: Any) -> None:
    """Each type has one form, and the same one beside values that need the slow way."""
    assert expected == json.loads(as_json(data))
    assert [expected, 2**70] == json.loads(as_json([data, 2**70]))


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"a": [0, {"b": object()}]}, "data['a'][1]['b']: object"),
        ([1j], "data[0]: complex"),
        ({"a": "\ud800"}, "data['a'] holds a lone surrogate (U+D800"),
        ({"\udfff": 1}, "a key of data holds a lone surrogate"),
        ("x\ud800", "data holds a lone surrogate (U+D800 at 1)"),
        ({(1, 2): 3}, "data has a key of type tuple"),
        ({1: "a", "1": "b"}, "two keys that are both '1'"),
        ([10**5000], "data[0] is an int of 16610 bits"),
        ({10**5000: 1}, "a key of data is an int"),
    ],
)
def test_refused(data: Any, named: str) -> None:
    """What has no form is refused, and the message names the place."""
    with pytest.raises(DataTypeError) as caught:
        as_line(data)
    assert named in str(caught.value)


def test_cycle() -> None:
    """A list that contains itself is refused, not followed for ever."""
    data: list[Any] = []
    data.append(data)
    with pytest.raises(DataTypeError, match="contains itself"):
        as_line(data)


@given(json_values)
def test_round_trip(data: Any) -> None:
    """What JSON knows comes back equal, on one line."""
    rendered = as_json(data)
    assert data == json.loads(rendered)
    assert b"\n" not in rendered


def test_sets_are_rendered_alike_in_every_process() -> None:
    """A batch that is repeated after a restart has the same bytes, although hashes of str differ between processes."""
    script = (
        "from resilient_exporters.exporters.lines import as_json\n"
        "sets = {'k': {'a', 'b', 'c', 1, (2, 'd')}, 'f': frozenset({frozenset('xyz'), frozenset('uvw')})}\n"
        "print(as_json(sets).decode())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script], env=os.environ | {"PYTHONHASHSEED": seed}, stdout=-1, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert {b'{"k":["a","b","c",1,[2,"d"]],"f":[["u","v","w"],["x","y","z"]]}\n'} == outputs


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    ).filter(lambda data: not isinstance(data, str))
)
def test_a_line_is_spaced_as_json_dumps_does(data: Any) -> None:
    """A line has the bytes that `json.dumps` writes, whatever commas, colons and brackets stand in its text."""
    assert f"{json.dumps(data, ensure_ascii=False)}\n".encode() == as_line(data)


@given(
    st.lists(json_values | st.binary() | st.text(st.characters(exclude_categories=[]), max_size=5), max_size=8)
    | st.lists(st.dictionaries(st.text(), json_values), max_size=8)
)
@example([{"a": "\r\n  },\n  {"}, {"b": [{"c": {}}, {"d": [1]}]}, {"\r": {"e": {"f": "  },  {"}}}])
@example([{"a": 1}, {}, {"b": 2}])
@example([{"a": 1 << 70}, {"b": 2}])
def test_lines_of_many_are_those_of_each(data: list[Any]) -> None:
    """Rendering many gives the lines of each, and names those that have none."""
    expected, refused = [], set()
    for index, one in enumerate(data):
        try:
            expected.append(as_line(one))
        except DataTypeError:
            expected.append(b"")
            refused.add(index)
    lines = as_lines(data)
    assert (b"".join(expected), refused) == (lines.whole, {*lines.refused})
    assert expected == lines.parts()
