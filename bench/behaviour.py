"""What is measured of the library's behaviour: healthy exporters beside sick ones, and the way back after an outage."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import resilient_exporters as rex
from bench.ours import Gate, background, each, many
from bench.subject import CRASH, RATE, Figures, Scale, measurement, stream, timed

__all__: list[str] = []

_SECTION = "A healthy exporter beside a sick one"
_PATIENCE = 120.0
"""Seconds after which a backlog that is not through is a failure."""


class _Healthy(rex.FileExporter):
    """A file exporter that tells when it has everything."""

    def __init__(self, path: Path, expected: int) -> None:
        super().__init__(path, name="healthy")
        self.through = threading.Event()
        self.missing = expected

    def export(self, batch: rex.Batch, **options: Any) -> None:
        super().export(batch)
        self.missing -= len(batch)
        if self.missing <= 0:
            self.through.set()


def _hang(release: threading.Event) -> None:
    release.wait()


def _die(release: threading.Event) -> None:
    raise rex.TargetDown("always down")


def _crawl(release: threading.Event) -> None:
    release.wait(0.05)


def _raise(release: threading.Event) -> None:
    raise ValueError("a bug in the exporter")


def _beside(sickness: Callable[[threading.Event], None] | None, scale: Scale, folder: Path) -> Figures:
    """Records per second from the first `send` until a healthy file exporter has them all."""
    release = threading.Event()
    healthy = _Healthy(folder / "sink", scale.records)
    exporters: list[rex.Exporter] = [healthy]
    if sickness is not None:
        exporters.append(rex.CallableExporter(lambda data: sickness(release), name="sick"))
    pool = background(exporters, folder)

    def loop() -> None:
        each(pool, stream(scale.records))
        if not healthy.through.wait(_PATIENCE):
            raise RuntimeError(f"{healthy.missing} records had not arrived after {_PATIENCE:.0f} s")

    figures = timed(scale.records, loop)
    release.set()
    pool.close(0.0)
    return {RATE: figures[RATE]}


_SICKNESSES = {
    "alone": None,
    "beside hanging": _hang,
    "beside dead": _die,
    "beside crawling": _crawl,
    "beside raising": _raise,
}

for _name, _sickness in _SICKNESSES.items():

    @measurement(f"behaviour.{_name}", _SECTION, CRASH)
    def beside(scale: Scale, folder: Path, sickness: Callable[[threading.Event], None] | None = _sickness) -> Figures:
        """A healthy file exporter, and perhaps another."""
        return _beside(sickness, scale, folder)


@measurement("behaviour.target is back", "After an outage", CRASH)
def back(scale: Scale, folder: Path) -> Figures:
    """From the return of the target until a backlog of 100,000 is through; nobody calls the pool meanwhile."""
    gate = Gate()
    pool = background([gate], folder)
    batches = scale.backlog // 2 // 1000
    many(pool, batches)
    time.sleep(scale.outage)  # the outage itself: pauses between attempts grow with it
    gate.up = True
    began = time.perf_counter()
    while gate.count < batches * 1000:
        if time.perf_counter() > began + _PATIENCE:
            raise RuntimeError(f"only {gate.count} of {batches * 1000} were through after {_PATIENCE:.0f} s")
        time.sleep(0.001)
    took = time.perf_counter() - began
    pool.close(0.0)
    return {"backlog through s": took}
