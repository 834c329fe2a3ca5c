"""A receipt for one record: what became of it, for threads that wait and for tasks that await."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any

from resilient_exporters.exceptions import PoolClosed
from resilient_exporters.records import ExportResult

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["Receipt", "Receipts"]


class Receipt:
    """What `submit` returns: the record is accepted, its results come later.

    Attributes:
        kept: Whether the record is kept: True until every exporter has it, or it is lost.
    """

    __slots__ = ("_future", "_hurry", "_kept")

    def __init__(self, future: Future[Any], kept: bool, hurry: Callable[[], object] | None = None) -> None:
        self._future = future
        self._kept = kept
        self._hurry = hurry

    def _waited_for(self) -> Future[Any]:
        """The results, of which somebody wants to know now: lanes that wait for more records go on without."""
        if self._hurry is not None and not self._future.done():
            self._hurry()
        return self._future

    @property
    def kept(self) -> bool:
        if not self._future.done() or self._future.exception() is not None:
            return self._kept
        results = self._future.result()
        return any(result.kept for result in ([results] if isinstance(results, ExportResult) else results))

    def done(self) -> bool:
        """Whether each exporter has made its first attempt."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> Any:
        """What a waiting `send` would have returned, once each exporter has made its first attempt.

        Args:
            timeout: Most seconds to wait; None = as long as it takes.

        Raises:
            TimeoutError: Not all have by then.
            PoolClosed: The pool was closed before.
        """
        return self._waited_for().result(timeout)

    def __await__(self) -> Generator[Any, None, Any]:
        import asyncio  # who awaits has it loaded; it is the slowest import of all

        return asyncio.wrap_future(self._waited_for()).__await__()


class Receipts:
    """The receipts of one engine that wait for results."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, int], Pending] = {}
        self._lock = threading.RLock()  # a signal handler may submit while its thread is in here

    def __bool__(self) -> bool:
        return bool(self._open)

    def pending(self, lanes: Iterable[str], gather: Callable[[dict[str, ExportResult]], object]) -> Pending:
        """A receipt's future, and what is missing for it."""
        return Pending(set(lanes), gather)

    def expect(self, run: int, number: int, pending: Pending) -> None:
        """Collect the results of a record; called before it is kept."""
        with self._lock:
            self._open[run, number] = pending

    def settled(self, lane: str, run: int, numbers: Iterable[int], results: list[ExportResult]) -> None:
        """A lane has attempted these records."""
        for number, result in zip(numbers, results, strict=True):
            pending = self._open.get((run, number))
            if pending is not None and pending.answer(lane, result):
                with self._lock:
                    self._open.pop((run, number), None)

    def close(self) -> None:
        """No more results will come."""
        with self._lock:
            pending, self._open = list(self._open.values()), {}
        for one in pending:
            one.fail(PoolClosed("the pool was closed before every exporter had tried the record"))


class Pending:
    """Results of one record that come in lane by lane."""

    def __init__(self, lanes: set[str], gather: Callable[[dict[str, ExportResult]], object]) -> None:
        from concurrent.futures import Future  # loaded with the first receipt, not with the library

        self.future: Future[Any] = Future()
        self.future.set_running_or_notify_cancel()  # a task that gives up waiting must not cancel it
        self._gather = gather
        self._missing = lanes
        self._results: dict[str, ExportResult] = {}
        self._lock = threading.RLock()  # a signal handler may submit while its thread is in here

    def answer(self, lane: str, result: ExportResult) -> bool:
        """Take a lane's first result; whether it was the last one missing."""
        with self._lock:
            if lane not in self._missing:
                return False
            self._missing.discard(lane)
            self._results[lane] = result
            if self._missing:
                return False
        self.future.set_result(self._gather(self._results))
        return True

    def fail(self, error: Exception) -> None:
        """Nothing more will come."""
        if not self.future.done():
            self.future.set_exception(error)
