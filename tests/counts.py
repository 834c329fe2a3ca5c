"""How much the tests do where more is better: a little every day, and in CI what the promises are worth.

`COUNTS=ci` in the environment chooses the counts of CI.
"""

from __future__ import annotations

import os

__all__ = [
    "CI",
    "DAMAGES",
    "EXAMPLES",
    "HISTORIES",
    "KILLS",
    "MODELS",
    "MOMENTS",
    "RUNS",
    "SIGNALS",
    "STATES",
    "STRIDE",
]

CI = os.environ.get("COUNTS", "everyday") == "ci"


def _count(everyday: int, ci: int) -> int:
    return ci if CI else everyday


STATES = _count(1_500, 20_000)
"""States after a power cut in long histories, for each kind of spool."""
HISTORIES = _count(4, 3_000)
"""States that are tried after one cut in a short history, where there are more; in CI that is none."""
KILLS = _count(8, 200)
"""Real kills of each program that is killed, and lost replies of each exporter."""
RUNS = _count(6, 20)
"""Programs that are started anew, one after the other."""
MODELS = _count(90, 600)
"""Courses of events that a pool and its model are taken through."""
EXAMPLES = _count(50, 300)
"""Examples of one property."""
DAMAGES = _count(3, 1)
"""Every how many bytes a spool is cut and every how many a byte of it is flipped."""
MOMENTS = _count(17, 3)
"""Every how many bytes a spool that is audited is damaged."""
SIGNALS = _count(100, 300)
"""Signals that come in the middle of something."""
STRIDE = _count(5, 1)
"""Of the points at which a call may be interrupted, each so many-th is tried."""
