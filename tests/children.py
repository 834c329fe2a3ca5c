"""Children that are killed: forks of a process that has loaded everything, so that they begin at once."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Any, Self

__all__ = ["Child"]

_PRELOADED = [
    "pytest",
    "resilient_exporters",
    "resilient_exporters.exporters",
    "resilient_exporters.testing",
    "sqlite3",
]


class Child:
    """A child at work; what it writes to its standard output is heard line by line. Used as a context.

    Args:
        work: What it does, a function of a module; it must not return before it is killed.
        args: The arguments of the function.
    """

    def __init__(self, work: Callable[..., object], *args: Any) -> None:
        hears, says = multiprocessing.Pipe(duplex=False)
        self._process = _context().Process(target=_run, args=(says, work, args), daemon=True)
        self._process.start()
        says.close()
        self._lines = os.fdopen(os.dup(hears.fileno()), encoding="utf-8")
        hears.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.kill()
        self._process.join()
        self._lines.close()

    def hear(self, lines: int) -> list[str]:
        """The next lines it says, once it has said so many."""
        heard = [self._lines.readline() for _ in range(lines)]
        assert all(heard), "it ended by itself"
        return heard

    def kill(self) -> list[str]:
        """Kill it, wherever it is by now; the whole lines that it had said beyond what was heard."""
        self._process.kill()
        said = [line for line in self._lines if line.endswith("\n")]
        self._process.join()
        assert self._process.exitcode == -signal.SIGKILL, "it ended by itself"
        return said


@functools.cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def _run(says: Connection, work: Callable[..., object], args: tuple[Any, ...]) -> None:
    os.dup2(says.fileno(), 1)
    says.close()
    work(*args)
