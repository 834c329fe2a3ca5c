"""Point 23: moving what is kept between memory and file."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryBatchExporter, MemoryExporter

MakePool = Callable[..., rex.ExporterPool]


@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("place", ["path", "stream", "default"])
def test_switching_neither_loses_nor_reorders(make_pool: MakePool, tmp_path: Path, start: bool, place: str) -> None:
    """Records kept before and between several switches arrive in order, once, with their keywords."""
    tmp_file: Any = {"path": tmp_path / "kept", "stream": io.BytesIO(), "default": None}[place]
    target, batch = MemoryExporter("t", up=False), MemoryBatchExporter("b", up=False)
    pool = make_pool([target, batch], use_memory=start, tmp_file=tmp_file, name="moving")
    for number in range(60):
        if number % 10 == 9:
            pool.use_memory = not pool.use_memory
        assert all(result.kept for result in pool.send(number, table=number % 3))
    target.up = batch.up = True
    pool.send_unsent_data()
    assert list(range(60)) == target.got == batch.got
    assert [{"table": number % 3} for number in range(60)] == target.kwargs == batch.kwargs
    assert not pool.has_unsent_data()


def test_to_the_file_makes_it_safe(make_pool: MakePool, tmp_path: Path) -> None:
    """What was in memory is in the file after the switch: the next pool delivers it."""
    pool = make_pool([MemoryExporter("t", up=False)], tmp_file=tmp_path / "kept")
    for number in range(5):
        pool.send(number)
    assert not (tmp_path / "kept").exists()
    pool.use_memory = False
    assert (tmp_path / "kept").exists()
    pool.close()
    target = MemoryExporter("t")
    make_pool([target], use_memory=False, tmp_file=tmp_path / "kept").send_unsent_data()
    assert [0, 1, 2, 3, 4] == target.got


def test_to_memory_and_back_keeps_what_the_file_held(make_pool: MakePool, tmp_path: Path) -> None:
    """Switching back and forth without any delivery leaves one copy of each record."""
    pool = make_pool([MemoryExporter("t", up=False)], use_memory=False, tmp_file=tmp_path / "kept")
    for number in range(5):
        pool.send(number)
    for _ in range(5):
        pool.use_memory = True
        assert pool.has_unsent_data()
        pool.use_memory = False
        assert pool.has_unsent_data()
    pool.close()
    target = MemoryExporter("t")
    make_pool([target], use_memory=False, tmp_file=tmp_path / "kept").send_unsent_data()
    assert [0, 1, 2, 3, 4] == target.got


def test_only_for_those_that_owe(make_pool: MakePool, tmp_path: Path) -> None:
    """A switch does not make a record owed to an exporter that has it."""
    a, b = MemoryExporter("a"), MemoryExporter("b", up=False)
    pool = make_pool([a, b], tmp_file=tmp_path / "kept")
    for number in range(3):
        pool.send(number)
        pool.use_memory = not pool.use_memory
    b.up = True
    pool.send_unsent_data()
    assert [0, 1, 2] == a.got == b.got


@pytest.mark.uncounted("adopted at the switch")
def test_a_file_that_holds_something_is_not_truncated(make_pool: MakePool, tmp_path: Path) -> None:
    """Switching to a file with records of an earlier run keeps those and adds what was in memory."""
    earlier = make_pool([MemoryExporter("t", up=False)], use_memory=False, tmp_file=tmp_path / "kept")
    earlier.send("old 1")
    earlier.send("old 2")
    earlier.close()
    target = MemoryExporter("t", up=False)
    pool = make_pool([target], tmp_file=tmp_path / "kept")
    pool.send("new 1")
    pool.use_memory = False
    pool.send("new 2")
    target.up = True
    pool.send_unsent_data()
    assert {"old 1", "old 2", "new 1", "new 2"} == set(target.got)
    assert ["new 1", "new 2"] == [data for data in target.got if data.startswith("new")]
    assert ["old 1", "old 2"] == [data for data in target.got if data.startswith("old")]
    assert 4 == len(target.got)


def test_setting_what_is_set_changes_nothing(make_pool: MakePool, tmp_path: Path) -> None:
    """Setting `use_memory` to what it is does nothing."""
    target = MemoryExporter("t", up=False)
    pool = make_pool([target], tmp_file=tmp_path / "kept")
    pool.send(1)
    pool.use_memory = True
    assert not (tmp_path / "kept").exists()
    pool.use_memory = False
    pool.use_memory = False
    target.up = True
    pool.send_unsent_data()
    assert [1] == target.got


def test_what_the_file_cannot_hold_stays_in_memory(make_pool: MakePool, tmp_path: Path) -> None:
    """When something in memory cannot be kept on disk the setter raises, and everything stays where it was."""
    target = MemoryExporter("t", up=False)
    pool = make_pool([target], tmp_file=tmp_path / "kept")
    stubborn = object()
    for data in (1, stubborn, 2):
        pool.send(data)
    with pytest.raises(rex.DataTypeError):
        pool.use_memory = False
    assert pool.use_memory
    target.up = True
    pool.send_unsent_data()
    assert [1, 2] == [data for data in target.got if type(data) is int]
    assert 3 == len(target.got)


def test_a_full_disk_leaves_everything_in_memory(make_pool: MakePool, small_disk: Callable[[str], Path]) -> None:
    """When the disk is full the setter raises the library's own error, and everything stays where it was."""
    folder = small_disk("64k")
    target = MemoryExporter("t", up=False)
    pool = make_pool([target], tmp_file=folder / "kept")
    for number in range(200):
        pool.send({"i": number, "pad": "x" * 1000})
    with pytest.raises(rex.SpoolError):
        pool.use_memory = False
    assert pool.use_memory
    pool.send({"i": 200, "pad": ""})
    target.up = True
    pool.send_unsent_data()
    assert list(range(201)) == [data["i"] for data in target.got]


