"""After a crash at any moment a spool in a user's file object opens, invents nothing and goes on."""

from __future__ import annotations

import io
import logging
import random
from typing import Any

import pytest

from resilient_exporters.spool.files import Files
from resilient_exporters.spool.stream import StreamSpool
from resilient_exporters.testing.tornfiles import TornFiles
from tests.counts import STATES
from tests.spool.histories import random_history, troubled_history

PATH = "/disk/stream"


class TornStream(io.RawIOBase):
    """A binary file object whose file may be torn by a power cut."""

    open_ones: dict[int, TornStream] = {}

    def __init__(self, files: TornFiles) -> None:
        self.files = files
        self.handle = files.open_lock(PATH)
        files.sync_dir("/disk")
        self.at = 0
        self.number = 10**6 + len(self.open_ones)
        self.open_ones[self.number] = self

    def fileno(self) -> int:
        return self.number

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.files.size(self.handle)}[whence]
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: Any) -> int:
        data = self.files.pread(self.handle, len(buffer), self.at)
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)

    def write(self, data: Any) -> int:
        taken = self.files.pwrite(self.handle, data, self.at)
        self.at += taken
        return taken

    def truncate(self, size: int | None = None) -> int:
        size = self.at if size is None else size
        self.files.truncate(self.handle, size)
        return size


@pytest.fixture(autouse=True)
def simulated(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Syncing reaches the simulated file; damage is reported in the log, here thousands of times."""

    def sync(self: Files, number: int) -> None:
        stream = TornStream.open_ones[number]
        stream.files.sync(stream.handle)

    monkeypatch.setattr(Files, "sync", sync)
    monkeypatch.setattr(TornStream, "open_ones", {})
    caplog.set_level(logging.CRITICAL, logger="resilient_exporters")


def open_stream(files: TornFiles) -> StreamSpool:
    files.heal()  # the object that the user opens is not our concern
    return StreamSpool(TornStream(files))  # type: ignore[arg-type]  # RawIOBase lacks but the name of BinaryIO


@pytest.mark.parametrize("block", range(5))
def test_random_histories_and_power_cuts(block: int) -> None:
    """Cut anywhere, in any state: what was synced is there, the rest is there or not, and never altered."""
    for seed in range(block, STATES // 10, 5):
        rng = random.Random(seed)
        history = random_history(rng, rng.choice([5, 10, 30]), open_stream)
        for _ in range(10):
            cut = rng.choice([rng.randint(1, history.files.operations), *history.files.cuts()[-3:]])
            state = history.files.random_state(rng, cut)
            try:
                history.check(state, cut)
            except Exception as error:
                error.add_note(f"seed {seed}, cut {cut}")
                raise
        history.spool.close()


@pytest.mark.parametrize("block", range(5))
def test_random_histories_and_kills(block: int) -> None:
    """Killed between any two operations: all that was kept is there."""
    for seed in range(block, STATES // 50, 5):
        history = random_history(random.Random(seed), 12, open_stream)
        for cut in range(history.files.operations + 1):
            history.check(history.files.killed(cut), cut, killed=True)
        history.spool.close()


@pytest.mark.parametrize("block", range(5))
def test_random_troubled_histories(block: int) -> None:
    """The same while calls fail: what was kept in spite of that is there."""
    for seed in range(block, STATES // 20, 5):
        rng = random.Random(f"troubled {seed}")
        history = troubled_history(rng, rng.choice([3, 10, 20]), open_stream)
        for cut in (history.files.operations, rng.randint(1, history.files.operations)):
            try:
                history.check(history.files.killed(cut), cut, killed=True)
            except Exception as error:
                error.add_note(f"seed {seed}, cut {cut}")
                raise
        history.spool.close()
