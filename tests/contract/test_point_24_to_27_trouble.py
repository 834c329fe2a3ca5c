"""Points 24 to 27: a full disk, a damaged file, hostile bytes, and records that nobody claims."""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import resilient_exporters as rex
from resilient_exporters.testing import MemoryBatchExporter, MemoryExporter
from tests.counts import EXAMPLES

MakePool = Callable[..., rex.ExporterPool]


def padded(number: int) -> dict[str, Any]:
    """A record of about a kilobyte."""
    return {"i": number, "pad": "x" * 1000}


def fill(pool: rex.ExporterPool, name: str) -> list[int]:
    """Send until the exporter's record cannot be kept; the numbers that were kept."""
    kept: list[int] = []
    for number in range(1000):
        result = next(result for result in pool.send(padded(number)) if result.exporter == name)
        if not result.kept:
            assert isinstance(result.error, rex.SpoolFull)
            return kept
        kept.append(number)
    raise AssertionError("the disk never filled up")


def test_a_full_disk_is_reported_in_the_result(make_pool: MakePool, small_disk: Callable[[str], Path]) -> None:
    """What cannot be kept is reported in that exporter's result; the others get every record, once."""
    ok, bad = MemoryExporter("ok"), MemoryExporter("bad", up=False)
    pool = make_pool([ok, bad], use_memory=False, tmp_file=small_disk("256k") / "kept")
    kept = fill(pool, "bad")
    assert list(range(len(kept) + 1)) == [data["i"] for data in ok.got]
    bad.up = True
    pool.send_unsent_data()
    assert kept == [data["i"] for data in bad.got]
    assert not pool.has_unsent_data()


def test_nobody_has_it_so_send_raises(make_pool: MakePool, small_disk: Callable[[str], Path]) -> None:
    """When no exporter has taken or kept the record, `send` raises the library's own error: trying again is safe."""
    target = MemoryExporter("t", up=False)
    pool = make_pool([target], use_memory=False, tmp_file=small_disk("256k") / "kept")
    kept = 0
    with pytest.raises(rex.SpoolFull):
        while kept < 1000:
            assert pool.send(padded(kept))[0].kept
            kept += 1
    target.up = True
    pool.send(padded(kept))
    assert list(range(kept + 1)) == [data["i"] for data in target.got]


def test_work_goes_on_when_there_is_room_again(make_pool: MakePool, small_disk: Callable[[str], Path]) -> None:
    """When room is made on the disk, records are kept again, and nothing kept before is lost."""
    folder = small_disk("512k")
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(256 * 1024))
    ok, bad = MemoryExporter("ok"), MemoryExporter("bad", up=False)
    pool = make_pool([ok, bad], use_memory=False, tmp_file=folder / "kept")
    kept = fill(pool, "bad")
    ballast.unlink()
    assert pool.send(padded(5000))[1].kept
    bad.up = True
    pool.send_unsent_data()
    assert [*kept, 5000] == [data["i"] for data in bad.got]


def test_what_was_kept_on_a_full_disk_is_there_after_a_restart(
    make_pool: MakePool, small_disk: Callable[[str], Path]
) -> None:
    """A pool opens a full disk and delivers from it, and settling what went out makes room."""
    path = small_disk("256k") / "kept"
    pool = make_pool([MemoryExporter("ok"), MemoryExporter("bad", up=False)], use_memory=False, tmp_file=path)
    kept = fill(pool, "bad")
    pool.close()
    target = MemoryExporter("bad")
    again = make_pool([target], use_memory=False, tmp_file=path)
    again.send_unsent_data()
    assert kept == [data["i"] for data in target.got]
    again.close()
    last = make_pool([MemoryExporter("bad", up=False)], use_memory=False, tmp_file=path)
    assert not last.has_unsent_data()
    assert last.send(padded(0))[0].kept


