"""What is measured of the library's size: importing, opening and draining a backlog, memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from bench.memory import resident, risen
from bench.pools import Gate, arrived, background, each, many
from bench.subject import CRASH, MEMORY, NOTHING, RATE, Figures, Scale, measurement, stream

__all__: list[str] = []

_SECTION = "Size and start"
_CLIENTS = "boto3 elasticsearch kafka nats paho psycopg psycopg2 pymongo redis requests sqlite3 urllib3"
_IMPORT = """
import sys, time
began = time.perf_counter()
import resilient_exporters
took = time.perf_counter() - began
print(took * 1000, len(set({clients!r}.split()) & set(sys.modules)))
"""


@measurement("footprint.import", _SECTION, NOTHING)
def importing(scale: Scale, folder: Path) -> Figures:
    """`import resilient_exporters` in a fresh interpreter, as an installed package is: compiled beforehand."""
    command = [sys.executable, "-c", _IMPORT.format(clients=_CLIENTS)]
    compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    compiled["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")
    for _ in range(2):
        out = subprocess.run(command, capture_output=True, check=True, text=True, env=compiled).stdout
    took, clients = out.split()
    return {"import ms": float(took), "client libraries": float(clients)}


def _backlog(count: int, folder: Path) -> Figures:
    """Open a backlog, from the call of the constructor to the first batch at the target, and drain it."""
    pool = background([Gate()], folder)
    many(pool, count // 1000)
    pool.close(0.0)
    kept = count // 1000 * 1000
    size = sum(path.stat().st_size for path in folder.iterdir())
    gate = Gate(reads=True, up=True)
    began = time.perf_counter()
    pool = background([gate], folder)
    opened = time.perf_counter()
    rise = risen(lambda: arrived([gate], kept))
    drained = time.perf_counter()
    pool.close(0.0)
    return {
        "records": float(kept),
        "GB on disk": size / 1e9,
        "open ms": (opened - began) * 1000,
        "first record out ms": (gate.first_at - began) * 1000,
        f"drained, {RATE}": kept / (drained - opened),
        "rise MB": rise,
    }


@measurement("footprint.backlog", _SECTION, CRASH)
def backlog(scale: Scale, folder: Path) -> Figures:
    """A backlog as after some minutes."""
    return _backlog(scale.backlog, folder)


@measurement("footprint.large backlog", _SECTION, CRASH, once=True)
def large_backlog(scale: Scale, folder: Path) -> Figures:
    """A backlog as after weeks."""
    return _backlog(scale.large, folder)


@measurement("footprint.memory spool", _SECTION, MEMORY)
def memory_spool(scale: Scale, folder: Path) -> Figures:
    """Resident memory per record that is kept in memory."""
    pool = background([Gate()], folder, use_memory=True)
    each(pool, stream(1000))
    before = resident()
    each(pool, stream(scale.backlog))
    used = resident() - before
    pool.close(0.0)
    return {"bytes/record": used / scale.backlog}
