"""The codec: data comes back from bytes as it was, or is refused with the path of the part that cannot be kept."""

from __future__ import annotations

import array
import collections
import contextlib
import dataclasses
import datetime as dt
import enum
import math
import sys
import types
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import ormsgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient_exporters import codec, extensions
from resilient_exporters.codec import DEEPEST, decode, decode_options, encode, encode_options
from resilient_exporters.exceptions import DataTypeError, SpoolError
from tests.counts import EXAMPLES

thorough = settings(max_examples=2 * EXAMPLES)
"""More examples where there is more time."""

BERLIN = ZoneInfo("Europe/Berlin")

zones = st.one_of(
    st.none(),
    st.just(dt.UTC),
    st.builds(dt.timezone, st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23))),
    st.builds(
        dt.timezone,
        st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)),
        st.text(st.characters(codec="utf-8")),
    ),
    st.sampled_from([BERLIN, ZoneInfo("UTC"), ZoneInfo("America/New_York")]),
)
moments = st.builds(lambda when, fold: when.replace(fold=fold), st.datetimes(timezones=zones), st.integers(0, 1))
clock_times = st.builds(
    lambda when, zone, fold: when.replace(tzinfo=zone, fold=fold), st.times(), zones, st.integers(0, 1)
)
hashable_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(1 << 300), 1 << 300),
    st.floats(),
    st.complex_numbers(),
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.binary(max_size=300),
    moments,
    clock_times,
    st.dates(),
    st.timedeltas(),
    st.decimals().filter(lambda number: not number.is_snan()),
    st.uuids(),
)
leaves = hashable_leaves | st.decimals() | st.builds(bytearray, st.binary(max_size=20))
hashables = st.recursive(
    hashable_leaves,
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4),
    max_leaves=6,
)
anything = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.sets(hashables, max_size=4),
        st.frozensets(hashables, max_size=4),
        st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), inner, max_size=5),
        st.dictionaries(hashables, inner, max_size=5),
    ),
    max_leaves=25,
)


def fingerprint(part: Any) -> Any:
    """All that tells a value from another, types, order and the sign of a zero included, as something that compares."""
    kind = type(part)
    if kind is dict:
        return kind, [(fingerprint(key), fingerprint(value)) for key, value in part.items()]
    if kind is list or kind is tuple:
        return kind, [fingerprint(item) for item in part]
    if kind is set or kind is frozenset:
        return kind, sorted((fingerprint(item) for item in part), key=repr)
    if kind is dt.datetime or kind is dt.time:
        return kind, part.replace(tzinfo=None).isoformat(), part.fold, type(part.tzinfo), repr(part.tzinfo)
    return kind, repr(part)


@thorough
@given(anything)
def test_round_trip(data: Any) -> None:
    """Whatever is built of the promised types comes back equal in value and type, at any nesting."""
    assert fingerprint(decode(encode(data))) == fingerprint(data)


@thorough
@given(anything)
def test_both_ways_write_the_same(data: Any) -> None:
    """The walk in Python writes what the fast way writes, so golden bytes hold for both."""
    assert codec._encode_slowly(data, "data") == encode(data)


@pytest.mark.parametrize(
    "data",
    [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.0, 1, True, False, None, "", b"", [], {}, (), set(), frozenset()],
    ids=repr,
)
def test_corner_values(data: Any) -> None:
    """Special numbers, the look-alikes 1, 1.0 and True, and empty containers keep value and type."""
    assert fingerprint(decode(encode([data]))) == fingerprint([data])


@pytest.mark.parametrize("bits", [8, 62, 63, 64, 65, 127, 128, 4096])
@pytest.mark.parametrize("sign", [1, -1])
def test_int_of_any_size(bits: int, sign: int) -> None:
    """Integers around every border of the encoding come back exactly, and both ways write the same."""
    numbers = [sign * (1 << bits) + step for step in (-1, 0, 1)]
    assert decode(encode(numbers)) == numbers
    assert codec._encode_slowly(numbers, "data") == encode(numbers)


