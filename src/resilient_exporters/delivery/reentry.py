"""Knows what the current thread is doing for the library, so that a send made inside a send waits for nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["at_work", "inside"]

_T = TypeVar("_T")


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


def at_work(job: Callable[[], _T]) -> _T:
    """Do a job with the thread marked, so that a send made meanwhile on it waits for no lane.

    The mark is set inside `try`: an interrupt between any two lines leaves it as it was.
    """
    before = inside.calls
    try:
        inside.calls = before + 1
        return job()
    finally:
        inside.calls = before
