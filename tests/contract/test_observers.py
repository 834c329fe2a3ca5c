"""Observers: told of what the log warns of, once per change of state, and never in the way of delivery."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryBatchExporter, MemoryExporter

MakePool = Callable[..., rex.ExporterPool]

PATIENCE = 60.0


class Notes:
    """An observer that writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[rex.Event] = []
        self.changed = threading.Condition()

    def __call__(self, event: rex.Event) -> None:
        with self.changed:
            self.events.append(event)
            self.changed.notify_all()

    def wait_for(self, what: str) -> rex.Event:
        """The first event of a kind, as soon as it is there."""
        with self.changed:
            assert self.changed.wait_for(lambda: what in self.names(), PATIENCE), self.events
        return self.events[self.names().index(what)]

    def names(self) -> list[str]:
        return [event.what for event in self.events]


def test_an_outage_is_told_once_at_each_end(make_pool: MakePool, caplog: pytest.LogCaptureFixture) -> None:
    """Ten failures are one `target_down`, and the success after them one `target_up`; the log says the same."""
    notes, target = Notes(), MemoryExporter("t", up=False)
    pool = make_pool([target], name="pool", observers=[notes])
    with caplog.at_level(logging.WARNING, "resilient_exporters"):
        for number in range(10):
            pool.send(number)
        target.up = True
        pool.send(10)
        pool.send(11)
    assert [("target_down", "pool", "t"), ("target_up", "pool", "t")] == [
        (event.what, event.pool, event.exporter) for event in notes.events
    ]
    assert (True, None) == (bool(notes.events[0].error), notes.events[1].error)
    assert notes.names() == [record.getMessage().split()[0] for record in caplog.records]


def test_an_event_is_frozen(make_pool: MakePool) -> None:
    """Observers observe: an event cannot be changed."""
    notes = Notes()
    make_pool([MemoryExporter("t", up=False)], observers=[notes]).send(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        notes.events[0].records = 5  # type: ignore[misc]


def test_dead_letters_are_told(make_pool: MakePool) -> None:
    """Records that a target refuses for good are told with the reason, the next ones of the minute only counted."""
    notes = Notes()
    pool = make_pool([MemoryBatchExporter("t", refuse=lambda data: data == "bad")], observers=[notes])
    for _ in range(5):
        pool.send("bad")
    assert [("records_dead", "t", 1)] == [(event.what, event.exporter, event.records) for event in notes.events]
    assert "RecordsRefused" in str(notes.events[0].error)
    assert 5 == pool.status().exporters[0].dead


def test_dead_letters_of_the_background_are_told(make_pool: MakePool) -> None:
    """Also when the records were kept before they were refused."""
    notes = Notes()
    pool = make_pool([MemoryBatchExporter("t", refuse=lambda data: True)], None, 2, False, observers=[notes])
    pool.send("bad")
    assert ("t", 1) == (notes.wait_for("records_dead").exporter, notes.events[0].records)


def test_a_full_spool_is_told_with_what_it_costs(make_pool: MakePool) -> None:
    """Shortage is told once, and the first loss of it once for each exporter."""
    notes = Notes()
    limits = rex.Limits(bytes=4000, when_full="drop_newest")
    pool = make_pool([MemoryExporter("t", up=False)], limits=limits, observers=[notes])
    for _ in range(20):
        pool.send("x" * 500)
    assert {"target_down": 1, "spool_full": 1, "records_dropped": 1} == {
        name: notes.names().count(name) for name in notes.names()
    }
    dropped = notes.wait_for("records_dropped")
    assert ("t", 1) == (dropped.exporter, dropped.records)
    assert "SpoolFull" in str(dropped.error)


def test_a_held_target_is_told(make_pool: MakePool) -> None:
    """A target that waits for a configuration is told as held, not as down."""

    class Locked(rex.Exporter):
        def export(self, batch: rex.Batch) -> None:
            raise rex.TargetMisconfigured("no such table")

    notes = Notes()
    make_pool([Locked(name="t")], observers=[notes]).send(1)
    assert [("target_held", "TargetMisconfigured: no such table")] == [(e.what, e.error) for e in notes.events]


def test_a_stuck_call_is_told(make_pool: MakePool) -> None:
    """A call that outlives its timeout in the background is told."""
    notes, target = Notes(), MemoryExporter("t", timeout=0.05)
    target.hang()
    make_pool([target], None, 2, False, observers=[notes]).send(1)
    stuck = notes.wait_for("target_stuck")
    target.release()
    assert ("t", 1) == (stuck.exporter, stuck.records)


def test_orphans_are_told_once(make_pool: MakePool, tmp_path: Path) -> None:
    """What is owed to an absent exporter is told once, with how much it is."""
    notes, place = Notes(), tmp_path / "kept"
    with rex.ExporterPool([MemoryExporter("gone", up=False)], use_memory=False, tmp_file=place) as before:
        before.send_many([1, 2])
    pool = make_pool([MemoryExporter("t")], use_memory=False, tmp_file=place, observers=[notes])
    pool.send(3)
    pool.send(4)
    assert [("orphans", "gone", 2)] == [(event.what, event.exporter, event.records) for event in notes.events]


def test_the_end_of_a_pool_that_owes_in_memory_is_told() -> None:
    """A pool that ends with records in memory tells its observers how many are lost."""
    notes = Notes()
    pool = rex.ExporterPool([MemoryExporter("t", up=False)], observers=[notes])
    pool.send(1)
    pool.send(2)
    pool.close()
    assert ("closed_owing", None, 2) == (notes.events[-1].what, notes.events[-1].exporter, notes.events[-1].records)


def test_damage_is_told(tmp_path: Path) -> None:
    """Damage to the file is told at the first send after the pool was opened."""
    path, notes = tmp_path / "kept", Notes()
    with rex.ExporterPool([MemoryExporter("t", up=False)], use_memory=False, tmp_file=path) as pool:
        pool.send_many(["a" * 100, "b" * 100, "c" * 100])
        pool.send("d" * 100)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"b" * 100, b"b" * 99 + b"X"))
    with rex.ExporterPool([MemoryExporter("t")], use_memory=False, tmp_file=path, observers=[notes]) as pool:
        pool.send("e")
        pool.send("f")
    damaged = [event for event in notes.events if event.what == "spool_damaged"]
    assert 1 == len(damaged)
    assert damaged[0].records >= 1


