"""Knows what the current thread is doing for the library, so that a send made inside a send waits for nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["at_work", "inside"]

_T = TypeVar("_T")


class Here:
    """What one thread is inside of.

    Attributes:
        calls: How many sends, passes and transforms of this library are on the thread's stack.
        exporter: The exporter whose `send` or `export` runs, or None.
        record: The record handed to it, or None.
    """

    __slots__ = ("calls", "exporter", "record")

    def __init__(self) -> None:
        self.calls = 0
        self.exporter: Any = None
        self.record: Any = None


class _Inside(threading.local):
    """Has for each thread what it is inside of: one object, because looking into a thread's own store takes time."""

    here = Here()
    """What a finalizer gets that runs while its thread's own object is being made."""

    def __init__(self) -> None:
        self.here = Here()


inside = _Inside()


def at_work(job: Callable[[], _T]) -> _T:
    """Do a job with the thread marked, so that a send made meanwhile on it waits for no lane.

    The mark is set inside `try`: an interrupt between any two lines leaves it as it was.
    """
    here = inside.here
    before = here.calls
    try:
        here.calls = before + 1
        return job()
    finally:
        here.calls = before
