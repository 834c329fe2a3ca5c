"""A pool driven at random beside a small model: nothing lost, nothing doubled, order held, whatever the steps."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import resilient_exporters as rex
from resilient_exporters.testing import MemoryBatchExporter, MemoryExporter
from tests.counts import MODELS

NAMES = ["plain", "batch", "inner", "inner batch"]


class PoolAndModel(RuleBasedStateMachine):
    """Four lanes, one of each kind alone and in an inner pool; the model says what each must have got."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.up = dict.fromkeys(NAMES, True)
        self.bad: set[int] = set()
        self.sent: dict[str, list[int]] = {name: [] for name in NAMES}
        self.got: dict[str, list[int]] = {name: [] for name in NAMES}
        self.number = 0
        self.overtaking = False
        self.build(use_memory=True)

    def build(self, use_memory: bool) -> None:
        """Make the pool anew, as a restarted program does."""
        refuse = self.bad.__contains__
        self.targets: dict[str, Any] = {
            name: (MemoryBatchExporter if "batch" in name else MemoryExporter)(name, up=self.up[name]) for name in NAMES
        }
        for name in ("plain", "inner"):
            self.targets[name].refuse = refuse
        for name, target in self.targets.items():
            target.got = self.got[name]
        inner = rex.ExporterPool([self.targets["inner"], self.targets["inner batch"]], name="pool")
        self.pool = rex.ExporterPool(
            [self.targets["plain"], self.targets["batch"], inner],
            use_memory=use_memory,
            tmp_file=self.folder / "kept",
            name="outer",
        )

    @rule(table=st.sampled_from([None, "a", "b"]))
    def send(self, table: str | None) -> None:
        """Send one record to all."""
        self.pool.send(self.number, **({} if table is None else {"table": table}))
        for name in NAMES:
            self.sent[name].append(self.number)
        self.number += 1

    @rule(count=st.integers(1, 30))
    def keep_many(self, count: int) -> None:
        """Keep records by hand for one lane."""
        for _ in range(count):
            self.pool.save_unsent_data(self.number, {}, "batch")
            self.sent["batch"].append(self.number)
            self.number += 1

    @rule(name=st.sampled_from(NAMES))
    def come_or_go(self, name: str) -> None:
        """A target goes down or comes back."""
        self.up[name] = self.targets[name].up = not self.up[name]

    @rule(ahead=st.integers(0, 3))
    def spoil(self, ahead: int) -> None:
        """A record to come will be refused on its own until further notice, so it may be overtaken."""
        self.bad.add(self.number + ahead)
        self.overtaking = True

    @rule()
    def heal(self) -> None:
        """All records are accepted again."""
        self.bad.clear()

    @rule()
    def resend(self) -> None:
        """Send what is kept."""
        self.pool.send_unsent_data()

    @rule()
    def switch(self) -> None:
        """Move what is kept."""
        self.pool.use_memory = not self.pool.use_memory

    @rule(manual=st.booleans())
    def by_hand(self, manual: bool) -> None:
        """Let kept records wait, or not."""
        self.pool.manual_reexport = manual
        self.overtaking = self.overtaking or manual

    @precondition(lambda self: not self.pool.use_memory)
    @rule(use_memory=st.booleans())
    def restart(self, use_memory: bool) -> None:
        """End and begin again; what is in memory first goes to the file, and comes from there."""
        self.pool.close()
        self.build(use_memory=False)
        self.pool.use_memory = use_memory

    @invariant()
    def nothing_is_doubled_or_invented(self) -> None:
        """Each lane got some of what was sent to it, each record once, in order unless it may be overtaken."""
        for name in NAMES:
            got = self.got[name]
            assert len(set(got)) == len(got), name
            assert set(got) <= set(self.sent[name]), name
            if not self.overtaking:
                assert self.sent[name][: len(got)] == got, name

    @invariant()
    def what_is_missing_is_owed(self) -> None:
        """The pool owes something exactly when some lane lacks something."""
        missing = any(len(self.got[name]) < len(self.sent[name]) for name in NAMES)
        assert missing == self.pool.has_unsent_data()

    def teardown(self) -> None:
        """In the end, with all targets up, everything arrives."""
        try:
            self.bad.clear()
            for target in self.targets.values():
                target.up = True
            while self.pool.has_unsent_data():
                assert any(result.successful for result in self.pool.send_unsent_data())
            for name in NAMES:
                assert self.sent[name] == sorted(self.got[name])
        finally:
            self.pool.close()
            shutil.rmtree(self.folder)


TestPoolAndModel = PoolAndModel.TestCase
TestPoolAndModel.settings = settings(max_examples=MODELS // 3, stateful_step_count=30)
