"""Delivery in the background: nothing stranded, hung and dead targets in nobody's way, pauses kept."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from resilient_exporters.delivery.clock import SystemClock
from resilient_exporters.delivery.engine import Engine
from resilient_exporters.delivery.keeper import Keep
from resilient_exporters.delivery.settings import Settings
from resilient_exporters.exceptions import RecordsRefused, TargetDown
from resilient_exporters.policies import Rate, Retry
from resilient_exporters.spool.memory import MemorySpool
from tests.delivery.targets import PATIENCE, FakeTarget, Verdict, down, in_threads, shipment

MakeEngine = Callable[..., Engine]


@pytest.fixture
def background() -> Iterator[MakeEngine]:
    """Makes engines that deliver in the background, and closes them in the end."""
    made: list[Engine] = []

    def make(threads: int = 2, retry: Retry | None = None, **targets: FakeTarget) -> Engine:
        settings = Settings(num_threads=threads, waits=False, retry=retry or Retry(base=0.01, cap=0.05))
        engine = Engine("pool", settings, MemorySpool(), SystemClock())
        for name, target in targets.items():
            engine.add(name, target)
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.close(0.0)


def send(engine: Engine, data: Any) -> None:
    assert engine.send([shipment(engine, data)], Keep(), reentrant=False) is None


def up(data: list[Any]) -> Verdict:
    return None


class Gate:
    """Holds calls back until it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def __call__(self, data: list[Any]) -> Verdict:
        assert self.open.wait(PATIENCE)
        return None


@pytest.mark.parametrize("batches", [True, False])
def test_all_goes_out_in_order(background: MakeEngine, batches: bool) -> None:
    """What is sent arrives at each target, in order, once."""
    a, b = FakeTarget(batches=batches), FakeTarget(batches=not batches)
    engine = background(a=a, b=b)
    for i in range(500):
        send(engine, i)
    assert engine.flush(PATIENCE)
    assert list(range(500)) == a.got == b.got


def test_nothing_is_stranded_when_lanes_go_idle(background: MakeEngine) -> None:
    """Eight threads send while lanes fall idle all the time: whatever was kept goes out without another push."""
    a, b = FakeTarget(), FakeTarget(batches=False)
    engine = background(a=a, b=b)

    def sender(thread: int) -> Callable[[], None]:
        def job() -> None:
            for i in range(150):
                send(engine, 1000 * thread + i)
                if i % 3 == 0:  # let lanes come to rest: the next record must wake them
                    a.wait_for(lambda: len(a.got) > 0)

        return job

    assert [] == in_threads(*(sender(thread) for thread in range(8)))
    expected = sorted(1000 * thread + i for thread in range(8) for i in range(150))
    for target in (a, b):
        target.wait_for(lambda target=target: len(target.got) >= len(expected))  # type: ignore[misc]  # a default
        assert expected == sorted(target.got)


