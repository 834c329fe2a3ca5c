"""Knows what the current thread is doing for the library, so that a send made inside a send waits for nothing."""

from __future__ import annotations

import threading
from typing import Any

__all__ = ["at_work", "inside"]


class _Inside(threading.local):
    """What this thread is inside of.

    Attributes:
        calls: How many sends, passes and transforms of this library are on this thread's stack.
        exporter: The exporter whose `send` or `export` runs, or None.
        record: The record handed to it, or None.
    """

    calls: int = 0
    exporter: Any = None
    record: Any = None


inside = _Inside()


class _AtWork:
    """Marks the thread, so that a send made meanwhile on it waits for no lane."""

    def __enter__(self) -> None:
        inside.calls += 1

    def __exit__(self, *raised: object) -> None:
        inside.calls -= 1


at_work = _AtWork()
