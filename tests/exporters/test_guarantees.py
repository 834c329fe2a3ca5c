"""What each exporter guarantees, phase by phase: programs that are killed there, and replies that are lost."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex
from resilient_exporters.testing.between import Between
from resilient_exporters.testing.proxy import FaultProxy
from tests.counts import KILLS
from tests.exporters.mortal import BATCH, Life, Mortal, Phase
from tests.servers.http import web_server
from tests.servers.postgresql import Database, binaries, database, server

__all__ = ["binaries", "database", "server"]

PHASES = [Phase.BEFORE, Phase.DURING, Phase.AFTER, Phase.SETTLED]
LONGEST_DELAY = 0.004
"""Seconds; most exports are over by then."""


@dataclass(frozen=True)
class Target:
    """One target with the exporter for it.

    Args:
        exporter: Name of the exporter's class, and the arguments of its constructor.
        arrived: The numbers that are in it, as often as they are.
        once: Whether each record is in it once, whatever happens.
        proxy: What can lose its replies, or None when it has none to lose.
        request: Bytes in a request that stores something.
    """

    exporter: tuple[str, list[Any], dict[str, Any]]
    arrived: Callable[[], list[int]]
    once: bool
    proxy: FaultProxy | None = None
    request: bytes = b""


def file(stack: ExitStack, folder: Path) -> Target:
    path = folder / "lines"
    return Target(
        ("FileExporter", [str(path)], {}),
        lambda: [json.loads(line)["n"] for line in path.read_text().splitlines()],
        once=False,
    )


def sqlite(stack: ExitStack, folder: Path) -> Target:
    path = folder / "database"

    def arrived() -> list[int]:
        with closing(sqlite3.connect(path)) as connection:
            return [n for (n,) in connection.execute("select n from records")]

    return Target(("SQLiteExporter", [str(path)], {}), arrived, once=True)


def web(stack: ExitStack, *, batch: bool, honours: bool) -> Target:
    server = stack.enter_context(web_server(honours=honours))
    proxy = stack.enter_context(FaultProxy("127.0.0.1", server.server_port))
    return Target(
        ("HTTPExporter", [f"http://127.0.0.1:{proxy.port}/in"], {"batch": batch}),
        lambda: [data["n"] for data in server.got],
        once=honours,
        proxy=proxy,
    )


def postgresql(stack: ExitStack, database: Database) -> Target:
    database.query("create table t (n int)")
    proxy = stack.enter_context(FaultProxy("127.0.0.1", database.port))
    return Target(
        ("PostgreSQLExporter", [database.conninfo(port=proxy.port)], {"default_table": "t"}),
        lambda: [n for (n,) in database.query("select n from t")],
        once=True,
        proxy=proxy,
        request=b"claimed",
    )


NAMES = ["file", "sqlite", "postgresql", "http", "http-keys", "http-batch", "http-batch-keys"]
"""Those with `keys` honour the keys of requests; `batch` has many records in one."""


@pytest.fixture(params=NAMES)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    """Each target in turn."""
    name: str = request.param
    with ExitStack() as stack:
        if name == "postgresql":
            yield postgresql(stack, request.getfixturevalue("database"))
        elif name.startswith("http"):
            yield web(stack, batch="batch" in name, honours="keys" in name)
        else:
            yield {"file": file, "sqlite": sqlite}[name](stack, tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork") or not hasattr(signal, "SIGKILL"), reason="fork and kill -9 are POSIX")
@pytest.mark.parametrize("phase", PHASES)
def test_killed(target: Target, tmp_path: Path, phase: Phase) -> None:
    """Whenever the program is killed, everything it sent arrives: once, or a second time if it was under way."""
    chance = random.Random(f"{phase} {KILLS}")
    kills, first = max(KILLS // len(PHASES), 1), 1
    with Mortal() as mortal:
        for kill in range(kills + 1):
            count, call = chance.randrange(2 * BATCH, 4 * BATCH), chance.choice([1, 2])
            meant = phase if kill < kills else Phase.NEVER
            delay = chance.uniform(0.0, LONGEST_DELAY)
            mortal.live(Life(target.exporter, str(tmp_path), first, count, meant, call, delay))
            first += count
    got = Counter(target.arrived())
    assert set(range(1, first)) == set(got)
    if target.once or phase in (Phase.BEFORE, Phase.SETTLED):
        assert set(got.values()) == {1}
    elif phase is Phase.AFTER:
        assert 2 in got.values()
    assert got.total() <= first - 1 + kills * BATCH


def test_reply_lost(target: Target, tmp_path: Path) -> None:
    """A reply that is lost after the target has the record: it goes out again, and an exact target has it once."""
    name, arguments, options = target.exporter
    exporter: rex.Exporter = getattr(rex, name)(*arguments, **options)
    with rex.ExporterPool([exporter], use_memory=False, tmp_file=tmp_path / "owed") as pool:
        for number in range(KILLS):
            if target.proxy is None:
                Between(exporter, [rex.TargetDown("the reply was lost")], late=True)
            else:
                target.proxy.swallow_replies(to=target.request)
            (result,) = pool.send({"n": number})
            assert not result.successful
            assert result.kept
            pool.send_unsent_data()
            assert not pool.has_unsent_data()
        status = pool.status().exporters[0]
    assert (KILLS, 0) == (status.delivered, status.dead)
    got = Counter(target.arrived())
    assert set(range(KILLS)) == set(got)
    assert set(got.values()) == {1 if target.once else 2}
