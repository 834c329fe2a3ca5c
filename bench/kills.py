"""Kills a process again and again while it sends and delivers, and counts what was lost and what came twice."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import orjson

import resilient_exporters as rex
from bench.pools import background, flushed
from bench.queues import PEERS, Peer
from bench.subject import CRASH, Figures, Scale, measurement, record

__all__ = ["numbers_of_records", "tallied"]

_NUMBERS = 1_000_000
"""Numbers that each life has for its records."""
_AT_WORK = 0.1
"""Seconds from the first `send` of a life within which it is killed."""
_START = 60.0
"""Seconds after which a life that has not sent anything is a failure."""
_QUIET = 3.0
"""Seconds without a delivery after which the last life of a peer takes its queue for empty."""
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND

Life = Callable[[Path, Iterator[int] | None], None]
"""Uses a folder; sends records with these numbers until killed, or (None) delivers what is left, and ends."""


class _Notes:
    """Numbers, in a file that survives the process."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, _APPEND)

    def add(self, numbers: Iterable[int]) -> None:
        os.write(self._fd, b"".join(b"%d\n" % number for number in numbers))


def _send(put: Callable[[dict[str, Any]], object], folder: Path, numbers: Iterator[int]) -> None:
    """Send until killed, slowly enough that the slowest peer keeps up."""
    accepted = _Notes(folder / "accepted")
    for number in numbers:
        data = record(number)
        put(data)
        accepted.add([data["id"]])
        time.sleep(0.001)


# Lives


def _live_ours(exporter: rex.Exporter, folder: Path, numbers: Iterator[int] | None) -> None:
    pool = background([exporter], folder)
    if numbers is not None:
        _send(pool.send, folder, numbers)
    flushed(pool)
    pool.close()


def _live_with_file(folder: Path, numbers: Iterator[int] | None) -> None:
    _live_ours(rex.FileExporter(folder / "sink"), folder, numbers)


def _live_with_database(folder: Path, numbers: Iterator[int] | None) -> None:
    _live_ours(rex.SQLiteExporter(folder / "sink", table="records"), folder, numbers)


def _live_peer(peer: type[Peer], folder: Path, numbers: Iterator[int] | None) -> None:
    """Tells the peer that a batch is done after it was delivered."""
    queue, delivered = peer(folder / "queue"), _Notes(folder / "sink")

    def consume() -> None:
        quiet = time.monotonic() + _QUIET
        while numbers is not None or time.monotonic() < quiet:
            if items := queue.take():
                delivered.add(orjson.loads(queue.line(item))["id"] for item in items)
                queue.done()
                quiet = time.monotonic() + _QUIET
            else:
                time.sleep(0.001)

    consumer = threading.Thread(target=consume)
    consumer.start()
    if numbers is not None:
        _send(queue.put, folder, numbers)
    consumer.join()
    os._exit(0)  # some peers have threads that would not end


# Many lives


def _begin(life: Life, folder: Path, numbers: Iterator[int] | None) -> BaseProcess:
    # Forked, a life begins with interpreter and imports in place, so that most of it is work.
    process = multiprocessing.get_context("fork").Process(target=_live, args=(life, folder, numbers))
    process.start()
    return process


def _live(life: Life, folder: Path, numbers: Iterator[int] | None) -> None:
    try:
        life(folder, numbers)
    except Exception as error:
        (folder / "failure").write_text(f"{type(error).__name__}: {error}")
        raise


def _failure(folder: Path, process: BaseProcess) -> RuntimeError:
    """Why a life ended that was not killed."""
    noted = folder / "failure"
    return RuntimeError(noted.read_text() if noted.exists() else f"a life ended by itself with {process.exitcode}")


def _kill_at_work(life: Life, folder: Path, first: int) -> None:
    """Start a life, wait until it is at work, and kill it at some moment."""
    accepted = folder / "accepted"
    before = _size(accepted)
    process = _begin(life, folder, itertools.count(first))
    ends = time.monotonic() + _START
    while _size(accepted) == before and process.is_alive() and time.monotonic() < ends:
        time.sleep(0.001)
    time.sleep(random.uniform(0.0, _AT_WORK))
    alive = process.is_alive()
    process.kill()
    process.join()
    if not alive:
        raise _failure(folder, process)
    if _size(accepted) == before:
        raise RuntimeError(f"nothing was accepted within {_START:.0f} s")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _many_lives(life: Life, scale: Scale, folder: Path) -> None:
    for number in range(scale.kills):
        _kill_at_work(life, folder, number * _NUMBERS)
    last = _begin(life, folder, None)
    last.join()
    if last.exitcode:
        raise _failure(folder, last)


# What came of it


def _numbers_of_notes(path: Path) -> list[int]:
    """The numbers that stand in a file, one a line."""
    return [int(line) for line in path.read_bytes().split()]


def numbers_of_records(path: Path) -> list[int]:
    """The ids of records in a file, one a line; a line that a kill has torn is no record."""
    numbers = []
    for line in path.read_bytes().splitlines():
        try:
            numbers.append(orjson.loads(line)["id"])
        except orjson.JSONDecodeError:
            continue
    return numbers


def _numbers_of_rows(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as database:
        return [number for (number,) in database.execute("select id from records")]


def tallied(accepted: Iterable[int], delivered: list[int]) -> Figures:
    """How many were accepted, how many of these never came, and how many came once more than they should have.

    What was under way at a kill may have been delivered though its `send` had not returned; that is no fault.
    """
    there, due = set(delivered), set(accepted)
    return {
        "accepted": float(len(due)),
        "lost": float(len(due - there)),
        "twice": float(len(delivered) - len(there)),
    }


def _register(subject: str, guarantee: str, life: Life, read: Callable[[Path], list[int]], package: str = "") -> None:
    @measurement(f"kills.{subject}", "kill -9 while sending and delivering", guarantee, once=True)
    def kill(scale: Scale, folder: Path) -> Figures:
        """Lives that end by kill -9, and a last one that delivers what is left."""
        if package:
            import_module(package)
        _many_lives(life, scale, folder)
        return {"kills": float(scale.kills), **tallied(_numbers_of_notes(folder / "accepted"), read(folder / "sink"))}


_register("ours to a file", CRASH, _live_with_file, numbers_of_records)
_register("ours to SQLite", CRASH, _live_with_database, _numbers_of_rows)
for _name, _peer in PEERS.items():
    _register(_name, _peer.guarantee, partial(_live_peer, _peer), _numbers_of_notes, _peer.package)
