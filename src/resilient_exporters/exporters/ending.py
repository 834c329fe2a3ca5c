"""What happens to an engine when nobody closed it: its pool was dropped, or the interpreter ends."""

from __future__ import annotations

import atexit
import time
import warnings
import weakref
from typing import Any

from resilient_exporters.delivery.engine import Engine

__all__ = ["end", "watch"]

_EXIT_TIMEOUT = 5.0
"""Seconds that the end of the interpreter waits for background pools."""

_live: weakref.WeakSet[Engine] = weakref.WeakSet()


def watch(owner: Any, engine: Engine) -> weakref.finalize[Any, Any]:
    """End the engine when its owner is dropped, or at the end of the interpreter."""
    _live.add(engine)
    finalizer = weakref.finalize(owner, end, engine, 0.0, dropped=True)
    finalizer.atexit = False
    return finalizer


def end(engine: Engine, timeout: float, *, dropped: bool) -> None:
    """Close an engine, and say what is lost with it; an engine of the parent process is left alone."""
    if not engine.ours() or engine.closed:
        return
    left = engine.close(timeout)
    if left:
        line = "pool=%s records=%d: they were kept in memory only and are lost"
        engine.events.tell("closed_owing", line, engine.name, left, records=left)
        if dropped:
            text = f"{engine.name} was dropped without close() while it owed {left} records in memory"
            warnings.warn(text, ResourceWarning, stacklevel=2)


@atexit.register
def _end_all() -> None:
    """Background pools deliver what they can, all say what they leave."""
    ends = time.monotonic() + _EXIT_TIMEOUT
    for engine in list(_live):
        end(engine, max(ends - time.monotonic(), 0.0), dropped=False)
