"""What is measured of the library's speed: keeping, draining, end to end, and what one call takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import ormsgpack

import resilient_exporters as rex
from bench.subject import (
    CRASH,
    DISK,
    LINES,
    MEMORY,
    POWER,
    RATE,
    Figures,
    Scale,
    measurement,
    record,
    stream,
    timed,
)
from resilient_exporters.policies import Safety

__all__ = ["Gate", "background", "each", "flushed", "many"]

_KEEPING = "Keeping, target down"
_CALLS = "What one call takes"
_PATIENCE = 120.0
"""Seconds after which a backlog that is not through is a failure."""


class Gate(rex.Exporter):
    """A target that is down until it is opened, and then takes everything.

    Args:
        name: Name of the exporter.
        reads: Whether it looks at each record's data.
    """

    def __init__(self, name: str = "gate", *, reads: bool = False) -> None:
        super().__init__(name=name)
        self.up = False
        self.reads = reads
        self.count = 0

    def export(self, batch: rex.Batch, **options: Any) -> None:
        if not self.up:
            raise rex.TargetDown("closed for the measurement")
        if self.reads:
            for taken in batch.records:
                taken.data  # noqa: B018  # reading it is what makes the object
        self.count += len(batch)


def background(
    exporters: list[rex.Exporter], folder: Path, *, safety: Safety = "process", use_memory: bool = False
) -> rex.ExporterPool:
    """A pool in background mode, with its file in `folder` unless it uses memory."""
    return rex.ExporterPool(
        exporters,
        num_threads=max(2, len(exporters)),
        wait_for_result=False,
        use_memory=use_memory,
        tmp_file=None if use_memory else folder / "spool",
        safety=safety,
    )


def flushed(pool: rex.ExporterPool) -> None:
    """Wait until everything is through; raises when something is left."""
    if not pool.flush(_PATIENCE):
        raise RuntimeError(f"not everything was delivered within {_PATIENCE:.0f} s")


def _gates(count: int) -> list[rex.Exporter]:
    return [Gate(f"gate-{number}") for number in range(count)]


def _beyond_payload(folder: Path, count: int) -> float:
    """Bytes per record on disk, state included, beyond the encoded data."""
    used = sum(path.stat().st_size for path in folder.iterdir())
    return used / count - len(ormsgpack.packb(record(0)))


def each(pool: rex.ExporterPool | _Plain, data: Iterable[Any]) -> None:
    """Send one at a time."""
    send = pool.send
    for one in data:
        send(one)


def many(pool: rex.ExporterPool, batches: int) -> None:
    """Send so many batches of 1000."""
    data = list(stream(1000))
    for _ in range(batches):
        pool.send_many(data)


# Keeping


def _keep_each(scale: Scale, folder: Path, exporters: int) -> Figures:
    """`send` records one at a time while all targets are down."""
    pool = background(_gates(exporters), folder)
    figures = timed(scale.records, lambda: each(pool, stream(scale.records)))
    pool.close(0.0)
    return {**figures, DISK: _beyond_payload(folder, scale.records)}


def _keep_batches(scale: Scale, folder: Path, exporters: int, safety: Safety) -> Figures:
    """`send_many` of 1000 records at a time while all targets are down."""
    pool = background(_gates(exporters), folder, safety=safety)
    batches = scale.records // 1000
    figures = timed(batches * 1000, lambda: many(pool, batches))
    pool.close(0.0)
    return {**figures, DISK: _beyond_payload(folder, batches * 1000)}


for _exporters, _suffix in ((1, ""), (10, " to 10")):

    @measurement(f"ours.send{_suffix}", _KEEPING, CRASH)
    def send(scale: Scale, folder: Path, exporters: int = _exporters) -> Figures:
        """One at a time."""
        return _keep_each(scale, folder, exporters)

    @measurement(f"ours.send_many{_suffix}", _KEEPING, CRASH)
    def send_many(scale: Scale, folder: Path, exporters: int = _exporters) -> Figures:
        """1000 at a time."""
        return _keep_batches(scale, folder, exporters, "process")


@measurement("ours.power send_many", _KEEPING, POWER)
def power_send_many(scale: Scale, folder: Path) -> Figures:
    """1000 at a time, synced."""
    return _keep_batches(scale, folder, 1, "power")


@measurement("ours.power send, 16 threads", _KEEPING, POWER)
def power_threads(scale: Scale, folder: Path) -> Figures:
    """16 threads, each of whose sends is synced."""
    pool = background(_gates(1), folder, safety="power")
    share = scale.syncs // 4
    threads = [threading.Thread(target=lambda: each(pool, stream(share))) for _ in range(16)]

    def loop() -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    figures = timed(share * len(threads), loop)
    pool.close(0.0)
    return figures


@measurement("ours.memory send", _KEEPING, MEMORY)
def memory_send(scale: Scale, folder: Path) -> Figures:
    """One at a time, kept in memory."""
    pool = background(_gates(1), folder, use_memory=True)
    figures = timed(scale.records, lambda: each(pool, stream(scale.records)))
    pool.close(0.0)
    return figures


# Draining


def _drain(scale: Scale, folder: Path, reads: bool) -> Figures:
    """Open a gate behind which a backlog waits."""
    gate = Gate(reads=reads)
    pool = background([gate], folder)
    batches = scale.backlog // 1000
    many(pool, batches)
    gate.up = True
    figures = timed(batches * 1000, lambda: flushed(pool))
    pool.close(0.0)
    if gate.count != batches * 1000:
        raise RuntimeError(f"{gate.count} records arrived of {batches * 1000}")
    return figures


@measurement("ours.drain, reading", "Draining", CRASH)
def drain_reading(scale: Scale, folder: Path) -> Figures:
    """To an exporter that reads each record."""
    return _drain(scale, folder, reads=True)


@measurement("ours.drain", "Draining", CRASH)
def drain(scale: Scale, folder: Path) -> Figures:
    """To an exporter that does nothing."""
    return _drain(scale, folder, reads=False)


# End to end


def _end_to_end(scale: Scale, folder: Path, sinks: int, data: Iterable[Any]) -> Figures:
    """One at a time, in the background, into local files."""
    pool = background([rex.FileExporter(folder / f"sink-{number}") for number in range(sinks)], folder)

    def loop() -> None:
        each(pool, data)
        flushed(pool)

    figures = timed(scale.records, loop)
    pool.close(0.0)
    return figures


for _sinks in (1, 4):

    @measurement(f"ours.files {_sinks}", "End to end, records into local files", CRASH)
    def files(scale: Scale, folder: Path, sinks: int = _sinks) -> Figures:
        """Records."""
        return _end_to_end(scale, folder, sinks, stream(scale.records))

    @measurement(f"ours.lines {_sinks}", "End to end, ready-made lines", CRASH)
    def lines(scale: Scale, folder: Path, sinks: int = _sinks) -> Figures:
        """Ready-made lines."""
        return _end_to_end(scale, folder, sinks, islice(cycle(LINES), scale.records))


# One call


@measurement("ours.send while each call takes 100 ms", _CALLS, CRASH)
def latency(scale: Scale, folder: Path) -> Figures:
    """`send`, 2 ms apart, while the target takes 100 ms for each record."""
    pool = background([rex.CallableExporter(lambda data: time.sleep(0.1), name="slow")], folder)
    clock, took = time.perf_counter, []
    for data in stream(scale.calls):
        began = clock()
        pool.send(data)
        took.append((clock() - began) * 1e6)
        time.sleep(0.002)
    pool.close(0.0)
    took.sort()
    return {"median us": took[len(took) // 2], "p99 us": took[len(took) * 99 // 100], "max us": took[-1]}


class _Taker(rex.Exporter):
    """An exporter of single records whose target is always there."""

    def send(self, data: Any = None, /, **kwargs: Any) -> rex.ExportResult:
        return _TAKEN


class _Plain:
    """The same `send` without the library."""

    def send(self, data: Any = None, /, **kwargs: Any) -> rex.ExportResult:
        return _TAKEN


_TAKEN = rex.ExportResult(None, True)


@measurement("ours.send, foreground", _CALLS, "the target has it, or it is kept in memory")
def foreground(scale: Scale, folder: Path) -> Figures:
    """What a pool in the caller's thread adds to the `send` of a healthy exporter."""
    with rex.ExporterPool([_Taker(name="taker")]) as pool:
        through = timed(scale.records, lambda: each(pool, stream(scale.records)))
    bare = timed(scale.records, lambda: each(_Plain(), stream(scale.records)))
    return {"added us": 1e6 / through[RATE] - 1e6 / bare[RATE]}
