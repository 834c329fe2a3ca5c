"""What Python values become on their way into a PostgreSQL column: JSON that the column's own type reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID

from resilient_exporters.exceptions import DataTypeError
from resilient_exporters.exporters.lines import as_json, digits

__all__ = ["Kind", "kind_of", "type_for"]

_NAKED: frozenset[type] = frozenset({str, bool, type(None)})
_EXACT: frozenset[type] = _NAKED | {int, dict, list, tuple, Decimal, UUID, date}
_OCTETS = (bytes, bytearray, memoryview)


@dataclass(frozen=True, slots=True)
class Kind:
    """How values get into the columns of some types.

    Args:
        plain: Types that JSON carries as they are.
        form: Turns a value of any other type into one that JSON carries.
        floats: Whether a finite float is plain as well.
        text: Whether the column's JSON goes through text: PostgreSQL then reads a str as JSON, as it does by itself.
    """

    plain: frozenset[type]
    form: Callable[[Any], Any]
    floats: bool = True
    text: bool = False

    def fits(self, values: Sequence[Any]) -> bool:
        """Whether all values are plain: mostly they are, and this tells without a look at each."""
        others = set(map(type, values)) - self.plain
        if others == {float} and self.floats:
            return all(math.isfinite(value) for value in values if type(value) is float)
        return not others


def kind_of(type_name: str, element: str | None, zone: tzinfo) -> Kind:
    """The kind of a column.

    Args:
        type_name: Name of its type in the catalog.
        element: Name of the type of its elements when it is an array.
        zone: Time zone of the connection, in which a moment loses its zone.
    """
    if element is not None:
        inner = kind_of(element, None, zone)
        return Kind(_NAKED | {int}, lambda value: _array(value, inner))
    if type_name in ("int2", "int4", "int8"):
        return Kind(_NAKED - {bool} | {int}, _integer, floats=False)
    if type_name == "bytea":
        return Kind(_NAKED - {bool}, _octets, floats=False)
    if type_name in ("json", "jsonb"):
        return Kind(_NAKED | {int, dict, list, tuple}, lambda value: as_json(value).decode(), text=True)
    if type_name == "interval":
        return Kind(_EXACT, _interval)
    if type_name in ("timestamp", "date", "time"):
        return Kind(_EXACT, lambda value: _local(value, zone))
    return Kind(_EXACT | {datetime, time}, _other)


def _other(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, _OCTETS):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError as error:
            raise DataTypeError("bytes that are not UTF-8, for a column that is not bytea") from error
    return value


def _integer(value: Any) -> Any:
    """1.0 and True are integers, 1.5 is none: PostgreSQL refuses it instead of rounding."""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return digits(int(value), "data")
    return _other(value)


def _octets(value: Any) -> Any:
    return "\\x" + bytes(value).hex() if isinstance(value, _OCTETS) else _other(value)


def _interval(value: Any) -> Any:
    if isinstance(value, timedelta):
        return f"{value.days} days {value.seconds}.{value.microseconds:06} seconds"
    return _other(value)


def _local(value: Any, zone: tzinfo) -> Any:
    """A column without time zone would drop that of the value unseen: convert it first, as PostgreSQL itself does."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(zone).replace(tzinfo=None)
    return _other(value)


def _array(value: Any, inner: Kind) -> Any:
    if isinstance(value, list | tuple | set | frozenset):
        return [_array(item, inner) for item in value]
    return value if type(value) in inner.plain else inner.form(value)


def type_for(values: Sequence[Any]) -> str:
    """The type of a column that is made for these values, None not counted.

    An int makes a `numeric` column, since the next value may well have a fraction.
    """
    kinds = {_sql_type(value) for value in values if value is not None}
    if kinds == {"numeric", "double precision"}:
        return "numeric"
    return kinds.pop() if len(kinds) == 1 else "text"


def _sql_type(value: Any) -> str:
    if isinstance(value, datetime):
        return "timestamp" if value.tzinfo is None else "timestamptz"
    for kind, name in _SQL_TYPES:
        if isinstance(value, kind):
            return name
    return "text"


_SQL_TYPES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "boolean"),
    ((int, Decimal), "numeric"),
    (float, "double precision"),
    (_OCTETS, "bytea"),
    (date, "date"),
    (time, "time"),
    (timedelta, "interval"),
    (UUID, "uuid"),
    ((dict, list, tuple, set, frozenset), "jsonb"),
)
