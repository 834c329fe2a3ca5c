"""The command line of the benchmark: choose, measure, print the tables and write them into the documentation."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from bench.aims import topics
from bench.page import page
from bench.rounds import run_rounds
from bench.rows import Row, needs
from bench.subject import REGISTRY, SCALES, Measurement

__all__ = ["main"]

_ROOT = Path(__file__).resolve().parent.parent
_MODULES = [
    "bare",
    "ours",
    "postgresql",
    "footprint",
    "isolation",
    "outage",
    "peers",
    "predecessor",
    "kills",
    "profile",
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the arguments ask for, and print the tables."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds is at least 1")
    for module in _MODULES:
        import_module(f"bench.{module}")
    scale = "quick" if options.quick else "full"
    rows, measurements = _chosen(topics(SCALES[scale]), options.only)
    if not measurements:
        parser.error(f"nothing is called {options.only!r}")
    rounds = run_rounds(measurements, 1 if options.quick else options.rounds, scale, options.folder, _tell)
    text = page(rows, measurements, rounds, options.folder, SCALES[scale])
    print(text)
    output = options.output or (None if options.quick or options.only else _ROOT / "docs" / "benchmarks.md")
    if output is not None:
        output.write_text(text + "\n", encoding="utf-8")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (default: 5)")
    parser.add_argument("--only", metavar="PATTERN", help="only what this regular expression finds by text or name")
    parser.add_argument("--quick", action="store_true", help="one round of small counts: shows that all of it works")
    parser.add_argument(
        "--folder", type=Path, default=_ROOT / "build" / "bench", help="where to keep files, 6 GB at most (build/bench)"
    )
    parser.add_argument("--output", type=Path, help="file for the tables (docs/benchmarks.md when all is measured)")
    return parser


def _chosen(rows: dict[str, list[Row]], only: str | None) -> tuple[dict[str, list[Row]], list[Measurement]]:
    """The rows asked for with all that they are made of, and the measurements asked for by name."""
    if only is None:
        return rows, list(REGISTRY.values())
    pattern = re.compile(only, re.IGNORECASE)
    rows = {topic: [row for row in members if pattern.search(row.text)] for topic, members in rows.items()}
    needed = {name for members in rows.values() for row in members for name in needs(row, REGISTRY)}
    return rows, [each for name, each in REGISTRY.items() if name in needed or pattern.search(name)]


if __name__ == "__main__":
    main()
