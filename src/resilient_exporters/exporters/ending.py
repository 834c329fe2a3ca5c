"""What happens to an engine when nobody closed it: its pool was dropped, or the interpreter ends."""

from __future__ import annotations

import atexit
import logging
import time
import warnings
import weakref
from typing import Any

from resilient_exporters.delivery.engine import Engine

__all__ = ["end", "watch"]

_EXIT_TIMEOUT = 5.0
"""Seconds that the end of the interpreter waits for background pools."""

_log = logging.getLogger("resilient_exporters")
_live: weakref.WeakSet[Engine] = weakref.WeakSet()


def watch(owner: Any, engine: Engine) -> weakref.finalize[Any, Any]:
    """End the engine when its owner is dropped, or at the end of the interpreter."""
    _live.add(engine)
    finalizer = weakref.finalize(owner, end, engine, 0.0, dropped=True)
    finalizer.atexit = False
    return finalizer


def end(engine: Engine, timeout: float, *, dropped: bool) -> None:
    """Close an engine, and say what is lost with it; an engine of the parent process is left alone."""
    if not engine.ours() or engine.ended:
        return
    left = engine.close(timeout)
    if left:
        line = "pool=%s records=%d: they were kept in memory only and are lost"
        engine.events.tell("closed_owing", line, engine.name, left, records=left)
        _say_at_least(f"closed_owing {line}", engine.name, left)
        if dropped:
            text = f"{engine.name} was dropped without close() while it owed {left} records in memory"
            warnings.warn(text, ResourceWarning, stacklevel=2)


def _say_at_least(line: str, *arguments: object) -> None:
    """Say a loss where `logging` says what nobody handles: our NullHandler would swallow it in a bare script."""
    logger: logging.Logger | None = _log
    while logger is not None:
        if not logger.propagate or any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers):
            return
        logger = logger.parent
    if logging.lastResort is not None and _log.isEnabledFor(logging.WARNING):
        logging.lastResort.handle(_log.makeRecord(_log.name, logging.WARNING, __file__, 0, line, arguments, None))


@atexit.register
def _end_all() -> None:
    """Background pools deliver what they can, all say what they leave."""
    ends = time.monotonic() + _EXIT_TIMEOUT
    for engine in list(_live):
        end(engine, max(ends - time.monotonic(), 0.0), dropped=False)
