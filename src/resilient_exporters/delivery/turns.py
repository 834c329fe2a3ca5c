"""Who drives a lane: one thread at a time, the others wait for their turn, or for the driver to do it along."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from resilient_exporters.delivery.attempt import Outcome
from resilient_exporters.delivery.parcel import Parcel
from resilient_exporters.delivery.reentry import inside
from resilient_exporters.records import ExportResult

__all__ = ["Turns", "Waiting"]

_T = TypeVar("_T")


class Waiting:
    """Somebody who wants something of a lane that another thread may be driving.

    Attributes:
        parcel: The record to try, or None when the caller only wants to drive.
        called: Set when it is done, or when its turn to drive has come.
        drives: Whether its turn to drive has come.
        outcome: What came of the record; None = it was not tried.
        result: The result for its sender.
        refused: Why the target refused it for good, or None.
    """

    __slots__ = ("called", "drives", "outcome", "parcel", "refused", "result")

    def __init__(self, parcel: Parcel | None = None) -> None:
        self.parcel = parcel
        self.called: threading.Event | None = None
        self.drives = False
        self.outcome: Outcome | None = None
        self.result: ExportResult | None = None
        self.refused: str | None = None


class Turns:
    """The queue before one lane.

    An interrupt (Ctrl-C) may come between any two lines. The lock is therefore only ever taken by `with`, which the
    interpreter does not interrupt between taking it and being ready to give it back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._door = threading.Lock()
        self._queue: deque[Waiting] = deque()
        self.retired = False
        """Whether nobody is to drive any more. Set by the driver: who waits for a turn then is told so."""

    def drive(self, job: Callable[[], None], timeout: float, waiting: Waiting | None = None) -> bool:
        """Do a job as the lane's driver, behind those who came before.

        Args:
            job: Drives the lane.
            timeout: Seconds to wait for the turn, at least 0.
            waiting: What the caller wants done; another driver may do it along.

        Returns:
            Whether the job was done. False: `waiting.outcome` tells what came of it, or is None when the time is
            over, when this thread is inside an exporter already, or when the lane is retired.
        """
        if inside.here.exporter is not None:
            return False
        while self._lock.locked():  # also when somebody was quicker at our turn: then it comes again, first of all
            waiting = waiting or Waiting()
            if not self._wait(waiting, timeout):
                return False
        try:
            with self._lock:
                serves = not self.retired
                if serves:
                    job()
        finally:
            self._call_next()
        return serves

    def retire(self) -> None:
        """As the driver: let nobody drive any more."""
        self.retired = True

    def serve_again(self) -> None:
        """Take turns again after all."""
        self.retired = False

    def at_once(self, job: Callable[[Parcel], _T], parcel: Parcel) -> _T | None:
        """Do a job now, or not at all when somebody drives."""
        if self._lock.locked():
            return None
        try:
            with self._lock:
                return None if self.retired else job(parcel)
        finally:
            if self._queue:
                self._call_next()

    def is_free(self) -> bool:
        """Whether nobody drives at this moment."""
        return not self._lock.locked()

    def gather(self, mine: Waiting, most: int) -> list[Waiting]:
        """What can go in one batch with what the driver wants, oldest first, `most` at most."""
        group = [mine]
        if self._queue and mine.parcel is not None:
            with self._door:
                for other in list(self._queue):
                    if other.parcel is not None and other.parcel.goes_with(mine.parcel) and len(group) < most:
                        self._queue.remove(other)
                        group.append(other)
        return group

    def _wait(self, waiting: Waiting, timeout: float) -> bool:
        """Queue up; whether the turn to drive has come."""
        called = threading.Event()
        with self._door:
            (self._queue.appendleft if waiting.drives else self._queue.append)(waiting)
            waiting.called, waiting.drives = called, False
        try:
            if not self._lock.locked() and self._withdraw(waiting):  # the driver left without seeing us
                return True
            if not called.wait(timeout) and not self._withdraw(waiting):
                called.wait()  # a driver has it in hand: what comes of it must be known
        except BaseException:
            if not self._withdraw(waiting):
                self._call_next()  # its turn may have come at this moment: it goes to the next one
            raise
        return waiting.drives

    def _withdraw(self, waiting: Waiting) -> bool:
        with self._door:
            if waiting in self._queue:
                self._queue.remove(waiting)
                return True
            return False

    def _call_next(self) -> None:
        if self._queue:
            with self._door:
                following = self._queue.popleft() if self._queue else None
            if following is not None and following.called is not None:
                following.drives = True
                following.called.set()
