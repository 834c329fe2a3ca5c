"""What a measurement is, the record that all of them handle, and how a loop is timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

__all__ = [
    "CPU",
    "CRASH",
    "DISK",
    "LINES",
    "MEMORY",
    "NOTHING",
    "OUTAGE",
    "POWER",
    "RATE",
    "REGISTRY",
    "SCALES",
    "THERE",
    "Figures",
    "Measurement",
    "Scale",
    "measurement",
    "record",
    "recovered",
    "stream",
    "timed",
    "timed_within",
]

# What a returned call guarantees.
NOTHING = "nothing is kept"
MEMORY = "memory"
CRASH = "survives kill -9"
POWER = "survives a power cut"
THERE = "the target has it, or it is kept in memory"

# Names of figures; they head the columns.
RATE = "records/s"
CPU = "CPU us/record"
DISK = "bytes beyond payload"

# The table that ours and the peers share though their modules differ.
OUTAGE = "After an outage"

Figures = dict[str, float]


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Args:
        records: Records of a measurement without syncs.
        syncs: Syncs of a measurement that syncs.
        backlog: Records that are drained, or found at opening.
        calls: Calls whose duration is looked at.
        seconds: Most seconds that filling a peer, or draining it, goes on.
        outage: Seconds that a target stays down before it comes back.
        patience: Most seconds that a peer gets for a backlog after an outage.
        kills: How often a process is killed.
        large: Records of the large backlog.
    """

    records: int = 300_000
    syncs: int = 2_000
    backlog: int = 200_000
    calls: int = 1_000
    seconds: float = 0.7
    outage: float = 2.0
    patience: float = 10.0
    kills: int = 200
    large: int = 31_000_000


SCALES = {"quick": Scale(10_000, 100, 10_000, 100, 0.3, 0.2, 1.0, 3, 50_000), "full": Scale()}


@dataclass(frozen=True)
class Measurement:
    """A function that is run in a process of its own and returns figures.

    Args:
        name: `module.subject...`, where the module is one of this package.
        run: Gets the scale and an empty folder.
        section: Heading of the table that shows its figures.
        guarantee: What a returned call guarantees.
        once: Whether one round is enough: it repeats by itself, or takes long.
    """

    name: str
    run: Callable[[Scale, Path], Figures]
    section: str
    guarantee: str
    once: bool = False


REGISTRY: dict[str, Measurement] = {}


def measurement(
    name: str, section: str, guarantee: str, *, once: bool = False
) -> Callable[[Callable[[Scale, Path], Figures]], Callable[[Scale, Path], Figures]]:
    """Register a function as a measurement; the arguments are those of `Measurement`."""

    def register(run: Callable[[Scale, Path], Figures]) -> Callable[[Scale, Path], Figures]:
        REGISTRY[name] = Measurement(name, run, section, guarantee, once)
        return run

    return register


def record(number: int) -> dict[str, Any]:
    """A record of 8 mixed fields, 200 bytes as compact JSON."""
    return {
        "id": 1_000_000_000 + number,
        "time": 1_700_000_000.25 + number % 1000,
        "host": "edge-gateway-0042.plant.example",
        "metric": "temperature",
        "value": 21.5 + number % 7,
        "ok": True,
        "tags": ["north", "hall 3", "line 12"],
        "note": "sent by a device every second",
    }


_DISTINCT = 1000
"""So many different records are enough that no store saves space by seeing the same one again and again."""
_RECORDS = [record(number) for number in range(_DISTINCT)]
LINES = [f"{number:07d} {'a line of text, ready to be written as it is. ' * 4}........" for number in range(_DISTINCT)]


def stream(count: int) -> Iterator[dict[str, Any]]:
    """That many records, made beforehand."""
    return islice(cycle(_RECORDS), count)


def timed(count: int, loop: Callable[[], object]) -> Figures:
    """Run a loop over `count` records; its rate, and the processor time of the whole process."""
    cpu, began = time.process_time(), time.perf_counter()
    loop()
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {RATE: count / took, CPU: cpu / count * 1e6}


def timed_within(seconds: float, items: Iterable[Any], do: Callable[[Any], object]) -> tuple[int, Figures]:
    """As `timed`, over as many items as can be done in `seconds`; their number as well."""
    count = 0
    cpu, began = time.process_time(), time.perf_counter()
    ends = began + seconds
    for item in items:
        do(item)
        count += 1
        if time.perf_counter() > ends:
            break
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    return count, {RATE: count / took, CPU: cpu / count * 1e6}


def recovered(backlog: int, arrived: int, seconds: float) -> Figures:
    """What came of a backlog: a slow queue may run out of time before it is through."""
    return {RATE: arrived / seconds, "backlog": float(backlog), "arrived": float(arrived), "seconds": seconds}
