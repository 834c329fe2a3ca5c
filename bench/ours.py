"""What is measured of the library's speed: keeping, draining, end to end, and what one call takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import ormsgpack

import resilient_exporters as rex
from bench.pools import TAKEN, Gate, SingleGate, background, durations, each, flushed, many
from bench.subject import (
    CRASH,
    DISK,
    LINES,
    MEMORY,
    POWER,
    RATE,
    THERE,
    Figures,
    Scale,
    measurement,
    record,
    stream,
    timed,
)
from resilient_exporters.policies import Safety

__all__: list[str] = []

_KEEPING = "Keeping, target down"
_DRAINING = "Draining"
_CALLS = "What one call takes"


def _gates(count: int) -> list[Gate]:
    return [Gate(f"gate-{number}") for number in range(count)]


def _beyond_payload(folder: Path, count: int) -> float:
    """Bytes per record on disk, state included, beyond the encoded data."""
    used = sum(path.stat().st_size for path in folder.iterdir())
    return used / count - len(ormsgpack.packb(record(0)))


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
    return _drained(scale.backlog, folder, [Gate(reads=reads)])


def _drained(backlog: int, folder: Path, gates: Sequence[Gate | SingleGate]) -> Figures:
    """Open gates behind which a backlog waits."""
    pool = background(gates, folder)
    batches = backlog // 1000
    many(pool, batches)
    for gate in gates:
        gate.up = True
    figures = timed(batches * 1000, lambda: flushed(pool))
    pool.close(0.0)
    for gate in gates:
        if gate.count != batches * 1000:
            raise RuntimeError(f"{gate.count} records arrived of {batches * 1000}")
    return figures


@measurement("ours.drain, reading", _DRAINING, CRASH)
def drain_reading(scale: Scale, folder: Path) -> Figures:
    """To an exporter that reads each record."""
    return _drain(scale, folder, reads=True)


@measurement("ours.drain", _DRAINING, CRASH)
def drain(scale: Scale, folder: Path) -> Figures:
    """To an exporter that does nothing."""
    return _drain(scale, folder, reads=False)


for _singles in (1, 2):

    @measurement(f"ours.drain, single records to {_singles}", _DRAINING, CRASH)
    def drain_single(scale: Scale, folder: Path, singles: int = _singles) -> Figures:
        """To exporters that take a record a call, and do nothing with it."""
        gates = [SingleGate(f"gate-{number}") for number in range(singles)]
        return _drained(scale.backlog // 10, folder, gates)


# End to end


def _end_to_end(count: int, folder: Path, sinks: int, feed: Callable[[rex.ExporterPool], None]) -> Figures:
    """In the background, into local files, until all is there."""
    pool = background([rex.FileExporter(folder / f"sink-{number}") for number in range(sinks)], folder)

    def loop() -> None:
        feed(pool)
        flushed(pool)

    figures = timed(count, loop)
    pool.close(0.0)
    return figures


for _sinks in (1, 4):

    @measurement(f"ours.files {_sinks}", "End to end, records into local files", CRASH)
    def files(scale: Scale, folder: Path, sinks: int = _sinks) -> Figures:
        """Records, one at a time."""
        return _end_to_end(scale.records, folder, sinks, lambda pool: each(pool, stream(scale.records)))

    @measurement(f"ours.files in bulk {_sinks}", "End to end, records into local files", CRASH)
    def files_in_bulk(scale: Scale, folder: Path, sinks: int = _sinks) -> Figures:
        """Records, 1000 at a time."""
        batches = scale.records // 1000
        return _end_to_end(batches * 1000, folder, sinks, lambda pool: many(pool, batches))

    @measurement(f"ours.lines {_sinks}", "End to end, ready-made lines", CRASH)
    def lines(scale: Scale, folder: Path, sinks: int = _sinks) -> Figures:
        """Ready-made lines, one at a time."""
        return _end_to_end(scale.records, folder, sinks, lambda pool: each(pool, islice(cycle(LINES), scale.records)))

    @measurement(f"ours.lines in bulk {_sinks}", "End to end, ready-made lines", CRASH)
    def lines_in_bulk(scale: Scale, folder: Path, sinks: int = _sinks) -> Figures:
        """Ready-made lines, 1000 at a time."""
        batches = scale.records // 1000
        return _end_to_end(batches * 1000, folder, sinks, lambda pool: many(pool, batches, LINES))


# One call


@measurement("ours.send while each call takes 100 ms", _CALLS, CRASH)
def latency(scale: Scale, folder: Path) -> Figures:
    """`send` while the target takes 100 ms for each record."""
    pool = background([rex.CallableExporter(lambda data: time.sleep(0.1), name="slow")], folder)
    figures = durations(pool, scale.calls)
    pool.close(0.0)
    return figures


class _Taker(rex.Exporter):
    """An exporter of single records whose target is always there."""

    def send(self, data: Any = None, /, **kwargs: Any) -> rex.ExportResult:
        return TAKEN


class _Plain:
    """The same `send` without the library."""

    def send(self, data: Any = None, /, **kwargs: Any) -> rex.ExportResult:
        return TAKEN


@measurement("ours.send, foreground", _CALLS, THERE)
def foreground(scale: Scale, folder: Path) -> Figures:
    """What a pool in the caller's thread adds to the `send` of a healthy exporter."""
    with rex.ExporterPool([_Taker(name="taker")]) as pool:
        through = timed(scale.records, lambda: each(pool, stream(scale.records)))
    bare = timed(scale.records, lambda: each(_Plain(), stream(scale.records)))
    return {"added us": 1e6 / through[RATE] - 1e6 / bare[RATE]}
