"""After a power cut at any moment, whatever the disk kept of what was not synced: nothing promised is lost."""

from __future__ import annotations

import logging
import random
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import islice, product

import pytest

from resilient_exporters.spool.filespool import FileSpool
from resilient_exporters.testing.tornfiles import TornFiles
from tests.counts import CI, HISTORIES, STATES
from tests.spool.histories import SEGMENT, History, random_history, slices, troubled_history

PAGE = 256  # bytes; most frames lie across two pages


def open_spool(files: TornFiles) -> FileSpool:
    return FileSpool("/disk/spool", files=files, segment_size=SEGMENT)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Damage is reported in the log, here thousands of times."""
    caplog.set_level(logging.CRITICAL, logger="resilient_exporters")


STEPS: dict[str, Callable[[History], object]] = {
    "append": lambda history: history.append(1, 20, "a", sync=False),
    "append batch": lambda history: history.append(3, 40, "ab", sync=False),
    "append synced": lambda history: history.append(2, 20, "ab", sync=True),
    "append and rotate": lambda history: history.append(1, SEGMENT, "ab", sync=True),
    "settle": lambda history: history.settle("a", 0, 1),
    "settle all": lambda history: history.settle_all(),
    "bury": lambda history: history.settle("a", 0, 1, bury=True),
    "undo": lambda history: history.append_and_undo(1, sync=False),
    "sync": lambda history: history.sync(),
    "reopen": lambda history: history.reopen(),
}


def begins_something(name: str) -> bool:
    """Whether a step does anything to an empty spool; if not, a history that begins with it is a shorter one."""
    history = History(TornFiles(page=PAGE), open_spool)
    before = history.files.operations
    STEPS[name](history)
    after = history.files.operations
    history.spool.close()
    return after > before


@pytest.mark.parametrize("first", [*filter(begins_something, STEPS)])
def test_all_short_histories(first: str) -> None:
    """Every sequence of up to three steps, cut before every sync and at the end, in every state the disk may be in."""
    tried = set()
    for names in product([first], STEPS, STEPS):
        history = History(TornFiles(page=PAGE), open_spool)
        ends = []
        for name in names:
            STEPS[name](history)
            ends.append(history.files.operations)
        for cut in history.files.cuts():
            begun = names[: bisect_left(ends, cut) + 1]  # histories that begin alike are alike up to there
            if (begun, cut) not in tried:
                tried.add((begun, cut))
                for state in some(history.files, cut, HISTORIES, "".join(begun)):
                    history.check(state, cut)
        history.spool.close()


def some(files: TornFiles, cut: int, most: int, seed: str) -> Iterator[TornFiles]:
    """All states after a cut if there are at most so many; else some of them, drawn at random."""
    states = list(islice(files.states(cut), most + 1))
    if len(states) <= most:
        yield from states
        return
    assert not CI, "not every state of a short history is tried"
    rng = random.Random(f"{seed} {cut}")
    for _ in range(most):
        yield files.random_state(rng, cut)


@pytest.mark.parametrize("block", range(10))
def test_random_long_histories(block: int) -> None:
    """Long histories of any steps, cut anywhere, in any state, sometimes once more while the spool is opened again."""
    for seed in range(block, STATES // 10, 10):
        rng = random.Random(seed)
        history = random_history(rng, rng.choice([5, 10, 30]), open_spool)
        for _ in range(10):
            cut = rng.choice([rng.randint(0, history.files.operations), *history.files.cuts()[-3:]])
            state = history.files.random_state(rng, cut)
            while rng.random() < 0.3:
                again = open_spool(state)
                list(slices(again, "a"))
                again.close()
                state = state.random_state(rng, rng.randint(0, state.operations))
            try:
                history.check(state, cut)
            except Exception as error:
                error.add_note(f"seed {seed}, cut {cut}")
                raise
        history.spool.close()


@pytest.mark.parametrize("block", range(10))
def test_random_troubled_histories(block: int) -> None:
    """The same while calls fail: what was promised in spite of that is there, also after syncs that failed."""
    for seed in range(block, STATES // 10, 10):
        rng = random.Random(f"troubled {seed}")
        history = troubled_history(rng, rng.choice([3, 10, 20]), open_spool)
        for number in range(8):
            cut = history.files.operations if number < 3 else rng.randint(0, history.files.operations)
            killed = rng.random() < 0.3
            state = history.files.killed(cut) if killed else history.files.random_state(rng, cut)
            try:
                history.check(state, cut, killed=killed)
            except Exception as error:
                error.add_note(f"seed {seed}, cut {cut}, killed {killed}")
                raise
        history.spool.close()


@pytest.mark.parametrize("block", range(5))
def test_a_kill_loses_nothing(block: int) -> None:
    """After a kill between any two file operations all records whose `append` had returned are there."""
    for seed in range(block, STATES // 50, 5):
        history = random_history(random.Random(seed), 12, open_spool)
        for cut in range(history.files.operations + 1):
            history.check(history.files.killed(cut), cut, killed=True)
        history.spool.close()


class LyingFiles(TornFiles):
    """A disk that says that it has saved everything and has saved nothing."""

    def sync(self, handle: int) -> None:
        self._call("sync")


class ForgetfulFiles(TornFiles):
    """A disk that never saves names."""

    def sync_dir(self, path: str) -> None:
        self._call("sync_dir")


@pytest.mark.parametrize("kind", [LyingFiles, ForgetfulFiles])
def test_the_checks_notice_a_loss(kind: type[TornFiles]) -> None:
    """Where a disk breaks its word records are lost, and the checks above say so: else they would prove nothing."""
    files = kind(page=PAGE)
    history = History(files, open_spool)
    history.append(2, 20, "ab", sync=True)
    with pytest.raises(AssertionError, match="lost"):
        for state in files.states():
            history.check(state, files.operations)
    history.spool.close()
