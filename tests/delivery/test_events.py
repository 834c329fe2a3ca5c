"""Events: one call logs and notifies, in order, in the thread that met them, outside the mutex of the lane."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from resilient_exporters.delivery.background import Background
from resilient_exporters.delivery.engine import Engine
from resilient_exporters.delivery.events import Events
from resilient_exporters.delivery.reentry import inside
from resilient_exporters.delivery.settings import Settings
from resilient_exporters.exceptions import TargetDown, TimeoutError
from resilient_exporters.spool.memory import MemorySpool
from resilient_exporters.status import Event
from resilient_exporters.testing.clock import ManualClock
from tests.delivery.targets import PATIENCE, FakeTarget, send


def test_an_event_is_logged_and_told(caplog: pytest.LogCaptureFixture) -> None:
    """The log line begins with the event's name, and observers get all of it, in their order."""
    told: list[tuple[int, Event]] = []
    clock = ManualClock(now=1000.0)
    events = Events("pool", clock, [lambda event: told.append((1, event)), lambda event: told.append((2, event))])
    with caplog.at_level(logging.WARNING, "resilient_exporters"):
        events.tell("target_down", "exporter=%s error=%s", "t", "E: x", exporter="t", records=3, error="E: x")
    event = Event("target_down", "pool", "t", 3, "E: x", clock.time())
    assert [(1, event), (2, event)] == told
    assert ["target_down exporter=t error=E: x"] == [record.getMessage() for record in caplog.records]


def test_each_observer_s_failure_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Two observers that raise at each event are two lines in the log."""

    def bad(event: Event) -> None:
        raise ZeroDivisionError

    def worse(event: Event) -> None:
        raise AssertionError

    events = Events("pool", ManualClock(), [bad, worse])
    with caplog.at_level(logging.WARNING, "resilient_exporters"):
        events.notify("orphans")
        events.notify("orphans")
    assert ["ZeroDivisionError", "AssertionError"] == [
        record.getMessage().split("error=")[1].split(":")[0] for record in caplog.records
    ]


def test_an_interrupt_in_an_observer_reaches_the_caller() -> None:
    """Ctrl-C is nobody's failure: it is not swallowed, and leaves the thread unmarked."""

    def interrupted(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Events("pool", ManualClock(), [interrupted]).notify("orphans")
    assert 0 == inside.here.calls


def until(reached: Callable[[], bool]) -> None:
    """Return when something is true that threads bring about, which tell nobody of it."""
    ends = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < ends
        time.sleep(0)


def engine_with(observer: Any, **targets: FakeTarget) -> Engine:
    """An engine whose events one observer gets."""
    engine = Engine("pool", Settings(observers=(observer,)), MemorySpool(), ManualClock(now=1000.0))
    for name, target in targets.items():
        engine.add(name, target)
    return engine


def fails(data: list[Any]) -> TargetDown:
    """The judge of a target that is down."""
    return TargetDown("down")


def test_observers_run_at_work_and_without_the_mutex() -> None:
    """An observer finds the lane's mutex free, itself marked, and the state as the event says."""
    found: list[tuple[bool, int, str]] = []

    def look(event: Event) -> None:
        lane = engine.lanes["t"]
        found.append((lane.mutex.locked(), inside.here.calls, lane.state))

    target = FakeTarget(fails)
    engine = engine_with(look, t=target)
    send(engine, 1)
    target.judge = lambda data: None
    engine.send_unsent(["t"])
    assert [False, False] == [locked for locked, _, _ in found]
    assert all(calls >= 1 for _, calls, _ in found)
    assert ["down", "up"] == [state for _, _, state in found]


def test_what_comes_and_goes_is_told_in_pairs() -> None:
    """Within a minute a flapping target is told once, and each `target_up` ends a `target_down` that was told."""
    told: list[str] = []
    target = FakeTarget()
    engine = engine_with(lambda event: told.append(event.what), t=target)
    for number in range(6):
        target.judge = fails if number % 2 == 0 else lambda data: None
        send(engine, number)
        engine.send_unsent(["t"])
    assert ["target_down", "target_up"] == told


def test_a_lane_that_retires_refuses_those_who_wait() -> None:
    """A record that waits for its turn while the lane retires is not tried, and owed to the lane's name."""
    entered, leave = threading.Event(), threading.Event()

    def slow(data: list[Any]) -> None:
        entered.set()
        leave.wait(PATIENCE)

    target = FakeTarget(slow, batches=False)
    engine = engine_with(lambda event: None, t=target)
    lane = engine.lanes["t"]
    first = threading.Thread(target=send, args=(engine, 1), daemon=True)
    first.start()
    assert entered.wait(PATIENCE)
    remover = threading.Thread(target=engine.remove, args=(["t"],), kwargs={"waits": True}, daemon=True)
    remover.start()
    until(lambda: len(lane.turns._queue) == 1)
    second = threading.Thread(target=send, args=(engine, 2), daemon=True)
    second.start()
    until(lambda: len(lane.turns._queue) == 2)
    leave.set()
    for thread in (first, remover, second):
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert ([1], ["t"], 1) == (target.got, engine.orphans(), engine.spool.account("t").records)


def test_a_lane_at_work_is_not_removed() -> None:
    """When a call outlives the patience, the exporter stays and goes on as before."""
    entered, leave = threading.Event(), threading.Event()

    def slow(data: list[Any]) -> None:
        entered.set()
        leave.wait(PATIENCE)

    target = FakeTarget(slow, timeout=0.01)
    engine = engine_with(lambda event: None, other=FakeTarget(), t=target)
    sender = threading.Thread(target=send, args=(engine, 1), daemon=True)
    sender.start()
    assert entered.wait(PATIENCE)
    with pytest.raises(TimeoutError, match="t is at work"):
        engine.remove(["other", "t"], waits=True)
    leave.set()
    sender.join(PATIENCE)
    send(engine, 2)
    assert ([1, 2], [1, 2]) == (target.got, engine.lanes["other"].target.got)  # type: ignore[attr-defined]


def test_nobody_waits_for_a_lane_that_was_removed() -> None:
    """Who waits in the background for everything to be delivered does not wait for a removed lane."""
    settings = Settings(num_threads=2, waits=False)
    engine = Engine("pool", settings, MemorySpool(), ManualClock(now=1000.0))
    engine.add("t", FakeTarget(fails))
    send(engine, 1)
    background: Background = engine.background()
    lanes = list(engine.lanes.values())
    done = threading.Event()

    def wait() -> None:
        background.drain(lanes, None)
        done.set()

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    engine.remove(["t"], waits=True)
    assert done.wait(PATIENCE)
    assert background.force("t", []).is_set()
    engine.close(0.0)
