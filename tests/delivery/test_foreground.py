"""Senders that wait: what is owed first, who drives for whom, pauses, interrupts, calls that come back late."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from typing import Any

import pytest

from resilient_exporters import codec
from resilient_exporters.delivery.clock import SystemClock
from resilient_exporters.delivery.engine import Engine
from resilient_exporters.delivery.keeper import Keep
from resilient_exporters.delivery.parcel import Lot
from resilient_exporters.delivery.settings import Settings
from resilient_exporters.exceptions import Queued, RecordsRefused, SpoolFull, TargetDown, TimeoutError
from resilient_exporters.exporters.function import CallableExporter
from resilient_exporters.exporters.pool import ExporterPool
from resilient_exporters.records import ExportResult
from resilient_exporters.spool.memory import MemorySpool
from resilient_exporters.testing.clock import ManualClock
from tests.delivery.targets import PATIENCE, FakeTarget, Verdict, down, engine_of, in_threads, owed, send, shipment


def up(data: list[Any]) -> Verdict:
    return None


def status(engine: Engine, name: str = "t") -> tuple[int, int, int, int]:
    """Delivered, owed, dead, dropped."""
    lane = next(lane for lane in engine.status().exporters if lane.name == name)
    return lane.delivered, lane.owed, lane.dead, lane.dropped


def test_a_healthy_record_never_touches_the_spool() -> None:
    """A record that all targets take is not kept at all."""
    spool = MemorySpool()
    engine = engine_of(spool=spool, a=FakeTarget(), b=FakeTarget(batches=False))
    assert {"a": (None, True), "b": (None, True)} == send(engine, "x")
    assert 1 == spool.next_place


def test_a_record_is_kept_once_for_those_that_failed() -> None:
    """A record is kept once, for the lanes that do not have it and for no others."""
    spool = MemorySpool()
    engine = engine_of(spool=spool, a=FakeTarget(down()), b=FakeTarget(), c=FakeTarget(down()))
    results = send(engine, "x")
    assert {"a": True, "b": False, "c": True} == {name: result.kept for name, result in results.items()}
    assert (2, ("a", "c")) == (spool.next_place, tuple(sorted(spool.owing())))


def test_what_is_owed_goes_first() -> None:
    """A send brings older records first, in order, and then its own."""
    target = FakeTarget(down())
    engine = engine_of(t=target)
    for i in range(5):
        send(engine, i)
    target.judge = up
    assert {"t": (None, True)} == send(engine, 5)
    assert list(range(6)) == target.got


def test_a_record_that_must_queue_says_so() -> None:
    """While older records cannot go out, a new one is not tried: it is kept, and tells what is before it."""
    target = FakeTarget(down())
    engine = engine_of(t=target)
    send(engine, 0)
    result = send(engine, 1)["t"]
    assert ((None, False), True) == (result, result.kept)
    assert isinstance(result.error, Queued)
    assert 1 == result.error.before
    assert isinstance(result.error.__cause__, TargetDown)
    assert [[0], [0]] == target.calls


@pytest.mark.usefixtures("paced")
def test_a_slow_failure_spares_the_next_senders() -> None:
    """After a failure that took a second, senders of the next ten seconds do not wait for that target."""
    clock = ManualClock(now=1000.0)
    target = FakeTarget()

    def slow(data: list[Any]) -> Verdict:
        clock.advance(1.0)
        return TargetDown("timed out")

    target.judge = slow
    engine = engine_of(clock, t=target)
    send(engine, 0)
    for i in range(1, 10):
        send(engine, i)
        clock.advance(1.0)
    assert 1 == len(target.calls)
    clock.advance(1.1)
    send(engine, 10)
    assert 2 == len(target.calls)
    target.judge = up
    engine.send_unsent(["t"])
    assert list(range(11)) == target.got


@pytest.mark.usefixtures("paced")
def test_the_first_failure_of_a_new_record_paces_too() -> None:
    """A new record is not tried within the pause either, when nothing is owed because nothing is to be kept."""
    clock = ManualClock(now=1000.0)
    target = FakeTarget()

    def slow(data: list[Any]) -> Verdict:
        clock.advance(1.0)
        return TargetDown("timed out")

    target.judge = slow
    engine = engine_of(clock, t=target)
    engine.settings.saves = False
    for i in range(5):
        send(engine, i)
    assert 1 == len(target.calls)
    assert (0, 0, 0, 5) == status(engine)


def test_looking_after_has_a_budget() -> None:
    """A send spends a bounded time on what is owed, however much that is; the rest and its own record wait."""
    clock = ManualClock(now=1000.0)
    target = FakeTarget(down(), batches=False)
    engine = engine_of(clock, t=target)
    for i in range(50):
        send(engine, i)
    target.judge = lambda data: clock.advance(0.3)
    send(engine, 50)
    assert list(range(4)) == target.got
    send(engine, 51)
    assert list(range(8)) == target.got


@pytest.mark.usefixtures("paced")
def test_a_failure_that_took_a_while_ends_the_looking_after() -> None:
    """A send does not go from one slow failure to the next, although a pass may: the pause begins after the first."""
    clock = ManualClock(now=1000.0)
    target = FakeTarget(down(), batches=False)
    engine = engine_of(clock, t=target)
    for i in range(20):
        send(engine, i)
    target.calls.clear()

    def slow(data: list[Any]) -> Verdict:
        clock.advance(0.05)
        return ValueError("unknown")

    target.judge = slow
    send(engine, 20)
    send(engine, 21)
    assert [[0]] == target.calls
    clock.advance(0.5)
    send(engine, 22)
    assert 2 == len(target.calls)


def test_by_hand_new_records_overtake() -> None:
    """By hand, a send looks after nothing, and its own record goes out."""
    target = FakeTarget(down())
    engine = engine_of(t=target)
    engine.settings.manual = True
    send(engine, 0)
    target.judge = up
    send(engine, 1)
    assert [1] == target.got
    engine.send_unsent(["t"])
    assert [1, 0] == target.got


def test_connectivity_is_asked_once_a_second() -> None:
    """While the user's own check says no, what is kept waits; it is asked at most once a second."""
    clock = ManualClock(now=1000.0)
    asked: list[float] = []
    target = FakeTarget(down())
    engine = engine_of(clock, t=target)
    send(engine, 0)

    def connected() -> bool:
        asked.append(clock.now())
        return False

    engine.settings.connectivity = connected
    for i in range(1, 11):
        send(engine, i)
        clock.advance(0.25)
    assert (1, 3) == (len(target.calls), len(asked))
    target.judge = up
    engine.send_unsent(["t"])
    assert list(range(11)) == target.got