def test_zone_keeps_its_key_and_fold() -> None:
    """A datetime in the repeated hour of a zone comes back as that one of the two instants, in the zone itself."""
    second = dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1)
    back = decode(encode(second))
    assert (back.tzinfo, back.fold, back.utcoffset()) == (BERLIN, 1, dt.timedelta(hours=1))


def test_a_dictionary_keeps_its_order() -> None:
    """Keys come back in the order in which they were put in, whatever their types."""
    assert list(decode(encode({"b": 1, "a": 2}))) == ["b", "a"]
    assert list(decode(encode({2: 1, "a": 2, 1: 3}))) == [2, "a", 1]


@thorough
@given(st.binary(max_size=40))
def test_garbage_is_an_error_of_ours(payload: bytes) -> None:
    """Bytes that are no payload raise SpoolError or stand for something, and never anything else."""
    with contextlib.suppress(SpoolError):
        decode(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x93\x01",
        b"\xa1\xff",
        b"\xd4\x63x",
        b"\xd4\x01t",
        b"\x92\x01\xd4\x01t",
        b"\x92\xd4\x01d\x01",
        b"\x93\xd4\x01d\x90\x01",
        b"\x81\xa1a\xd4\x01t",
        b"\xc7\x03\x06abc",
        b"\xc7\x01\x02x",
        ormsgpack.packb(ormsgpack.Ext(4, bytes(7) + b"zNo/Such_Zone")),
        ormsgpack.packb(ormsgpack.Ext(4, bytes(7) + b"x")),
    ],
)
def test_damage_is_refused(payload: bytes) -> None:
    """Known kinds of damage all raise SpoolError: cut short, unknown code, stray mark, odd pairs, bad content."""
    with pytest.raises(SpoolError, match="undecodable payload"):
        decode(payload)


class Colour(enum.IntEnum):
    RED = 1


class Word(enum.StrEnum):
    YES = "yes"


class Mask(enum.IntFlag):
    A = 1


class Text(str):
    __slots__ = ()


class Float(float):
    pass


class Bytes(bytes):
    pass


class Moment(dt.datetime):
    pass


class Day(dt.date):
    pass


class Money(Decimal):
    pass


class Key(uuid.UUID):
    pass


class Zone(dt.tzinfo):
    def utcoffset(self, when: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(0)

    def dst(self, when: dt.datetime | None) -> None:
        return None

    def tzname(self, when: dt.datetime | None) -> str:
        return "a"


Pair = collections.namedtuple("Pair", "a b")


@dataclasses.dataclass
class Point:
    x: int = 1


UNKEEPABLE = [
    Colour.RED,
    Word.YES,
    Mask.A,
    Text("a"),
    Float(1.5),
    Bytes(b"a"),
    Moment(2024, 1, 1),
    Day(2024, 1, 1),
    Money("1"),
    Key(int=1),
    Pair(1, 2),
    Point(),
    collections.OrderedDict(a=1),
    collections.defaultdict(int, a=1),
    collections.Counter("a"),
    collections.deque([1]),
    types.SimpleNamespace(a=1),
    memoryview(b"a"),
    memoryview(b"a" * 300),
    memoryview(b"a" * 70_000),
    array.array("i", [1]),
    range(3),
    iter([1]),
    len,
    object(),
    dt.datetime(2024, 1, 1, tzinfo=Zone()),
    dt.time(1, tzinfo=Zone()),
]


@pytest.mark.parametrize("part", UNKEEPABLE, ids=lambda part: type(part).__name__)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda part: {"a": [1, 2, {"b": 1}, part]},
        lambda part: {"a": [None, "x", (1, 2), part], 7: b"x"},
        lambda part: {"a": (b"x", {3, 4}, 1 << 70, part)},
    ],
    ids=["plain", "other keys", "in a tuple"],
)
def test_what_would_lose_its_type_is_refused(part: Any, wrap: Callable[[Any], Any]) -> None:
    """Subclasses and foreign types are refused: the message has the path, the type and the way out."""
    with pytest.raises(DataTypeError) as caught:
        encode(wrap(part))
    message = str(caught.value)
    assert message.startswith("data['a'][3] ")
    assert type(getattr(part, "tzinfo", None) or part).__name__ in message
    assert "convert it in `transform=`" in message


