"""What is measured of the library's way back: from "target is back" until the backlog is through."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from bench.pools import CountingFile, Gate, arrived, background, many
from bench.subject import CRASH, OUTAGE, Figures, Scale, measurement, recovered

__all__: list[str] = []


def _back(
    scale: Scale, folder: Path, target: Gate | CountingFile, count: int, come_back: Callable[[], None]
) -> Figures:
    """A backlog is kept, the outage goes on for a while and ends; nobody calls the pool from then on."""
    pool = background([target], folder)
    many(pool, count // 1000)
    time.sleep(scale.outage)  # the outage itself: pauses between attempts grow with it
    come_back()
    began = time.perf_counter()
    arrived([target], count)
    took = time.perf_counter() - began
    pool.close(0.0)
    return recovered(count, count, took)


@measurement("outage.batch exporter", OUTAGE, CRASH)
def batch_exporter(scale: Scale, folder: Path) -> Figures:
    """To a batch exporter that does nothing."""
    gate = Gate()
    return _back(scale, folder, gate, scale.backlog, lambda: setattr(gate, "up", True))


@measurement("outage.file", OUTAGE, CRASH)
def file(scale: Scale, folder: Path) -> Figures:
    """To a real file, on a share that was not mounted."""
    share = folder / "share"
    return _back(scale, folder, CountingFile(share / "sink"), scale.backlog // 10, share.mkdir)
