"""Threads that run jobs side by side, at most so many at once, of which those that hang do not count."""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable

from resilient_exporters.delivery.clock import Clock

__all__ = ["MOMENT", "Workers"]

_log = logging.getLogger("resilient_exporters")

MOMENT = 0.0015
"""Seconds; long enough for hundreds of records to be sent, short enough to be nobody's delay."""


class Workers:
    """Daemon threads, made when there is work and kept until `stop`.

    A thread is either running a job or waiting for the next one to become due; while jobs wait there is always a
    waiting thread, so that somebody notices when a running job has become too old to count.

    Args:
        limit: Jobs that may run at once, at least 1; may be changed.
        grace: Seconds after which a running job counts no longer towards `limit`; None = it always counts.
        clock: Tells the time.
        name: For the threads' names.
    """

    def __init__(self, limit: int, grace: float | None, clock: Clock, name: str) -> None:
        self.limit = limit
        self._grace = grace
        self._clock = clock
        self._name = name
        self._lock = threading.RLock()
        """Taken by `with`, which no interrupt of a sender can leave half done; that of a condition can be."""
        self._cond = threading.Condition(self._lock)
        self._jobs: list[tuple[float, int, Callable[[], None]]] = []
        self._soon: deque[tuple[float, Callable[[], None]]] = deque()
        self._order = itertools.count()
        self._running: dict[int, float] = {}
        self._waiting: dict[int, float] = {}
        """`clock.now()` at which each waiting thread looks again by itself."""
        self._called = False
        """Whether a thread was called that has not looked yet."""
        self._threads: set[threading.Thread] = set()
        self._stopped = False

    def run(self, job: Callable[[], None], at: float = 0.0) -> None:
        """Run a job as soon as there is a free place.

        Args:
            job: Must not raise.
            at: `clock.now()` before which it does not run.
        """
        with self._lock:
            if not self._stopped:
                heapq.heappush(self._jobs, (at, next(self._order), job))
                self._call_somebody_locked()

    def soon(self, job: Callable[[], None]) -> None:
        """Run a job after a moment, `MOMENT`, that passes also when `clock` stands still.

        Args:
            job: Must not raise.
        """
        with self._lock:
            if not self._stopped:
                # All that wait for a moment wait for the same one: lanes that look together find the same records.
                at = self._soon[-1][0] if self._soon else time.monotonic() + MOMENT
                self._soon.append((at, job))
                self._call_somebody_locked()

    def stop(self) -> None:
        """Start no more jobs; those that run end by themselves."""
        with self._lock:
            self._stopped = True
            self._jobs.clear()
            self._soon.clear()
            self._cond.notify_all()

    def _call_somebody_locked(self) -> None:
        """See to it that a thread looks when the next job may start; one that does so by itself is left alone."""
        wait = self._wait_locked()
        if wait is None:
            return
        if len(self._threads) <= len(self._running):
            self._start_locked()
        elif not self._called and min(self._waiting.values(), default=0.0) > self._clock.now() + wait:
            self._cond.notify()
            self._called = True

    def _start_locked(self) -> None:
        thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads) + 1}", daemon=True)
        try:
            self._threads.add(thread)
            thread.start()
        except RuntimeError:  # the interpreter is shutting down: the threads there are must do
            self._threads.discard(thread)
        except BaseException:  # whether it runs or not: one too many does no harm
            self._threads.discard(thread)
            raise

    def _work(self) -> None:
        me = threading.current_thread()
        while (job := self._take(me)) is not None:
            try:
                job()
            except BaseException:  # a job that raises is a defect of this library: say so and go on serving others
                _log.exception("worker_job_failed")
            finally:
                del job

    def _take(self, me: threading.Thread) -> Callable[[], None] | None:
        """Wait for a job that may run now; None when the workers were stopped."""
        key = id(me)
        with self._lock:
            self._running.pop(key, None)
            while not self._stopped:
                self._called = False
                wait = self._wait_locked()
                if wait is None or wait > 0:
                    self._waiting[key] = math.inf if wait is None else self._clock.now() + wait
                    self._cond.wait(wait)
                    del self._waiting[key]
                    continue
                _, _, job = heapq.heappop(self._jobs)
                self._running[key] = self._clock.now()
                self._call_somebody_locked()
                return job
            self._threads.discard(me)
            return None

    def _wait_locked(self) -> float | None:
        """Seconds until the next job may start; 0 = now, None = there is none, or no end in sight."""
        due = self._due_locked()
        if due is None:
            return None
        now = self._clock.now()
        ages = sorted(now - began for began in self._running.values())
        if self._grace is None:
            young, oldest = len(ages), None
        else:
            fresh = [age for age in ages if age < self._grace]
            young, oldest = len(fresh), (fresh[-1] if fresh else None)
        if young < self.limit:
            return max(due, 0.0)
        if oldest is None or self._grace is None:
            return None
        return max(due, self._grace - oldest, 0.001)

    def _due_locked(self) -> float | None:
        """Seconds until the next job is due, negative when it has been; None when there is none."""
        soon = None
        while self._soon and soon is None:
            left = self._soon[0][0] - time.monotonic()
            if left > 0:
                soon = left
            else:
                heapq.heappush(self._jobs, (0.0, next(self._order), self._soon.popleft()[1]))
        if not self._jobs:
            return soon
        due = self._jobs[0][0] - self._clock.now()
        return due if soon is None else min(due, soon)
