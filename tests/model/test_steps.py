"""Histories that once went wrong, step by step: found by the model test and by reading, kept for good."""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryBatchExporter
from tests.model.world import (
    Batches,
    Diary,
    Single,
    buried_in,
    clocks,
    content,
    disk,
    owed_in,
    small_files,
    spool_of,
    turned_by_hand,
)


@pytest.fixture(autouse=True)
def strange_world() -> Iterator[None]:
    """Tiny segments on a disk that fills up, clocks turned by hand."""
    with small_files(), turned_by_hand():
        disk.full = False
        yield
        disk.full = False


def send(pool: rex.ExporterPool, numbers: range) -> None:
    for number in numbers:
        pool.send(content(number))


def test_the_senders_own_error_keeps_its_traceback() -> None:
    """A program that sends while it handles an error finds its error as it was, also when the exporter raises."""
    pool = rex.ExporterPool([Single("single", Diary("broken"))])

    def fail() -> None:
        raise ValueError("the program's own")

    def work() -> None:
        try:
            fail()
        except ValueError:
            pool.send(content(0))
            raise

    with pool, pytest.raises(ValueError, match="own") as caught:
        work()
    assert {"work", "fail"} <= {frame.name for frame in traceback.extract_tb(caught.value.__traceback__)}


def test_send_many_keeps_its_dead_letters(tmp_path: Path) -> None:
    """A record that is refused for good out of many becomes a dead letter that is there afterwards."""
    with rex.ExporterPool([Batches("b", Diary(never={1}))], use_memory=False, tmp_file=tmp_path / "kept") as pool:
        (result,) = pool.send_many(map(content, range(3)))
        assert (2, False) == result
        assert [1] == buried_in(spool_of(pool), "b")


def test_dead_letters_move_to_the_file(tmp_path: Path) -> None:
    """Dead letters of a pool in memory are there after the switch to the file, and after a restart."""
    path = tmp_path / "kept"
    with rex.ExporterPool([Batches("b", Diary(never={1}))], tmp_file=path) as pool:
        send(pool, range(3))
        pool.use_memory = False
        assert [1] == buried_in(spool_of(pool), "b")
    with rex.ExporterPool([Batches("b", Diary())], use_memory=False, tmp_file=path) as pool:
        assert [1] == buried_in(spool_of(pool), "b")


def test_no_room_for_a_dead_letter_of_a_new_record(tmp_path: Path) -> None:
    """On a full disk the others take a record that one refuses for good; only that one reports the lack of room."""
    first, last = Diary(), Diary()
    exporters = [Single("first", first), Batches("b", Diary(never={1})), Single("last", last)]
    with rex.ExporterPool(exporters, use_memory=False, tmp_file=tmp_path / "kept") as pool:
        send(pool, range(1))
        disk.full = True
        results = pool.send(content(1))
        assert [True, False, True] == [result.successful for result in results]
        assert isinstance(results[1].error, rex.SpoolFull)
        assert [0, 1] == first.got == last.got


def test_no_room_for_a_dead_letter_out_of_many(tmp_path: Path) -> None:
    """On a full disk a record out of many that is refused for good is owed, dead or counted as dropped, and told of."""
    exporters = [Single("first", Diary()), Batches("b", Diary(never={1}))]
    with rex.ExporterPool(exporters, use_memory=False, tmp_file=tmp_path / "kept") as pool:
        send(pool, range(1))
        disk.full = True
        results = pool.send_many([content(1)])
        assert [True, False] == [result.successful for result in results]
        assert isinstance(results[1].error, rex.SpoolFull)
        told = pool.status().exporters[1]
        assert (2, 1) == (told.accepted, told.delivered)
        assert told.dead == len(buried_in(spool_of(pool), "b"))
        assert told.owed == len(owed_in(spool_of(pool), "b"))


def test_no_room_for_the_dead_letter_of_a_kept_record(tmp_path: Path) -> None:
    """On a full disk a kept record that is refused for good stays owed, and the other lanes go on."""
    diaries = [Diary("down", never={0}), Diary("down")]
    exporters = [Batches(name, diary) for name, diary in zip("ab", diaries, strict=True)]
    with rex.ExporterPool(exporters, use_memory=False, tmp_file=tmp_path / "kept") as pool:
        send(pool, range(3))
        disk.full = True
        for diary in diaries:
            diary.mood = "up"
        pool.send_unsent_data()
        assert [0, 1, 2] == diaries[1].got
        assert 0 not in diaries[0].got
        disk.full = False
        pool.flush()
        assert [0] == buried_in(spool_of(pool), "a")
        assert [1, 2] == diaries[0].got
        assert not pool.has_unsent_data()


