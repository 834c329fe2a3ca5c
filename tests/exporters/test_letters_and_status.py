"""Dead letters pin no segment, and a look at the status costs the same however much is owed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType

import pytest

import resilient_exporters as rex
from resilient_exporters import spool
from resilient_exporters.testing import MemoryBatchExporter, MemoryExporter


def test_dead_letters_pin_no_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments go as soon as nothing in them is owed, whatever became a dead letter of what was in them."""
    monkeypatch.setattr(spool, "FileSpool", partial(spool.FileSpool, segment_size=2000))
    target = MemoryBatchExporter("t", up=False, refuse=lambda data: data["n"] % 50 == 0)
    with rex.ExporterPool([target], use_memory=False, tmp_file=tmp_path / "kept") as pool:
        for n in range(500):
            pool.send({"n": n, "pad": "x" * 100})
        segments = len(list(tmp_path.glob("kept.0*")))
        target.up = True
        pool.send_unsent_data()
        assert [n for n in range(500) if n % 50 == 0] == [letter.data["n"] for letter in pool.dead_letters]
        assert segments > 10
        assert len(list(tmp_path.glob("kept.0*"))) <= 1


def calls_of(function: Callable[[], object]) -> int:
    """How many calls of Python functions and of built-in ones a call makes."""
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.parametrize("use_memory", [True, False])
def test_the_status_costs_the_same_however_much_is_owed(tmp_path: Path, use_memory: bool) -> None:
    """What is owed is counted as it comes and goes, so a program may look ten times a second at any backlog."""
    down = [MemoryExporter(f"down {n}", up=False) for n in range(3)]
    with rex.ExporterPool(down, use_memory=use_memory, tmp_file=tmp_path / "kept", manual_reexport=True) as pool:
        pool.send_many(range(10))
        pool.status()
        few = calls_of(pool.status)
        pool.send_many(range(20_000))
        pool.status()
        many = calls_of(pool.status)
        assert 20_010 == pool.status().exporters[0].owed
    assert few == many < 1000
