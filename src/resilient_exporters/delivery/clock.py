"""The two clocks delivery goes by, in one object so that tests can turn them by hand."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> float:
        """Seconds of a clock that never jumps; for intervals."""

    def time(self) -> float:
        """Seconds since the epoch; for what people and other machines read."""


class SystemClock:
    """The machine's own clocks."""

    now = staticmethod(time.monotonic)
    time = staticmethod(time.time)
