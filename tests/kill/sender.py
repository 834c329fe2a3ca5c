"""The program that the kill tests kill: it sends for ever, to targets that fail now and then, out of tiny files."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex
from resilient_exporters import spool
from resilient_exporters.exporters.file import FileExporter
from resilient_exporters.exporters.sqlite import SQLiteExporter
from resilient_exporters.testing import MemoryExporter

__all__ = ["MODES", "data_of", "exporters", "send_until_killed", "small_segments"]

MODES: dict[str, dict[str, Any]] = {
    "foreground": {},
    "threads": {"num_threads": 3},
    "background": {"num_threads": 3, "wait_for_result": False, "retry": rex.Retry(base=0.001, cap=0.01)},
}
"""Ways in which a pool delivers, and what to tell its constructor."""

chance = random.Random()


class FlakyDatabase(SQLiteExporter):
    """Is down now and then, or has the rows and loses the reply."""

    def export(self, batch: rex.Batch, *, table: str | None = None) -> None:
        """Fail before or after the export, or not at all."""
        fail_sometimes(0.2)
        super().export(batch, table=table)
        fail_sometimes(0.1)


class FlakyFile(FileExporter):
    """Is down now and then."""

    def export(self, batch: rex.Batch) -> None:
        """Fail before the export, or not at all."""
        fail_sometimes(0.2)
        super().export(batch)


def fail_sometimes(how_often: float) -> None:
    if chance.random() < how_often:
        raise rex.TargetDown("down for a moment")


@contextmanager
def small_segments() -> Iterator[None]:
    """File spools have tiny segments, so that a kill often hits their sealing and deleting."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "FileSpool", partial(spool.FileSpool, segment_size=2000))
        yield


def data_of(number: int) -> dict[str, Any]:
    """The data of a record."""
    return {"n": number, "pad": "x" * (number * 37 % 211)}


def exporters(folder: Path, *, well: bool) -> list[rex.Exporter]:
    """A database, a file, and a target that takes nothing while the others are flaky."""
    database, file = (SQLiteExporter, FileExporter) if well else (FlakyDatabase, FlakyFile)
    return [
        database(folder / "target.db", name="db"),
        file(folder / "lines", name="file"),
        MemoryExporter("memory", up=well),
    ]


def send_until_killed(folder: Path, mode: str, first: int) -> None:
    """Send from number `first` on, and tell of each before and after."""
    chance.seed(first)
    os.write(1, b"begun\n")
    with small_segments():
        targets, place = exporters(folder, well=False), folder / "kept"
        pool = rex.ExporterPool(targets, use_memory=False, tmp_file=place, name="killed", **MODES[mode])
        number = first
        while True:
            os.write(1, b"sending %d\n" % number)
            if number % 7:
                pool.send(data_of(number))
                last = number
            else:
                last = number + 4
                pool.send_many(data_of(each) for each in range(number, last + 1))
            os.write(1, b"sent %d %d\n" % (number, last))
            number = last + 1
