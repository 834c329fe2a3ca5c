"""Callers who come while a sync runs share the next one."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from resilient_exporters.exceptions import SpoolError
from resilient_exporters.spool import FileSpool
from resilient_exporters.spool.files import Files
from resilient_exporters.spool.syncing import Syncer
from tests.spool.spooling import A, held

PATIENCE = 60.0  # seconds


class Held(Files):
    """Syncs that wait, once `holding` is set, until each is allowed."""

    def __init__(self) -> None:
        self.holding = False
        self.syncs = 0
        self.begun = threading.Semaphore(0)
        self.allowed = threading.Semaphore(0)

    def sync(self, handle: int) -> None:
        if self.holding:
            self.syncs += 1
            self.begun.release()
            assert self.allowed.acquire(timeout=PATIENCE)


class Caller(threading.Thread):
    """Appends one record and returns when it is safe."""

    def __init__(self, spool: FileSpool, payload: bytes) -> None:
        super().__init__()
        self.spool = spool
        self.payload = payload
        self.start()

    def run(self) -> None:
        self.spool.append([self.payload], A, time=1.0, sync=True)

    def waits(self) -> bool:
        """Whether it has appended and waits for a sync, its own or somebody else's."""
        return waits(self)


def waits(thread: threading.Thread) -> bool:
    """Whether a thread waits for a sync, its own or somebody else's."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code is Syncer.sync.__code__ and "mine" in frame.f_locals:
            return True
        frame = frame.f_back
    return False


def until(condition: Callable[[], bool]) -> None:
    """Wait for what other threads are about to do."""
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.001)):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("it did not happen")


def test_callers_share_a_sync_and_do_not_wait_for_that_of_others(tmp_path: Path) -> None:
    """Nine callers need two syncs; those whose records are safe return while the sync of later ones is running."""
    files = Held()
    with closing(FileSpool(tmp_path / "q", files=files)) as spool:
        spool.append([b"0"], A, time=1.0, sync=True)
        files.holding = True
        first = Caller(spool, b"1")
        assert files.begun.acquire(timeout=PATIENCE)
        sharing = [Caller(spool, b"%d" % number) for number in range(2, 10)]
        until(lambda: all(caller.waits() for caller in sharing))
        files.allowed.release()
        first.join(PATIENCE)
        assert files.begun.acquire(timeout=PATIENCE)
        last = Caller(spool, b"10")
        until(last.waits)
        files.allowed.release()
        for caller in sharing:
            caller.join(PATIENCE)
        assert [caller.is_alive() for caller in (first, *sharing, last)] == [False] * 9 + [True]
        assert files.begun.acquire(timeout=PATIENCE)
        assert files.syncs == 3
        files.allowed.release()
        last.join(PATIENCE)
        files.holding = False
        assert sorted(held(spool), key=int) == [b"%d" % number for number in range(11)]


def test_a_sync_of_one_log_is_none_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers of two logs, before and after a spool was opened anew, share no sync though they wait together."""
    syncer = Syncer(Files(), threading.RLock())
    synced: list[str] = []
    begun, allowed = threading.Semaphore(0), threading.Event()

    def sync(log: str) -> None:
        synced.append(log)
        begun.release()
        assert allowed.wait(PATIENCE)

    monkeypatch.setattr(syncer, "_sync", sync)
    threads = [threading.Thread(target=syncer.sync, args=(log,)) for log in ("first", "old", "new")]
    threads[0].start()
    assert begun.acquire(timeout=PATIENCE)
    for thread in threads[1:]:
        thread.start()
    until(lambda: all(map(waits, threads)))
    allowed.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert ["first", "new", "old"] == sorted(synced)


def test_a_spool_that_cannot_be_opened_again_has_synced_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given up between append and sync, it is opened again for the sync; where that fails the caller is told."""

    def fails() -> None:
        raise SpoolError("the disk is gone")

    with closing(FileSpool(tmp_path / "q")) as spool:
        spool.append([b"0"], A, time=1.0)
        with monkeypatch.context() as patch:
            patch.setattr(spool, "_open", fails)
            spool._suspect = True
            with pytest.raises(SpoolError):
                spool.append([b"1"], A, time=1.0, sync=True)
            with pytest.raises(SpoolError):
                spool._sync_appended(A, 1, 1)
