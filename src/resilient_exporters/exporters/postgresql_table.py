"""One table of a PostgreSQL database as its catalog has it: records as rows, and the statements to do with it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from operator import itemgetter
from typing import Any, NamedTuple

from resilient_exporters.exceptions import DataTypeError
from resilient_exporters.exporters.lines import as_json, as_text
from resilient_exporters.exporters.postgresql_values import Kind, kind_of, type_for

__all__ = ["LEDGER", "Column", "Row", "Table", "adding", "creating", "fault_of_name", "merged", "parts_of", "quoted"]

LEDGER = "resilient_exporters_resolved"
"""Table in which the exporter keeps which records the database has."""
_LONGEST_NAME = 63
"""Bytes of a name; PostgreSQL cuts longer ones, so that two may become one."""
_WHOLE = "data"
"""Column for records that are not a dict."""

Row = dict[str, Any]

_KEPT_DAYS = 365
"""A run's row in the ledger goes after so many days without a batch: far beyond what stays in doubt."""
_CLAIMS = {
    # A record without identity is stored as often as it is sent.
    "none": "claimed as (select 1)",
    # A new run is the moment to let go of runs long past.
    "first": f"past as (delete from {LEDGER} where updated < now() - interval '{_KEPT_DAYS} days'), "
    f"claimed as (insert into {LEDGER} (run, lane, version, resolved) "
    "values (%(run)s, %(lane)s, 1, %(resolved)s) on conflict do nothing returning 1)",
    "next": f"claimed as (update {LEDGER} set resolved = %(resolved)s, version = version + 1, updated = now() "
    "where run = %(run)s and lane = %(lane)s and version = %(version)s returning 1)",
}


class Column(NamedTuple):
    """A column as the catalog has it.

    Args:
        type: Name of its type in SQL, without a length: a cast to one with a length would cut values unseen.
        kind: How values get into it, when that takes more than `as_json`.
        filled: Whether a row that does not name it gets something else than NULL.
    """

    type: str
    kind: Kind | None
    filled: bool

    @property
    def as_text(self) -> bool:
        """Whether its JSON goes through text."""
        return self.kind is not None and self.kind.text


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Args:
        name: Its name in SQL, quoted as needed.
        columns: Its columns by name.
    """

    LOOKUP = """
        select found.oid::regclass::text, a.attname, format_type(a.atttypid, -1), coalesce(base.typname, t.typname),
               case t.typcategory when 'A' then element.typname end,
               a.atthasdef or a.attidentity <> '' or t.typdefault is not null
        from (select coalesce(to_regclass(%(exact)s), to_regclass(%(folded)s)) as oid) as found
        join pg_attribute a on a.attrelid = found.oid and a.attnum > 0 and not a.attisdropped
        join pg_type t on t.oid = a.atttypid
        left join pg_type base on base.oid = t.typbasetype
        left join pg_type element on element.oid = t.typelem"""

    name: str
    columns: dict[str, Column]

    @classmethod
    def found(cls, rows: Sequence[tuple[Any, ...]], zone: tzinfo) -> Table | None:
        """The table that `LOOKUP` found, or None. One without columns counts as missing."""
        columns = {
            name: Column(type, kind_of(type_name, element, zone), filled)
            for _, name, type, type_name, element, filled in rows
        }
        return cls(rows[0][0], columns) if rows else None

    def suits(self, data: Sequence[Any]) -> bool:
        """Whether all are dicts whose keys are columns: mostly they are, and this tells without a look at each."""
        return set(map(type, data)) == {dict} and set().union(*data) <= self.columns.keys()

    def row(self, data: Any) -> tuple[Row, list[str]]:
        """A record as a row, and the columns it has that the table has not.

        Raises:
            DataTypeError: It cannot be one; the message names the part.
        """
        if not isinstance(data, dict):
            column = self.columns.get(_WHOLE)
            return {_WHOLE: _whole(data, column)}, [] if column else [_WHOLE]
        row: Row = {}
        for key, value in data.items():
            column_name = self._column_for(key)
            if column_name in row:
                raise DataTypeError(f"data has two keys for the column {column_name!r}")
            row[column_name] = value
        return row, [name for name in row if name not in self.columns]

    def _column_for(self, key: Any) -> str:
        """The column that a key names: exactly, or as SQL reads a name that is not quoted."""
        fault = fault_of_name(key, "a key of data")
        if fault:
            raise DataTypeError(fault)
        name, folded = str(key), str(key).lower()
        return folded if name not in self.columns and folded in self.columns else name

    def formed(self, rows: dict[int, Row]) -> dict[int, str]:
        """Bring the values of rows, in place, into forms that JSON carries; index -> reason of those that have none."""
        refused: dict[int, str] = {}
        for name, column in self.columns.items():
            kind = column.kind
            if kind is None or kind.fits(_values_of(rows.values(), name)):
                continue
            for index, row in rows.items():
                value = row.get(name)
                if type(value) in kind.plain or index in refused:
                    continue
                try:
                    rows[index] = {**row, name: kind.form(value)}
                except DataTypeError as error:
                    refused[index] = f"data[{name!r}]: {error}"
        for index in refused:
            del rows[index]
        return refused

    def alike(self, rows: Mapping[int, Row], exactly: bool) -> list[tuple[tuple[str, ...], list[int]]]:
        """Rows in groups that one statement can store, with the columns it names.

        A row that lacks a column is given NULL there, which is what it would get anyway, unless the column has a
        default or the row updates another.

        Args:
            rows: Index -> row.
            exactly: Whether rows must have the same columns to be alike.
        """
        named = set().union(*rows.values())
        used = tuple(name for name in self.columns if name in named)
        if not set(map(len, rows.values())) - {len(used)}:
            return [(used, list(rows))] if rows else []
        telling = used if exactly else tuple(name for name in used if self.columns[name].filled)
        groups: dict[tuple[str, ...], list[int]] = {}
        for index, row in rows.items():
            groups.setdefault(tuple(name for name in telling if name not in row), []).append(index)
        return [(tuple(name for name in used if name not in lacking), group) for lacking, group in groups.items()]

    def insert(self, columns: Sequence[str], claim: str, upsert_on: Sequence[str]) -> str:
        """The statement that stores rows and what the database then has of their run: all of it, or nothing.

        It returns 1 when it did, and 0 when somebody else has stored records of this run meanwhile.

        Args:
            columns: The columns that the rows name.
            claim: "none", "first" (of this run) or "next".
            upsert_on: Columns whose values tell that a row is there already; it is then updated.
        """
        if columns:
            names = ", ".join(map(_placed, columns))
            fields = ", ".join(f"{_placed(c)} {_carrier(self.columns[c])}" for c in columns)
            values = ", ".join(_value(c, self.columns[c]) for c in columns)
            into, source = f"({names}) select {values}", f"json_to_recordset(%(rows)s) as sent ({fields})"
        else:
            into, source = "select", "json_array_elements(%(rows)s)"
        name = self.name.replace("%", "%%")
        return (
            f"with {_CLAIMS[claim]}, "
            f"stored as (insert into {name} {into} from {source} where exists (select from claimed)"
            f"{_conflict(columns, upsert_on)}) "
            "select count(*) from claimed"
        )


def _values_of(rows: Collection[Row], name: str) -> list[Any]:
    """What rows have in a column, None where they lack it."""
    try:
        return list(map(itemgetter(name), rows))
    except KeyError:
        return [row.get(name) for row in rows]


def _conflict(columns: Sequence[str], upsert_on: Sequence[str]) -> str:
    if not upsert_on:
        return ""
    updates = ", ".join(f"{_placed(c)} = excluded.{_placed(c)}" for c in columns if c not in upsert_on)
    target = ", ".join(map(_placed, upsert_on))
    return f" on conflict ({target}) do " + (f"update set {updates}" if updates else "nothing")


def _carrier(column: Column) -> str:
    """The type as which a column's JSON is read."""
    return "text" if column.as_text else column.type.replace("%", "%%")


