"""Exporters that come and go: removed from a live pool, and what is then owed to them adopted, dropped or waiting."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex
from resilient_exporters.delivery.lane import Lane
from resilient_exporters.testing import MemoryBatchExporter, MemoryExporter

MakePool = Callable[..., rex.ExporterPool]
pytestmark = pytest.mark.uncounted("exporters that come and go get less than all, and adopt what others were sent")

PATIENCE = 60.0


@pytest.fixture(params=["memory", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Where a pool keeps records: in memory or in a file."""
    return {} if request.param == "memory" else {"use_memory": False, "tmp_file": tmp_path / "kept"}


def test_a_removed_exporter_is_free_and_its_records_wait(make_pool: MakePool, place: dict[str, Any]) -> None:
    """What is owed to a removed exporter stays, counts, and goes out in order when that name is back."""
    stays, leaves = MemoryExporter("stays"), MemoryExporter("leaves", up=False)
    pool = make_pool([stays, leaves], **place)
    pool.send(1)
    pool.send(2)
    assert leaves is pool.remove_exporter("leaves")
    assert {"stays": stays} == pool.exporters
    (result,) = pool.send(3)
    assert ("stays", True) == (result.exporter, result.successful)
    assert pool.has_unsent_data()
    assert [("leaves", 2)] == [(orphan.name, orphan.owed) for orphan in pool.status().orphans]
    leaves.up = True
    assert leaves.send("alone").successful
    pool.add_exporter(leaves)
    pool.send(4)
    assert ([1, 2, 3, 4], ["alone", 1, 2, 4]) == (stays.got, leaves.got)
    assert not pool.has_unsent_data()


@pytest.mark.parametrize("memory", [True, False])
def test_an_exporter_joins_while_records_move(
    make_pool: MakePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: bool
) -> None:
    """An exporter that joins while `use_memory` changes is served from where the records are then."""
    pool = make_pool([MemoryExporter("a")], use_memory=memory, tmp_file=tmp_path / "kept")
    joins = MemoryExporter("joins")
    mover = threading.Thread(target=lambda: setattr(pool, "use_memory", not memory))
    made = Lane.__init__

    def move(*args: Any, **kwargs: Any) -> None:
        made(*args, **kwargs)
        if mover.ident is None:
            mover.start()
            mover.join(0.2)  # it may wait for the one that joins

    monkeypatch.setattr(Lane, "__init__", move)
    pool.add_exporter(joins)
    mover.join(PATIENCE)
    joins.up = False
    pool.send(1)
    assert [("a", 0), ("joins", 1)] == [(lane.name, lane.owed) for lane in pool.status().exporters]
    joins.up = True
    assert pool.flush(PATIENCE)
    assert [1] == joins.got


def test_a_removed_exporter_may_join_another_pool(make_pool: MakePool) -> None:
    """A removed exporter belongs to nobody: another pool takes it."""
    target = MemoryExporter("t")
    first, second = make_pool([target], name="first"), make_pool([], name="second")
    first.remove_exporter("t")
    second.add_exporter(target)
    second.send(1)
    assert ([1], []) == (target.got, first.send(2))


def test_a_pool_inside_a_pool_can_be_removed(make_pool: MakePool, place: dict[str, Any]) -> None:
    """An inner pool leaves with all of its exporters and works on its own; each of them has its orphan."""
    a, b = MemoryExporter("a", up=False), MemoryExporter("b", up=False)
    inner = make_pool([a, b], name="inner")
    pool = make_pool([inner, MemoryExporter("c")], **place)
    pool.send(1)
    assert inner is pool.remove_exporter("inner")
    assert ["inner/a", "inner/b"] == sorted(orphan.name for orphan in pool.status().orphans)
    a.up = b.up = True
    assert [True, True] == [result.successful for result in inner.send(2)]
    pool.add_exporter(inner)
    pool.send(3)
    assert ([2, 1, 3], [2, 1, 3]) == (a.got, b.got)