@pytest.mark.parametrize("part", [ormsgpack.Ext(1, b"x"), ormsgpack.Fragment(b"\x01")], ids=["Ext", "Fragment"])
def test_foreign_extensions_are_refused_when_the_data_is_walked(part: Any) -> None:
    """MessagePack objects of the caller's own cannot pass for ours once anything makes us look at the data."""
    with pytest.raises(DataTypeError, match=r"data\[1\] is of type .*ormsgpack"):
        encode([b"bytes", part])


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (object(), "data is"),
        ({"a": {"b": object()}}, "data['a']['b'] is"),
        ({3: object()}, "data[3] is"),
        ({(1, object()): 1}, "data (a key)[1] is"),
        ({"s": {object()}}, "data['s'] (an element) is"),
        ({"k" * 100: object()}, "data['kkkkkkkkkkkk...kkkkkkkkkkkkk'] is"),
        ({1 << 20_000: object()}, "data[<int>] is"),
        ("a\ud800", "data holds a lone surrogate at index 1"),
        ({"a": ["\udfff"]}, "data['a'][0] holds a lone surrogate at index 0"),
        ({"a": {"\ud800": 1}}, "data['a'] has a key that holds a lone surrogate at index 0"),
        ({"a": {"\ud800": 1, 2: 3}}, "data['a'] (a key) holds a lone surrogate at index 0"),
        ([object(), object()], "data[0] is"),
    ],
    ids=lambda part: part if type(part) is str and part.isascii() else "",
)
def test_path(data: Any, path: str) -> None:
    """The path leads to the offending part, through keys of any kind, and stays short."""
    with pytest.raises(DataTypeError) as caught:
        encode(data)
    assert str(caught.value).startswith(path)


def test_root_names_the_data() -> None:
    """What the data is called is the caller's choice."""
    with pytest.raises(DataTypeError, match=r"^outcome\['a'\] is of type object"):
        encode({"a": object()}, "outcome")


WRAPPERS: list[Callable[[Any], Any]] = [
    lambda inner: [inner],
    lambda inner: (inner,),
    lambda inner: {"a": inner},
    lambda inner: {1: inner},
    lambda inner: [bytearray(), inner],
]


@pytest.mark.parametrize("wrap", WRAPPERS, ids=["list", "tuple", "dict", "other keys", "bytearray"])
def test_depth(wrap: Callable[[Any], Any]) -> None:
    """Containers nest 255 deep and no deeper, in the fast way as in the walk, also near the end of the stack."""
    data: Any = 1
    for _ in range(DEEPEST):
        data = wrap(data)

    def deep(frames: int) -> Any:
        return deep(frames - 1) if frames else decode(encode(data))

    assert deep(sys.getrecursionlimit() * 3 // 5) == data
    with pytest.raises(DataTypeError, match="nested more than 255 levels deep, or contains itself"):
        encode(wrap(data))


def test_cycle() -> None:
    """Data that contains itself is refused with a message that stays short."""
    data: list[Any] = []
    data.append({"self": (data,)})
    with pytest.raises(DataTypeError, match="contains itself") as caught:
        encode(data)
    assert len(str(caught.value)) < 300


@given(st.lists(anything, max_size=4))
def test_data_is_left_alone(data: list[Any]) -> None:
    """Encoding changes nothing in the caller's object, and decoding hands out a new one each time."""
    before = fingerprint(data)
    payload = encode(data)
    first, second = decode(payload), decode(payload)
    first.append(1)
    assert fingerprint(data) == fingerprint(second) == before


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), anything, max_size=4))
def test_options_round_trip(kwargs: dict[str, Any]) -> None:
    """Keyword arguments come back as they were, and none take no bytes."""
    options = encode_options(kwargs)
    assert (options == b"") == (not kwargs)
    assert fingerprint(decode_options(options)) == fingerprint(kwargs)


def test_options_path_begins_with_the_keyword() -> None:
    """An error in a keyword argument reads as the caller wrote it."""
    with pytest.raises(DataTypeError, match=r"^table\['x'\] is of type object"):
        encode_options({"table": {"x": object()}})
    with pytest.raises(DataTypeError, match=r"^table is of type object"):
        encode_options({"table": object()})


