"""Point 32: closing, repr, and what cannot be done with a pool."""

from __future__ import annotations

import copy
import os
import pickle
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryBatchExporter, MemoryExporter

MakePool = Callable[..., rex.ExporterPool]


def test_close_is_idempotent(make_pool: MakePool) -> None:
    """`close` may be called again and again."""
    pool = make_pool([MemoryExporter()])
    for _ in range(3):
        pool.close()
    pool.close(timeout=1.0)


def test_a_background_pool_delivers_before_it_closes(make_pool: MakePool) -> None:
    """`close` of a background pool delivers what it can first."""
    target = MemoryExporter(seconds=0.001)
    pool = make_pool([target], None, 2, False)
    for number in range(200):
        pool.send(number)
    pool.close(timeout=30)
    assert list(range(200)) == target.got


def test_close_returns_in_time_with_a_hung_target(make_pool: MakePool, tmp_path: Path) -> None:
    """`close(timeout)` returns within about its time although a target hangs, and what is owed stays on disk."""
    target = MemoryExporter("t")
    target.hang()
    pool = make_pool([target], None, 2, False, use_memory=False, tmp_file=tmp_path / "kept")
    try:
        pool.send(1)
        target.wait_for_calls(1)
        started = time.monotonic()
        pool.close(timeout=0.2)
        assert time.monotonic() - started < 30
        successor = MemoryExporter("t")
        make_pool([successor], use_memory=False, tmp_file=tmp_path / "kept").send_unsent_data()
        assert [1] == successor.got
    finally:
        target.release()


@pytest.mark.parametrize(
    "call",
    [
        lambda pool: pool.send(1),
        lambda pool: pool.send_unsent_data(),
        lambda pool: pool.save_unsent_data(1, {}, "t"),
        lambda pool: pool.add_exporter(MemoryExporter()),
        lambda pool: pool.flush(),
        lambda pool: pool.send_many([1]),
        lambda pool: setattr(pool, "use_memory", False),
        lambda pool: setattr(pool, "use_memory", True),
        lambda pool: setattr(pool, "num_threads", 2),
        lambda pool: setattr(pool, "wait_for_result", True),
        lambda pool: setattr(pool, "manual_reexport", True),
        lambda pool: pool.__enter__(),
        lambda pool: pool.submit(1),
        lambda pool: pool.sync(),
    ],
)
def test_later_calls_raise(make_pool: MakePool, call: Callable[[rex.ExporterPool], Any]) -> None:
    """After `close`, whatever would work raises PoolClosed."""
    pool = make_pool([MemoryExporter("t")])
    pool.close()
    with pytest.raises(rex.PoolClosed):
        call(pool)


@pytest.mark.parametrize("use_memory", [True, False])
def test_what_may_be_asked_after_closing(make_pool: MakePool, tmp_path: Path, use_memory: bool) -> None:
    """After `close`, `has_unsent_data`, `exporters`, `status` and `repr` still answer."""
    target = MemoryExporter("t", up=False)
    pool = make_pool([target], use_memory=use_memory, tmp_file=tmp_path / "kept")
    pool.send(1)
    pool.close()
    assert pool.has_unsent_data()
    assert ["t"] == list(pool.exporters)
    assert pool.status() is not None
    assert "t" in repr(pool)


def test_its_exporters_are_free_again(make_pool: MakePool) -> None:
    """After `close` the exporters may join another pool, or work alone."""
    a, b = MemoryExporter("a"), MemoryExporter("b")
    make_pool([a, b]).close()
    assert (None, True) == b.send("alone")
    assert [(None, True)] * 2 == make_pool([b, a]).send("pooled")
    assert (["pooled"], ["alone", "pooled"]) == (a.got, b.got)


def test_batch_exporters_are_closed_with_the_pool(make_pool: MakePool) -> None:
    """Closing a pool closes its exporters' connections."""
    target = MemoryBatchExporter()
    pool = make_pool([target])
    pool.send(1)
    assert (1, 0) == (target.opened, target.closed)
    pool.close()
    assert 1 <= target.closed