def test_a_record_that_comes_when_its_lane_has_just_found_nothing(
    background: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record kept between the lane's last look and its coming to rest goes out without another push."""
    target = FakeTarget()
    engine = background(2, Retry(base=1e9, cap=1e9), t=target)
    lane = engine.lanes["t"]
    owed, late = lane.owed, ["late"]

    def looked() -> int:
        found = owed()
        if not found and target.got and late:
            assert [] == in_threads(lambda: send(engine, late.pop()))
        return found

    monkeypatch.setattr(lane, "owed", looked)
    send(engine, "first")
    target.wait_for(lambda: target.got == ["first", "late"])


def test_each_single_record_wakes_its_lane(background: MakeEngine) -> None:
    """A record that comes at the very moment its lane falls idle is not left lying: 500 times one after the other."""
    target = FakeTarget()
    engine = background(t=target)
    for i in range(500):
        send(engine, i)
        target.wait_for(lambda i=i: len(target.got) > i)  # type: ignore[misc]  # a default
    assert list(range(500)) == target.got


def test_a_stream_of_records_does_not_wake_its_lane_for_each(
    background: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lane that lingers is woken by nobody, and has what was sent meanwhile in its next look."""
    moments: list[Callable[[], None]] = []
    target = FakeTarget()
    engine = background(t=target)
    driver = engine.background()
    monkeypatch.setattr(driver.workers, "soon", moments.append)
    send(engine, 0)
    with driver.progress:
        assert driver.progress.wait_for(lambda: len(moments) == 1, PATIENCE)
    for i in range(1, 100):
        assert not driver.asleep
        send(engine, i)
    assert [0] == target.got
    moments[0]()
    assert [[0], list(range(1, 100))] == target.calls
    moments[1]()  # it finds nothing: only now it rests, and must be woken
    assert driver.asleep
    send(engine, 100)
    target.wait_for(lambda: target.got == list(range(101)))


def test_a_lane_that_has_taken_all_gives_the_next_records_a_moment(
    background: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes in during a call is not taken at once, a few records at a time, but with what follows."""
    moments: list[Callable[[], None]] = []
    gate = Gate()
    target = FakeTarget(gate)
    engine = background(t=target)
    driver = engine.background()
    monkeypatch.setattr(driver.workers, "soon", moments.append)
    send(engine, 0)
    target.wait_for(lambda: len(target.calls) == 1)
    send(engine, 1)
    gate.open.set()
    with driver.progress:
        assert driver.progress.wait_for(lambda: len(moments) == 1, PATIENCE)
    assert [[0]] == target.calls
    send(engine, 2)
    moments[0]()
    assert [[0], [1, 2]] == target.calls


@pytest.mark.parametrize("ask", [lambda engine: engine.background().hurry(), lambda engine: engine.flush(PATIENCE)])
def test_who_waits_is_not_kept_by_a_lane_that_lingers(
    background: MakeEngine, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Engine], object]
) -> None:
    """Whoever waits for a record makes the lane look at once, however long its moment lasts."""
    target = FakeTarget()
    engine = background(t=target)
    driver = engine.background()
    moments: list[Callable[[], None]] = []
    monkeypatch.setattr(driver.workers, "soon", moments.append)
    send(engine, 0)
    with driver.progress:
        assert driver.progress.wait_for(lambda: len(moments) == 1, PATIENCE)
    send(engine, 1)
    ask(engine)
    target.wait_for(lambda: target.got == [0, 1])


def test_a_target_that_comes_back_gets_all_without_a_push(background: MakeEngine) -> None:
    """After an outage everything goes out by itself, in order."""
    target = FakeTarget(down())
    engine = background(t=target)
    for i in range(50):
        send(engine, i)
    target.wait_for(lambda: len(target.calls) >= 3)
    target.judge = up
    target.wait_for(lambda: len(target.got) == 50)
    assert list(range(50)) == target.got


def test_new_records_do_not_hammer_a_target_that_is_down(background: MakeEngine) -> None:
    """While the pause after a failure lasts, nothing that is sent makes the lane try."""
    target = FakeTarget(down(retry_after=1000.0))
    engine = background(t=target)
    send(engine, 0)
    target.wait_for(lambda: len(target.calls) == 1)
    with engine.background().progress:
        assert engine.background().progress.wait_for(
            lambda: engine.background().next_attempt("t") is not None, PATIENCE
        )
    for i in range(1, 50):
        send(engine, i)
    assert 1 == len(target.calls)
    assert 900.0 < (engine.background().next_attempt("t") or 0.0) <= 1000.0


def test_a_lane_held_back_by_its_rate_tells_when_it_goes_on(background: MakeEngine) -> None:
    """The next attempt of a lane whose rate is used up is when the rate allows another record."""
    target = FakeTarget(rate=Rate(records=0.001))
    engine = background(t=target)
    send(engine, 1)
    target.wait_for(lambda: [1] == target.got)
    send(engine, 2)
    with engine.background().progress:
        assert engine.background().progress.wait_for(
            lambda: engine.background().next_attempt("t") is not None, PATIENCE
        )
    assert 900.0 < (engine.background().next_attempt("t") or 0.0) <= 1000.0


