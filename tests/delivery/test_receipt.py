"""Receipts: what came of a record, for threads and for tasks."""

from __future__ import annotations

import asyncio
import builtins
import threading
from collections.abc import Callable
from typing import Any

import pytest

from resilient_exporters.delivery.clock import SystemClock
from resilient_exporters.delivery.engine import Engine
from resilient_exporters.delivery.keeper import Keep
from resilient_exporters.delivery.receipt import Receipt, Receipts
from resilient_exporters.delivery.settings import Settings
from resilient_exporters.exceptions import PoolClosed
from resilient_exporters.policies import Retry
from resilient_exporters.records import ExportResult
from resilient_exporters.spool.memory import MemorySpool
from tests.delivery.targets import PATIENCE, FakeTarget, down, in_threads, shipment


def engine_of(**targets: FakeTarget) -> Engine:
    settings = Settings(num_threads=2, waits=False, retry=Retry(base=0.01, cap=0.05))
    engine = Engine("pool", settings, MemorySpool(), SystemClock())
    for name, target in targets.items():
        engine.add(name, target)
    return engine


def submit(engine: Engine, data: Any) -> Receipt:
    return engine.submit(
        [shipment(engine, data)], Keep(), False, lambda results: [results[name] for name in engine.lanes]
    )


def taken(lane: str) -> ExportResult:
    return ExportResult(None, True, exporter=lane)


def test_results_come_together() -> None:
    """A receipt is complete when each lane has answered, and not before; later answers change nothing."""
    receipts = Receipts()
    pending = receipts.pending(["a", "b"], dict)
    receipts.expect(7, 1, pending)
    receipts.settled("a", 7, [1], [taken("a")])
    receipts.settled("a", 7, [1], [ExportResult(None, False)])
    assert not pending.future.done()
    receipts.settled("b", 7, [1, 2], [taken("b")] * 2)
    assert {"a": (None, True), "b": (None, True)} == pending.future.result(0)
    assert not receipts


def test_records_of_other_runs_are_others() -> None:
    """The same number of another run is another record."""
    receipts = Receipts()
    pending = receipts.pending(["a"], dict)
    receipts.expect(7, 1, pending)
    receipts.settled("a", 8, [1], [taken("a")])
    assert not pending.future.done()


def test_answers_from_many_threads() -> None:
    """Lanes answer from threads of their own: each receipt is completed, once."""
    receipts = Receipts()
    lanes = [f"l{i}" for i in range(8)]
    pending = {number: receipts.pending(lanes, dict) for number in range(300)}
    for number, one in pending.items():
        receipts.expect(1, number, one)

    def answer(lane: str) -> Callable[[], None]:
        def job() -> None:
            for number in pending:
                receipts.settled(lane, 1, [number], [taken(lane)])

        return job

    assert [] == in_threads(*(answer(lane) for lane in lanes))
    assert all(len(one.future.result(0)) == 8 for one in pending.values())
    assert not receipts


def test_a_receipt_in_the_background() -> None:
    """The results are what a waiting send would have returned, failures included."""
    engine = engine_of(a=FakeTarget(), b=FakeTarget(down()))
    receipt = submit(engine, "x")
    a, b = receipt.result(PATIENCE)
    assert ((None, True), (None, False), True) == (a, b, b.kept)
    assert receipt.done()
    assert receipt.kept
    engine.close(0.0)


def test_a_receipt_can_be_awaited() -> None:
    """A task may await a receipt."""
    engine = engine_of(a=FakeTarget())

    async def work() -> list[Any]:
        return list(await asyncio.gather(*(submit(engine, i) for i in range(20))))

    assert [[(None, True)]] * 20 == asyncio.run(asyncio.wait_for(work(), PATIENCE))
    engine.close(0.0)


def by_a_thread(receipt: Receipt) -> Any:
    return receipt.result(PATIENCE)


def by_a_task(receipt: Receipt) -> Any:
    async def work() -> Any:
        return await asyncio.wait_for(receipt, PATIENCE)

    return asyncio.run(work())


@pytest.mark.parametrize("wait", [by_a_thread, by_a_task])
def test_who_waits_for_a_receipt_does_not_wait_for_a_moment_to_pass(
    monkeypatch: pytest.MonkeyPatch, wait: Callable[[Receipt], Any]
) -> None:
    """A lane that would look again in a moment looks at once when somebody waits, though the moment never ends."""
    target = FakeTarget()
    engine = engine_of(a=target)
    driver = engine.background()
    moments: list[Callable[[], None]] = []
    monkeypatch.setattr(driver.workers, "soon", moments.append)
    submit(engine, 0)
    with driver.progress:
        assert driver.progress.wait_for(lambda: len(moments) == 1, PATIENCE)
    receipt = submit(engine, 1)
    assert not receipt.done()
    assert [(None, True)] == wait(receipt)
    assert [0, 1] == target.got
    engine.close(0.0)


def test_giving_up_a_task_does_no_harm() -> None:
    """A task that is cancelled while it awaits a receipt cancels nothing else: its record goes out, and others do."""
    gate = threading.Event()
    target = FakeTarget(lambda data: None if gate.wait(PATIENCE) else down()(data))
    engine = engine_of(a=target)

    async def work() -> None:
        with pytest.raises(builtins.TimeoutError):
            await asyncio.wait_for(submit(engine, "x"), 0.01)

    asyncio.run(work())
    gate.set()
    receipt = submit(engine, "y")
    assert [(None, True)] == receipt.result(PATIENCE)
    assert ["x", "y"] == target.got
    engine.close(0.0)


def test_closing_ends_the_waiting() -> None:
    """Who waits for a receipt when the pool is closed gets PoolClosed; nobody can cancel it before."""
    receipts = Receipts()
    pending = receipts.pending(["a"], dict)
    receipts.expect(1, 1, pending)
    assert not pending.future.cancel()
    receipts.close()
    with pytest.raises(PoolClosed):
        pending.future.result(0)


def test_a_time_out() -> None:
    """Waiting has an end when asked for."""
    gate = threading.Event()
    engine = engine_of(a=FakeTarget(lambda data: None if gate.wait(PATIENCE) else down()(data)))
    receipt = submit(engine, "x")
    with pytest.raises(builtins.TimeoutError):
        receipt.result(0.01)
    assert not receipt.done()
    assert receipt.kept
    gate.set()
    engine.close(0.0)


def test_a_receipt_in_the_foreground_is_complete() -> None:
    """With one thread the results are there when `submit` returns."""
    engine = engine_of(a=FakeTarget(), b=FakeTarget(down()))
    engine.settings.waits = True
    engine.settings.num_threads = 1
    receipt = submit(engine, "x")
    assert receipt.done()
    assert [True, False] == [result.successful for result in receipt.result(0)]
    assert receipt.kept
    engine.close(0.0)
