"""Runs one measurement in this process and prints its figures as JSON: `python -m bench.measure NAME SCALE FOLDER`."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

from bench.subject import REGISTRY, SCALES

__all__ = ["main"]


def main(name: str, scale: str, folder: str) -> None:
    """Run a measurement; only its own module is imported, so that no other subject weighs on it."""
    import_module(f"bench.{name.partition('.')[0]}")
    figures = REGISTRY[name].run(SCALES[scale], Path(folder))
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