def test_a_hung_target_delays_nobody(background: MakeEngine) -> None:
    """A call that hangs takes no thread from the others for longer than a second, and nothing of `send`."""
    gate = Gate()
    hung = [FakeTarget(gate), FakeTarget(gate)]
    well = FakeTarget()
    engine = background(2, h1=hung[0], h2=hung[1], well=well)
    try:
        for i in range(100):
            send(engine, i)
        well.wait_for(lambda: len(well.got) == 100)
        assert [1, 1] == [target.most_running for target in hung]
    finally:
        gate.open.set()
    assert engine.flush(PATIENCE)
    assert [list(range(100))] * 3 == [hung[0].got, hung[1].got, well.got]


def test_never_two_calls_into_one_exporter(background: MakeEngine) -> None:
    """However many push a lane at once, one call runs in its exporter."""
    target = FakeTarget(batches=False)
    engine = background(4, t=target, other=FakeTarget())

    def sender() -> None:
        for i in range(50):
            send(engine, i)

    def pusher() -> None:
        for _ in range(50):
            engine.send_unsent(["t", "other"])

    assert [] == in_threads(sender, sender, pusher, pusher)
    assert engine.flush(PATIENCE)
    assert (1, 100) == (target.most_running, len(target.got))


def test_the_first_calls_may_come_all_at_once(background: MakeEngine) -> None:
    """Threads that make the background start at the same moment find all lanes served."""
    for _ in range(40):
        engine = background(a=FakeTarget(), b=FakeTarget(), c=FakeTarget())
        assert [] == in_threads(*[lambda engine=engine: engine.send_unsent(["c", "b", "a"])] * 4)


def test_asking_makes_a_pass_at_once(background: MakeEngine) -> None:
    """`send_unsent` does not wait for the pause to end, and tells what came of each record tried."""
    target = FakeTarget(down(retry_after=1000.0))
    engine = background(t=target)
    send(engine, 0)
    target.wait_for(lambda: len(target.calls) == 1)
    assert [(None, False)] == engine.send_unsent(["t"])
    target.judge = up
    send(engine, 1)
    assert [(None, True)] * 2 == engine.send_unsent(["t"])


def test_asking_does_not_wait_for_a_hung_target_for_ever(background: MakeEngine) -> None:
    """`send_unsent` returns after the exporter's time although its call does not."""
    gate = Gate()
    target = FakeTarget(gate, timeout=0.1)
    engine = background(t=target)
    send(engine, 0)
    target.wait_for(lambda: target.running == 1)
    try:
        assert [] == engine.send_unsent(["t"])
        assert not engine.flush(0.05)
    finally:
        gate.open.set()


def test_bad_records_hide_no_good_ones(background: MakeEngine) -> None:
    """Thirty records that fail for unknown reasons do not keep those behind them from going out."""
    target = FakeTarget(lambda data: ValueError("bad") if data[0] < 30 else None, batches=False)
    engine = background(t=target)
    for i in range(60):
        send(engine, i)
    target.wait_for(lambda: len(target.got) == 30)
    assert list(range(30, 60)) == sorted(target.got)
    assert 30 == engine.owing()["t"]


def test_refused_records_become_dead_letters(background: MakeEngine) -> None:
    """A record refused for good is a dead letter, and delivery goes on."""

    def judge(data: list[Any]) -> Verdict:
        bad = {i: "odd" for i, one in enumerate(data) if one % 10 == 9}
        return RecordsRefused(permanent=bad) if bad else None

    target = FakeTarget(judge)
    engine = background(t=target)
    for i in range(100):
        send(engine, i)
    assert engine.flush(PATIENCE)
    (lane,) = engine.status().exporters
    assert (90, 10, 0) == (lane.delivered, lane.dead, lane.owed)