def test_an_exporter_of_a_pool_inside_a_pool_can_be_removed(make_pool: MakePool) -> None:
    """The inner pool lets its exporter go; what it is owed is an orphan of the outermost pool."""
    leaf = MemoryExporter("leaf", up=False)
    inner = rex.ExporterPool([leaf, MemoryExporter("other")], name="inner")
    pool = make_pool([inner])
    pool.send(1)
    inner.remove_exporter("leaf")
    assert ["inner/leaf"] == [orphan.name for orphan in pool.status().orphans]
    (result,) = pool.send(2)
    assert ["other"] == [each.exporter for each in result.returned]


def test_what_an_exporter_brought_along_stays(make_pool: MakePool, tmp_path: Path) -> None:
    """What an exporter kept in a file of its own before it joined stays with the pool, and the file is free again."""
    target = MemoryExporter("t", up=False, use_memory=False, tmp_file=tmp_path / "own")
    target.send(1)
    pool = make_pool([target], use_memory=False, tmp_file=tmp_path / "kept")
    pool.send(2)
    assert target is pool.remove_exporter("t")
    assert [("t", 2)] == [(orphan.name, orphan.owed) for orphan in pool.status().orphans]
    assert not target.has_unsent_data()
    target.up = True
    pool.add_exporter(target)
    assert 2 == len(pool.send_unsent_data())
    assert {1, 2} == set(target.got)


def test_dead_letters_wait_for_their_exporter(make_pool: MakePool, place: dict[str, Any]) -> None:
    """Dead letters of a removed exporter stay, and are counted for it again when it is back."""
    target = MemoryBatchExporter("t", refuse=lambda data: data == "bad")
    pool = make_pool([target], **place)
    pool.send("bad")
    pool.remove_exporter("t")
    assert not pool.has_unsent_data()
    pool.add_exporter(target)
    pool.send("bad")
    assert 2 == pool.status().exporters[0].dead


def test_unknown_names_are_refused(make_pool: MakePool) -> None:
    """Names that nobody has raise, and say which there are."""
    pool = make_pool([MemoryExporter("t", up=False)])
    pool.send(1)
    with pytest.raises(rex.InvalidConfigError, match="'x'; it has t"):
        pool.remove_exporter("x")
    with pytest.raises(rex.InvalidConfigError, match="orphans: none"):
        pool.drop_orphan("t")
    with pytest.raises(rex.InvalidConfigError, match="orphans: none"):
        pool.adopt_orphan("t", "t")
    pool.remove_exporter("t")
    with pytest.raises(rex.InvalidConfigError, match="no exporter named 'x'"):
        pool.adopt_orphan("t", "x")
    assert 1 == pool.status().owed


def test_an_exporter_at_work_is_not_removed(make_pool: MakePool) -> None:
    """A call that does not end within the timeout keeps its exporter in the pool, whole."""
    target = MemoryExporter("t", timeout=0.05)
    target.hang()
    pool = make_pool([target], None, 2, False)
    pool.send(1)
    target.wait_for_calls(1)
    with pytest.raises(rex.exceptions.TimeoutError, match="at work"):
        pool.remove_exporter("t")
    target.release()
    target.timeout = PATIENCE
    assert pool.flush(PATIENCE)
    assert target is pool.remove_exporter("t")
    assert [1] == target.got


def test_an_exporter_cannot_remove_itself_while_it_works(make_pool: MakePool) -> None:
    """From inside an exporter there is no waiting: its removal is refused at once."""
    refusals: list[BaseException] = []

    class Leaving(MemoryExporter):
        def send(self, data: Any, /, **kwargs: Any) -> rex.ExportResult:
            try:
                pool.remove_exporter("t")
            except rex.exceptions.TimeoutError as error:
                refusals.append(error)
            return super().send(data, **kwargs)

    pool = make_pool([Leaving("t")])
    assert [True] == [result.successful for result in pool.send(1)]
    assert 1 == len(refusals)


