"""Batches that wait to be filled: until their oldest record has a certain age, in the background only."""

from __future__ import annotations

import time

import pytest

import resilient_exporters as rex
from tests.delivery.targets import PATIENCE, FakeTarget, Rig

LONG = 3600.0
"""Seconds that no test lasts."""


class Collector(rex.Exporter):
    """Takes batches, and remembers them."""

    batch_age = LONG
    batch_records = 10

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.target = FakeTarget()
        self.times: list[float] = []

    def export(self, batch: rex.Batch) -> None:
        self.times.append(time.monotonic())
        self.target.export(batch, {})


def background(exporter: rex.Exporter) -> rex.ExporterPool:
    """A pool that delivers in the background."""
    return rex.ExporterPool([exporter], num_threads=2, wait_for_result=False)


def test_a_full_batch_does_not_wait() -> None:
    """Ten records make a batch; the two behind them go on waiting."""
    exporter = Collector()
    with background(exporter) as pool:
        for number in range(12):
            pool.send(number)
        exporter.target.wait_for(lambda: len(exporter.target.got) >= 10)
        assert [list(range(10))] == exporter.target.calls
        assert 2 == pool.status().exporters[0].owed


def test_a_batch_full_of_bytes_does_not_wait() -> None:
    """A batch is full as well when its bytes are."""
    exporter = Collector()
    exporter.batch_bytes = 1000
    with background(exporter) as pool:
        pool.send("x" * 400)
        pool.send("x" * 700)
        exporter.target.wait_for(lambda: len(exporter.target.got) == 2)


def test_one_record_waits_until_it_is_old() -> None:
    """A batch that nobody fills goes out when its oldest record is as old as was asked for, not before."""
    exporter = Collector()
    exporter.batch_age = 0.2
    with background(exporter) as pool:
        began = time.monotonic()
        pool.send_many([1, 2])
        exporter.target.wait_for(lambda: len(exporter.target.got) == 2)
        assert [[1, 2]] == exporter.target.calls
        assert exporter.times[0] - began >= 0.19


@pytest.mark.parametrize("ask", ["flush", "close", "send_unsent_data"])
def test_who_asks_does_not_wait(ask: str) -> None:
    """`flush`, `close` and `send_unsent_data` deliver at once what waits for company."""
    exporter = Collector()
    pool = background(exporter)
    pool.send(1)
    began = time.monotonic()
    getattr(pool, ask)()
    assert [[1]] == exporter.target.calls
    assert time.monotonic() - began < PATIENCE
    pool.close()


def test_in_the_callers_thread_nothing_waits() -> None:
    """A send that waits for its result does not wait for others."""
    exporter = Collector()
    with rex.ExporterPool([exporter]) as pool:
        assert pool.send(1)[0].successful


def test_the_time_left() -> None:
    """What is left to wait shrinks with time, is never more than the age, and is nothing for a full batch."""
    rig = Rig(FakeTarget(batch_age=2.0, batch_records=3))
    assert rig.lane.left_to_fill() == 0.0
    rig.spool.append([b"a"], frozenset({"t"}), time=rig.clock.time())
    assert rig.lane.left_to_fill() == pytest.approx(2.0)
    rig.clock.advance(1.5)
    assert rig.lane.left_to_fill() == pytest.approx(0.5)
    rig.spool.append([b"b", b"c"], frozenset({"t"}), time=rig.clock.time())
    assert rig.lane.left_to_fill() == 0.0


def test_a_clock_set_back_does_not_make_it_wait_for_ever() -> None:
    """A record from the future, as the clock has it now, waits no longer than the age."""
    rig = Rig(FakeTarget(batch_age=2.0))
    rig.spool.append([b"a"], frozenset({"t"}), time=rig.clock.time() + LONG)
    assert rig.lane.left_to_fill() == 2.0