def test_a_refused_record_is_dead_at_once() -> None:
    """A new record that is refused for good is a dead letter with its reason, and not kept."""
    target = FakeTarget(lambda data: RecordsRefused(permanent={0: "too long"}))
    engine = engine_of(t=target)
    result = send(engine, "x")["t"]
    assert ((None, False), False) == (result, result.kept)
    assert (0, 0, 1, 0) == status(engine)
    (letter,) = engine.spool.dead_letters()
    assert ("too long" in letter.reason, b"\xa1x") == (True, letter.payload)


def test_a_refused_record_without_keeping_is_dropped() -> None:
    """When nothing is to be kept, a refused record is dropped and counted, and so is one that failed."""
    target = FakeTarget(lambda data: RecordsRefused(permanent={0: "no"}))
    engine = engine_of(t=target)
    engine.settings.saves = False
    send(engine, 1)
    target.judge = down()
    send(engine, 2)
    assert (0, 0, 0, 2) == status(engine)


def test_when_nobody_has_it_the_sender_is_told() -> None:
    """A record that could not be kept raises when nobody has it, and is in the result when somebody has."""
    engine = engine_of(spool=MemorySpool(limit_bytes=10), a=FakeTarget(down()), b=FakeTarget(down()))
    with pytest.raises(SpoolFull):
        send(engine, "x" * 1000)
    engine.lanes["b"].target.judge = up  # type: ignore[attr-defined]  # it is a fake
    results = send(engine, "x" * 1000)
    assert isinstance(results["a"].error, SpoolFull)
    assert (False, (None, True)) == (results["a"].kept, results["b"])


def test_keywords_reach_who_takes_them() -> None:
    """Keyword arguments are kept with the record and filtered again when it goes out late."""
    target = FakeTarget(down(), accepts={"table"})
    engine = engine_of(t=target)
    send(engine, 1, table="x", other=1)
    target.judge = up
    engine.send_unsent(["t"])
    assert [{"table": "x"}] * 2 == target.kwargs


# --- several threads