def test_a_full_disk_in_the_background(make_pool: MakePool, small_disk: Callable[[str], Path]) -> None:
    """In the background a record that cannot be kept makes `send` raise, since nobody has it."""
    target = MemoryExporter("t")
    target.hang()
    pool = make_pool([target], None, 2, False, use_memory=False, tmp_file=small_disk("256k") / "kept")
    kept = 0
    try:
        with pytest.raises(rex.SpoolFull):
            while kept < 1000:
                pool.send(padded(kept))
                kept += 1
    finally:
        target.release()
    pool.flush(60)
    assert list(range(kept)) == [data["i"] for data in target.got]


def test_a_target_on_a_full_disk(make_pool: MakePool, small_disk: Callable[[str], Path]) -> None:
    """A file exporter on a full disk reports only what is in the file, and the rest is kept and goes out later."""
    folder = small_disk("64k")
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(32 * 1024))
    pool = make_pool([rex.FileExporter(folder / "out")])
    taken = [pool.send(f"{number:05d}" + "x" * 500)[0].successful for number in range(100)]
    assert False in taken
    assert True in taken
    lines = (folder / "out").read_text().splitlines()
    assert taken.count(True) == len(lines)
    ballast.unlink()
    pool.flush()
    numbers = [int(line[:5]) for line in (folder / "out").read_text().splitlines() if line]
    assert numbers == sorted(set(numbers))


def write_kept(records: int) -> bytes:
    """The bytes of a file that holds records for "t"."""
    file = io.BytesIO()
    pool = rex.ExporterPool([MemoryExporter("t", up=False)], use_memory=False, tmp_file=file)
    for number in range(records):
        pool.send([number, "content"])
    pool.close()
    return file.getvalue()


def kept_path(folder: Path, records: int) -> Path:
    """A file that holds records for "t"."""
    path = folder / "kept"
    pool = rex.ExporterPool([MemoryExporter("t", up=False)], use_memory=False, tmp_file=path)
    for number in range(records):
        pool.send([number, "content"])
    pool.close()
    return path


def delivered(path: Any) -> list[int]:
    """What a pool on that file delivers."""
    target = MemoryExporter("t")
    pool = rex.ExporterPool([target], use_memory=False, tmp_file=path)
    pool.send_unsent_data()
    pool.close()
    assert all("content" == data[1] for data in target.got)
    return [data[0] for data in target.got]


@pytest.mark.parametrize("cut", [1, 2, 5, 17, 40])
def test_a_torn_tail_costs_the_torn_record(tmp_path: Path, cut: int) -> None:
    """A file whose tail is torn opens, and all but the torn records are delivered."""
    path = kept_path(tmp_path, 50)
    content = path.read_bytes().rstrip(b"\0")
    path.write_bytes(content[:-cut])
    got = delivered(path)
    assert list(range(len(got))) == got
    assert 47 <= len(got) < 50


@pytest.mark.parametrize("where", [0.3, 0.5, 0.7])
def test_a_flipped_byte_costs_one_record(tmp_path: Path, caplog: pytest.LogCaptureFixture, where: float) -> None:
    """A flipped byte costs the record it hit, which is set aside in a sibling and counted in the log."""
    path = kept_path(tmp_path, 50)
    content = bytearray(path.read_bytes().rstrip(b"\0"))
    content[int(len(content) * where)] ^= 0x40
    path.write_bytes(bytes(content))
    with caplog.at_level(logging.WARNING, "resilient_exporters"):
        got = delivered(path)
    assert got == sorted(set(got))
    assert 49 == len(got)
    assert [] != list(tmp_path.glob("kept.damaged*"))
    assert 1 == len([record for record in caplog.records if "damage" in record.getMessage().lower()])


def test_a_missing_piece_costs_what_was_in_it(tmp_path: Path) -> None:
    """A piece that is missing from the middle costs the records that were in it, or at most those behind it."""
    path = kept_path(tmp_path, 50)
    content = path.read_bytes().rstrip(b"\0")
    third = len(content) // 3
    path.write_bytes(content[:third] + bytes(third) + content[2 * third :])
    got = delivered(path)
    assert got == sorted(set(got))
    assert 30 <= len(got) < 50
    assert 49 in got