@pytest.mark.parametrize("many", [False, True])
def test_what_a_full_disk_costs_is_counted(tmp_path: Path, many: bool) -> None:
    """A record that one took and that cannot be kept for the other counts as dropped there."""
    exporters = [Single("up", Diary()), Single("down", Diary("down"))]
    with rex.ExporterPool(exporters, use_memory=False, tmp_file=tmp_path / "kept") as pool:
        disk.full = True
        results = pool.send_many([content(0)]) if many else pool.send(content(0))
        assert [True, False] == [result.successful for result in results]
        assert not results[1].kept
        assert [(1, 0), (0, 1)] == [(lane.delivered, lane.dropped) for lane in pool.status().exporters]


@pytest.mark.parametrize("many", [False, True])
def test_what_nobody_has_is_not_counted(tmp_path: Path, many: bool) -> None:
    """When `send` raises because nobody has the record, nothing was accepted."""
    with rex.ExporterPool([Single("down", Diary("down"))], use_memory=False, tmp_file=tmp_path / "kept") as pool:
        disk.full = True
        with pytest.raises(rex.SpoolFull):
            pool.send_many([content(0)]) if many else pool.send(content(0))
        assert [0] == [lane.accepted for lane in pool.status().exporters]


def test_keeping_for_nobody() -> None:
    """A record cannot be kept for all exporters of a pool that has none."""
    with rex.ExporterPool(None, name="empty") as pool, pytest.raises(rex.InvalidConfigError):
        pool.save_unsent_data(content(0), {}, "empty")


def test_the_time_to_live_moves_along(tmp_path: Path) -> None:
    """A record that has a time to live has it still after moving to memory and back to the file."""
    diary = Diary("down")
    with rex.ExporterPool([Single("s", diary)], use_memory=False, tmp_file=tmp_path / "kept") as pool:
        pool.using(ttl=5.0).send(content(0))
        pool.send(content(1))
        pool.use_memory = True
        clocks.time += 6.0
        clocks.now += 6.0
        diary.mood = "up"
        pool.flush()
        assert [1] == diary.got
        assert [1] == [lane.dropped for lane in pool.status().exporters]


def test_what_expired_in_memory_does_not_come_back_from_the_file(tmp_path: Path) -> None:
    """A record that outlived its time in memory is not owed again after the switch back to the file."""
    with rex.ExporterPool([Single("s", Diary("down"))], use_memory=False, tmp_file=tmp_path / "kept") as pool:
        pool.using(ttl=5.0).send(content(0))
        pool.send(content(1))
        pool.use_memory = True
        clocks.time += 6.0
        clocks.now += 6.0
        pool.send_unsent_data()
        pool.use_memory = False
        assert [1] == owed_in(spool_of(pool), "s")


def test_what_memory_still_owes_is_told_at_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A pool in memory that ends tells how many records are lost: not those that its file holds, too."""
    with rex.ExporterPool([Single("s", Diary("down"))], use_memory=False, tmp_file=tmp_path / "kept") as pool:
        send(pool, range(3))
        pool.use_memory = True
        send(pool, range(3, 5))
        with caplog.at_level(logging.WARNING, "resilient_exporters"):
            pool.close()
    assert ["closed_owing pool=exporterpool records=2: they were kept in memory only and are lost"] == [
        record.getMessage() for record in caplog.records if "closed_owing" in record.getMessage()
    ]
    diary = Diary()
    with rex.ExporterPool([Single("s", diary)], use_memory=False, tmp_file=tmp_path / "kept") as pool:
        pool.flush()
        assert [0, 1, 2] == diary.got


@pytest.mark.parametrize("to_memory", [False, True])
def test_switching_while_many_are_on_their_way(tmp_path: Path, to_memory: bool) -> None:
    """A switch made while another thread's `send_many` is at the target: what was and is kept goes out all the same."""
    target = MemoryBatchExporter("t", up=False)
    pool = rex.ExporterPool([target], None, 1, True, not to_memory, True, tmp_file=tmp_path / "kept")
    with pool:
        pool.send("kept")
        target.up = True
        target.hang()
        calls = target.calls
        sender = threading.Thread(target=pool.send_many, args=(["under way"],), daemon=True)
        sender.start()
        target.wait_for_calls(calls + 1)
        assert pool.has_unsent_data()
        pool.use_memory = to_memory
        target.release()
        sender.join(30.0)
        pool.save_unsent_data("kept later", {}, "t")
        assert pool.flush()
        assert ["under way", "kept", "kept later"] == target.got
        assert not pool.has_unsent_data()
