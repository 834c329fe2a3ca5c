"""Defines what stands in a payload for the types that MessagePack does not have.

What MessagePack has (None, bool, int of 64 bits, float, str, bytes, list, dict with str keys) stands in a payload as it
is. All else is an extension. The codes are stable; a new kind gets a new code:

    code  what           content (big-endian)
    1     mark           one letter; first element of an array, says what the other elements are
                         t = tuple   s = set   f = frozenset   d = dict: key, value, key, value, ...
    2     datetime       year:2 month:1 day:1 hour:1 minute:1 second:1 fold|microsecond:4 zone
    3     date           year:2 month:1 day:1
    4     time           hour:1 minute:1 second:1 fold|microsecond:4 zone
    5     timedelta      days:4 seconds:4 microseconds:4
    6     Decimal        its text
    7     UUID           16 bytes
    8     int            two's complement, at least 9 bytes
    9     bytearray      its bytes
    10    complex        real:8 imaginary:8

    fold|microsecond     fold is the highest bit
    zone                 nothing = naive | "u" = timezone.utc | "z" key = ZoneInfo
                         "o" microseconds:8 = timezone | "n" microseconds:8 name = timezone with a name of its own

Marks keep the bytes flat: an extension that held its elements would be copied once for each level of nesting.

    (1, {2})   92 d4 01 "t" 01 92 d4 01 "s" 02
               |  mark      1  |  mark      2
               array of 2 + mark

Nothing is executed when a payload is read: the codes above are all there is.
"""

from __future__ import annotations

import datetime
import struct
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, NamedTuple

from ormsgpack import Ext

__all__ = ["LEAVES", "MARKS", "MARK_START", "UNPACKERS", "Builder", "Unkeepable", "kind_of", "utf8"]

MARK_START: Final = b"\xd4\x01"
"""How every mark begins: a payload without these bytes has none."""

_MARK, _DATETIME, _DATE, _TIME, _TIMEDELTA, _DECIMAL, _UUID, _INT, _BYTEARRAY, _COMPLEX = range(1, 11)
_FOLD: Final = 1 << 31

_datetime_layout = struct.Struct(">HBBBBBI")
_date_layout = struct.Struct(">HBB")
_time_layout = struct.Struct(">BBBI")
_timedelta_layout = struct.Struct(">iII")
_offset_layout = struct.Struct(">q")
_complex_layout = struct.Struct(">dd")


class Unkeepable(ValueError):
    """A leaf cannot be kept; the message completes the sentence "data['a'] ..."."""


