"""Compares what was sent with what the targets have, read back from the targets themselves."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["TARGETS", "Finding", "audit", "keys_sent"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of the records at one target.

    Args:
        target: Its name.
        promise: What it is promised: "exactly once" or "at least once".
        sent: Records whose `send` had returned.
        arrived: Different records that it has; one that was under way when the sender was killed is among them.
        missing: Records that were sent and are not there.
        doubled: Records that are there once more than they should be, each time counted.
        disordered: Records that stand behind one that was sent later.
    """

    target: str
    promise: str
    sent: int
    arrived: int
    missing: int
    doubled: int
    disordered: int

    @property
    def kept_promise(self) -> bool:
        return self.missing == 0 and (self.doubled == 0 or self.promise != "exactly once")


def _of_lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def _of_json_lines(file: Path) -> list[str]:
    keys = []
    for line in _of_lines(file):
        try:
            keys.append(json.loads(line)["key"])
        except ValueError:  # torn by a kill; the record was sent again
            continue
    return keys


def _of_database(file: Path) -> list[str]:
    if not file.exists():
        return []
    database = sqlite3.connect(file)
    try:
        return [key for (key,) in database.execute("select key from readings order by rowid")]
    finally:
        database.close()


TARGETS: dict[str, tuple[str, str, Callable[[Path], list[str]]]] = {
    "file": ("at least once", "readings.ndjson", _of_json_lines),
    "sqlite": ("exactly once", "readings.db", _of_database),
    "http": ("at least once", "received.ndjson", _of_json_lines),
    "function": ("at least once", "function.txt", _of_lines),
}
"""Name of each target, its promise, its file in the folder, and how the keys of its records are read back in order."""


def keys_sent(folder: Path) -> list[str]:
    """The keys that the sender noted after `send` had returned."""
    return _of_lines(folder / "journal.txt")


def audit(folder: Path) -> list[Finding]:
    """One finding for each target."""
    sent = keys_sent(folder)
    return [_finding(name, promise, sent, read(folder / file)) for name, (promise, file, read) in TARGETS.items()]


def _finding(name: str, promise: str, sent: list[str], there: list[str]) -> Finding:
    arrived = list(dict.fromkeys(there))
    latest, disordered = (-1, -1), 0
    for key in arrived:
        session, _, number = key.partition(":")
        position = (int(session), int(number))
        disordered += position < latest
        latest = max(latest, position)
    missing = len(set(sent) - set(arrived))
    return Finding(name, promise, len(sent), len(arrived), missing, len(there) - len(arrived), disordered)