def test_after_damage_work_goes_on(tmp_path: Path) -> None:
    """After damage new records are kept and delivered, now and in later runs, and the damage is reported once."""
    path = kept_path(tmp_path, 20)
    content = bytearray(path.read_bytes().rstrip(b"\0"))
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    for run in range(3):
        pool = rex.ExporterPool([MemoryExporter("t", up=False)], use_memory=False, tmp_file=path)
        assert pool.send([100 + run, "content"])[0].kept
        pool.close()
    got = delivered(path)
    assert 22 == len(got)
    assert [100, 101, 102] == got[-3:]


@settings(max_examples=EXAMPLES)
@given(st.data())
def test_no_damage_stops_a_pool_or_invents_a_record(data: st.DataObject) -> None:
    """Whatever happens to the bytes, the pool opens (or the file is not ours any more) and invents nothing."""
    content = bytearray(write_kept(12))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content)))
        kind = data.draw(st.sampled_from(["flip", "zero", "cut", "insert", "double"]))
        size = data.draw(st.integers(1, 60))
        if kind == "flip" and at < len(content):
            content[at] ^= data.draw(st.integers(1, 255))
        elif kind == "zero":
            content[at : at + size] = bytes(len(content[at : at + size]))
        elif kind == "cut":
            del content[at : at + size]
        elif kind == "insert":
            content[at:at] = data.draw(st.binary(min_size=1, max_size=30))
        else:
            content[at:at] = content[at : at + size]
    before = bytes(content)
    file = io.BytesIO(before)
    try:
        got = delivered(file)
    except rex.InvalidConfigError:
        assert before == file.getvalue()
        return
    assert got == sorted(set(got))
    assert set(got) <= set(range(12))


def test_a_lost_state_file_costs_duplicates_and_no_record(tmp_path: Path) -> None:
    """When the siblings of the file are lost, records may come twice, but none is missing."""
    path = kept_path(tmp_path, 20)
    first = MemoryExporter("t", refuse=lambda data: data[0] >= 10)
    pool = rex.ExporterPool([first], use_memory=False, tmp_file=path)
    pool.send_unsent_data()
    pool.close()
    for sibling in tmp_path.glob("kept.state*"):
        sibling.unlink()
    got = [data[0] for data in first.got] + delivered(path)
    assert set(range(20)) == set(got)


class Bomb:
    """Bytes that run code when they are unpickled."""

    def __reduce__(self) -> Any:
        return (os.mkdir, (BOMB_FOLDER,))


BOMB_FOLDER = "it-was-executed"


