"""One connection to PostgreSQL: statements run, errors translated by SQLSTATE, time limits kept."""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Generator, Mapping
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, Any

from resilient_exporters.exceptions import ExportError, TargetDown, TargetMisconfigured
from resilient_exporters.exporters.postgresql_table import LEDGER, Table, parts_of, quoted
from resilient_exporters.exporters.resolved import Resolved

if TYPE_CHECKING:
    import psycopg

__all__ = ["Refusal", "Session", "Stale", "Unprepared"]

_log = logging.getLogger("resilient_exporters")

_CANCEL_TIMEOUT = 1.0
"""Seconds spent on asking the server to stop what took too long."""
_DDL_LOCK = 0x7265785F646462
"""Key of the advisory lock under which tables are made: two who make one at the same time get in each other's way."""

_LEDGER_SQL = (
    f"create table if not exists {LEDGER} (run text, lane text, version bigint not null, resolved bytea not null, "
    "updated timestamptz not null default now(), primary key (run, lane))"
)

_OF_THE_ROW = {"21000", "428C9", "44000", "P0001"}
"""Beside the classes 22, 23 and 54: a row twice in one upsert, a value for a generated column, the check option of a
view, an exception that a trigger raises."""
_OF_THE_CATALOG = {"42P01", "42703", "42704", "42804", "42883"}
"""What a statement made from an outdated look at the table meets."""
_PASSING = {"25006", "40001", "40P01", "55P03", "57014", "57P01", "57P02", "57P03", "57P05"}
"""Read-only after a failover, serialization, deadlock, locks, cancelled, shutdowns, starting, idle for too long."""
_PASSING_CLASSES = {"08", "53", "58"}
_PREPARED_AFTER = 5
"""A statement is prepared when it comes so often: it saves the server a tenth of a batch of 1000."""
_OF_A_POOLER = {"26000", "42P05"}
"""No such prepared statement, or one that is there already: it was prepared on another connection of the server."""


class Refusal(Exception):
    """The database refuses a row of the statement; nothing of it was stored."""


class Stale(TargetMisconfigured):
    """The statement does not fit the table, which may have changed since it was looked at."""


class Unprepared(TargetDown):
    """A pooler stands in between that does not know prepared statements."""