@pytest.mark.parametrize("how", [{}, {"num_threads": 2}, {"num_threads": 2, "wait_for_result": False}])
def test_coming_and_going_under_load_loses_nothing(
    make_pool: MakePool, place: dict[str, Any], how: dict[str, Any]
) -> None:
    """While an exporter leaves and joins again and again, nothing is lost or doubled, and nobody's `send` fails."""
    stays, comes = MemoryExporter("stays"), MemoryExporter("comes")
    pool = make_pool([stays, comes], **how, **place)
    over = threading.Event()
    failures: list[BaseException] = []

    def sender(first: int) -> None:
        try:
            for number in range(first, first + 150):
                pool.send(number)
            pool.send_many(range(first + 150, first + 200))
        except BaseException as error:
            failures.append(error)
            raise

    def mover() -> None:
        while not over.is_set():
            pool.add_exporter(pool.remove_exporter("comes"))

    senders = [threading.Thread(target=sender, args=(1000 * i,), daemon=True) for i in range(3)]
    moving = threading.Thread(target=mover, daemon=True)
    for thread in (moving, *senders):
        thread.start()
    for thread in senders:
        thread.join(PATIENCE)
    over.set()
    moving.join(PATIENCE)
    assert not moving.is_alive()
    assert [] == failures
    assert pool.flush(PATIENCE)
    assert sorted(number for i in range(3) for number in range(1000 * i, 1000 * i + 200)) == sorted(stays.got)
    assert len(set(comes.got)) == len(comes.got)
    assert set(comes.got) <= set(stays.got)
    assert not pool.has_unsent_data()


def test_an_orphan_is_adopted(make_pool: MakePool, place: dict[str, Any]) -> None:
    """What is owed to an absent exporter goes to a present one: in order, with its keywords, under new ids."""
    old, new = MemoryExporter("old", up=False), MemoryBatchExporter("new")
    pool = make_pool([old, new], **place)
    pool.send("a", table="x")
    pool.send("b")
    pool.remove_exporter("old")
    assert 2 == pool.adopt_orphan("old", "new")
    assert (0, ()) == (pool.status().exporters[0].dropped, pool.status().orphans)
    pool.send("c")
    assert ["a", "b", "a", "b", "c"] == new.got
    assert not pool.has_unsent_data()
    status = pool.status().exporters[0]
    assert (5, 0) == (status.delivered, status.dropped)


def test_adopted_records_have_new_ids(make_pool: MakePool, place: dict[str, Any]) -> None:
    """A target that tells records by their ids does not take an adopted one for the same record sent to it before."""
    ids: list[rex.RecordId] = []
    times: list[float] = []

    class Noting(rex.Exporter):
        def export(self, batch: rex.Batch) -> None:
            ids.extend(record.id for record in batch)
            times.extend(record.time for record in batch)

    pool = make_pool([MemoryExporter("old", up=False), Noting(name="new")], **place)
    pool.send(1)
    pool.remove_exporter("old")
    pool.adopt_orphan("old", "new")
    pool.send_unsent_data()
    assert (2, 2, 1) == (len(ids), len(set(ids)), len(set(times)))


def test_an_orphan_is_adopted_in_the_background(make_pool: MakePool, place: dict[str, Any]) -> None:
    """In the background, what was adopted goes out without a further send."""
    pool = make_pool([MemoryExporter("old", up=False)], None, 2, False, **place)
    pool.send(1)
    pool.remove_exporter("old")
    new = MemoryExporter("new")
    pool.add_exporter(new)
    assert 1 == pool.adopt_orphan("old", "new")
    new.wait_for(1)
    assert [1] == new.got


