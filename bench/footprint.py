"""What is measured of the library's size: importing, opening with a backlog, memory."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import resilient_exporters as rex
from bench.ours import Gate, background, each, many
from bench.subject import CRASH, MEMORY, NOTHING, Figures, Scale, measurement, stream

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
    """`import resilient_exporters` in a fresh interpreter, and how many client libraries came along."""
    code = _IMPORT.format(clients=_CLIENTS)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    took, clients = out.split()
    return {"import ms": float(took), "client libraries": float(clients)}


class _First(rex.Exporter):
    """Tells when the first batch arrives; never takes it."""

    def __init__(self) -> None:
        super().__init__(name="gate-0")
        self.arrived = threading.Event()
        self.at = 0.0

    def export(self, batch: rex.Batch, **options: object) -> None:
        if not self.arrived.is_set():
            self.at = time.perf_counter()
            self.arrived.set()
        raise rex.TargetDown("one batch is enough")


def _open(folder: Path, records: int) -> Figures:
    """From the call of the constructor to the first record at the target."""
    pool = background([Gate("gate-0")], folder)
    many(pool, records // 1000)
    pool.close(0.0)
    first = _First()
    began = time.perf_counter()
    pool = background([first], folder)
    opened = time.perf_counter()
    # A pool without background work to do may wait for a first send.
    pool.send(next(stream(1)))
    if not first.arrived.wait(60.0):
        raise RuntimeError("no record came out within 60 s")
    pool.close(0.0)
    return {"open ms": (opened - began) * 1000, "first record out ms": (first.at - began) * 1000}


@measurement("footprint.open backlog", _SECTION, CRASH)
def open_backlog(scale: Scale, folder: Path) -> Figures:
    """Opening with 200,000 kept records."""
    return _open(folder, scale.backlog)


@measurement("footprint.open large backlog", _SECTION, CRASH, once=True, large=True)
def open_large(scale: Scale, folder: Path) -> Figures:
    """Opening with 20 million kept records."""
    return _open(folder, scale.large)


def _resident() -> int:
    """Resident bytes of this process."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class _Watched(Gate):
    """A gate that notes the largest resident memory while records pass."""

    peak = 0

    def export(self, batch: rex.Batch, **options: object) -> None:
        super().export(batch)
        self.peak = max(self.peak, _resident())


@measurement("footprint.drain of 5 GB", _SECTION, CRASH, once=True, large=True)
def drain_large(scale: Scale, folder: Path) -> Figures:
    """How far resident memory rises while 5 GB drain to an exporter that reads each record."""
    gate = _Watched(reads=True)
    pool = background([gate], folder)
    many(pool, scale.large * 5 // 4 // 1000)
    before = _resident()
    gate.up = True
    if not pool.flush(3600.0):
        raise RuntimeError("5 GB did not drain within an hour")
    pool.close(0.0)
    return {"rise MB": (gate.peak - before) / 1e6}


@measurement("footprint.memory spool", _SECTION, MEMORY)
def memory_spool(scale: Scale, folder: Path) -> Figures:
    """Resident memory per record that is kept in memory."""
    pool = background([Gate()], folder, use_memory=True)
    each(pool, stream(1000))
    before = _resident()
    each(pool, stream(scale.backlog))
    used = _resident() - before
    pool.close(0.0)
    return {"bytes/record": used / scale.backlog}
