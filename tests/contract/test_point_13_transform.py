"""Point 13: whose `transform` runs, when, and how often."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryBatchExporter, MemoryExporter

MakePool = Callable[..., rex.ExporterPool]


def halve(data: Any) -> Any:
    """A transform that shows how often it ran."""
    return data / 2


@pytest.mark.parametrize("threads", [1, 3])
def test_transform_runs_once_per_send(make_pool: MakePool, threads: int) -> None:
    """`transform` runs once per `send`, before any exporter, whatever their number."""
    order: list[str] = []

    class Telling(rex.Exporter):
        def send(self, data: Any) -> rex.ExportResult:
            order.append("exporter")
            return rex.ExportResult(data, True)

    def transform(data: Any) -> Any:
        order.append("transform")
        return data + 1

    pool = make_pool([Telling(), Telling(), Telling()], transform, threads)
    assert [(2, True)] * 3 == pool.send(1)
    assert ["transform", "exporter", "exporter", "exporter"] == order


@pytest.mark.parametrize("use_memory", [True, False])
@pytest.mark.parametrize("target_kind", [MemoryExporter, MemoryBatchExporter])
def test_what_is_kept_is_not_transformed_again(
    make_pool: MakePool, tmp_path: Path, use_memory: bool, target_kind: Callable[..., Any]
) -> None:
    """What is kept is already transformed, and stays so through several attempts, switches and a restart."""
    target = target_kind("t", up=False)
    pool = make_pool([target], halve, use_memory=use_memory, tmp_file=tmp_path / "kept")
    pool.send(8)
    pool.send_unsent_data()
    pool.use_memory = not use_memory
    pool.send_unsent_data()
    pool.use_memory = False
    pool.close()
    target.up = True
    again = make_pool([target], halve, use_memory=False, tmp_file=tmp_path / "kept")
    again.send(16)
    assert [4, 8] == target.got


def test_its_errors_reach_the_caller(make_pool: MakePool) -> None:
    """An error of `transform` reaches the caller as it is, and nothing is sent or kept."""
    error = ZeroDivisionError("mine")

    def transform(data: Any) -> Any:
        raise error

    target = MemoryExporter()
    pool = make_pool([target], transform)
    with pytest.raises(ZeroDivisionError) as raised:
        pool.send(1)
    assert error is raised.value
    assert 0 == target.calls
    assert not pool.has_unsent_data()


def test_none_as_its_outcome_is_an_error(make_pool: MakePool) -> None:
    """A `transform` that gives None raises, and nothing is sent or kept."""
    target = MemoryExporter()
    pool = make_pool([target], lambda data: None)
    with pytest.raises(rex.ResilientExporterException):
        pool.send(1)
    assert 0 == target.calls
    assert not pool.has_unsent_data()


@pytest.mark.parametrize("outcome", [0, "", False, [], {}, b""])
def test_an_empty_outcome_is_an_outcome(make_pool: MakePool, outcome: Any) -> None:
    """What is merely empty or zero is sent like anything else."""
    target = MemoryExporter()
    make_pool([target], lambda data: outcome).send(1)
    assert [outcome] == target.got


def test_a_pool_s_transform_replaces_those_of_its_exporters(make_pool: MakePool) -> None:
    """With a pool's `transform`, the exporters' own do not run."""
    own, late = (MemoryExporter("own", transform=halve), MemoryExporter("late", transform=halve, up=False))
    pool = make_pool([own, late], lambda data: data + 1)
    pool.send(1)
    late.up = True
    pool.send_unsent_data()
    assert ([2], [2]) == (own.got, late.got)


@pytest.mark.parametrize("use_memory", [True, False])
@pytest.mark.parametrize("kind", [MemoryExporter, MemoryBatchExporter])
def test_in_a_pool_without_one_each_exporter_s_own_runs_once(
    make_pool: MakePool, tmp_path: Path, use_memory: bool, kind: Callable[..., Any]
) -> None:
    """In a pool without `transform`, each exporter's own runs once on what that exporter gets, at once or late."""
    plain, now, late = (kind("plain"), kind("now", transform=halve), kind("late", transform=halve, up=False))
    pool = make_pool([plain, now], use_memory=use_memory, tmp_file=tmp_path / "kept")
    pool.add_exporter(late)
    for number in (8, 16):
        pool.send(number)
    for _ in range(3):
        pool.send_unsent_data()
    late.up = True
    pool.send(32)
    assert ([8, 16, 32], [4, 8, 16], [4, 8, 16]) == (plain.got, now.got, late.got)


