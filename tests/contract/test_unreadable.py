"""Points 6 and 24: a file that cannot be read any more is the trouble of those exporters only that are owed from it."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryExporter

MakePool = Callable[..., rex.ExporterPool]


@pytest.fixture
def unreadable(make_pool: MakePool) -> Callable[..., tuple[rex.ExporterPool, MemoryExporter, MemoryExporter]]:
    """A pool whose first exporter owes a record in a file that can be read no more, while the second is up."""

    def make(**options: Any) -> tuple[rex.ExporterPool, MemoryExporter, MemoryExporter]:
        file, owing, healthy = io.BytesIO(), MemoryExporter("owing", up=False), MemoryExporter("healthy")
        pool = make_pool([owing, healthy], use_memory=False, tmp_file=file, **options)
        pool.send("kept")
        file.close()
        return pool, owing, healthy

    return make


@pytest.mark.parametrize("threads", [1, 2])
def test_what_cannot_be_read_is_one_exporters_trouble(unreadable: Callable[..., Any], threads: int) -> None:
    """When what is owed cannot be read, the exporter that owes it has failed, and every other one is tried."""
    pool, _, healthy = unreadable(num_threads=threads)
    failed, taken = pool.send("new")
    assert ((None, False), True, False) == (failed, isinstance(failed.error, rex.SpoolError), failed.kept)
    assert taken.successful
    assert ["kept", "new"] == healthy.got
    healthy.up = False
    with pytest.raises(rex.SpoolError):
        pool.send("taken and kept by nobody")


def test_many_while_nothing_can_be_read(unreadable: Callable[..., Any]) -> None:
    """`send_many`, too, serves the exporters that owe nothing."""
    pool, _, healthy = unreadable()
    failed, taken = pool.send_many(["a", "b"])
    assert (0, False, True) == (failed.returned, failed.successful, isinstance(failed.error, rex.SpoolError))
    assert (2, True) == taken
    assert ["kept", "a", "b"] == healthy.got


def test_a_pass_goes_on_with_the_other_exporters(unreadable: Callable[..., Any]) -> None:
    """A pass over what cannot be read is a failed result of that exporter, and the status tells why."""
    pool, owing, _ = unreadable()
    (result,) = pool.send_unsent_data()
    assert ("owing", False, True) == (result.exporter, result.successful, isinstance(result.error, rex.SpoolError))
    assert not pool.flush(0.0)
    assert "SpoolError" in str(next(lane for lane in pool.status().exporters if lane.name == "owing").last_error)
    assert [] == owing.got