def test_no_room_in_memory_leaves_everything_in_the_file(make_pool: MakePool, tmp_path: Path) -> None:
    """When there is no room in memory the setter raises, and everything stays in the file."""
    path = tmp_path / "kept"
    limits = rex.Limits(bytes=200_000)  # type: ignore[attr-defined,unused-ignore]
    filling = make_pool([MemoryExporter("t", up=False)], use_memory=False, tmp_file=path)
    for number in range(500):
        filling.send({"i": number, "pad": "x" * 1000})
    filling.close()
    target = MemoryExporter("t", up=False)
    pool = make_pool([target], use_memory=False, tmp_file=path, limits=limits)
    with pytest.raises(rex.SpoolFull):
        pool.use_memory = True
    assert not pool.use_memory
    target.up = True
    pool.send_unsent_data()
    assert list(range(500)) == [data["i"] for data in target.got]


def test_an_exporter_alone_may_be_switched_too(tmp_path: Path) -> None:
    """`use_memory` of an exporter outside any pool moves what it keeps."""
    target = MemoryExporter("t", up=False, tmp_file=tmp_path / "kept")
    target.send(1)
    target.use_memory = False
    target.send(2)
    assert (tmp_path / "kept").exists()
    target.use_memory = True
    target.send(3)
    target.up = True
    target.send_unsent_data()
    assert [1, 2, 3] == target.got


@pytest.mark.parametrize("seconds", [0.0, 0.0005])
def test_switching_in_the_background(make_pool: MakePool, tmp_path: Path, seconds: float) -> None:
    """Switches while the background delivers lose, double and reorder nothing."""
    target = MemoryExporter("t", seconds=seconds)
    pool = make_pool([target], None, 2, False, tmp_file=tmp_path / "kept")
    for number in range(400):
        if number % 50 == 49:
            pool.use_memory = not pool.use_memory
        pool.send(number)
    pool.flush(30)
    assert list(range(400)) == target.got


@pytest.mark.uncounted("adopted at the switch")
def test_letters_in_a_file_that_is_gone_on_in(make_pool: MakePool, tmp_path: Path) -> None:
    """With `use_memory=False` the letters that lie in the file count at once, beside those that memory brings."""

    def picky(name: str) -> MemoryBatchExporter:
        return MemoryBatchExporter(name, refuse=lambda data: data < 0)

    first = make_pool([picky("t"), picky("absent")], use_memory=False, tmp_file=tmp_path / "kept")
    first.send(-1)
    first.close()
    pool = make_pool([picky("t"), picky("left")], tmp_file=tmp_path / "kept")
    pool.send(-2)
    pool.remove_exporter("left")
    pool.use_memory = False
    assert [("t", 2)] == [(lane.name, lane.dead) for lane in pool.status().exporters]
    pool.add_exporter(picky("absent"))
    pool.add_exporter(picky("left"))
    assert [2, 1, 1] == [lane.dead for lane in pool.status().exporters]
    assert 4 == len(list(pool.dead_letters))
    pool.dead_letters.drop()
    assert [0, 0, 0] == [lane.dead for lane in pool.status().exporters]
