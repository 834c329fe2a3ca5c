"""Who drives a lane: one thread at a time, nobody forgotten, and interrupts that leave no lock behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from resilient_exporters.delivery.parcel import Parcel
from resilient_exporters.delivery.reentry import inside
from resilient_exporters.delivery.turns import Turns, Waiting
from tests.delivery.targets import PATIENCE, in_threads


def parcel(number: int, options: bytes = b"") -> Parcel:
    return Parcel(1, number, 0.0, b"x", options, 0)


@contextmanager
def driven(turns: Turns) -> Iterator[None]:
    """The lane is driven by another thread until the block ends."""
    began, ends = threading.Event(), threading.Event()

    def job() -> None:
        began.set()
        assert ends.wait(PATIENCE)

    thread = threading.Thread(target=turns.drive, args=(job, PATIENCE), daemon=True)
    thread.start()
    assert began.wait(PATIENCE)
    try:
        yield
    finally:
        ends.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_one_drives_at_a_time() -> None:
    """Many threads that want to drive do so one after the other, and each gets its turn."""
    turns, inside_now, most, done = Turns(), [0], [0], []

    def job(number: int) -> None:
        inside_now[0] += 1
        most[0] = max(most[0], inside_now[0])
        done.append(number)
        inside_now[0] -= 1

    def drive(thread: int) -> None:
        for i in range(200):
            assert turns.drive(lambda: job(1000 * thread + i), PATIENCE)  # noqa: B023  # called at once

    assert [] == in_threads(*(lambda thread=thread: drive(thread) for thread in range(8)))
    assert (1, 1600, 1600) == (most[0], len(done), len(set(done)))
    assert turns.is_free()


def test_a_job_that_raises_leaves_the_lane_free() -> None:
    """An interrupt of the driver reaches the driver only."""
    turns = Turns()
    for interrupt in (KeyboardInterrupt, SystemExit, ValueError):
        with pytest.raises(interrupt):
            turns.drive(raising(interrupt), PATIENCE)
        assert turns.is_free()
        assert turns.drive(lambda: None, 0.0)


def raising(error: type[BaseException]) -> Callable[[], None]:
    def job() -> None:
        raise error

    return job


def test_who_waits_goes_when_the_time_is_over() -> None:
    """A waiter leaves after its time, with nothing done."""
    turns, done = Turns(), []
    waiting = Waiting(parcel(1))
    with driven(turns):
        assert not turns.drive(lambda: done.append(1), 0.01, waiting)
        assert [waiting_alone := Waiting(parcel(2))] == turns.gather(waiting_alone, 10)
    assert ([], None) == (done, waiting.outcome)


def test_who_queues_when_the_driver_has_just_left() -> None:
    """A waiter that joins the queue after the driver has looked at it drives at once, without being called."""
    assert Turns()._wait(Waiting(), 0.01)


def test_inside_an_exporter_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that is inside an exporter gets no turn, also of a lane that is free."""
    monkeypatch.setattr(inside.here, "exporter", object())
    assert not Turns().drive(lambda: None, PATIENCE)


def test_a_driver_takes_along_what_fits() -> None:
    """What waits and can be in the same batch is taken along, oldest first, and no more than asked for."""
    turns = Turns()
    waiting = [Waiting(parcel(n, b"other" if n == 3 else b"")) for n in range(1, 6)]
    with driven(turns):
        threads = [
            threading.Thread(target=turns.drive, args=(lambda: None, PATIENCE, one), daemon=True) for one in waiting
        ]
        for number, thread in enumerate(threads, 1):
            thread.start()
            _until_queued(turns, number)
        mine = Waiting(parcel(9))
        assert [mine, waiting[0], waiting[1], waiting[3]] == turns.gather(mine, 4)
        for one in (waiting[0], waiting[1], waiting[3]):
            assert one.called is not None
            one.called.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert [False, False, True, False, True] == [one.drives for one in waiting]


def _until_queued(turns: Turns, count: int) -> None:
    """Return when so many threads wait for their turn: there is nothing to be signalled by."""
    for _ in range(int(PATIENCE * 1000)):
        if len(turns._queue) >= count:
            return
        threading.Event().wait(0.001)
    raise AssertionError("nobody queues")


def test_an_interrupted_waiter_passes_its_turn_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """When Ctrl-C hits a waiter at the moment its turn comes, the one behind it is called instead."""

    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            came = super().wait(timeout)
            if threading.current_thread().name == "interrupted":
                raise KeyboardInterrupt
            return came

    turns, done = Turns(), []
    raised: list[BaseException] = []

    def interrupted() -> None:
        try:
            turns.drive(lambda: done.append("first"), PATIENCE)
        except KeyboardInterrupt as interrupt:
            raised.append(interrupt)

    first = threading.Thread(target=interrupted, name="interrupted", daemon=True)
    second = threading.Thread(target=turns.drive, args=(lambda: done.append("second"), 10 * PATIENCE), daemon=True)
    with driven(turns):
        monkeypatch.setattr("resilient_exporters.delivery.turns.threading.Event", Interrupted)
        first.start()
        _until_queued(turns, 1)
        second.start()
        _until_queued(turns, 2)
        monkeypatch.undo()
    for thread in (first, second):
        thread.join(PATIENCE)
        assert not thread.is_alive(), "nobody was called"
    assert (["second"], 1) == (done, len(raised))


def test_a_called_waiter_does_not_outstay_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """When another takes the lane before a waiter that was called, the waiter still leaves after its time."""
    turns = Turns()
    hung, release = threading.Event(), threading.Event()

    def hang() -> None:
        hung.set()
        assert release.wait(PATIENCE)

    barging = threading.Thread(target=turns.drive, args=(hang, PATIENCE), daemon=True)

    class Slow(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            came = super().wait(timeout)
            if threading.current_thread() is waiter and not hung.is_set():
                barging.start()
                assert hung.wait(PATIENCE)
            return came

    waiter = threading.Thread(target=turns.drive, args=(lambda: None, 0.3), daemon=True)
    with driven(turns):
        monkeypatch.setattr("resilient_exporters.delivery.turns.threading.Event", Slow)
        waiter.start()
        _until_queued(turns, 1)
    try:
        waiter.join(PATIENCE / 4)
        assert not waiter.is_alive(), "the waiter hangs with the target"
    finally:
        release.set()
        barging.join(PATIENCE)
        waiter.join(PATIENCE)
