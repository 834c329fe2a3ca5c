"""How much memory this process has in use, and by how much that rises while something runs; Linux only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

__all__ = ["resident", "risen"]

_FORGET_THE_HIGHEST = "5"
"""What `/proc/self/clear_refs` takes for it."""


def resident() -> int:
    """Resident bytes of this process."""
    return _bytes("VmRSS")


def risen(run: Callable[[], object]) -> float:
    """Run something; by how many MB resident memory was above where it began, at its highest."""
    Path("/proc/self/clear_refs").write_text(_FORGET_THE_HIGHEST)
    before = resident()
    run()
    return (_bytes("VmHWM") - before) / 1e6


def _bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise LookupError(field)
