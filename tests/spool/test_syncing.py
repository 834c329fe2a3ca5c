"""Callers who come while a sync runs share the next one."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

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
        frame = sys._current_frames().get(self.ident or 0)
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