def test_expired_records_are_told(make_pool: MakePool) -> None:
    """Records whose time to live is over are told for each exporter that has lost them."""
    notes, target = Notes(), MemoryExporter("t", up=False)
    pool = make_pool([target], limits=rex.Limits(ttl=1e-6), observers=[notes])
    pool.send(1)
    pool.send_unsent_data()
    expired = notes.wait_for("records_expired")
    assert ("t", 1) == (expired.exporter, expired.records)


@pytest.mark.parametrize("background", [False, True])
def test_an_observer_that_raises_is_logged_once(
    make_pool: MakePool, caplog: pytest.LogCaptureFixture, background: bool
) -> None:
    """An observer's own errors hurt nobody: delivery and the other observers go on, the log has the first of them."""
    notes, target = Notes(), MemoryExporter("t", up=False)

    def bad(event: rex.Event) -> None:
        raise ZeroDivisionError(event.what)

    options = {"num_threads": 2, "wait_for_result": False, "retry": rex.Retry(base=0.001)} if background else {}
    pool = make_pool([target], observers=[bad, notes], **options)
    with caplog.at_level(logging.WARNING, "resilient_exporters"):
        pool.send(1)
        notes.wait_for("target_down")
        target.up = True
        assert pool.flush(PATIENCE)
        notes.wait_for("target_up")
    assert [1] == target.got
    assert 1 == len([record for record in caplog.records if "observer_failed" in record.getMessage()])


@pytest.mark.parametrize("background", [False, True])
def test_an_observer_may_use_the_pool(make_pool: MakePool, background: bool) -> None:
    """An observer that sends into the pool, asks it and makes it try waits for nothing; its record is kept."""
    target = MemoryExporter("t", up=False)
    seen: list[str] = []
    told = threading.Event()

    def curious(event: rex.Event) -> None:
        if event.what == "target_down":
            pool.send(event.what)
            pool.send_unsent_data()
            pool.flush()
            seen.append(pool.status().exporters[0].state)
            told.set()

    options = {"num_threads": 2, "wait_for_result": False, "retry": rex.Retry(base=0.001)} if background else {}
    pool = make_pool([target], observers=[curious], **options)
    thread = threading.Thread(target=pool.send, args=(1,), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert told.wait(PATIENCE)
    target.up = True
    assert pool.flush(PATIENCE)
    assert {1, "target_down"} == set(target.got)
    assert ["down"] == seen


def test_observers_are_checked() -> None:
    """Something that is no list of functions is refused."""
    for wrong in (5, [None], print):
        with pytest.raises(rex.InvalidConfigError, match="observer"):
            rex.ExporterPool(None, observers=wrong)  # type: ignore[arg-type]


def test_the_outermost_pool_s_observers_are_told(make_pool: MakePool) -> None:
    """In a pool inside a pool, the outer one's observers are told, with the exporter's path."""
    inner, outer = Notes(), Notes()
    within = rex.ExporterPool([MemoryExporter("leaf", up=False)], name="in", observers=[inner])
    make_pool([within], name="out", observers=[outer]).send(1)
    assert [] == inner.events
    assert [("out", "in/leaf")] == [(event.pool, event.exporter) for event in outer.events]
