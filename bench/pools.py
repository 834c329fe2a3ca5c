"""The pools and targets that the measurements of the library share, and how they are fed and waited for."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import resilient_exporters as rex
from bench.subject import Figures, stream
from resilient_exporters.policies import Safety

__all__ = [
    "TAKEN",
    "CountingFile",
    "Gate",
    "SingleGate",
    "arrived",
    "background",
    "durations",
    "each",
    "flushed",
    "many",
]

TAKEN = rex.ExportResult(None, True)
_PATIENCE = 300.0
"""Seconds after which a backlog that is not through is a failure."""


class Gate(rex.Exporter):
    """A target that is down until it is opened, and then takes everything.

    Args:
        name: Name of the exporter.
        reads: Whether it looks at each record's data.
        up: Whether it is open from the start.
    """

    def __init__(self, name: str = "gate", *, reads: bool = False, up: bool = False) -> None:
        super().__init__(name=name)
        self.up = up
        self.reads = reads
        self.count = 0
        self.first_at = 0.0
        """When the first batch came, on the clock of `time.perf_counter`."""

    def export(self, batch: rex.Batch, **options: Any) -> None:
        if not self.up:
            raise rex.TargetDown("closed for the measurement")
        self.first_at = self.first_at or time.perf_counter()
        if self.reads:
            for data in batch.data:
                assert data
        self.count += len(batch)


class SingleGate(rex.Exporter):
    """The same for an exporter that takes one record a call.

    Args:
        name: Name of the exporter.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self.up = False
        self.count = 0

    def send(self, data: Any = None, /, **kwargs: Any) -> rex.ExportResult:
        if not self.up:
            raise rex.TargetDown("closed for the measurement")
        self.count += 1
        return TAKEN


class CountingFile(rex.FileExporter):
    """A file exporter that counts what is in its file."""

    count = 0

    def export(self, batch: rex.Batch, **options: Any) -> None:
        super().export(batch)
        self.count += len(batch)


class _Counting(Protocol):
    count: int


class _Sending(Protocol):
    def send(self, data: Any, /) -> object: ...


def background(
    exporters: Iterable[rex.Exporter], folder: Path, *, safety: Safety = "process", use_memory: bool = False
) -> rex.ExporterPool:
    """A pool in background mode, with its file in `folder` unless it uses memory."""
    members = list(exporters)
    return rex.ExporterPool(
        members,
        num_threads=max(2, len(members)),
        wait_for_result=False,
        use_memory=use_memory,
        tmp_file=None if use_memory else folder / "spool",
        safety=safety,
    )


def each(pool: _Sending, data: Iterable[Any]) -> None:
    """Send one at a time."""
    send = pool.send
    for one in data:
        send(one)


def many(pool: rex.ExporterPool, batches: int, thousand: Iterable[Any] | None = None) -> None:
    """Send a batch of 1000 again and again; of records, unless others are given."""
    data = list(stream(1000) if thousand is None else thousand)
    for _ in range(batches):
        pool.send_many(data)


def flushed(pool: rex.ExporterPool) -> None:
    """Wait until everything is through; raises when something is left."""
    if not pool.flush(_PATIENCE):
        raise RuntimeError(f"not everything was delivered within {_PATIENCE:.0f} s")


def arrived(targets: Iterable[_Counting], count: int) -> None:
    """Wait, without asking the pool for anything, until each target has that many; raises when one has not."""
    ends = time.perf_counter() + _PATIENCE
    for target in targets:
        while target.count < count:
            if time.perf_counter() > ends:
                raise RuntimeError(f"only {target.count} of {count} had arrived after {_PATIENCE:.0f} s")
            time.sleep(0.001)


def durations(pool: rex.ExporterPool, calls: int) -> Figures:
    """What single calls of `send` take, a millisecond apart."""
    clock, took = time.perf_counter, []
    for data in stream(calls):
        began = clock()
        pool.send(data)
        took.append((clock() - began) * 1e6)
        time.sleep(0.001)
    took.sort()
    return {"median us": took[len(took) // 2], "p99 us": took[len(took) * 99 // 100], "max us": took[-1]}