def test_an_exporter_that_fails_to_close_holds_up_nothing(make_pool: MakePool, tmp_path: Path) -> None:
    """When an exporter raises in its `close`, the others are closed and the file is let go all the same."""

    class Clinging(MemoryBatchExporter):
        def close(self) -> None:
            raise OSError("broken")

    other = MemoryBatchExporter("other")
    pool = make_pool([Clinging("clinging"), other], use_memory=False, tmp_file=tmp_path / "kept")
    pool.send(1)
    pool.close()
    assert 1 <= other.closed
    assert [(None, True)] == make_pool([other], use_memory=False, tmp_file=tmp_path / "kept").send(2)


def test_repr_shows_name_exporters_and_what_is_owed(make_pool: MakePool) -> None:
    """`repr` shows the name, the exporters and how much is owed."""
    pool = make_pool([MemoryExporter("fine"), MemoryExporter("down", up=False)], name="shown")
    for number in range(37):
        pool.send(number)
    text = repr(pool)
    for word in ("shown", "fine", "down", "37"):
        assert word in text
    assert "\n" not in text


def test_repr_works_on_half_made_objects() -> None:
    """`repr` of an exporter that never called `super().__init__()`, and of a pool without init, raises nothing."""

    class Bare(rex.Exporter):
        def __init__(self) -> None:
            pass

        def send(self, data: Any) -> rex.ExportResult:
            return rex.ExportResult(None, True)

    assert "Bare" in repr(Bare())


@pytest.mark.parametrize("act", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_pool_can_neither_be_pickled_nor_copied(make_pool: MakePool, act: Callable[[Any], Any]) -> None:
    """Pickling or copying a pool raises TypeError with the reason."""
    with pytest.raises(TypeError, match=r"(?i)pool"):
        act(make_pool([]))


def test_a_pool_is_a_context_manager(tmp_path: Path) -> None:
    """`with ExporterPool(...) as pool` closes it, also when the block raises."""
    target = MemoryExporter("t", up=False)
    with rex.ExporterPool([target], use_memory=False, tmp_file=tmp_path / "kept") as pool:
        pool.send(1)
    with pytest.raises(rex.PoolClosed):
        pool.send(2)

    def leave() -> None:
        with rex.ExporterPool([target], use_memory=False, tmp_file=tmp_path / "kept") as again:
            assert again.has_unsent_data()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        leave()
    target.up = True
    with rex.ExporterPool([target], use_memory=False, tmp_file=tmp_path / "kept") as last:
        last.send(3)
    assert [1, 3] == target.got


@pytest.mark.uncounted("what is kept while the pool is closed is in its file, not in its last status")
def test_closing_while_threads_send(make_pool: MakePool, tmp_path: Path) -> None:
    """A `close` while other threads send gives each of them a result or PoolClosed, and nothing accepted is lost."""
    target = MemoryExporter("t", up=False)
    pool = make_pool([target], use_memory=False, tmp_file=tmp_path / "kept")
    accepted: list[Any] = []
    odd: list[BaseException] = []
    started = threading.Barrier(5)

    def work(i: int) -> None:
        started.wait()
        number = 0
        try:
            while True:
                pool.send((i, number))
                accepted.append((i, number))
                number += 1
        except rex.PoolClosed:
            return
        except BaseException as error:  # whatever it is, the test reports it
            odd.append(error)

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    while len(accepted) < 100:
        time.sleep(0)
    pool.close()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert [] == odd
    target.up = True
    make_pool([target], use_memory=False, tmp_file=tmp_path / "kept").send_unsent_data()
    assert set(accepted) <= set(target.got)
    assert len(set(target.got)) == len(target.got)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_repr_in_a_forked_child(make_pool: MakePool) -> None:
    """In a forked child, where the parent's pool refuses to work, `repr` does not raise, and says so."""
    pool = make_pool([MemoryExporter("t", up=False)])
    pool.send(1)
    child = os.fork()
    if not child:
        os._exit(0 if "before the fork" in repr(pool) else 1)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert "1 owed" in repr(pool)
