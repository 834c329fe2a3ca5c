"""Spools for the command line: one that is stopped, one that another process holds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex

HOLDER = """
import sys
from tests.cli.conftest import fill
pool = fill(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
pool.send({"n": 99})
print("sent", flush=True)
sys.stdin.readline()
pool.close()
"""


class Picky(rex.Exporter):
    """Refuses odd numbers for good."""

    def export(self, batch: rex.Batch, /, table: str = "") -> None:
        bad = {at: "no \x1b[31msuch [bold]column[/]" for at, record in enumerate(batch) if record.data["n"] % 2}
        if bad:
            raise rex.RecordsRefused(permanent=bad)


class Down(rex.Exporter):
    """Is down."""

    def export(self, batch: rex.Batch, /, **options: Any) -> None:
        raise rex.TargetDown("down")


def fill(path: str | Path) -> rex.ExporterPool:
    """A pool that owes `log` six records, and has three dead letters of `orders`."""
    pool = rex.ExporterPool([Picky(name="orders"), Down(name="log")], use_memory=False, tmp_file=path, name="shop")
    for number in range(6):
        pool.send({"n": number, "raw": b"x"}, table="t")
    return pool


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """The path of a spool that nobody holds."""
    fill(tmp_path / "q").close()
    return tmp_path / "q"


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """The path of a spool that another process holds, and that process, which sends on a line of input."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "q")]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
        yield tmp_path / "q", process
        process.communicate("\n\n", timeout=30)
    assert 0 == process.returncode
