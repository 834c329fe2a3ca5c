"""Renders data as lines: text as it is, bytes as they are, anything else as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import orjson

from resilient_exporters.exceptions import DataTypeError
from resilient_exporters.records import Batch

__all__ = ["Lines", "as_json", "as_line", "as_lines", "as_text", "digits", "rendered", "scalar"]

_DEEPEST = 200
"""Levels of nesting; what is deeper is far more likely a cycle than data."""
_MOMENTS = (datetime, date, time)
_OCTETS = (bytes, bytearray, memoryview)


def as_line(data: Any) -> bytes:
    r"""Render data as a line that ends in a newline, UTF-8.

    A str is written as it is and gets no second newline; newlines inside it stay, so such a record takes several
    lines. Bytes are written as they are plus a newline. Anything else is one line of JSON, see `as_json`, with a space
    behind each comma and colon as `json.dumps` has it, so that files written before go on looking the same.

    Raises:
        DataTypeError: It cannot be rendered; the message names the part.

    Example:
        >>> as_line("text"), as_line({"a": [1, None]})
        (b'text\n', b'{"a": [1, null]}\n')
    """
    if isinstance(data, str):
        text = as_text(data)
        return text if text.endswith(b"\n") else text + b"\n"
    if isinstance(data, _OCTETS):
        return bytes(data) + b"\n"
    return _spaced(data) + b"\n"


def _spaced(data: Any) -> bytes:
    """JSON with a space behind each comma and colon.

    orjson has the one behind colons when it also breaks and indents lines. In text a line break is always escaped, so
    each one here stands between two parts, and goes with the spaces behind it.
    """
    try:
        broken = orjson.dumps(data, _nearer, orjson.OPT_INDENT_2)
    except TypeError:
        return _slowly(data, (", ", ": "))
    return b"".join(map(bytes.lstrip, broken.replace(b",\n", b", \n").split(b"\n")))


class Lines:
    """The lines of several records.

    Args:
        whole: All of them, one after the other.
        refused: Index -> reason of the records that could not be rendered; they have none.
        parts: What each record has of it, b"" for those refused; None = one line each.
    """

    __slots__ = ("_parts", "refused", "whole")

    def __init__(self, whole: bytes, refused: dict[int, str], parts: list[bytes] | None) -> None:
        self.whole = whole
        self.refused = refused
        self._parts = parts

    def parts(self) -> list[bytes]:
        """What each record has of it."""
        return [line + b"\n" for line in self.whole.split(b"\n")[:-1]] if self._parts is None else self._parts


def as_lines(data: Sequence[Any]) -> Lines:
    """Render the data of each record, see `as_line`; what cannot be rendered is named in the outcome."""
    with suppress(TypeError, UnicodeEncodeError):  # not all of it is text, or is text without a form in UTF-8
        whole = "\n".join(data).encode() + b"\n"
        if whole.count(b"\n") == len(data):
            return Lines(whole, {}, None)
    if (objects := _objects(data)) is not None:
        return Lines(objects, {}, None)
    parts: list[bytes] = []
    refused: dict[int, str] = {}
    for index, one in enumerate(data):
        try:
            parts.append(as_line(one))
        except DataTypeError as error:
            refused[index] = str(error)
            parts.append(b"")
    whole = b"".join(parts)
    return Lines(whole, refused, None if whole.count(b"\n") == len(data) and not refused else parts)


def _objects(data: Sequence[Any]) -> bytes | None:
    """The lines of dicts, rendered all at once; None when not all are dicts, one is empty, or one is for `_slowly`.

    As in `_spaced`, each line break stands between two parts, and the one between two records between their braces,
    which are indented by two spaces: those of what is inside a record by more. There, a carriage return keeps its
    place: in text it is escaped as well.
    """
    if {*map(type, data)} != {dict}:
        return None
    try:
        broken = orjson.dumps(data, _nearer, orjson.OPT_INDENT_2)
    except TypeError:
        return None
    apart = broken[2:-2].replace(b"\n  },\n  {", b"\n}\r{")
    if apart.count(b"\r") != len(data) - 1:
        return None
    lines = b"".join(map(bytes.lstrip, apart.replace(b",\n", b", \n").split(b"\n")))
    return lines.replace(b"\r", b"\n") + b"\n"


def rendered(batch: Batch, render: Callable[[Any], bytes]) -> tuple[dict[int, bytes], dict[int, str]]:
    """Render each record of a batch.

    Returns:
        Index -> bytes of those that could be rendered, in order, and index -> reason of the others.
    """
    done: dict[int, bytes] = {}
    refused: dict[int, str] = {}
    for index, record in enumerate(batch.records):
        try:
            done[index] = render(record.data)
        except DataTypeError as error:
            refused[index] = str(error)
    return done, refused


def as_text(text: str, where: str = "data") -> bytes:
    """Encode a str as UTF-8.

    Raises:
        DataTypeError: It holds a lone surrogate, which no UTF-8 can express.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise DataTypeError(
            f"{where} holds a lone surrogate (U+{code:04X} at {error.start}), which UTF-8 cannot express"
        ) from error


