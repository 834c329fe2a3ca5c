"""The program that has records to get rid of, and is killed at it: python -m demo.sender FOLDER SESSION URL."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import resilient_exporters as rex
from demo.readings import readings

__all__ = ["main"]

_RATE = 600
"""Records a second."""
_REPORT_EVERY = 0.25
"""Seconds between two looks at the pool's status."""
_FLUSH = 20.0
"""Seconds that targets get in the end to take what is left."""


class _OldSystem:
    """A target that is a function: writes down keys, and hangs as long as a file named `hang` is there."""

    def __init__(self, folder: Path) -> None:
        self._hang = folder / "hang"
        self._file = os.open(folder / "function.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def take(self, data: dict[str, Any]) -> None:
        while self._hang.exists():
            time.sleep(0.05)
        os.write(self._file, f"{data['key']}\n".encode())


def _make_pool(folder: Path, url: str) -> rex.ExporterPool:
    exporters = [
        rex.FileExporter(folder / "readings.ndjson", name="file"),
        rex.SQLiteExporter(folder / "readings.db", table="readings", name="sqlite"),
        rex.HTTPExporter(url, batch=True, timeout=2.0, name="http"),
        rex.CallableExporter(_OldSystem(folder).take, timeout=1.0, name="function"),
    ]
    return rex.ExporterPool(
        exporters, num_threads=4, wait_for_result=False, use_memory=False, tmp_file=folder / "unsent", name="demo"
    )


def main(folder: Path, session: int, url: str) -> None:
    """Send readings, and note each in the journal once `send` returned, until a file named `stop` is there."""
    journal = os.open(folder / "journal.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    with _make_pool(folder, url) as pool:
        started = reported = time.monotonic()
        for number, reading in enumerate(readings()):
            key = f"{session}:{number}"
            pool.send({"key": key, **reading})
            os.write(journal, f"{key}\n".encode())
            now = time.monotonic()
            if now - reported > _REPORT_EVERY:
                reported = now
                _report(pool, folder)
                if (folder / "stop").exists():
                    break
            time.sleep(max(0.0, started + number / _RATE - now))
        flushed = pool.flush(_FLUSH)
        _report(pool, folder)
        if not flushed:
            sys.exit(f"not everything was delivered within {_FLUSH} seconds: {pool.status()}")


def _report(pool: rex.ExporterPool, folder: Path) -> None:
    """Leave the status where the one who watches finds it, never half written."""
    draft = folder / "status.new"
    draft.write_text(json.dumps(dataclasses.asdict(pool.status())))
    draft.replace(folder / "status.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
