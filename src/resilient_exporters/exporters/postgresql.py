"""Stores records as rows of a PostgreSQL table, each exactly once."""

from __future__ import annotations

import re
import time
from importlib.util import find_spec
from typing import Any, ClassVar
from urllib.parse import parse_qsl, unquote

from resilient_exporters.exceptions import (
    ExportError,
    InvalidConfigError,
    MissingConfigError,
    MissingModuleError,
    RecordsRefused,
    TargetMisconfigured,
)
from resilient_exporters.exporters.exporter import Exporter
from resilient_exporters.exporters.postgresql_session import Session, Unprepared
from resilient_exporters.exporters.postgresql_store import Ledger, Store
from resilient_exporters.exporters.postgresql_table import LEDGER, fault_of_name
from resilient_exporters.records import Batch

__all__ = ["PostgreSQLExporter"]

_CONNECT_TIMEOUT = 10
"""Seconds that one address has to answer, at most; the least that libpq takes for more than "at once" is 2."""
_URI = re.compile(
    r"postgres(?:ql)?://(?:[^@/?\s]*@)?(?P<hosts>[^@/?\s]*)(?:/(?P<database>[^@/?\s]*))?"
    r"(?:\?(?P<options>\w+=[^&]*(?:&\w+=[^&]*)*)?)?"
)
_HOST = re.compile(r"(?:\[[^\]]*\]|[^:]*)(?::\d*)?")
_SETTING = re.compile(r"\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^'\\\s]|\\.)*)(?=\s|$)")


class PostgreSQLExporter(Exporter):
    """Writes each record as a row of a PostgreSQL table.

    A dict fills the columns named by its keys, anything else the column `data`. Each column's own type reads what
    it gets: moments, Decimal, UUID, bytes (`bytea`), lists (arrays), dicts and lists (`json`, `jsonb`) arrive as what
    they are; a text goes into any column that understands it, so also `"2026-01-01"` into a date. A dict's str for a
    `json` column is taken as JSON. A float with a fraction for an integer column is refused, not rounded.

    ================== ==========================================================================================
    guarantee          exact: rows, and the numbers of the records they came from, are committed together
    batching           one statement, one transaction and one round trip per batch; records with different columns
                       share it unless a column with a default is concerned
    per-send keywords  `table`; `upsert_on`, a column or a list of them with a unique index: a row that is there is
                       updated
    down               no connection, no answer within `timeout`, shutdown, failover, no space, too many connections,
                       locks
    misconfigured      no such table, no permission, no unique index for `upsert_on`, restored from a backup while
                       in use
    refused            a value that its column does not take, a constraint, a trigger that raises: the others are
                       stored. Records with a key that is no column wait until there is one
    ================== ==========================================================================================

    Which records it has is kept in its table `resilient_exporters_resolved`, made in the first schema of the search
    path: the user must be allowed to create it, or to select, insert, update and delete in one that is there. A backup
    that is put back while the exporter is in use lacks records that were delivered, so nothing more is written until
    the program is started again; put back while it is not running, that goes unnoticed.

    Args:
        conn_string: Connection string of libpq, a URI or `key=value` pairs. What it does not say, the others add.
        target_host: Host name or address, or folder of a Unix socket.
        database: Name of the database.
        target_port: TCP port, 1 to 65535; it goes with `target_host`.
        username: User name.
        password: Password; it is in no name, message or log.
        default_table: Table for records that were sent without `table=`, with or without its schema.
        create: Whether to make tables and columns that are missing, with types by the first values: `numeric` for
            int, `jsonb` for dict and list, and so on; `upsert_on` becomes the primary key.
        **options: As for every exporter, see `Exporter`.

    Raises:
        MissingModuleError: `psycopg` is not installed.
        MissingConfigError: Neither `conn_string` nor `target_host` is given.
        InvalidConfigError: An argument is wrong.
    """

    atomic: ClassVar[bool] = True
    guarantee: ClassVar[str] = "exact"
    batch_records: int = 4000
    """More than usual: what each transaction costs beside its rows is then hardly felt."""

    def __init__(
        self,
        conn_string: str | None = None,
        target_host: str | None = None,
        database: str | None = None,
        target_port: int = 5432,
        username: str | None = None,
        password: str | None = None,
        default_table: str | None = None,
        *,
        create: bool = False,
        **options: Any,
    ) -> None:
        if find_spec("psycopg") is None:
            raise MissingModuleError(
                "PostgreSQLExporter needs psycopg, which is not installed: pip install resilient-exporters[postgres]"
            )
        if conn_string is None and target_host is None:
            raise MissingConfigError("PostgreSQLExporter needs conn_string, or target_host and database")
        if not isinstance(create, bool):
            raise InvalidConfigError(f"create must be True or False, not {create!r}")
        fault = None if default_table is None else _fault_of_table(default_table)
        if fault:
            raise InvalidConfigError(f"default_{fault}")
        self.default_table = default_table
        self.create = create
        self._conn_string = "" if conn_string is None else conn_string
        self._settings = _settings(target_host, database, target_port, username, password)
        self._address = _address(self._conn_string, self._settings)
        self._session: Session | None = None
        self._prepares = True
        self._ledger = Ledger()
        super().__init__(**options)

    def target_name(self) -> str:
        """`postgresql:`, host, port, database and default table; no user and no password."""
        return f"postgresql:{self._address}" + (f"/{self.default_table}" if self.default_table else "")

    def open(self) -> None:
        """Connect, and make the table of resolved records."""
        self._connect_by(time.monotonic() + self.timeout)

    def close(self) -> None:
        """Close the connection."""
        self._drop()

    def probe(self) -> None:
        """Ask the server for an answer."""
        ends = time.monotonic() + self.timeout
        session = self._session or self._connect_by(ends)
        session.limit(ends)
        try:
            session.run("select 1")
        except ExportError:
            self._drop()
            raise

    def export(self, batch: Batch, *, table: str | None = None, upsert_on: Any = None) -> None:
        """Store a batch; see the class."""
        columns = list(upsert_on) if isinstance(upsert_on, list | tuple) else [] if upsert_on is None else [upsert_on]
        name = self.default_table if table is None else table
        if name is None:
            reason = "no table: give default_table to the exporter, or table= to send"
            raise RecordsRefused(later=dict.fromkeys(range(len(batch)), reason))
        fault = _fault_of_table(name) or next(filter(None, (fault_of_name(c, "upsert_on") for c in columns)), None)
        if fault:
            raise RecordsRefused(permanent=dict.fromkeys(range(len(batch)), fault))
        session = self._session or self._connect_by(batch.deadline)
        session.limit(batch.deadline)
        store = Store(session, self._ledger, batch, name, columns, self.create)
        try:
            store.run()
        except ExportError as error:
            self._prepares = self._prepares and not isinstance(error, Unprepared)
            self._drop()
            raise
        if store.permanent or store.later:
            raise RecordsRefused(permanent=store.permanent, later=store.later)

    def _connect_by(self, ends: float) -> Session:
        self._drop()
        self._session = Session(self.name, self._connection_settings(), ends, prepares=self._prepares)
        return self._session

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _connection_settings(self) -> dict[str, Any]:
        """All settings of the connection: given ones before our own."""
        try:
            from psycopg import ProgrammingError
            from psycopg.conninfo import conninfo_to_dict
        except ImportError as error:
            raise TargetMisconfigured(
                f"{self.name}: psycopg cannot be used ({error}): pip install resilient-exporters[postgres]"
            ) from error
        try:
            given = conninfo_to_dict(self._conn_string)
        except ProgrammingError:
            # Its message quotes the string, and the password may be in it.
            raise TargetMisconfigured(f"{self.name}: libpq does not understand conn_string") from None
        seconds = max(2, min(int(self.timeout), _CONNECT_TIMEOUT))
        own = {
            "connect_timeout": seconds,
            "fallback_application_name": "resilient_exporters",
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": int(self.timeout * 1000),
        }
        return {**own, **self._settings, **given, "client_encoding": "UTF8"}


