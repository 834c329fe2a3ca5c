"""`ManualClock`, a clock that stands still until a test turns it."""

from __future__ import annotations

import threading

__all__ = ["ManualClock"]


class ManualClock:
    """Both clocks that delivery goes by: one that never jumps, and one that people read.

    Only what is computed from the time follows it; a thread that waits in the operating system does not wake earlier.

    Args:
        now: Seconds that `now` begins with.
        time: Seconds since the epoch that `time` begins with.

    Example:
        >>> clock = ManualClock()
        >>> clock.advance(2.5)
        >>> clock.now()
        2.5
    """

    def __init__(self, now: float = 0.0, time: float = 1_700_000_000.0) -> None:
        self._lock = threading.Lock()
        self._now = now
        self._time = time

    def now(self) -> float:
        """Seconds of the clock that never jumps."""
        return self._now

    def time(self) -> float:
        """Seconds since the epoch."""
        return self._time

    def advance(self, seconds: float) -> None:
        """Let time pass, on both clocks.

        Args:
            seconds: At least 0.

        Raises:
            ValueError: The clock would go backwards.
        """
        if not seconds >= 0:
            raise ValueError(f"time passes by at least 0 seconds, not {seconds!r}")
        with self._lock:
            self._now += seconds
            self._time += seconds

    def set_time(self, time: float) -> None:
        """Set the clock that people read, also backwards, as an operator or a time server does.

        Args:
            time: Seconds since the epoch.
        """
        self._time = time
