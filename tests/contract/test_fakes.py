"""The exporters offered for tests do as they are told."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryBatchExporter, MemoryExporter


def test_a_fake_collects_what_it_takes() -> None:
    """A fake keeps data and keywords in the order of arrival, and counts its calls."""
    for target in (MemoryExporter(), MemoryBatchExporter()):
        target.send("a", table="t")
        target.send("b")
        assert (["a", "b"], [{"table": "t"}, {}], 2) == (target.got, target.kwargs, target.calls)


def test_a_fake_refuses_single_records() -> None:
    """With `refuse`, the records it names are not taken, and those around them are: a pass gets behind the one owed."""
    target = MemoryExporter(refuse=lambda data: data < 0)
    assert [True, False, False] == [target.send(data).successful for data in (1, -1, 2)]
    target.send_unsent_data()
    assert [1, 2] == target.got
    target.refuse = None
    target.send_unsent_data()
    assert [1, 2, -1] == target.got


def test_a_batch_fake_refuses_single_records_for_good() -> None:
    """With `refuse`, the records it names become dead letters, and hold up nothing."""
    target = MemoryBatchExporter(refuse=lambda data: data < 0)
    assert [True, False, True] == [target.send(data).successful for data in (1, -1, 2)]
    assert [1, 2] == target.got
    assert [-1] == [letter.data for letter in target.dead_letters]


def test_a_batch_fake_takes_what_a_refusal_does_not_name(make_pool: Callable[..., rex.ExporterPool]) -> None:
    """With `error=RecordsRefused(...)`, the records that it does not name are taken."""
    target = MemoryBatchExporter("t", error=rex.RecordsRefused(permanent={0: "no"}))
    pool = make_pool([target], manual_reexport=True)
    for number in range(3):
        pool.save_unsent_data(number, {}, "t")
    pool.send_unsent_data()
    assert [1, 2] == target.got[:2]


def test_a_fake_hangs_on_command() -> None:
    """Between `hang` and `release` calls hang; who waits is woken, or told that nothing came."""
    target = MemoryExporter()
    target.hang()
    caller = threading.Thread(target=target.send, args=("x",), daemon=True)
    caller.start()
    target.wait_for_calls(1)
    with pytest.raises(TimeoutError, match="1 records"):
        target.wait_for(1, timeout=0.01)
    target.release()
    target.wait_for(1)
    caller.join(60)
    assert (["x"], 1, 1) == (target.got, target.calls, target.most_running)
