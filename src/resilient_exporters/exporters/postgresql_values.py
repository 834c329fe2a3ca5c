"""What Python values become on their way into a PostgreSQL column: JSON that the column's own type reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from itertools import chain
from typing import Any
from uuid import UUID

from resilient_exporters.exporters.lines import as_json, digits

__all__ = ["Kind", "finite", "kind_of", "type_for"]

_OCTETS = (bytes, bytearray, memoryview)
_SEQUENCES = (list, tuple, set, frozenset)
_PLAIN: frozenset[type] = frozenset({str, bool, int, type(None)})
"""Types of elements that JSON carries as they are; a float may be nan."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How values get into the columns of some types that would misunderstand what `as_json` makes of them.

    Args:
        plain: Types that are right as they are.
        form: Turns a value of any other type into one that is right.
        text: Whether the column's JSON goes through text, so that PostgreSQL reads a str as JSON, as it does by itself.
        elements: Types of which a list is right as it is.
    """

    plain: frozenset[type]
    form: Callable[[Any], Any]
    text: bool = False
    elements: frozenset[type] = frozenset()

    def fits(self, values: Sequence[Any]) -> bool:
        """Whether all values are right as they are: mostly they are, and this tells without a look at each."""
        kinds = set(map(type, values))
        others = kinds - self.plain
        if others != {list} or not self.elements:
            return not others
        lists = values if kinds == {list} else [value for value in values if type(value) is list]
        return set(map(type, chain.from_iterable(lists))) <= self.elements


def kind_of(type_name: str, element: str | None, zone: tzinfo) -> Kind | None:
    """The kind of a column, or None when `as_json` is right for it.

    Args:
        type_name: Name of its type in the catalog.
        element: Name of the type of its elements when it is an array.
        zone: Time zone of the connection, in which a moment loses its zone.
    """
    null = type(None)
    if element is not None:
        inner = kind_of(element, None, zone)
        plain = _PLAIN if inner is None else inner.plain & _PLAIN
        return Kind(frozenset({str, null}), lambda value: _array(value, inner), elements=plain)
    if type_name in ("int2", "int4", "int8"):
        return Kind(frozenset({int, str, null}), _integer)
    if type_name == "bytea":
        return Kind(frozenset({str, null}), _octets)
    if type_name in ("json", "jsonb"):
        known = frozenset({str, bool, int, float, dict, list, tuple, null})
        return Kind(known, lambda value: as_json(value).decode(), text=True)
    if type_name == "interval":
        return Kind(frozenset({str, int, float, null}), _interval)
    if type_name in ("timestamp", "date", "time"):
        return Kind(frozenset({str, date, null}), lambda value: _local(value, zone))
    return None


def finite(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row with nan and the infinities as text: JSON has none, and they would become NULL unseen."""
    if any(type(value) is float and not math.isfinite(value) for value in row.values()):
        return {name: _number(value) for name, value in row.items()}
    return row


def _number(value: Any) -> Any:
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _integer(value: Any) -> Any:
    """1.0 and True are integers, 1.5 is none: PostgreSQL refuses it instead of rounding."""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return digits(int(value), "data")
    return value


def _octets(value: Any) -> Any:
    return "\\x" + bytes(value).hex() if isinstance(value, _OCTETS) else value


def _interval(value: Any) -> Any:
    if isinstance(value, timedelta):
        return f"{value.days} days {value.seconds}.{value.microseconds:06} seconds"
    return value


def _local(value: Any, zone: tzinfo) -> Any:
    """A column without time zone would drop that of the value unseen: convert it first, as PostgreSQL itself does."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(zone).replace(tzinfo=None)
    return value


def _array(value: Any, inner: Kind | None) -> Any:
    if isinstance(value, _SEQUENCES):
        return [_array(item, inner) for item in value]
    if inner is None or type(value) in inner.plain:
        return _number(value)
    return inner.form(value)


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
    return next((name for kind, name in _SQL_TYPES if isinstance(value, kind)), "text")


_SQL_TYPES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "boolean"),
    ((int, Decimal), "numeric"),
    (float, "double precision"),
    (_OCTETS, "bytea"),
    (date, "date"),
    (time, "time"),
    (timedelta, "interval"),
    (UUID, "uuid"),
    ((dict, *_SEQUENCES), "jsonb"),
)