def test_options_must_be_a_dictionary() -> None:
    """A payload of something else is not taken for keyword arguments."""
    with pytest.raises(SpoolError, match="keyword arguments expected, list found"):
        decode_options(encode([1]))


GOLDEN = [
    ([None, True, -1, 1.5, "a", b"b", {"c": 2}], "97c0c3ffcb3ff8000000000000a161c4016281a16302"),
    ((1, {2}), "93d401740192d4017302"),
    (frozenset({1}), "92d4016601"),
    ({1: 2}, "93d401640102"),
    (dt.datetime(2024, 2, 29, 12, 30, 15, 7), "c70b0207e8021d0c1e0f00000007"),
    (dt.datetime(2024, 2, 29, 12, 30, 15, 7, dt.UTC, fold=1), "c70c0207e8021d0c1e0f8000000775"),
    (
        dt.datetime(2024, 2, 29, tzinfo=dt.timezone(dt.timedelta(hours=1))),
        "c7140207e8021d000000000000006f00000000d693a400",
    ),
    (
        dt.datetime(2024, 2, 29, tzinfo=dt.timezone(dt.timedelta(hours=1), "CET")),
        "c7170207e8021d000000000000006e00000000d693a400434554",
    ),
    (dt.datetime(2024, 2, 29, tzinfo=BERLIN), "c7190207e8021d000000000000007a4575726f70652f4265726c696e"),
    (dt.date(2024, 2, 29), "d60307e8021d"),
    (dt.time(12, 30, 15, 7), "c707040c1e0f00000007"),
    (dt.timedelta(-1, 2, 3), "c70c05ffffffff0000000200000003"),
    (Decimal("-1.50"), "c705062d312e3530"),
    (uuid.UUID(int=5), "d80700000000000000000000000000000005"),
    (1 << 64, "c70908010000000000000000"),
    (-(1 << 64), "c70908ff0000000000000000"),
    (bytearray(b"ab"), "d5096162"),
    (1 - 2j, "d80a3ff0000000000000c000000000000000"),
]


@pytest.mark.parametrize(("data", "payload"), GOLDEN, ids=[type(data).__name__ for data, _ in GOLDEN])
def test_golden_bytes(data: Any, payload: str) -> None:
    """Payloads stay as they are, for files outlive versions; the drawing in `extensions` says the same."""
    assert encode(data).hex() == payload
    assert fingerprint(decode(bytes.fromhex(payload))) == fingerprint(data)


def test_golden_bytes_cover_every_code() -> None:
    """Every extension code and every mark has golden bytes, and the drawing lists each code."""
    drawn = {int(line.split()[0]) for line in (extensions.__doc__ or "").splitlines() if line.strip()[:1].isdigit()}
    golden = {type(data) for data, _ in GOLDEN}
    assert drawn == set(extensions.UNPACKERS)
    assert set(extensions.LEAVES) <= golden
    assert set(extensions.MARKS) <= golden | {set}


@pytest.mark.parametrize("where", [0, 1], ids=["before the first line", "in the midst"])
@pytest.mark.parametrize(
    ("code", "work"),
    [
        (codec._hook.__code__, lambda: encode(dt.date(2024, 1, 1))),
        (codec._unpack.__code__, lambda: decode(b"\xd6\x03\x07\xe8\x01\x01")),
    ],
    ids=["encode", "decode"],
)
def test_interrupt_in_a_hook(code: types.CodeType, work: Callable[[], Any], where: int) -> None:
    """A Ctrl-C that hits a hook reaches the caller: it neither vanishes nor makes a good payload an undecodable one."""

    def trace(frame: types.FrameType, event: str, arg: object) -> Any:
        if frame.f_code is code and event == ("call", "line")[where]:
            if event == "line" and frame.f_lineno < code.co_firstlineno + 2:
                return trace
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
    finally:
        sys.settrace(before)
    assert work() in (encode(dt.date(2024, 1, 1)), dt.date(2024, 1, 1))
