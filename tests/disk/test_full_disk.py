"""A disk that is really full: sends say so, nothing kept is lost, work goes on and resumes by itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryBatchExporter, MemoryExporter

KB = 1024
Mount = Callable[[int], Path]


def padded(number: int) -> dict[str, Any]:
    """A record of about a kilobyte."""
    return {"n": number, "pad": "x" * 1000}


def numbers(target: MemoryExporter | MemoryBatchExporter) -> list[int]:
    return [data["n"] for data in target.got]


def fill(pool: rex.ExporterPool, first: int) -> list[int]:
    """Send until nobody takes or keeps the record; numbers of those that were kept for all."""
    kept: list[int] = []
    for number in range(first, first + 2000):
        try:
            results = pool.send(padded(number))
        except rex.SpoolFull:
            return kept
        assert all(result.kept for result in results)
        kept.append(number)
    raise AssertionError("the disk never filled up")


def free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


@pytest.fixture(params=["single", "batch"])
def kind(request: pytest.FixtureRequest) -> type[MemoryExporter | MemoryBatchExporter]:
    """Both kinds of exporters."""
    return MemoryExporter if request.param == "single" else MemoryBatchExporter


@pytest.fixture
def no_floor() -> rex.Limits:
    """Limits that let the disk fill up to the last byte."""
    return rex.Limits(free_floor=0)


def test_again_and_again(mount: Mount, no_floor: rex.Limits, kind: type[MemoryExporter | MemoryBatchExporter]) -> None:
    """A disk that is filled and emptied again and again takes as much each time, and everything kept arrives once."""
    target = kind("t", up=False)
    kept: list[int] = []
    rounds = []
    with rex.ExporterPool([target], use_memory=False, tmp_file=mount(256 * KB) / "kept", limits=no_floor) as pool:
        for first in range(0, 25_000, 5000):
            target.up = False
            rounds.append(fill(pool, first))
            kept += rounds[-1]
            target.up = True
            assert pool.flush()
            assert kept == numbers(target)
        assert min(map(len, rounds)) >= max(map(len, rounds)) - 10
        assert len(rounds[0]) > 150
        status = pool.status().exporters[0]
        assert (len(kept), 0, 0) == (status.delivered, status.owed, status.dropped)


def test_restarts_on_a_full_disk(mount: Mount, no_floor: rex.Limits) -> None:
    """A pool opens on a full disk, delivers from there, and what it delivered does not come again."""
    path = mount(256 * KB) / "kept"
    kept: list[int] = []
    got: list[int] = []
    for life in range(6):
        target = MemoryExporter("t", up=False)
        with rex.ExporterPool([target], use_memory=False, tmp_file=path, limits=no_floor) as pool:
            kept += fill(pool, 5000 * life)
            target.up = True
            for _ in range(3):
                pool.send(padded(5000 * life + 4000))  # looks after what is kept first
            assert not pool.has_unsent_data()
            kept += [5000 * life + 4000] * 3
            target.up = False
            if life % 2:
                kept += fill(pool, 5000 * life + 4001)
        got += numbers(target)
    with rex.ExporterPool([last := MemoryExporter("t")], use_memory=False, tmp_file=path, limits=no_floor) as pool:
        assert pool.flush()
    assert kept == got + numbers(last)


def test_one_slow_lane_does_not_stop_the_others(mount: Mount, no_floor: rex.Limits) -> None:
    """While one target is down and its records fill the disk, the others get everything; it gets all that was kept."""
    healthy, sick = MemoryExporter("healthy"), MemoryExporter("sick", up=False)
    kept: list[int] = []
    pool = rex.ExporterPool([healthy, sick], use_memory=False, tmp_file=mount(256 * KB) / "kept", limits=no_floor)
    with pool:
        for number in range(400):
            first, second = pool.send(padded(number))
            assert first.successful
            assert second.kept or isinstance(second.error, rex.SpoolFull)
            kept += [number] * second.kept
        assert list(range(400)) == numbers(healthy)
        assert 150 < len(kept) < 400
        told = pool.status().exporters[1]
        assert (len(kept), 400 - len(kept)) == (told.owed, told.dropped)
        sick.up = True
        pool.send(padded(400))
        assert [*kept, 400] == numbers(sick)


def test_somebody_else_fills_the_disk(mount: Mount, no_floor: rex.Limits) -> None:
    """When others fill the disk and make room again, work resumes by itself, and all that was kept is there."""
    folder = mount(512 * KB)
    ballast = folder / "ballast"
    target = MemoryExporter("t", up=False)
    kept: list[int] = []
    with rex.ExporterPool([target], use_memory=False, tmp_file=folder / "kept", limits=no_floor) as pool:
        for first in range(0, 30_000, 10_000):
            for number in range(first, first + 20):
                assert pool.send(padded(number))[0].kept
                kept.append(number)
            with ballast.open("wb", buffering=0) as file:
                while (room := free(folder)) > 0:
                    file.write(bytes(room))
            kept += fill(pool, first + 20)
            ballast.unlink()
        target.up = True
        assert pool.flush()
    assert kept == numbers(target)


def test_bursts_of_many_on_a_full_disk(mount: Mount, no_floor: rex.Limits) -> None:
    """A burst that does not fit is refused as a whole, and trying it again later doubles nothing."""
    target = MemoryBatchExporter("t", up=False)
    with rex.ExporterPool([target], use_memory=False, tmp_file=mount(256 * KB) / "kept", limits=no_floor) as pool:
        sent: list[int] = []
        first = 0
        while True:
            burst = range(first, first + 30)
            try:
                pool.send_many(padded(number) for number in burst)
            except rex.SpoolFull:
                break
            sent += burst
            first += 30
        assert sent
        assert len(sent) == pool.status().exporters[0].owed
        target.up = True
        pool.send_many(padded(number) for number in burst)
        assert pool.flush()
        assert [*sent, *burst] == numbers(target)


def test_in_the_background(mount: Mount, no_floor: rex.Limits) -> None:
    """In the background a send into a full disk raises; what was kept arrives, then sends are taken again."""
    target = MemoryBatchExporter("t")
    target.hang()
    path = mount(256 * KB) / "kept"
    with rex.ExporterPool([target], None, 2, False, use_memory=False, tmp_file=path, limits=no_floor) as pool:
        kept: list[int] = []
        for first in (0, 5000):
            with pytest.raises(rex.SpoolFull):
                for number in range(first, first + 2000):
                    pool.send(padded(number))
                    kept.append(number)
            target.release()
            assert pool.flush(60.0)
            assert kept == numbers(target)
            target.hang()
        target.release()


def test_dead_letters_on_a_full_disk(mount: Mount, no_floor: rex.Limits) -> None:
    """Records that are refused for good on a full disk stay owed until their letters have room; none is lost."""
    target = MemoryBatchExporter("t", up=False)
    target.refuse = lambda data: data["n"] % 2 == 1
    folder = mount(256 * KB)
    with rex.ExporterPool([target], use_memory=False, tmp_file=folder / "kept", limits=no_floor) as pool:
        kept = fill(pool, 0)
        target.up = True
        for _ in range(20):
            pool.send_unsent_data()
        status = pool.status().exporters[0]
        assert [number for number in kept if number % 2 == 0] == numbers(target)
        assert len(kept) == status.delivered + status.dead + status.owed
        assert 0 == status.dropped


def test_a_floor_is_kept_free(mount: Mount) -> None:
    """The pool leaves on the file system what it was told to leave, and goes on when there is more."""
    folder = mount(1024 * KB)
    target = MemoryExporter("t", up=False)
    limits = rex.Limits(free_floor=512 * KB)
    with rex.ExporterPool([target], use_memory=False, tmp_file=folder / "kept", limits=limits) as pool:
        kept = fill(pool, 0)
        assert free(folder) >= 500 * KB
        assert len(kept) > 300
        target.up = True
        assert pool.flush()
        target.up = False
        kept += fill(pool, 5000)
        assert free(folder) >= 500 * KB
        target.up = True
        assert pool.flush()
        assert kept == numbers(target)


def test_the_default_floor(mount: Mount) -> None:
    """Without a word, a hundredth of the file system stays free."""
    folder = mount(1024 * KB)
    target = MemoryExporter("t", up=False)
    with rex.ExporterPool([target], use_memory=False, tmp_file=folder / "kept") as pool:
        kept = fill(pool, 0)
        assert free(folder) >= 8 * KB
        target.up = True
        assert pool.flush()
        assert kept == numbers(target)
