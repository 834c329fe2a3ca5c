"""Threads that run jobs side by side, at most so many at once, of which those that hang do not count."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections.abc import Callable

from resilient_exporters.delivery.clock import Clock

__all__ = ["Workers"]

_log = logging.getLogger("resilient_exporters")


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
        self._cond = threading.Condition()
        self._jobs: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._running: dict[int, float] = {}
        self._threads: set[threading.Thread] = set()
        self._stopped = False

    def run(self, job: Callable[[], None], at: float = 0.0) -> None:
        """Run a job as soon as there is a free place.

        Args:
            job: Must not raise.
            at: `clock.now()` before which it does not run.
        """
        with self._cond:
            if self._stopped:
                return
            heapq.heappush(self._jobs, (at, next(self._order), job))
            self._ensure_waiter_locked()
            self._cond.notify()

    def stop(self) -> None:
        """Start no more jobs; those that run end by themselves."""
        with self._cond:
            self._stopped = True
            self._jobs.clear()
            self._cond.notify_all()

    def _ensure_waiter_locked(self) -> None:
        if len(self._threads) > len(self._running):
            return
        thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads) + 1}", daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is shutting down: the threads there are must do
            self._threads.discard(thread)

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
        with self._cond:
            if self._running.pop(key, None) is not None:
                self._cond.notify()
            while not self._stopped:
                wait = self._wait_locked()
                if wait is None or wait > 0:
                    self._cond.wait(wait)
                    continue
                _, _, job = heapq.heappop(self._jobs)
                self._running[key] = self._clock.now()
                if self._jobs:
                    self._ensure_waiter_locked()
                    self._cond.notify()
                return job
            self._threads.discard(me)
            return None

    def _wait_locked(self) -> float | None:
        """Seconds until the next job may start; 0 = now, None = there is none, or no end in sight."""
        if not self._jobs:
            return None
        now = self._clock.now()
        due = self._jobs[0][0] - now
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