def test_nothing_kept_is_ever_executed(make_pool: MakePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a pickle in place of the file nor one sent as data is ever executed, and pickle is never used."""
    monkeypatch.chdir(tmp_path)
    bomb = pickle.dumps(Bomb())

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("pickle was used")

    for name in ("dumps", "loads", "load", "dump", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    (tmp_path / "bomb").write_bytes(bomb)
    with pytest.raises(rex.InvalidConfigError):
        rex.ExporterPool([MemoryExporter()], use_memory=False, tmp_file=tmp_path / "bomb")
    target = MemoryExporter("t", up=False)
    pool = make_pool([target], use_memory=False, tmp_file=tmp_path / "kept")
    pool.send(bomb)
    pool.send({"py/object": "os.system", "__reduce__": bomb})
    pool.close()
    target.up = True
    make_pool([target], use_memory=False, tmp_file=tmp_path / "kept").send_unsent_data()
    assert [bomb, {"py/object": "os.system", "__reduce__": bomb}] == target.got
    assert not (tmp_path / BOMB_FOLDER).exists()


def test_random_bytes_are_refused_or_ignored(tmp_path: Path) -> None:
    """Random bytes in place of any sibling never stop a pool, nor reach a target."""
    rng = random.Random(3)
    for round_ in range(5):
        folder = tmp_path / str(round_)
        folder.mkdir()
        path = kept_path(folder, 10)
        for sibling in [p for p in folder.iterdir() if p.name != "kept" and p.is_file()]:
            sibling.write_bytes(rng.randbytes(500))
        assert list(range(10)) == sorted(set(delivered(path)))


def test_records_of_an_exporter_that_left_stay(make_pool: MakePool, tmp_path: Path) -> None:
    """What is owed to an exporter that left the pool stays, counts, and goes out when it is added again."""
    first = make_pool(
        [MemoryExporter("stays", up=False), MemoryExporter("leaves", up=False)],
        use_memory=False,
        tmp_file=tmp_path / "kept",
    )
    first.send("a", table="t")
    first.close()
    stays = MemoryExporter("stays")
    second = make_pool([stays], use_memory=False, tmp_file=tmp_path / "kept")
    second.send("b", x=1)
    assert ["a", "b"] == stays.got
    assert second.has_unsent_data()
    assert [] == second.send_unsent_data()
    leaves = MemoryExporter("leaves")
    second.add_exporter(leaves)
    second.send("c")
    assert ["a", "c"] == leaves.got
    assert [{"table": "t"}, {}] == leaves.kwargs
    assert not second.has_unsent_data()


def test_orphans_are_named_once_in_the_log(
    make_pool: MakePool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Records that nobody in the pool claims are named once in the log, with the exporter they are owed to."""
    first = make_pool([MemoryExporter("departed", up=False)], use_memory=False, tmp_file=tmp_path / "kept")
    for number in range(5):
        first.send(number)
    first.close()
    caplog.clear()
    with caplog.at_level(logging.WARNING, "resilient_exporters"):
        pool = make_pool([MemoryExporter("t")], use_memory=False, tmp_file=tmp_path / "kept")
        for number in range(5):
            pool.send(number)
            pool.send_unsent_data()
    assert 1 == len([r for r in caplog.records if "departed" in f"{r.getMessage()} {r.__dict__}"])


def test_orphans_survive_a_switch(make_pool: MakePool, tmp_path: Path) -> None:
    """Records that nobody claims survive switches of `use_memory` and further restarts."""
    first = make_pool([MemoryExporter("departed", up=False)], use_memory=False, tmp_file=tmp_path / "kept")
    first.send("a")
    first.close()
    second = make_pool([MemoryExporter("t")], use_memory=False, tmp_file=tmp_path / "kept")
    second.use_memory = True
    assert second.has_unsent_data()
    second.use_memory = False
    second.close()
    target = MemoryExporter("departed")
    make_pool([target], use_memory=False, tmp_file=tmp_path / "kept").send_unsent_data()
    assert ["a"] == target.got


def test_a_first_attempt_in_the_caller_s_thread_does_not_count(make_pool: MakePool) -> None:
    """While a first attempt runs in the caller's thread, `has_unsent_data` does not count it."""
    seen: list[bool] = []

    class Asking(MemoryExporter):
        def send(self, data: Any, /, **kwargs: Any) -> rex.ExportResult:
            seen.append(pool.has_unsent_data())
            return super().send(data, **kwargs)

    pool = make_pool([Asking()])
    pool.send(1)
    assert [False] == seen


def test_what_is_under_way_in_the_background_counts(make_pool: MakePool) -> None:
    """While a call runs in the background, `has_unsent_data` counts its record."""
    target = MemoryExporter()
    target.hang()
    pool = make_pool([target], None, 2, False)
    pool.send(1)
    target.wait_for_calls(1)
    assert pool.has_unsent_data()
    target.release()
    pool.flush(60)
    assert not pool.has_unsent_data()


def test_dead_letters_do_not_count(make_pool: MakePool) -> None:
    """A record that its target refused for good is a dead letter, which is not owed."""
    target = MemoryBatchExporter("t", refuse=lambda data: data == "bad")
    pool = make_pool([target])
    (result,) = pool.send("bad")
    assert (None, False) == result
    assert not pool.has_unsent_data()


def test_a_memory_pool_in_a_script_reads_nothing_back(run_script: Callable[..., str], tmp_path: Path) -> None:
    """A pool in memory leaves no file behind."""
    assert 1 == json.loads(run_script("pool = rex.ExporterPool([MemoryExporter()]); tell(len(pool.send(1)))"))
    assert {"script.py"} == {path.name for path in tmp_path.iterdir()}