def _pack_zone(zone: datetime.tzinfo | None) -> bytes:
    if zone is None:
        return b""
    if zone is datetime.UTC:
        return b"u"
    if type(zone) is datetime.timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]  # made for pickle; a name if one was given
        content = _offset_layout.pack(offset // datetime.timedelta(microseconds=1))
        return b"n" + content + utf8(name[0]) if name else b"o" + content
    from zoneinfo import ZoneInfo  # reads the build configuration of Python when it is first imported

    if type(zone) is ZoneInfo and zone.key:
        return b"z" + utf8(zone.key)
    raise Unkeepable(
        f"has a time zone of type {kind_of(zone)}, which cannot be kept (datetime.timezone and zoneinfo.ZoneInfo can)"
    )


def utf8(text: str, what: str = "holds") -> bytes:
    """The text in UTF-8.

    Args:
        text: Any text.
        what: How an error begins.

    Raises:
        Unkeepable: It has a lone surrogate.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Unkeepable(f"{what} a lone surrogate at index {error.start}, which UTF-8 cannot write") from error


def _pack_datetime(value: datetime.datetime) -> Ext:
    fraction = value.microsecond | _FOLD if value.fold else value.microsecond
    day = _datetime_layout.pack(value.year, value.month, value.day, value.hour, value.minute, value.second, fraction)
    return Ext(_DATETIME, day + _pack_zone(value.tzinfo))


def _pack_date(value: datetime.date) -> Ext:
    return Ext(_DATE, _date_layout.pack(value.year, value.month, value.day))


def _pack_time(value: datetime.time) -> Ext:
    fraction = value.microsecond | _FOLD if value.fold else value.microsecond
    return Ext(_TIME, _time_layout.pack(value.hour, value.minute, value.second, fraction) + _pack_zone(value.tzinfo))


def _pack_timedelta(value: datetime.timedelta) -> Ext:
    return Ext(_TIMEDELTA, _timedelta_layout.pack(value.days, value.seconds, value.microseconds))


def _pack_int(value: int) -> Ext:
    return Ext(_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


# Types are looked up exactly, never by inheritance: a subclass would come back as its base.
LEAVES: Final[dict[type, Callable[[Any], Ext]]] = {
    datetime.datetime: _pack_datetime,
    datetime.date: _pack_date,
    datetime.time: _pack_time,
    datetime.timedelta: _pack_timedelta,
    Decimal: lambda value: Ext(_DECIMAL, str(value).encode()),
    uuid.UUID: lambda value: Ext(_UUID, value.bytes),
    int: _pack_int,
    bytearray: lambda value: Ext(_BYTEARRAY, bytes(value)),
    complex: lambda value: Ext(_COMPLEX, _complex_layout.pack(value.real, value.imag)),
}

MARKS: Final[dict[type, Ext]] = {
    tuple: Ext(_MARK, b"t"),
    set: Ext(_MARK, b"s"),
    frozenset: Ext(_MARK, b"f"),
    dict: Ext(_MARK, b"d"),
}


def kind_of(part: Any) -> str:
    """The name of a part's type, as users know it."""
    kind = type(part)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


class Builder(NamedTuple):
    """What a mark becomes when it is read: how to build the container from the elements behind it."""

    build: Callable[[list[Any]], Any]


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


_BUILDERS: Final = {b"t": Builder(tuple), b"s": Builder(set), b"f": Builder(frozenset), b"d": Builder(_pairs)}


def _unpack_offset(content: bytes) -> datetime.timedelta:
    return datetime.timedelta(microseconds=_offset_layout.unpack(content)[0])


def _unpack_zone(content: bytes) -> datetime.tzinfo | None:
    if not content:
        return None
    letter, rest = content[:1], content[1:]
    if letter == b"u":
        return datetime.UTC
    if letter == b"o":
        return datetime.timezone(_unpack_offset(rest))
    if letter == b"n":
        return datetime.timezone(_unpack_offset(rest[:8]), rest[8:].decode())
    if letter == b"z":
        from zoneinfo import ZoneInfo

        return ZoneInfo(rest.decode())
    raise ValueError(f"no such kind of time zone: {letter!r}")


def _unpack_datetime(content: bytes) -> datetime.datetime:
    year, month, day, hour, minute, second, fraction = _datetime_layout.unpack(content[:11])
    zone, fold = _unpack_zone(content[11:]), 1 if fraction & _FOLD else 0
    return datetime.datetime(year, month, day, hour, minute, second, fraction & ~_FOLD, zone, fold=fold)


def _unpack_time(content: bytes) -> datetime.time:
    hour, minute, second, fraction = _time_layout.unpack(content[:7])
    zone, fold = _unpack_zone(content[7:]), 1 if fraction & _FOLD else 0
    return datetime.time(hour, minute, second, fraction & ~_FOLD, zone, fold=fold)


def _unpack_timedelta(content: bytes) -> datetime.timedelta:
    days, seconds, microseconds = _timedelta_layout.unpack(content)
    return datetime.timedelta(days, seconds, microseconds)


UNPACKERS: Final[dict[int, Callable[[bytes], Any]]] = {
    _MARK: _BUILDERS.__getitem__,
    _DATETIME: _unpack_datetime,
    _DATE: lambda content: datetime.date(*_date_layout.unpack(content)),
    _TIME: _unpack_time,
    _TIMEDELTA: _unpack_timedelta,
    _DECIMAL: lambda content: Decimal(content.decode()),
    _UUID: lambda content: uuid.UUID(bytes=content),
    _INT: lambda content: int.from_bytes(content, "big", signed=True),
    _BYTEARRAY: bytearray,
    _COMPLEX: lambda content: complex(*_complex_layout.unpack(content)),
}
