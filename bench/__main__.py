"""The command line of the benchmark: choose, measure, print the tables and write them into the documentation."""

from __future__ import annotations

import argparse
import datetime
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from bench.machine import described
from bench.rounds import run_rounds
from bench.rows import ROWS, Outcome, Row, needs
from bench.subject import REGISTRY, SCALES, Measurement
from bench.table import aims, details

__all__ = ["main"]

_ROOT = Path(__file__).resolve().parent.parent
_MODULES = ["bare", "ours", "peers", "predecessor", "footprint", "behaviour", "kills"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the arguments ask for, and print the tables."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds is at least 1")
    for module in _MODULES:
        import_module(f"bench.{module}")
    scale = "quick" if options.quick else "large" if options.large else "full"
    rows, measurements = _chosen(options.only, with_large=options.large)
    if not measurements:
        parser.error(f"nothing is called {options.only!r}")
    rounds = 1 if options.quick else options.rounds
    found = run_rounds(measurements, rounds, scale, options.folder, _tell)
    page = _page(rows, measurements, found, options.folder, scale)
    print(page)
    output = options.output or (None if options.quick or options.only else _ROOT / "docs" / "benchmarks.md")
    if output is not None:
        output.write_text(page + "\n", encoding="utf-8")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (default: 5)")
    parser.add_argument("--only", metavar="PATTERN", help="only what this regular expression finds by text or name")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="one round of small counts: shows that all of it works")
    size.add_argument("--large", action="store_true", help="also 20 million records, 5 GB, 200 kills; 10 GB of disk")
    parser.add_argument(
        "--folder", type=Path, default=_ROOT / "build" / "bench", help="where to keep files (build/bench)"
    )
    parser.add_argument("--output", type=Path, help="file for the tables (docs/benchmarks.md when all is measured)")
    return parser


def _chosen(only: str | None, *, with_large: bool) -> tuple[list[Row], list[Measurement]]:
    """The rows asked for with all that they are made of, and the measurements asked for by name."""
    available = {name: each for name, each in REGISTRY.items() if with_large or not each.large}
    if only is None:
        return ROWS, list(available.values())
    pattern = re.compile(only, re.IGNORECASE)
    rows = [row for row in ROWS if pattern.search(row.text)]
    needed = {name for row in rows for name in needs(row, available)}
    return rows, [each for name, each in available.items() if name in needed or pattern.search(name)]


def _page(
    rows: Sequence[Row],
    measurements: Sequence[Measurement],
    found: Sequence[dict[str, Outcome]],
    folder: Path,
    scale: str,
) -> str:
    """The page of the documentation."""
    guarantees = {each.name: each.guarantee for each in measurements}
    facts = {
        "Date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        **described(folder),
        "Rounds": f"{len(found)}, with {SCALES[scale]}",
    }
    return "\n\n".join(
        [
            "# Benchmarks",
            "Written by `scripts/bench`, which measures all in one go, each measurement in a process of its own.\n"
            "One record is a dict of 8 mixed fields, 200 bytes as JSON.\n"
            "Ratios are made within a round; the tables show the median over the rounds, with minimum and maximum.",
            "\n".join(f"- {what}: {value}" for what, value in facts.items()),
            "## Aims",
            aims(rows, found, guarantees),
            "## All figures",
            details(measurements, found),
        ]
    )


if __name__ == "__main__":
    main()
