"""What sick targets cost healthy ones: rate, `send` and memory with three healthy exporters, alone and beside sick."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import resilient_exporters as rex
from bench.memory import risen
from bench.pools import CountingFile, arrived, background, durations, each
from bench.subject import CRASH, RATE, Figures, Scale, measurement, stream, timed

__all__: list[str] = []

_HEALTHY = 3

Sickness = Callable[[threading.Event], object]
"""What a sick target does with a record; it may wait for the event, which ends the measurement."""


def _hang(end: threading.Event) -> None:
    end.wait()


def _be_down(end: threading.Event) -> None:
    raise rex.TargetDown("always down")


def _crawl(end: threading.Event) -> None:
    end.wait(0.1)


def _raise(end: threading.Event) -> None:
    raise ValueError("a bug in the exporter")


_SICKNESSES: dict[str, list[Sickness]] = {
    "one that hangs": [_hang],
    "one that is down": [_be_down],
    "one that takes 100 ms a call": [_crawl],
    "one that raises nonsense": [_raise],
    "all four of them": [_hang, _be_down, _crawl, _raise],
}


def _sick(number: int, sickness: Sickness, end: threading.Event) -> rex.Exporter:
    def take(data: Any) -> None:
        sickness(end)

    return rex.CallableExporter(take, name=f"sick-{number}")


def _beside(sicknesses: list[Sickness], scale: Scale, folder: Path) -> Figures:
    """Single calls first; then all at once, until the healthy ones have everything."""
    end = threading.Event()
    healthy = [CountingFile(folder / f"sink-{number}", name=f"healthy-{number}") for number in range(_HEALTHY)]
    sick = [_sick(number, sickness, end) for number, sickness in enumerate(sicknesses)]
    pool = background([*healthy, *sick], folder)
    calls = durations(pool, scale.calls)
    arrived(healthy, scale.calls)
    count = scale.records // 3
    figures: Figures = {}

    def loop() -> None:
        each(pool, stream(count))
        arrived(healthy, scale.calls + count)

    rise = risen(lambda: figures.update(timed(count, loop)))
    end.set()
    pool.close(0.0)
    return {
        RATE: figures[RATE],
        "`send`, median us": calls["median us"],
        "`send`, p99 us": calls["p99 us"],
        "rise MB": rise,
    }


def _register(name: str, sicknesses: list[Sickness]) -> None:
    @measurement(f"isolation.{name}", "Three healthy exporters beside sick ones", CRASH)
    def beside(scale: Scale, folder: Path) -> Figures:
        """Three file exporters, and perhaps others."""
        return _beside(sicknesses, scale, folder)


_register("alone", [])
for _name, _sicknesses in _SICKNESSES.items():
    _register(f"beside {_name}", _sicknesses)
