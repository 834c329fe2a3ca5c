"""Knows what the current thread is doing for the library, so that a send made inside a send waits for nothing."""

from __future__ import annotations

import threading
from typing import Any

__all__ = ["inside"]


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