class Gate:
    """Holds calls back until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self, data: list[Any]) -> Verdict:
        self.reached.set()
        assert self.open.wait(PATIENCE)
        return None


def queued(engine: Engine, count: int, name: str = "t") -> None:
    """Return when so many senders wait for their turn: there is nothing to be signalled by."""
    for _ in range(int(PATIENCE * 1000)):
        if len(engine.lanes[name].turns._queue) >= count:
            return
        threading.Event().wait(0.001)
    raise AssertionError("nobody queues")


@pytest.mark.parametrize(("batches", "calls"), [(True, 2), (False, 9)])
def test_concurrent_senders_combine(batches: bool, calls: int) -> None:
    """Senders that wait for the same batch exporter go out in one batch; single records go one at a time."""
    gate = Gate()
    target = FakeTarget(gate, batches=batches)
    engine = engine_of(t=target)
    results: list[ExportResult] = []
    threads = [threading.Thread(target=lambda i=i: results.append(send(engine, i)["t"]), daemon=True) for i in range(9)]
    threads[0].start()
    assert gate.reached.wait(PATIENCE)
    for number, thread in enumerate(threads[1:], 1):
        thread.start()
        queued(engine, number)
    gate.open.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert [(None, True)] * 9 == results
    assert (calls, list(range(9))) == (len(target.calls), sorted(target.got))
    assert (9, 0, 0, 0) == status(engine)


def test_each_of_a_combined_batch_learns_of_its_own_record() -> None:
    """In a batch of many senders, each gets the verdict and the reason of its own record."""
    gate = Gate()
    target = FakeTarget(gate)
    engine = engine_of(t=target)
    results: dict[int, ExportResult] = {}
    threads = [
        threading.Thread(target=lambda i=i: results.update({i: send(engine, i)["t"]}), daemon=True) for i in range(6)
    ]
    threads[0].start()
    assert gate.reached.wait(PATIENCE)
    for number, thread in enumerate(threads[1:], 1):
        thread.start()
        queued(engine, number)
    target.judge = lambda data: RecordsRefused(
        permanent={i: f"{one} is bad" for i, one in enumerate(data) if one in {2, 4}},
        later={i: f"{one} is busy" for i, one in enumerate(data) if one == 3},
    )
    gate.open.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert [True, True, False, False, False, True] == [results[i].successful for i in range(6)]
    assert [False, False, False, True, False, False] == [results[i].kept for i in range(6)]
    assert (3, 1, 2, 0) == status(engine)
    assert {b"\x02": "2 is bad", b"\x04": "4 is bad"} == {d.payload: d.reason for d in engine.spool.dead_letters()}


def test_a_stable_batch_in_doubt_of_a_sender_is_repeated_as_it_was() -> None:
    """A record that was tried in a batch of its own goes again in that batch, not in a larger one of another name."""
    target = FakeTarget(down(), stable=True)
    engine = engine_of(t=target)
    send(engine, 0)
    engine.settings.manual = True
    send(engine, 1)
    target.judge = up
    engine.settings.manual = False
    engine.send_unsent(["t"])
    tokens = {batch.token for batch in target.seen}
    assert [[0], [1], [0], [1]] == target.calls
    assert 2 == len(tokens)


def test_an_interrupt_reaches_its_own_sender_only() -> None:
    """Ctrl-C in an exporter that runs for several senders ends one of them; nobody hangs, and nothing is lost."""
    gate = Gate()
    target = FakeTarget(gate)
    other = FakeTarget()
    engine = engine_of(t=target, other=other)
    outcomes: dict[int, Any] = {}

    def sender(i: int) -> None:
        try:
            outcomes[i] = send(engine, i)["t"]
        except KeyboardInterrupt:
            outcomes[i] = "interrupted"

    threads = [threading.Thread(target=sender, args=(i,), daemon=True) for i in range(5)]
    threads[0].start()
    assert gate.reached.wait(PATIENCE)
    for number, thread in enumerate(threads[1:], 1):
        thread.start()
        queued(engine, number)
    interrupts = [KeyboardInterrupt()]
    target.judge = lambda data: interrupts.pop() if interrupts else None
    gate.open.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a sender hangs"
    assert 1 == list(outcomes.values()).count("interrupted")
    engine.send_unsent(["t", "other"])
    assert list(range(5)) == sorted(set(target.got)) == sorted(set(other.got))
    assert 0 == status(engine)[1]


def test_an_interrupted_sender_keeps_for_those_that_do_not_have_it() -> None:
    """When the first exporter is interrupted, the record is kept for it and for those behind it."""
    engine = engine_of(a=FakeTarget(), b=FakeTarget(lambda data: KeyboardInterrupt()), c=FakeTarget())
    with pytest.raises(KeyboardInterrupt):
        send(engine, "x")
    assert ([], ["x"], ["x"]) == (owed(engine.spool, "a"), owed(engine.spool, "b"), owed(engine.spool, "c"))
    assert engine.lanes["b"].turns.is_free()


def test_many_senders_lose_and_double_nothing() -> None:
    """Threads that send while the target fails now and then: each record arrives once, and none is stranded."""
    calls = [0]

    def flaky(data: list[Any]) -> Verdict:
        calls[0] += 1
        return TargetDown("flaky") if calls[0] % 7 == 0 else None

    target = FakeTarget(flaky, batch_records=5)
    engine = engine_of(SystemClock(), t=target)  # type: ignore[arg-type]  # any clock will do

    def sender(thread: int) -> Callable[[], None]:
        def job() -> None:
            for i in range(60):
                send(engine, 1000 * thread + i)

        return job

    assert [] == in_threads(*(sender(thread) for thread in range(8)))
    target.judge = up
    engine.send_unsent(["t"])
    assert sorted(1000 * thread + i for thread in range(8) for i in range(60)) == sorted(target.got)
    assert (480, 0, 0, 0) == status(engine)


# --- side by side


def side_by_side(**targets: FakeTarget) -> Engine:
    engine = Engine("pool", Settings(num_threads=len(targets)), MemorySpool(), SystemClock())
    for name, target in targets.items():
        engine.add(name, target)
    return engine


def test_lanes_run_side_by_side() -> None:
    """With threads, each exporter's call runs while the others' do."""
    together = threading.Barrier(3)

    def judge(data: list[Any]) -> Verdict:
        together.wait(PATIENCE)
        return None

    targets = {name: FakeTarget(judge) for name in "abc"}
    assert [(None, True)] * 3 == list(send(side_by_side(**targets), "x").values())


def test_a_call_that_comes_back_late_is_settled() -> None:
    """A sender leaves a hung call after the exporter's time; when it succeeds after all, the record is settled."""
    gate = Gate()
    hung, well = FakeTarget(gate, timeout=0.1), FakeTarget()
    engine = side_by_side(hung=hung, well=well)
    results = send(engine, "x")
    assert isinstance(results["hung"].error, TimeoutError)
    assert ((None, True), True, ["x"]) == (results["well"], results["hung"].kept, owed(engine.spool, "hung"))
    results = send(engine, "y")
    assert (1, False) == (hung.most_running, results["hung"].successful)
    gate.open.set()
    while engine.owing():
        engine.send_unsent(["hung"])
    assert ["x", "y"] == hung.got
    assert (2, 0, 0, 0) == status(engine, "hung")
    engine.close(0.0)