def test_an_exporter_s_own_runs_at_the_right_time_after_a_restart(make_pool: MakePool, tmp_path: Path) -> None:
    """What was kept for an exporter with its own `transform` arrives transformed once, also in the next process."""
    pool = make_pool([MemoryExporter("t", up=False, transform=halve)], use_memory=False, tmp_file=tmp_path / "kept")
    pool.send(8)
    pool.close()
    target = MemoryExporter("t", transform=halve)
    make_pool([target], use_memory=False, tmp_file=tmp_path / "kept").send(16)
    assert [4, 8] == target.got


def test_after_joining_a_direct_send_neither_transforms_nor_keeps(make_pool: MakePool) -> None:
    """Called directly after joining, `exporter.send` is the bare method."""
    target = MemoryExporter("t", transform=halve)
    pool = make_pool([target])
    assert (None, True) == target.send(8)
    assert [8] == target.got
    target.up = False
    assert (None, False) == target.send(9)
    assert not pool.has_unsent_data()
    target.error = ValueError("bare")
    with pytest.raises(ValueError, match="bare"):
        target.send(10)


def test_after_the_pool_closed_it_transforms_and_keeps_again(make_pool: MakePool) -> None:
    """An exporter that is free again transforms and keeps by itself again."""
    target = MemoryExporter("t", transform=halve, up=False)
    make_pool([target]).close()
    assert target.send(8).kept
    target.up = True
    target.send(16)
    assert [4, 8] == target.got


def test_alone_its_own_transform_runs_once() -> None:
    """An exporter outside any pool transforms each record once, at once or late."""
    target = MemoryExporter(transform=halve, up=False)
    target.send(8)
    target.send_unsent_data()
    target.up = True
    target.send(16)
    assert [4, 8] == target.got


def test_alone_an_error_of_its_transform_is_its_failure() -> None:
    """Outside a pool, too, an exporter's own `transform` that raises is that exporter's failure."""
    divisors = [0]
    target = MemoryExporter(transform=lambda data: data / divisors[0])
    result: rex.ExportResult = target.send(8)
    assert not result.successful
    assert result.kept
    assert isinstance(result.error, ZeroDivisionError)
    assert 0 == target.calls
    divisors[0] = 2
    assert [(None, True)] == target.send_unsent_data()
    assert [4] == target.got


def test_an_inner_pool_s_transform_runs_for_its_exporters(make_pool: MakePool) -> None:
    """In an outer pool without `transform`, an inner pool's runs once on what the inner pool gets."""
    inner_target, outer_target = MemoryExporter("i", up=False), MemoryExporter("o")
    pool = make_pool([rex.ExporterPool([inner_target], halve, name="inner"), outer_target], name="outer")
    pool.send(8)
    pool.send_unsent_data()
    inner_target.up = True
    pool.send(16)
    assert ([4, 8], [8, 16]) == (inner_target.got, outer_target.got)


def test_transform_of_an_exporter_can_be_called() -> None:
    """`exporter.transform(data)` applies what was given."""
    assert 2.0 == MemoryExporter(transform=halve).transform(4)
    assert 4 == MemoryExporter().transform(4)


def test_a_transform_that_sends_data_of_another_kind(make_pool: MakePool, tmp_path: Path) -> None:
    """`transform` is the way to send what the file cannot keep: only its outcome counts."""
    target = MemoryExporter()
    pool = make_pool([target], lambda data: {"text": repr(data)}, use_memory=False, tmp_file=tmp_path / "kept")
    pool.send(len)
    assert [{"text": "<built-in function len>"}] == target.got