def _value(name: str, column: Column) -> str:
    """What is taken of a column's JSON."""
    return f"{_placed(name)}::{column.type.replace('%', '%%')}" if column.as_text else _placed(name)


def _whole(data: Any, column: Column | None) -> Any:
    """A record that is not a dict as the value of the one column."""
    if isinstance(data, str) and (column is None or column.as_text):
        return as_json(data).decode()
    return data


def merged(rows: Iterable[Row], upsert_on: Sequence[str]) -> list[Row]:
    """One row for each that is updated: a statement may not touch a row twice. All of them when none is."""
    if not upsert_on:
        return list(rows)
    last: dict[Any, Row] = {}
    for position, row in enumerate(rows):
        key: Any = tuple(as_json(row.get(name)) for name in upsert_on)
        if any(row.get(name) is None for name in upsert_on):
            key = position  # NULL is unlike any other NULL
        last[key] = {**last.get(key, {}), **row}
    return list(last.values())


def creating(name: str, rows: Collection[Row], upsert_on: Sequence[str]) -> str:
    """The statement that makes a table for rows."""
    columns = _declared(rows)
    if upsert_on and all(any(row.get(name) is not None for row in rows) for name in upsert_on):
        columns.append(f"primary key ({', '.join(map(quoted, upsert_on))})")
    return f"create table if not exists {'.'.join(map(quoted, parts_of(name)))} ({', '.join(columns)})"


def adding(name: str, rows: Collection[Row]) -> str:
    """The statement that adds the columns of rows to a table."""
    return f"alter table {name} " + ", ".join(f"add column if not exists {column}" for column in _declared(rows))


def _declared(rows: Collection[Row]) -> list[str]:
    names = dict.fromkeys(name for row in rows for name in row)
    found = {name: [row[name] for row in rows if row.get(name) is not None] for name in names}
    return [f"{quoted(name)} {'jsonb' if name == _WHOLE else type_for(values)}" for name, values in found.items()]


def parts_of(name: str) -> list[str]:
    """A table's name as schema and name."""
    return name.split(".", 1)


def quoted(name: str) -> str:
    """A name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def _placed(name: str) -> str:
    """A name in a statement that has placeholders."""
    return quoted(name).replace("%", "%%")


def fault_of_name(name: Any, what: str) -> str | None:
    """Why something cannot be the name of a table or column, or None."""
    if not isinstance(name, str):
        return f"{what} must be a str, not {type(name).__name__}"
    try:
        octets = as_text(name, what)
    except DataTypeError as error:
        return str(error)
    if not name or "\0" in name:
        return f"{what} must have at least one character, and no NUL"
    if any(len(part.encode()) > _LONGEST_NAME for part in (parts_of(name) if what == "table" else [name])):
        return f"{what} has {len(octets)} bytes, PostgreSQL's names have at most {_LONGEST_NAME}: {name[:20]!r}..."
    return None
