"""The pool in the background beside a model: what was sent arrives everywhere, in order, and the accounts balance."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

import resilient_exporters as rex
from tests.counts import MODELS
from tests.model.world import KINDS, Diary, Mood, buried_in, content, disk, keywords, owed_in, small_files, spool_of

PATIENCE = 60.0
"""Seconds after which a pool that does not come to rest has failed."""


@pytest.fixture(autouse=True, scope="module")
def tiny_segments() -> Iterator[None]:
    """Tiny segments on a disk with room."""
    with small_files():
        disk.full = False
        yield


class BackgroundBesideModel(RuleBasedStateMachine):
    """Sends, moods, switches and restarts while three lanes work on threads of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="model-"))
        self.diaries = {name: Diary() for name in KINDS}
        self.sent: list[int] = []
        self.number = 0
        self.ends = 0
        self.unclear: set[str] = set()
        """Targets that failed without saying that it was not the record's fault: others may have overtaken it."""
        self.open()

    def open(self) -> None:
        """Make a pool on the files that are there."""
        self.memory = False
        exporters = [kind(name, self.diaries[name]) for name, kind in KINDS.items()]
        self.pool = rex.ExporterPool(
            exporters,
            num_threads=2,
            wait_for_result=False,
            use_memory=False,
            tmp_file=self.folder / "kept",
            name="world",
            limits=rex.Limits(free_floor=0),
            retry=rex.Retry(base=0.001, cap=0.005),
        )

    @rule(count=st.integers(1, 20))
    def send(self, count: int) -> None:
        """Send records one by one."""
        for number in range(self.number, self.number + count):
            self.pool.send(content(number), **keywords(number))
            self.sent.append(number)
        self.number += count

    @rule()
    def send_many(self) -> None:
        """Send three records at once."""
        self.number += -self.number % 3
        numbers = range(self.number, self.number + 3)
        self.pool.send_many(map(content, numbers), **keywords(self.number))
        self.sent += numbers
        self.number += 3

    @rule(name=st.sampled_from(list(KINDS)), mood=st.sampled_from(["up", "up", "down", "broken", "busy"]))
    def change_mood(self, name: str, mood: Mood) -> None:
        """A target comes, goes or breaks."""
        self.diaries[name].mood = mood
        if mood == "broken" or (mood == "down" and name == "single"):
            self.unclear.add(name)

    @rule(ahead=st.integers(0, 4))
    def spoil(self, ahead: int) -> None:
        """A target will refuse a record to come for good."""
        self.diaries["batch"].never.add(self.number + ahead)

    @rule()
    def switch(self) -> None:
        """Move what is kept, while it is on its way out."""
        self.memory = self.pool.use_memory = not self.memory

    @rule()
    def pass_by_hand(self) -> None:
        """Ask for a pass in the middle of the work."""
        self.pool.send_unsent_data()

    @precondition(lambda self: self.ends < 3)
    @rule(timeout=st.sampled_from([0.0, 0.05]))
    def restart(self, timeout: float) -> None:
        """End the pool in the middle of its work, and make another one."""
        self.pool.use_memory = False
        self.pool.close(timeout)
        self.ends += 1
        self.open()

    @rule()
    def rest(self) -> None:
        """With all targets up, everything that was sent arrives."""
        for diary in self.diaries.values():
            diary.mood = "up"
        assert self.pool.flush(PATIENCE)
        assert not self.pool.has_unsent_data()
        self.check()

    def check(self) -> None:
        """Nothing is owed, and everything that was sent is at its target or a dead letter."""
        for status in self.pool.status().exporters:
            diary = self.diaries[status.name]
            refused = [number for number in self.sent if number in diary.never]
            due = [number for number in self.sent if number not in diary.never]
            assert [] == owed_in(spool_of(self.pool), status.name)
            assert refused == sorted(set(buried_in(spool_of(self.pool), status.name)))
            assert 0 == status.owed == status.dropped
            if not self.ends:
                assert due == (sorted(diary.got) if status.name in self.unclear else diary.got)
                assert (len(due), len(refused)) == (status.delivered, status.dead)
            else:  # what was under way when a pool ended may come twice
                assert due == list(dict.fromkeys(sorted(diary.got)))

    def teardown(self) -> None:
        """In the end everything arrives."""
        try:
            self.rest()
        finally:
            self.pool.close(0.0)
            shutil.rmtree(self.folder)


TestBackgroundBesideModel = BackgroundBesideModel.TestCase
TestBackgroundBesideModel.settings = settings(
    max_examples=MODELS // 3,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    report_multiple_bugs=False,
)
