"""Point 28: pools in pools."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryExporter

MakePool = Callable[..., rex.ExporterPool]


def test_one_result_for_an_inner_pool(make_pool: MakePool) -> None:
    """The outer `send` gives one result for the inner pool, whose `returned` is the list of the inner results."""
    a, b, c = (MemoryExporter("a", returned=1), MemoryExporter("b", returned=2), MemoryExporter("c", returned=3))
    inner = rex.ExporterPool([a, b], name="inner")
    results = make_pool([c, inner], name="outer").send("x")
    assert ["c", "inner"] == [result.exporter for result in results]
    assert [True, True] == [result.successful for result in results]
    assert [(1, True), (2, True)] == results[1].returned
    assert all(isinstance(result, rex.ExportResult) for result in results[1].returned)


def test_an_inner_pool_succeeds_when_all_of_its_exporters_did(make_pool: MakePool) -> None:
    """One failing inner exporter makes the inner pool's result a failure, and only that one is owed the record."""
    a, bad, c = (MemoryExporter("a"), MemoryExporter("bad", up=False), MemoryExporter("c"))
    pool = make_pool([rex.ExporterPool([a, bad], name="inner"), c], name="outer")
    inner, other = pool.send("x")
    assert (False, True) == (inner.successful, other.successful)
    assert (True, False) == (inner.kept, other.kept)
    assert [(None, True), (None, False)] == inner.returned
    bad.up = True
    pool.send("y")
    assert ["x", "y"] == a.got == bad.got == c.got
    assert not pool.has_unsent_data()


@pytest.mark.uncounted("sent through a pool inside")
@pytest.mark.parametrize("use_memory", [True, False])
def test_deep_nesting_resends_to_the_leaves_that_failed(make_pool: MakePool, tmp_path: Path, use_memory: bool) -> None:
    """Three levels deep a record is kept for, and re-sent to, just the leaves that failed; also after a restart."""

    def build(up: bool) -> tuple[rex.ExporterPool, list[MemoryExporter]]:
        leaves = [MemoryExporter(f"l{number}", up=up or number % 2 == 0) for number in range(4)]
        core = rex.ExporterPool(leaves[2:], name="core")
        middle = rex.ExporterPool([leaves[1], core], name="middle")
        pool = make_pool([leaves[0], middle], name="outer", use_memory=use_memory, tmp_file=tmp_path / "kept")
        return pool, leaves

    pool, leaves = build(up=False)
    for number in range(3):
        pool.send(number)
    assert [[0, 1, 2], [], [0, 1, 2], []] == [leaf.got for leaf in leaves]
    pool.use_memory = False
    pool.close()
    pool, leaves = build(up=True)
    if use_memory:
        pool.use_memory = False
    pool.send_unsent_data()
    assert [[], [0, 1, 2], [], [0, 1, 2]] == [leaf.got for leaf in leaves]


def test_the_members_of_the_outer_pool(make_pool: MakePool) -> None:
    """`exporters`, `len` and iteration of the outer pool give the inner pool as one exporter."""
    a, b = MemoryExporter("a"), MemoryExporter("b")
    inner = rex.ExporterPool([a], name="inner")
    pool = make_pool([inner, b], name="outer")
    assert [("inner", inner), ("b", b)] == list(pool.exporters.items())
    assert 2 == len(pool)
    assert [inner, b] == list(pool)


def test_two_unnamed_inner_pools(make_pool: MakePool) -> None:
    """Two unnamed inner pools with equal exporters are two, and each has its own records."""
    a, b = MemoryExporter(up=False), MemoryExporter()
    pool = make_pool([rex.ExporterPool([a]), rex.ExporterPool([b])])
    pool.send(1)
    pool.send(2)
    a.up = True
    pool.send_unsent_data()
    assert [1, 2] == a.got == b.got
    assert 2 == len(pool)


