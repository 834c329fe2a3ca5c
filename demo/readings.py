"""Gives real data to send: live readings of this machine, mixed with lines of a real log."""

from __future__ import annotations

import datetime
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

__all__ = ["readings"]

_LINES_PER_ROUND = 20
_LOGS = ("/var/log/dpkg.log", "/var/log/syslog", "/var/log/system.log", "/var/log/messages")


def readings() -> Iterator[dict[str, Any]]:
    """Records without end: one round of all processes, processors, disks and networks after the other."""
    lines = _log_lines()
    while True:
        yield from _machine()
        yield from _processes()
        yield from itertools.islice(lines, _LINES_PER_ROUND)


def _record(kind: str, subject: str, **values: Any) -> dict[str, Any]:
    return {"at": datetime.datetime.now(datetime.UTC), "kind": kind, "subject": subject, "reading": values}


def _machine() -> Iterator[dict[str, Any]]:
    memory = psutil.virtual_memory()
    yield _record("memory", "machine", total=memory.total, available=memory.available, percent=memory.percent)
    for number, times in enumerate(psutil.cpu_times(percpu=True)):
        yield _record("processor", f"cpu{number}", user=times.user, system=times.system, idle=times.idle)
    for disk, io in psutil.disk_io_counters(perdisk=True).items():
        yield _record("disk", disk, read=io.read_bytes, written=io.write_bytes)
    for network, traffic in psutil.net_io_counters(pernic=True).items():
        yield _record("network", network, sent=traffic.bytes_sent, received=traffic.bytes_recv)


def _processes() -> Iterator[dict[str, Any]]:
    for process in psutil.process_iter():
        try:
            with process.oneshot():
                used, times = process.memory_info().rss, process.cpu_times()
                yield _record(
                    "process", f"{process.name()} {process.pid}", rss=used, user=times.user, system=times.system
                )
        except psutil.Error:  # it ended meanwhile, or is somebody else's
            continue


def _log_lines() -> Iterator[dict[str, Any]]:
    """Lines of a system log; where there is none, of Python's own source, which is always there."""
    source = next((log for log in _LOGS if os.access(log, os.R_OK) and Path(log).stat().st_size), os.__file__)
    while True:
        with open(source, encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                yield _record("log", f"{source}:{number}", line=line.rstrip("\n"))