def test_what_was_adopted_survives_a_restart(tmp_path: Path) -> None:
    """Adopted records belong to their new exporter in the next run, too, once each."""
    kept = tmp_path / "kept"
    with rex.ExporterPool([MemoryExporter("old", up=False)], use_memory=False, tmp_file=kept) as pool:
        pool.send_many(range(5))
    with rex.ExporterPool([MemoryExporter("new", up=False)], use_memory=False, tmp_file=kept) as pool:
        assert 5 == pool.adopt_orphan("old", "new")
    new = MemoryExporter("new")
    with rex.ExporterPool([new], use_memory=False, tmp_file=kept) as pool:
        assert () == pool.status().orphans
        pool.send_unsent_data()
    assert list(range(5)) == new.got


def test_a_kill_while_adopting_loses_nothing(run_script: Callable[..., str], tmp_path: Path) -> None:
    """Killed between keeping records anew and settling them, the pool owes them to both names, to each once."""
    run_script(
        """
        from resilient_exporters.spool.logspool import LogSpool
        with rex.ExporterPool([MemoryExporter("old", up=False)], use_memory=False, tmp_file="kept") as pool:
            pool.send_many(range(5))
        pool = rex.ExporterPool([MemoryExporter("new", up=False)], use_memory=False, tmp_file="kept")
        LogSpool.settle = lambda *args: die()
        pool.adopt_orphan("old", "new")
        """,
        killed=True,
    )
    old, new = MemoryExporter("old"), MemoryExporter("new")
    with rex.ExporterPool([old, new], use_memory=False, tmp_file=tmp_path / "kept") as pool:
        pool.send_unsent_data()
    assert (list(range(5)), list(range(5))) == (old.got, new.got)


def test_an_orphan_is_dropped(make_pool: MakePool, place: dict[str, Any]) -> None:
    """What is owed to an absent exporter can be dropped; present exporters lose nothing."""
    stays = MemoryExporter("stays", up=False)
    pool = make_pool([MemoryExporter("gone", up=False), stays], **place)
    pool.send(1)
    pool.send(2)
    pool.remove_exporter("gone")
    assert 2 == pool.drop_orphan("gone")
    status = pool.status()
    assert ((), 2, 0) == (status.orphans, status.owed, status.exporters[0].dropped)
    stays.up = True
    pool.send_unsent_data()
    assert [1, 2] == stays.got
    with pytest.raises(rex.InvalidConfigError):
        pool.drop_orphan("gone")


def test_orphans_are_the_outermost_pool_s(make_pool: MakePool) -> None:
    """A pool inside another one refers to the outermost."""
    inner = rex.ExporterPool([MemoryExporter("t")], name="inner")
    make_pool([inner], name="outer")
    with pytest.raises(rex.InvalidConfigError, match="outermost"):
        inner.drop_orphan("x")
    with pytest.raises(rex.InvalidConfigError, match="outermost"):
        inner.adopt_orphan("x", "t")


def test_a_full_spool_adopts_what_it_can(make_pool: MakePool) -> None:
    """Without room, adopting raises and loses nothing: what is not adopted is owed to the orphan still."""
    limits = rex.Limits(bytes=20_000, when_full="drop_oldest")
    pool = make_pool([MemoryExporter("old", up=False)], limits=limits)
    for _ in range(10):
        pool.send("x" * 1500)
    pool.remove_exporter("old")
    pool.add_exporter(MemoryExporter("new", up=False))
    owed = pool.status().orphans[0].owed
    with pytest.raises(rex.SpoolFull):
        pool.adopt_orphan("old", "new")
    assert owed == pool.status().orphans[0].owed


def test_adopting_takes_constant_memory(make_pool: MakePool, tmp_path: Path) -> None:
    """A long backlog is adopted and dropped in chunks: memory stays within a few megabytes."""
    pool = make_pool([MemoryBatchExporter("old", up=False)], use_memory=False, tmp_file=tmp_path / "kept")
    pool.send_many({"i": number, "pad": "x" * 900} for number in range(15_000))
    pool.remove_exporter("old")
    pool.add_exporter(MemoryBatchExporter("new", up=False))
    tracemalloc.start()
    assert 15_000 == pool.adopt_orphan("old", "new")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8_000_000