def test_the_outer_pool_s_threads_run_the_leaves(make_pool: MakePool) -> None:
    """The outer pool's threads run the leaves; an inner pool's own threads, waiting and file no longer apply."""
    barrier = threading.Barrier(4, timeout=60)

    class Meeting(MemoryExporter):
        def send(self, data: Any, /, **kwargs: Any) -> rex.ExportResult:
            barrier.wait()
            return super().send(data, **kwargs)

    leaves = [Meeting(f"l{number}") for number in range(4)]
    inner = rex.ExporterPool(leaves[1:], None, 1, False, name="inner")
    pool = make_pool([leaves[0], inner], num_threads=4, name="outer")
    assert [True, True] == [result.successful for result in pool.send(1)]


def test_an_inner_pool_in_background_mode_in_a_waiting_one(make_pool: MakePool) -> None:
    """An inner pool made for the background gives results like any other once it is in a waiting pool."""
    leaf = MemoryExporter("leaf", up=False)
    pool = make_pool([rex.ExporterPool([leaf], None, 2, False, name="inner")], name="outer")
    (result,) = pool.send(1)
    assert (False, True) == (result.successful, result.kept)


def test_an_inner_pool_s_file_no_longer_applies(make_pool: MakePool, tmp_path: Path) -> None:
    """What fails in an inner pool is kept by the outermost pool, in its place."""
    leaf = MemoryExporter("leaf", up=False)
    inner = rex.ExporterPool([leaf], use_memory=False, tmp_file=tmp_path / "inner", name="inner")
    pool = make_pool([inner], use_memory=False, tmp_file=tmp_path / "outer", name="outer")
    pool.send(1)
    assert (tmp_path / "outer").exists()
    assert not (tmp_path / "inner").exists()


@pytest.mark.parametrize("use_memory", [True, False])
def test_what_an_inner_pool_kept_before_comes_along(make_pool: MakePool, tmp_path: Path, use_memory: bool) -> None:
    """What an inner pool had kept before it joined is delivered by the outer pool, in front of what comes later."""
    leaf, other = MemoryExporter("leaf", up=False), MemoryExporter("other")
    inner = rex.ExporterPool([leaf, other], use_memory=use_memory, tmp_file=tmp_path / "inner", name="inner")
    inner.send("before", table="t")
    pool = make_pool([inner], name="outer")
    assert pool.has_unsent_data()
    leaf.up = True
    pool.send("after")
    assert ["before", "after"] == leaf.got == other.got
    assert [{"table": "t"}, {}] == leaf.kwargs


@pytest.mark.uncounted("sent through a pool inside")
def test_saving_by_hand_for_an_inner_pool(make_pool: MakePool) -> None:
    """`save_unsent_data` under an inner pool's name keeps for all of its leaves and for no others."""
    a, b, c = MemoryExporter("a"), MemoryExporter("b"), MemoryExporter("c")
    pool = make_pool([rex.ExporterPool([a, b], name="inner"), c], name="outer")
    pool.save_unsent_data("x", {}, "inner")
    pool.send_unsent_data()
    assert (["x"], ["x"], []) == (a.got, b.got, c.got)


def test_an_exporter_added_to_an_inner_pool_later(make_pool: MakePool) -> None:
    """An exporter that is added to an inner pool after joining is served by the outer pool."""
    a, b = MemoryExporter("a"), MemoryExporter("b", up=False)
    inner = rex.ExporterPool([a], name="inner")
    pool = make_pool([inner], name="outer")
    inner.add_exporter(b)
    (result,) = pool.send(1)
    assert [(None, True), (None, False)] == result.returned
    b.up = True
    pool.send(2)
    assert [1, 2] == a.got == b.got


def test_a_pool_in_itself_is_refused(make_pool: MakePool) -> None:
    """A pool cannot be put into itself, directly or through another."""
    pool = make_pool([], name="one")
    with pytest.raises(rex.InvalidConfigError):
        pool.add_exporter(pool)
    inner = rex.ExporterPool([], name="inner")
    outer = make_pool([inner], name="outer")
    with pytest.raises(rex.InvalidConfigError):
        inner.add_exporter(outer)


