"""Worker threads: their limit, hung jobs that do not count, jobs planned for later."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from resilient_exporters.delivery.clock import SystemClock
from resilient_exporters.delivery.workers import MOMENT, Workers
from resilient_exporters.testing.clock import ManualClock
from tests.delivery.targets import PATIENCE


class Jobs:
    """Jobs that stay until they are let go, and tell when they run."""

    def __init__(self) -> None:
        self.running = self.most = self.done = 0
        self.changed = threading.Condition()
        self.go = threading.Event()

    def __call__(self) -> None:
        with self.changed:
            self.running += 1
            self.most = max(self.most, self.running)
            self.changed.notify_all()
        assert self.go.wait(PATIENCE)
        with self.changed:
            self.running -= 1
            self.done += 1
            self.changed.notify_all()

    def wait(self, reached: Callable[[], bool], seconds: float = PATIENCE) -> bool:
        with self.changed:
            return self.changed.wait_for(reached, seconds)


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    made = Jobs()
    yield made
    made.go.set()


def test_no_more_than_the_limit(jobs: Jobs) -> None:
    """As many jobs as allowed run at once, and all of them in the end."""
    workers = Workers(3, None, SystemClock(), "w")
    for _ in range(10):
        workers.run(jobs)
    assert jobs.wait(lambda: jobs.running == 3)
    assert not jobs.wait(lambda: jobs.running > 3, 0.05)
    jobs.go.set()
    assert jobs.wait(lambda: jobs.done == 10)
    assert 3 == jobs.most
    workers.stop()


def test_hung_jobs_do_not_count(jobs: Jobs) -> None:
    """Jobs that run for longer than the grace make room for others, so that these are never starved."""
    workers = Workers(2, 0.05, SystemClock(), "w")
    for _ in range(6):
        workers.run(jobs)
    assert jobs.wait(lambda: jobs.running == 6)
    workers.stop()


def test_young_jobs_count(jobs: Jobs) -> None:
    """By a clock that stands still no job ever becomes too old."""
    clock = ManualClock()
    workers = Workers(1, 1.0, clock, "w")
    workers.run(jobs)
    workers.run(jobs)
    assert jobs.wait(lambda: jobs.running == 1)
    assert not jobs.wait(lambda: jobs.running == 2, 0.05)
    clock.advance(1.5)
    workers.run(jobs)
    assert jobs.wait(lambda: jobs.running == 2)
    workers.stop()


def test_a_higher_limit_is_in_force_at_the_next_job(jobs: Jobs) -> None:
    """The limit may be raised while jobs run."""
    workers = Workers(1, None, SystemClock(), "w")
    workers.run(jobs)
    workers.run(jobs)
    assert jobs.wait(lambda: jobs.running == 1)
    workers.limit = 3
    workers.run(jobs)
    assert jobs.wait(lambda: jobs.running == 3)
    workers.stop()


def test_jobs_in_the_order_of_their_time() -> None:
    """Jobs run when their time has come, earlier ones first, equal ones in the order in which they were planned."""
    clock = ManualClock(now=100.0)
    workers = Workers(1, None, clock, "w")
    ran: list[str] = []
    done = threading.Event()
    for name, at in (("c", 103.0), ("a", 101.0), ("b", 101.0)):
        workers.run(lambda name=name: ran.append(name), at)  # type: ignore[misc]  # a default
    workers.run(lambda: ran.append("now"))
    clock.advance(5.0)
    workers.run(done.set, 104.0)
    assert done.wait(PATIENCE)
    assert ["now", "a", "b", "c"] == sorted(ran, key=["now", "a", "b", "c"].index)
    assert ran.index("a") < ran.index("b") < ran.index("c")
    workers.stop()


def test_a_job_that_raises_costs_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    """A defect in a job is told, and the thread goes on."""
    workers = Workers(1, None, SystemClock(), "w")
    done = threading.Event()
    with caplog.at_level(logging.CRITICAL + 1, "resilient_exporters"):
        for _ in range(5):
            workers.run(broken)
        workers.run(done.set)
        assert done.wait(PATIENCE)
    assert len(workers._threads) <= 2
    workers.stop()


def test_threads_are_used_again() -> None:
    """A thousand jobs one after the other need no thousand threads."""
    workers = Workers(2, None, SystemClock(), "w")
    threads: set[int] = set()
    done = threading.Semaphore(0)

    def job() -> None:
        threads.add(threading.get_ident())
        done.release()

    for _ in range(1000):
        workers.run(job)
        assert done.acquire(timeout=PATIENCE)
    assert len(threads) <= 3
    workers.stop()


def test_after_stop_nothing_starts(jobs: Jobs) -> None:
    """`stop` forgets what is planned; what runs ends by itself, and its thread with it."""
    workers = Workers(1, None, SystemClock(), "w")
    workers.run(jobs)
    assert jobs.wait(lambda: jobs.running == 1)
    workers.run(jobs)
    workers.stop()
    workers.run(jobs)
    jobs.go.set()
    assert jobs.wait(lambda: jobs.done == 1)
    for thread in list(workers._threads):
        thread.join(PATIENCE)
    assert (1, set()) == (jobs.done, workers._threads)


def test_threads_end_with_the_interpreter(jobs: Jobs) -> None:
    """Worker threads are daemons: a hung target does not keep a program from ending."""
    workers = Workers(1, None, SystemClock(), "pool")
    workers.run(jobs)
    (thread,) = workers._threads
    assert thread.daemon
    assert thread.name.startswith("pool")
    workers.stop()


def test_a_moment_passes_although_the_clock_stands_still(jobs: Jobs) -> None:
    """What is to run soon needs nobody to turn a clock by hand, and what is planned by that clock still waits."""
    workers = Workers(2, None, ManualClock(), "w")
    planned: list[str] = []
    workers.run(lambda: planned.append("planned"), 1.0)
    workers.soon(jobs)
    assert jobs.wait(lambda: jobs.running == 1)
    assert [] == planned
    workers.stop()


def test_moments_end_together(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is to run soon runs with those who wait already: lanes that look together find the same records."""
    monkeypatch.setattr(Workers, "_call_somebody_locked", lambda self: None)
    workers = Workers(2, None, ManualClock(), "w")
    workers.soon(jobs)
    (first,) = workers._soon
    while time.monotonic() == first[0] - MOMENT:
        pass
    workers.soon(jobs)
    assert [at for at, _ in workers._soon] == [first[0]] * 2
    workers.stop()


def broken() -> None:
    raise ZeroDivisionError
