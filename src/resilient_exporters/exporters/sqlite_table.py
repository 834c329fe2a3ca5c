"""One table of an SQLite database: records as rows, columns as they are needed, refused rows told from the others."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from functools import partial
from itertools import groupby
from typing import Any

from resilient_exporters.exceptions import DataTypeError, InvalidConfigError, TargetMisconfigured
from resilient_exporters.exporters.lines import as_json, as_text, digits, scalar
from resilient_exporters.records import Batch

__all__ = ["LEDGER", "Table", "as_rows", "checked_columns", "fault_of_table"]

LEDGER = "resilient_exporters_resolved"
"""Table in which the exporter keeps which records the database has."""
_LONGEST_NAME = 1000
"""Characters of a column name; a longer key is text that got into the wrong place."""
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1
_OF_THE_RECORD = {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH}

Row = dict[str, Any]


class Table:
    """One table within a transaction.

    Args:
        connection: In a transaction.
        name: The table.
        create: Whether to make the table and columns that are missing.
        declared: Column -> declaration, when the table is made.
    """

    def __init__(self, connection: sqlite3.Connection, name: str, create: bool, declared: Mapping[str, str]) -> None:
        self._connection = connection
        self._name = name
        self._create = create
        self._declared = declared
        found = connection.execute("select name from pragma_table_xinfo(?)", (name,)).fetchall()
        self._columns = {_folded(column) for (column,) in found}

    def insert(self, rows: dict[int, Row], refused: dict[int, str]) -> None:
        """Insert rows in order; note in `refused` why some were not."""
        fitting = self._fit(rows, refused)
        for columns, group in groupby(fitting, key=lambda index: tuple(rows[index])):
            self._insert_alike(columns, {index: tuple(rows[index].values()) for index in group}, refused)

    def _fit(self, rows: dict[int, Row], refused: dict[int, str]) -> list[int]:
        """Make the columns that rows need; the indexes of those rows that have all theirs."""
        if rows and not self._columns and not self._create:
            raise TargetMisconfigured(f"there is no table {self._name!r}; make it, or allow it with create=True")
        limit = self._connection.getlimit(sqlite3.SQLITE_LIMIT_COLUMN)
        known, missing, fitting = set(self._columns), dict[bytes, str](), []
        for index, row in rows.items():
            new = {folded: column for column in row if (folded := _folded(column)) not in known}
            if new and not self._create:
                refused[index] = f"the table {self._name!r} has no column {next(iter(new.values()))!r}"
            elif len(known) + len(new) > limit:
                refused[index] = f"its keys would give the table more than {limit} columns"
            else:
                known |= new.keys()
                missing |= new
                fitting.append(index)
        if fitting and (missing or not self._columns):
            self._add(missing)
        return fitting

    def _add(self, missing: dict[bytes, str]) -> None:
        """Make the table, or those of its columns that are missing."""
        name = _quoted(self._name)
        if self._columns:
            for column in missing.values():
                self._connection.execute(f"alter table {name} add column {_quoted(column)}")
            return
        declared = {_folded(column): f"{_quoted(column)} {kind}" for column, kind in self._declared.items()}
        bare = {folded: _quoted(column) for folded, column in missing.items() if folded not in declared}
        columns = ", ".join([*declared.values(), *bare.values()]) or '"data"'
        self._connection.execute(f"create table {name} ({columns})")

    def _insert_alike(
        self, columns: tuple[str, ...], rows: dict[int, tuple[Any, ...]], refused: dict[int, str]
    ) -> None:
        """Insert rows that have the same columns, all in one go, or one by one when one of them is refused."""
        names, marks = ", ".join(map(_quoted, columns)), ", ".join("?" * len(columns))
        into = f"insert into {_quoted(self._name)} "
        statement = into + (f"({names}) values ({marks})" if columns else "default values")
        reason = self._attempt(partial(self._connection.executemany, statement, rows.values()))
        if reason is None:
            return
        for index, row in rows.items():
            reason = self._attempt(partial(self._connection.execute, statement, row))
            if reason is not None:
                refused[index] = reason

    def _attempt(self, insert: Callable[[], object]) -> str | None:
        """Insert; when the table refuses, undo it and tell the reason."""
        reason = None
        self._connection.execute("savepoint attempt")
        try:
            insert()
        except (sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
            if not _of_the_record(error):
                raise
            if not self._connection.in_transaction:
                raise TargetMisconfigured(
                    f"the table {self._name!r} undoes the whole transaction when it refuses a row ({error}); "
                    "let its constraint or trigger abort the statement instead"
                ) from error
            self._connection.execute("rollback to attempt")
            reason = str(error)
        self._connection.execute("release attempt")
        return reason


def _of_the_record(error: Exception) -> bool:
    """Whether an error is about the values of one row."""
    code = getattr(error, "sqlite_errorcode", None)
    return not isinstance(error, sqlite3.Error) or (code is not None and code & 0xFF in _OF_THE_RECORD)


def as_rows(batch: Batch, indexes: list[int]) -> tuple[dict[int, Row], dict[int, str]]:
    """The rows that records become; index -> reason of those that cannot."""
    rows: dict[int, Row] = {}
    refused: dict[int, str] = {}
    everything = batch.data
    for index in indexes:
        data = everything[index]
        try:
            rows[index] = _row(data) if isinstance(data, dict) else {"data": _value(data, "data")}
        except DataTypeError as error:
            refused[index] = str(error)
    return rows, refused


def _row(data: dict[Any, Any]) -> Row:
    """Column -> value of a dict."""
    row: Row = {}
    for key, value in data.items():
        row[_column(key)] = _value(value, f"data[{key!r}]")
    if len({_folded(column) for column in row}) < len(data):
        raise DataTypeError("data has two keys that are one column, since SQLite ignores the case of a to z")
    return row


def _column(key: Any) -> str:
    if isinstance(key, int) and not isinstance(key, bool):
        return digits(key, "a key of data")
    if not isinstance(key, str):
        raise DataTypeError(f"data has a key of type {type(key).__name__}, which cannot name a column")
    if not key or "\0" in key or len(key) > _LONGEST_NAME:
        raise DataTypeError(
            f"data has a key that cannot name a column: it is empty, too long or holds a NUL: {key[:40]!r}"
        )
    as_text(key, "a key of data")
    return str(key)


def _value(value: Any, where: str) -> Any:
    """A value as SQLite stores it."""
    value = scalar(value)
    if value is None or isinstance(value, float | bytes | str):
        return value
    if isinstance(value, int):
        return int(value) if _SMALLEST <= value <= _LARGEST else digits(value, where)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    return as_json(value).decode()


def _folded(name: str) -> bytes:
    """A name as SQLite compares it: case matters, but for a to z."""
    return name.encode().lower()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def fault_of_table(name: Any) -> str | None:
    """What is wrong with the name of a table."""
    if not isinstance(name, str):
        return f"table must be a str, not {type(name).__name__}"
    if not name or "\0" in name or not _encodes(name):
        return "table must be a name of at least one character, without NUL and lone surrogates"
    if _folded(name).startswith(b"sqlite_") or _folded(name) == LEDGER.encode():
        return f"table is {name!r}, a name that is reserved"
    return None


def _encodes(text: str) -> bool:
    try:
        as_text(text)
    except DataTypeError:
        return False
    return True


def checked_columns(columns: Any) -> dict[str, str]:
    """A copy of the declarations of columns.

    Raises:
        InvalidConfigError: They are no mapping of possible names to str.
    """
    if columns is not None and not isinstance(columns, Mapping):
        raise InvalidConfigError(f"columns must be a mapping or None, not {type(columns).__name__}")
    checked: dict[Any, Any] = dict(columns or {})
    for column, declaration in checked.items():
        if not isinstance(column, str) or not isinstance(declaration, str):
            raise InvalidConfigError("columns must map names of columns to declarations, both str")
        try:
            _column(column)
        except DataTypeError as error:
            raise InvalidConfigError(f"columns: {error}") from error
    return checked
