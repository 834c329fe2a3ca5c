"""Stores records as rows of an SQLite database, each exactly once."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from resilient_exporters.exceptions import (
    ExportError,
    InvalidConfigError,
    RecordsRefused,
    TargetDown,
    TargetMisconfigured,
)
from resilient_exporters.exporters.exporter import Exporter
from resilient_exporters.exporters.paths import fixed_path
from resilient_exporters.exporters.resolved import Resolved
from resilient_exporters.exporters.sqlite_table import LEDGER, Table, as_rows, checked_columns, fault_of_table
from resilient_exporters.records import Batch

__all__ = ["SQLiteExporter"]

_KEPT_DAYS, _KEPT_ROWS = 365, 100
"""A run's row goes when it is that old and so many newer ones are there. Age alone would trust a clock that jumps; a
year is far beyond what stays in doubt, and costs a program that starts every hour a megabyte."""
_LONGEST_WAIT = 3600.0
"""Seconds; SQLite counts the milliseconds of its time-out in 32 bits."""

_OF_THE_DATABASE = {
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_NOTADB,
}
_PASSING = {sqlite3.SQLITE_READONLY_DBMOVED, sqlite3.SQLITE_READONLY_RECOVERY, sqlite3.SQLITE_READONLY_CANTLOCK}


class SQLiteExporter(Exporter):
    """Writes each record as a row of an SQLite database.

    A dict fills the columns named by its keys, anything else the column `data`. None, int, float, str and bytes are
    stored as they are (nan, which SQLite has not, becomes NULL), bool as 0 or 1, an int over 64 bits, Decimal, UUID and
    moments as text, a timedelta as its seconds, containers as JSON text.

    ================== ==========================================================================================
    guarantee          exact: rows, and the numbers of the records they came from, are committed together
    batching           one transaction per batch, synced to the disk before it returns
    per-send keywords  `table`
    down               locked for longer than `timeout`, no space, I/O error, the folder or share is not there
    misconfigured      not a database, damaged, read-only, no such table, restored from a backup while in use
    refused            a constraint of the table, a value too large, keys that cannot be columns; the others are stored
    ================== ==========================================================================================

    The database is switched to WAL mode. Which records it has is kept in its table `resilient_exporters_resolved`.
    A backup that is put back while the exporter is in use lacks records that were delivered, so nothing more is
    written until the program is started again; put back while it is not running, that goes unnoticed.

    Args:
        path: The database file; a relative path is fixed now.
        table: Table for records that were sent without `table=`.
        create: Whether to make the file, tables and columns that are missing. New columns have no declared type, since
            a declared one would change values (the text "007" in an INTEGER column becomes 7).
        columns: Column -> declaration, in SQL, such as `{"id": "INTEGER PRIMARY KEY"}`, for tables that are made.
        **options: As for every exporter, see `Exporter`; `timeout` is also how long a locked database is waited for.

    Raises:
        InvalidConfigError: An argument is wrong.
    """

    atomic: ClassVar[bool] = True
    guarantee: ClassVar[str] = "exact"

    def __init__(
        self,
        path: str | os.PathLike[str],
        table: str = "records",
        *,
        create: bool = True,
        columns: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        if path == ":memory:":
            raise InvalidConfigError("path is ':memory:': such a database ends with its connection; give a file path")
        if not isinstance(create, bool):
            raise InvalidConfigError(f"create must be True or False, not {create!r}")
        fault = fault_of_table(table)
        if fault:
            raise InvalidConfigError(fault)
        self.path: Path = fixed_path(path, "path")
        self.table = table
        self.create = create
        self.columns = checked_columns(columns)
        self._connection: sqlite3.Connection | None = None
        self._identity = (0, 0)
        self._versions: dict[tuple[int, str], int] = {}
        """Version that each run and lane had in the database when it was last written."""
        super().__init__(**options)

    def target_name(self) -> str:
        """`sqlite:`, the absolute path and the table."""
        return f"sqlite:{self.path}:{self.table}"

    def open(self) -> None:
        """Connect to the database and make the table of resolved records."""
        self._drop()
        try:
            self._connection = self._connected()
            self._identity = self._found()
        except (sqlite3.Error, OSError) as error:
            self._drop()
            raise self._verdict(error) from error

    def close(self) -> None:
        """Close the connection; what was not committed is undone."""
        self._drop()

    def export(self, batch: Batch, *, table: str | None = None) -> None:
        """Store a batch in one transaction; see the class."""
        name = self.table if table is None else table
        fault = fault_of_table(name)
        if fault:
            raise RecordsRefused(permanent=dict.fromkeys(range(len(batch)), fault))
        if self._connection is None:
            self.open()
        try:
            refused = self._store(batch, name)
        except (sqlite3.Error, OSError) as error:
            self._drop()
            raise self._verdict(error) from error
        if refused:
            raise RecordsRefused(permanent=refused)

    def _store(self, batch: Batch, table: str) -> dict[int, str]:
        """Commit those records of a batch that the database has not; index -> reason of those it refused."""
        assert self._connection is not None
        key = (batch.run, batch.lane)
        with _transaction(self._connection) as connection:
            version, resolved = self._resolved(connection, key)
            missing = [i for i, number in enumerate(batch.numbers) if number not in resolved]
            rows, refused = as_rows(batch, missing)
            Table(connection, table, self.create, self.columns).insert(rows, refused)
            taken = [batch.numbers[i] for i in missing if i not in refused]
            if taken:
                version += 1
                _note(connection, key, version, resolved.add(taken))
        if self._found() != self._identity:
            self._drop()
            raise TargetDown(f"{self.name}: the database was moved or deleted while it was written to")
        self._versions[key] = version
        return refused

    def _resolved(self, connection: sqlite3.Connection, key: tuple[int, str]) -> tuple[int, Resolved]:
        """What the database has of a run; under the write lock, so that it stays true until the commit."""
        row = connection.execute(
            f"select version, resolved from {LEDGER} where run = ? and lane = ?", _as_stored(key)
        ).fetchone()
        version, resolved = (row[0], _decoded(self.name, row[1])) if row else (0, Resolved())
        if version < self._versions.get(key, 0):
            raise TargetMisconfigured(
                f"{self.name}: the database lacks records that it had; it was replaced, or restored from a backup. "
                "Put the right one back, or start the program again to go on with this one"
            )
        return version, resolved

    def _connected(self) -> sqlite3.Connection:
        mode = "rwc" if self.create else "rw"
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode={mode}",
            uri=True,
            timeout=min(self.timeout, _LONGEST_WAIT),
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = full")
            connection.execute(
                f"create table if not exists {LEDGER} "
                "(run text, lane text, version int, resolved blob, updated real, primary key (run, lane))"
            )
        except BaseException:
            connection.close()
            raise
        return connection

    def _found(self) -> tuple[int, int]:
        """Which file the path leads to: SQLite itself would go on writing to one that was deleted."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return (0, 0)
        return (found.st_dev, found.st_ino)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _verdict(self, error: Exception) -> ExportError:
        """What an error means for delivery, by its code: the classes of `sqlite3` do not tell."""
        code = getattr(error, "sqlite_errorcode", None)
        text = f"{self.name}: {error}"
        if code is None:
            return TargetDown(text)
        if code & 0xFF in _OF_THE_DATABASE and code not in _PASSING:
            return TargetMisconfigured(text)
        if code & 0xFF == sqlite3.SQLITE_CANTOPEN and os.path.exists(self.path) and not _usable(self.path):
            return TargetMisconfigured(f"{text}; the path must be a file that this process may read and write")
        return TargetDown(text)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Commit at the end, or undo everything; the write lock is taken at once, so what is read stays true."""
    connection.execute("begin immediate")
    try:
        yield connection
        connection.execute("commit")
    except BaseException:
        if connection.in_transaction:
            connection.execute("rollback")
        raise


def _note(connection: sqlite3.Connection, key: tuple[int, str], version: int, resolved: Resolved) -> None:
    """Store what the database has of a run; forget dead runs when a new one begins."""
    now = time.time()
    connection.execute(
        f"insert into {LEDGER} values (?, ?, ?, ?, ?) on conflict (run, lane) do update "
        "set version = excluded.version, resolved = excluded.resolved, updated = excluded.updated",
        (*_as_stored(key), version, resolved.to_bytes(), now),
    )
    if version == 1:
        connection.execute(
            f"delete from {LEDGER} where updated < ? and rowid <= (select max(rowid) from {LEDGER}) - ?",
            (now - _KEPT_DAYS * 86400, _KEPT_ROWS),
        )


def _as_stored(key: tuple[int, str]) -> tuple[str, str]:
    run, lane = key
    return (f"{run:016x}", lane)


def _decoded(name: str, stored: bytes) -> Resolved:
    try:
        return Resolved.from_bytes(stored)
    except (TypeError, ValueError) as error:
        raise TargetMisconfigured(f"{name}: the table {LEDGER} is damaged: {error}") from error


def _usable(path: Path) -> bool:
    return os.path.isfile(path) and os.access(path, os.R_OK | os.W_OK)