class Session:
    """A connection, and what was learned through it.

    Args:
        name: What to call the target in errors.
        settings: Connection settings as libpq names them.
        ends: `time.monotonic()` by which statements must be answered.
        prepares: Whether the server is to keep statements that come again and again.

    Attributes:
        zone: The time zone of the connection.

    Raises:
        TargetDown: No connection.
        TargetMisconfigured: The ledger is not there and may not be made.
    """

    def __init__(self, name: str, settings: Mapping[str, Any], ends: float, *, prepares: bool) -> None:
        self._name = name
        self._tables: dict[str, Table] = {}
        self._missing: set[tuple[str, str]] = set()
        self._connection = self._connected(settings, _PREPARED_AFTER if prepares else None)
        self.limit(ends)
        try:
            self.zone: tzinfo = self._connection.info.timezone or UTC
            self._make_ledger()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the connection; what was not answered is undone, or was done: nobody knows."""
        self._connection.close()

    def limit(self, ends: float) -> None:
        """Set the `time.monotonic()` by which statements must be answered from now on."""
        self._connection.ends = ends

    def run(
        self, sql: str, values: Mapping[str, Any] | None = None, *, prepare: bool | None = None
    ) -> list[tuple[Any, ...]]:
        """Run a statement, a transaction of its own, and return its rows.

        Args:
            sql: The statement.
            values: Its placeholders' values by name.
            prepare: False if it cannot be prepared.

        Raises:
            Refusal: A row is to blame.
            TargetDown: No answer, or none now; Unprepared when one without prepared statements would get one.
            TargetMisconfigured: The database or the table is to blame; Stale when a new look at the table may help.
            ExportError: For a reason unknown.
        """
        import psycopg

        try:
            cursor = self._connection.execute(sql.encode(), values, prepare=prepare)
            return cursor.fetchall() if cursor.description else []
        except TimeoutError as error:
            self._cancel()
            raise TargetDown(f"{self._name}: no answer in time") from error
        except psycopg.Error as error:
            raise self._verdict(error) from error

    # Tables

    def table(self, name: str, *, anew: bool) -> Table | None:
        """A table as the catalog has it, or None.

        Args:
            name: Its name, with or without the schema; exact, or as SQL reads a name that is not quoted.
            anew: Whether to look even when it is known.
        """
        if anew or name not in self._tables:
            self._tables.pop(name, None)
            exact, folded = (".".join(map(quoted, parts_of(spelled))) for spelled in (name, name.lower()))
            found = Table.found(self.run(Table.LOOKUP, {"exact": exact, "folded": folded}), self.zone)
            if found is None:
                return None
            self._tables[name] = found
        return self._tables[name]

    def meets(self, table: str, column: str) -> bool:
        """Whether this is the first time that a column is missing on this connection."""
        if (table, column) in self._missing:
            return False
        self._missing.add((table, column))
        return True

    def define(self, sql: str) -> None:
        """Run a statement that makes something unless it is there."""
        self.run(f"select pg_advisory_xact_lock({_DDL_LOCK}); {sql}", prepare=False)

    # The ledger

    def known(self, run: str, lane: str) -> tuple[int, Resolved]:
        """Which records of a run the database has, and how often that changed; 0 when it has none."""
        sql = f"select version, resolved from {LEDGER} where run = %(run)s and lane = %(lane)s"
        rows = self.run(sql, {"run": run, "lane": lane})
        if not rows:
            return 0, Resolved()
        try:
            return rows[0][0], Resolved.from_bytes(bytes(rows[0][1]))
        except (TypeError, ValueError) as error:
            raise TargetMisconfigured(f"{self._name}: the table {LEDGER} is damaged: {error}") from error

    def _make_ledger(self) -> None:
        """Make the ledger unless it is there: whoever may only use it is not asked for more."""
        ((there,),) = self.run("select to_regclass(%(name)s) is not null", {"name": LEDGER})
        if not there:
            try:
                self.define(_LEDGER_SQL)
            except TargetMisconfigured as error:
                raise TargetMisconfigured(f"{error}; allow it, or run it yourself: {_LEDGER_SQL}") from error

    # The connection

    def _connected(self, settings: Mapping[str, Any], prepared_after: int | None) -> Any:
        import psycopg

        try:
            connection = _connection_class().connect(**settings, autocommit=True, prepare_threshold=prepared_after)
        except psycopg.Error as error:
            raise TargetDown(f"{self._name}: {_text(error)}") from error
        return connection

    def _cancel(self) -> None:
        """Ask the server to stop: a statement that nobody waits for any more would hold its locks."""
        import psycopg

        try:
            self._connection.cancel_safe(timeout=_CANCEL_TIMEOUT)
        except psycopg.Error as error:
            _log.debug("cancel_failed exporter=%s error=%s", self._name, _text(error))

    def _verdict(self, error: psycopg.Error) -> Exception:
        """What an error means for delivery, by its SQLSTATE; without one, whether the connection is to blame.

        A socket that breaks while the driver waits leaves its connection open until the next call.
        """
        import psycopg

        code = error.sqlstate or ""
        text = f"{self._name}: {_text(error)}"
        if not code and (self._connection.closed or isinstance(error, psycopg.OperationalError)):
            return TargetDown(text)
        if code[:2] in _PASSING_CLASSES or code in _PASSING:
            return TargetDown(text)
        if code in _OF_A_POOLER:
            return Unprepared(f"{text} [{code}]")
        if code in _OF_THE_CATALOG:
            return Stale(f"{text} [{code}]")
        if code[:2] in ("22", "23", "54") or code in _OF_THE_ROW:
            return Refusal(f"{_text(error)} [{code}]")
        if code[:2] in ("0A", "25", "28", "3D", "3F", "42"):
            return TargetMisconfigured(f"{text} [{code}]")
        return ExportError(f"{text} [{code or type(error).__name__}]")


def _text(error: psycopg.Error) -> str:
    """The first line of what the server says; the lines below may quote whole rows."""
    return error.diag.message_primary or str(error).partition("\n")[0] or type(error).__name__


@functools.cache
def _connection_class() -> Any:
    """A connection that waits until it `ends`; made late, since importing this file needs no client library."""
    import psycopg

    class TimedConnection(psycopg.Connection[Any]):
        ends = math.inf

        def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
            return super().wait(_until(gen, self.ends), *args, **kwargs)

    return TimedConnection


def _until(steps: Generator[Any, Any, Any], ends: float) -> Generator[Any, Any, Any]:
    """The steps of a call, broken off when it is too late; between two of them psycopg waits a tenth of a second."""
    try:
        wanted = next(steps)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > ends:
                raise TimeoutError
            wanted = steps.send(ready)
    except StopIteration as end:
        return end.value