def _settings(host: Any, database: Any, port: Any, username: Any, password: Any) -> dict[str, Any]:
    """The arguments, checked, as libpq calls them."""
    texts = {"host": host, "dbname": database, "user": username, "password": password}
    for name, value in texts.items():
        if value is not None and (not isinstance(value, str) or "\0" in value):
            raise InvalidConfigError(f"{name} must be a str without NUL")
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise InvalidConfigError(f"target_port must be an int from 1 to 65535, not {port!r}")
    settings: dict[str, Any] = {name: value for name, value in texts.items() if value is not None}
    return settings | ({"port": port} if host is not None else {})


def _address(conn_string: Any, settings: dict[str, Any]) -> str:
    """Host, port and database for the exporter's name, without asking libpq, which may not be there yet.

    Raises:
        InvalidConfigError: It is not a connection string; the message does not quote it, since it may hold a password.
    """
    if not isinstance(conn_string, str):
        raise InvalidConfigError(f"conn_string must be a str, not {type(conn_string).__name__}")
    given = {**settings, **(_uri(conn_string) if "://" in conn_string else _pairs(conn_string))}
    if "service" in given and "host" not in given:
        return str(given["service"])
    host = given.get("host") or given.get("hostaddr") or "localhost"
    # Several hosts come with a port each in a URI: then the port is part of `host` already.
    port = "" if ":" in str(host) and "://" in conn_string else f":{given.get('port') or 5432}"
    return f"{host}{port}/{given.get('dbname') or given.get('user') or ''}"


def _uri(conn_string: str) -> dict[str, str]:
    """What a URI says."""
    match = _URI.fullmatch(conn_string)
    if match is None or not all(_HOST.fullmatch(host) for host in match["hosts"].split(",")):
        raise InvalidConfigError(
            "conn_string is no URI such as postgresql://user:password@host:5432/database; "
            "in the password, characters such as @ / ? : must be written as %40 %2F %3F %3A"
        )
    said = {"host": match["hosts"], "dbname": unquote(match["database"] or "")}
    return {name: value for name, value in (*said.items(), *parse_qsl(match["options"] or "")) if value}


def _pairs(conn_string: str) -> dict[str, str]:
    """What `key=value` pairs say."""
    if _SETTING.sub("", conn_string).strip():
        raise InvalidConfigError(
            "conn_string is neither a URI nor pairs such as host=h dbname=d; a value with spaces stands in '...'"
        )
    found: list[tuple[str, str]] = _SETTING.findall(conn_string)
    return {name: re.sub(r"\\(.)", r"\1", value.strip("'")) for name, value in found}


def _fault_of_table(name: Any) -> str | None:
    if name == LEDGER:
        return f"table is {name!r}, a name that is reserved"
    return fault_of_name(name, "table")