@pytest.mark.parametrize("interrupt", [SystemExit, KeyboardInterrupt])
def test_an_exporter_that_wants_to_end_the_program(
    background: MakeEngine, interrupt: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """SystemExit in the background is a failure like any other: paced, the record kept, others served."""
    raised = itertools.count()

    def judge(data: list[Any]) -> Verdict:
        next(raised)
        return interrupt()

    ending, well = FakeTarget(judge), FakeTarget()
    engine = background(2, Retry(base=1000.0, cap=1000.0), ending=ending, well=well)
    for i in range(20):
        send(engine, i)
    well.wait_for(lambda: len(well.got) == 20)
    assert 20 == engine.owing()["ending"]
    threading.Event().wait(0.1)
    assert next(raised) < 5
    assert {"target_down"} == {record.getMessage().split()[0] for record in caplog.records}


def test_without_keeping_each_record_has_one_attempt(background: MakeEngine) -> None:
    """With nothing kept, a record is tried once in the background, and dropped when that fails."""
    target = FakeTarget(lambda data: TargetDown("down") if data[0] % 2 else None, batches=False)
    engine = background(t=target)
    engine.settings.saves = False
    for i in range(20):
        send(engine, i)
    assert engine.flush(PATIENCE)
    assert list(range(20)) == [one for call in target.calls for one in call]
    (lane,) = engine.status().exporters
    assert (10, 0, 10) == (lane.delivered, lane.owed, lane.dropped)


def test_by_hand_new_records_are_tried_once(background: MakeEngine) -> None:
    """By hand, new records go out in the background, those that fail only on request."""
    target = FakeTarget(lambda data: ValueError() if data[0] == 1 else None, batches=False)
    engine = background(t=target)
    engine.settings.manual = True
    for i in range(4):
        send(engine, i)
    target.wait_for(lambda: len(target.got) == 3)
    assert [0, 2, 3] == target.got
    target.judge = up
    send(engine, 4)
    target.wait_for(lambda: len(target.got) == 4)
    assert [0, 2, 3, 4] == target.got
    engine.send_unsent(["t"])
    assert [0, 2, 3, 4, 1] == target.got


def test_a_lane_that_joins_later_is_served(background: MakeEngine) -> None:
    """An exporter that is added while others are served gets what is sent from then on."""
    a, b = FakeTarget(), FakeTarget()
    engine = background(a=a)
    send(engine, 0)
    a.wait_for(lambda: a.got == [0])
    engine.add("b", b)
    send(engine, 1)
    b.wait_for(lambda: b.got == [1])
    assert engine.flush(PATIENCE)
    assert ([0, 1], [1]) == (a.got, b.got)


def test_a_call_that_outlives_the_pool_settles_nothing(background: MakeEngine) -> None:
    """After `close` a hung call may end: it raises nowhere, and its thread goes."""
    gate = Gate()
    target = FakeTarget(gate)
    engine = background(t=target)
    send(engine, 0)
    target.wait_for(lambda: target.running == 1)
    engine.close(0.0)
    gate.open.set()
    target.wait_for(lambda: target.got == [0])
    for thread in list(engine.background().workers._threads):
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_removed_exporter_is_let_go_of(background: MakeEngine) -> None:
    """Neither what was planned for a lane nor the look whether its call is over in time keep its exporter alive."""
    engine = background(stays=FakeTarget())
    target = FakeTarget(timeout=1000.0)
    engine.add("goes", target)
    send(engine, 1)
    assert engine.flush(PATIENCE)
    engine.remove(["goes"], waits=True)
    gone = weakref.ref(target)
    del target
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.01)):
        gc.collect()
        if gone() is None:
            return
        pause.wait(0.01)
    pytest.fail("it is still there")