def as_json(data: Any) -> bytes:
    """Render data as JSON without a newline, UTF-8; the same data always gives the same bytes.

    Beyond what JSON has: tuple, set and frozenset become lists (sets in sorted order), dataclasses become objects,
    enum members their value; datetime, date and time become ISO 8601 text, Decimal and UUID text, timedelta its
    seconds, bytes base64 text; nan and the infinities become null; an int may have up to 4300 digits. Keys that are
    not str become text.

    Raises:
        DataTypeError: A part has no such form; the message names it.
    """
    try:
        return orjson.dumps(data, _nearer)
    except TypeError:
        return _slowly(data, (",", ":"))


def _slowly(data: Any, separators: tuple[str, str]) -> bytes:
    """JSON for what orjson refuses: it knows no ints over 64 bits and no keys but str, and does not say what it met."""
    plain = _plain(data, "data", 0)
    return json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=separators).encode()


def _nearer(value: Any) -> Any:
    """Bring what JSON has no form for one step nearer to it."""
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, set | frozenset):
        return _ordered(value)
    if isinstance(value, _OCTETS):
        return b64encode(bytes(value)).decode("ascii")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    plain = scalar(value)
    if plain is value:
        raise TypeError(f"{type(value).__name__} has no form in JSON")
    return plain


def scalar(value: Any) -> Any:
    """Moments, Decimal and UUID as text, timedelta as seconds, enum members as their value; others as they are."""
    if isinstance(value, Decimal | UUID):
        return str(value)
    if isinstance(value, _MOMENTS):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Enum):
        return value.value
    return value


def _ordered(values: Iterable[Any]) -> list[Any]:
    """The members of a set, in an order that is the same in every process."""
    members = list(values)
    if {type(member) for member in members} in ({int}, {str}):
        return sorted(members)
    return sorted(members, key=as_json)


def _plain(value: Any, where: str, depth: int) -> Any:
    """Rebuild data of the few types that `json` renders, naming the place of what cannot be."""
    if depth > _DEEPEST:
        raise DataTypeError(f"{where[:60]}... is nested deeper than {_DEEPEST} levels, or contains itself")
    if isinstance(value, Enum):
        return _plain(value.value, where, depth + 1)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        as_text(value, where)
        return value
    if isinstance(value, int):
        digits(value, where)
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return _object(value, where, depth)
    if isinstance(value, list):
        return [_plain(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
    try:
        return _plain(_nearer(value), where, depth + 1)
    except DataTypeError:
        raise
    except TypeError as error:
        raise DataTypeError(f"{where}: {error}; convert it in transform=") from error


def _object(value: dict[Any, Any], where: str, depth: int) -> dict[str, Any]:
    """A dict with text for keys."""
    plain: dict[str, Any] = {}
    for key, item in value.items():
        text = _key(key, where)
        if text in plain:
            raise DataTypeError(f"{where} has two keys that are both {text!r} as text; convert it in transform=")
        plain[text] = _plain(item, f"{where}[{key!r}]", depth + 1)
    return plain


def _key(key: Any, where: str) -> str:
    if isinstance(key, Enum):
        return _key(key.value, where)
    if isinstance(key, str):
        as_text(key, f"a key of {where}")
        return key
    if key is None or isinstance(key, bool):
        return json.dumps(key)
    if isinstance(key, int):
        return digits(key, f"a key of {where}")
    if isinstance(key, float):
        return repr(float(key))
    if isinstance(key, Decimal | UUID):
        return str(key)
    if isinstance(key, _MOMENTS):
        return key.isoformat()
    kind = type(key).__name__
    raise DataTypeError(f"{where} has a key of type {kind}, which has no form in JSON; convert it in transform=")


def digits(number: int, where: str) -> str:
    """An int as decimal text; Python itself refuses those of more than 4300 digits."""
    try:
        return str(int(number))
    except ValueError as error:
        raise DataTypeError(f"{where} is an int of {number.bit_length()} bits, too large for decimal text") from error
