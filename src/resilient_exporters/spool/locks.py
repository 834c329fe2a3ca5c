"""Taking a lock only if it is free, in a way that an exception thrown in from outside cannot break."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["if_free"]

T = TypeVar("T")


def if_free(lock: threading.RLock, work: Callable[[], T], otherwise: T) -> T:
    """Do `work` while holding a lock; `otherwise` when another thread has it."""
    got = False
    try:
        # One step of a loop takes the lock and notes it: a signal handler that raises (Ctrl-C) runs between calls, and
        # would find a lock that is taken and not noted behind a plain `got = lock.acquire(...)`.
        for got in map(lock.acquire, (False,)):  # noqa: B007 - it is used behind the loop
            pass
        return work() if got else otherwise
    finally:
        if got:
            lock.release()