def test_a_leaf_in_two_inner_pools_is_refused(make_pool: MakePool) -> None:
    """An exporter of an inner pool cannot be in the outer one as well."""
    leaf = MemoryExporter("leaf")
    inner = rex.ExporterPool([leaf], name="inner")
    with pytest.raises(rex.InvalidConfigError):
        make_pool([inner, leaf], name="outer")
    assert [(None, True)] == make_pool([MemoryExporter("free"), inner], name="next").send(1)[:1]


def test_inner_interrupts_and_errors(make_pool: MakePool) -> None:
    """An inner exporter that raises fails by itself; KeyboardInterrupt reaches the outermost caller after keeping."""
    a, bad, c = (MemoryExporter("a"), MemoryExporter("bad", error=ValueError("x")), MemoryExporter("c"))
    pool = make_pool([rex.ExporterPool([a, bad], name="inner"), c], name="outer")
    inner, fine = pool.send(1)
    assert isinstance(inner.returned[1].error, ValueError)
    assert inner.error is not None
    assert fine.successful
    bad.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        pool.send(2)
    bad.error = None
    pool.send(3)
    assert [1, 2, 3] == a.got == bad.got == c.got


def test_an_empty_inner_pool_succeeds(make_pool: MakePool) -> None:
    """All exporters of an empty inner pool took the record."""
    (result,) = make_pool([rex.ExporterPool(None, name="inner")], name="outer").send(1)
    assert ([], True) == result


def test_orphaned_leaves_come_back_by_path(make_pool: MakePool, tmp_path: Path) -> None:
    """Lanes are named by their path: a leaf of the same name elsewhere does not get what another is owed."""
    pool = make_pool(
        [rex.ExporterPool([MemoryExporter("leaf", up=False)], name="one")],
        name="outer",
        use_memory=False,
        tmp_file=tmp_path / "kept",
    )
    pool.send("x")
    pool.close()
    elsewhere, same = MemoryExporter("leaf"), MemoryExporter("leaf")
    pool = make_pool(
        [rex.ExporterPool([elsewhere], name="two")], name="outer", use_memory=False, tmp_file=tmp_path / "kept"
    )
    pool.send_unsent_data()
    assert [] == elsewhere.got
    pool.add_exporter(rex.ExporterPool([same], name="one"))
    pool.send_unsent_data()
    assert (["x"], []) == (same.got, elsewhere.got)


def test_an_inner_pool_called_directly(make_pool: MakePool) -> None:
    """Called directly, an inner pool keeps nothing, but serves each exporter whatever happens to the others."""

    class Plain(rex.Exporter):
        def send(self, data: Any) -> rex.ExportResult:
            raise ValueError("no")

    class Nonsense(rex.Exporter):
        def send(self, data: Any) -> Any:
            data.append(2)
            return "taken"

    good = MemoryExporter("good")
    inner = rex.ExporterPool([Plain(), Nonsense(), good], name="inner")
    outer = make_pool([inner], name="outer")
    sent = [1]
    results = inner.send(sent, table="x")
    assert [False, False, True] == [result.successful for result in results]
    assert [ValueError, rex.ExportError, type(None)] == [type(result.error) for result in results]
    assert ([[1]], [{"table": "x"}], [1]) == (good.got, good.kwargs, sent)
    assert not outer.has_unsent_data()
    with pytest.raises(rex.DataTypeError):
        inner.send(None)


def test_an_inner_pool_called_directly_refuses_unknown_keywords(make_pool: MakePool) -> None:
    """A keyword that no exporter of the inner pool takes raises before any of them is called."""

    class Plain(rex.Exporter):
        def send(self, data: Any) -> rex.ExportResult:
            raise AssertionError("called")

    inner = rex.ExporterPool([Plain()], name="inner")
    make_pool([inner], name="outer")
    with pytest.raises(TypeError, match="table"):
        inner.send(1, table="x")