def test_an_interrupt_on_a_thread_reaches_the_sender() -> None:
    """SystemExit in an exporter on a pool's thread reaches the caller; the others have the record."""
    engine = side_by_side(a=FakeTarget(lambda data: SystemExit()), b=FakeTarget())
    with pytest.raises(SystemExit):
        send(engine, "x")
    assert ["x"] == owed(engine.spool, "a")
    assert (1, 0, 0, 0) == status(engine, "b")
    engine.close(0.0)


# --- many at once


def lot(engine: Engine, *data: Any) -> Lot:
    return Lot([codec.encode(one) for one in data], b"", 0, frozenset(engine.lanes))


def test_a_lot_between_whose_numbers_others_drew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each record of a lot has the number that was drawn for it, when other threads have drawn some between."""
    spool = MemorySpool()
    engine = engine_of(spool=spool, t=FakeTarget(down()))
    monkeypatch.setattr(spool, "draw", iter([1, 2, 5, 6, 9]).__next__)
    engine.send_many([lot(engine, *"abcde")], Keep(), reentrant=False)
    kept = spool.read("t", 0, 10, 1000)
    assert kept is not None
    assert ([1, 2, 5, 6, 9], [codec.encode(data) for data in "abcde"]) == (list(kept.numbers), kept.payloads)


def test_a_lot_goes_in_batches_behind_what_is_owed() -> None:
    """Many records go out behind older ones, in batches, and the result counts them."""
    target = FakeTarget(down(), batch_records=100)
    engine = engine_of(t=target)
    send(engine, -1)
    target.judge = up
    results = engine.send_many([lot(engine, *range(250)), lot(engine, *range(250, 300))], Keep(), reentrant=False)
    assert {"t": (300, True)} == results
    assert [-1, *range(300)] == target.got
    assert max(len(call) for call in target.calls) == 100
    assert (301, 0, 0, 0) == status(engine)


def test_what_a_target_does_not_take_of_a_lot_is_kept() -> None:
    """What is left of a lot is kept for those that do not have it, in order, and the result says so."""
    engine = engine_of(a=FakeTarget(), b=FakeTarget(down()))
    results = engine.send_many([lot(engine, *range(5))], Keep(), reentrant=False)
    assert results is not None
    assert ((5, True), (0, False), True) == (results["a"], results["b"], results["b"].kept)
    assert ([], [0, 1, 2, 3, 4]) == (owed(engine.spool, "a"), owed(engine.spool, "b"))
    assert (0, 5, 0, 0) == status(engine, "b")


def test_refused_records_of_a_lot_are_dead_letters() -> None:
    """Records of a lot that are refused for good become dead letters of the pool, listed with their reasons."""
    target = FakeTarget(
        lambda data: RecordsRefused(permanent={i: "bad" for i, one in enumerate(data) if one == 2} or {99: ""})
    )
    engine = engine_of(t=target)
    engine.send_many([lot(engine, 1, 2, 3)], Keep(), reentrant=False)
    assert (2, 0, 1, 0) == status(engine)
    assert [b"\x02"] == [letter.payload for letter in engine.spool.dead_letters()]


def test_a_reentrant_send_waits_for_nothing() -> None:
    """A send from inside a send is kept, and says so, without a call."""
    target = FakeTarget()
    engine = engine_of(t=target)
    results = engine.send([shipment(engine, "x")], Keep(), reentrant=True)
    assert results is not None
    assert ([], True, ["x"]) == (target.calls, results["t"].kept, owed(engine.spool))
    assert isinstance(results["t"].error, Queued)


def test_a_slow_refusal_for_good_paces_nobody() -> None:
    """A target that took its time to refuse a record for good is up: the next record is tried at once."""
    clock = ManualClock(now=1000.0)
    target = FakeTarget()

    def judge(data: list[Any]) -> Verdict:
        clock.advance(1.0)
        return RecordsRefused(permanent={0: "no"}) if data == [0] else None

    target.judge = judge
    for batches in (True, False):
        target.batches = batches
        engine = engine_of(clock, t=target)
        send(engine, 0)
        assert {"t": (None, True)} == send(engine, 1)


def test_refusals_on_the_short_way_are_judged() -> None:
    """A record on the short way to an exporter of single ones becomes a dead letter, or is kept by the guard, too."""

    def take(data: int) -> None:
        if data >= 3000 or data % 10 == 7:
            raise RecordsRefused(permanent={0: "no"})

    pool = ExporterPool([CallableExporter(take)])
    results = [pool.send(i)[0] for i in range(3300)]
    (lane,) = pool.status().exporters
    assert [False] * 3000 == [result.kept for result in results[:3000]]
    assert (2700, "held") == (lane.delivered, lane.state)
    assert lane.owed == sum(result.kept for result in results)
    assert 180 < lane.owed < 230
    assert lane.dead == 3300 - 2700 - lane.owed
    assert lane.dead == len(list(pool._rex.engine().spool.dead_letters()))
    pool.close(timeout=0.0)


def test_a_refused_record_on_the_short_way_is_tried_once() -> None:
    """An exporter of single records that refuses one for good is not asked a second time."""
    calls: list[int] = []

    def take(data: int) -> None:
        calls.append(data)
        if data == 2:
            raise RecordsRefused(permanent={0: "no"})

    pool = ExporterPool([CallableExporter(take)])
    results = [pool.send(i)[0] for i in range(4)]
    assert ([0, 1, 2, 3], [True, True, False, True]) == (calls, [result.successful for result in results])
    assert 1 == len(pool.dead_letters)
    pool.close()


def test_an_interrupt_while_waiting_for_threads() -> None:
    """After Ctrl-C in a sender that waits for threads, nobody gets the record twice: not who is at it either."""
    go = threading.Event()
    fast: list[int] = []
    slow: list[int] = []

    def take_slowly(data: int) -> None:
        taken.wait(PATIENCE)
        _thread.interrupt_main()
        go.wait(PATIENCE)
        slow.append(data)

    def take(data: int) -> None:
        fast.append(data)
        taken.set()

    taken = threading.Event()
    exporters = [CallableExporter(take_slowly, name="slow"), CallableExporter(take, name="fast")]
    pool = ExporterPool(exporters, num_threads=2)
    with pytest.raises(KeyboardInterrupt):
        pool.send(1)
    go.set()
    pool.send_unsent_data()
    assert ([1], [1]) == (slow, fast)
    assert [(1, 0), (1, 0)] == [(lane.delivered, lane.owed) for lane in pool.status().exporters]
    pool.close()
