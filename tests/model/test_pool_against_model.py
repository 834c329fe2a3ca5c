"""The real pool driven at random beside a small model: nothing lost, doubled, invented or out of order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import resilient_exporters as rex
from tests.counts import MODELS
from tests.model.machine import World
from tests.model.world import KINDS, MOODS, Mood, disk, small_files, turned_by_hand

some_lanes = st.lists(st.sampled_from(list(KINDS)), unique=True)


@pytest.fixture(autouse=True, scope="module")
def strange_world() -> Iterator[None]:
    """Tiny segments on a disk that fills up, clocks turned by hand."""
    with small_files(), turned_by_hand():
        yield


class PoolBesideModel(RuleBasedStateMachine):
    """Everything a user, a target, a disk and a clock may do to a pool in the foreground."""

    world: World

    @initialize(overtaking=st.booleans())
    def begin(self, overtaking: bool) -> None:
        """Make an empty world."""
        self.world = World(overtaking=overtaking)

    # What the program does

    @rule(count=st.integers(1, 6))
    def send(self, count: int) -> None:
        """Send records one by one."""
        for _ in range(count):
            self.world.send()
            self.world.check()

    @rule(ttl=st.sampled_from([1.0, 60.0]))
    def send_for_a_while(self, ttl: float) -> None:
        """Send a record that is of no use later."""
        self.world.send(ttl)

    @rule(count=st.integers(1, 3))
    def send_many(self, count: int) -> None:
        """Send records at once."""
        self.world.send_many(count)

    @precondition(lambda self: self.world.present)
    @rule(data=st.data())
    def save(self, data: st.DataObject) -> None:
        """Keep a record for one exporter, or for all."""
        name = data.draw(st.sampled_from([*self.world.present, "world"]))
        self.world.save(self.world.present if name == "world" else [name], name)

    @rule()
    def send_unsent(self) -> None:
        """Try what is kept."""
        before = sum(len(self.world.lanes[name].diary.got) for name in self.world.present)
        results = self.call(self.world.pool.send_unsent_data)
        if results is not None:
            got = sum(len(self.world.lanes[name].diary.got) for name in self.world.present) - before
            assert got == sum(result.successful for result in results)

    @rule()
    def flush(self) -> None:
        """Deliver what can be delivered now."""
        self.call(self.world.pool.flush)

    def call(self, function: Any) -> Any:
        """Call what may fail on a full disk: a letter that cannot be kept."""
        try:
            return function()
        except rex.SpoolError:
            assert disk.full
            return None

    @precondition(lambda self: self.world.overtaking)
    @rule()
    def by_hand(self) -> None:
        """Let what is kept wait until it is asked for, or not."""
        self.world.manual = self.world.pool.manual_reexport = not self.world.manual

    @precondition(lambda self: len(self.world.present) < len(KINDS))
    @rule(data=st.data())
    def add_exporter(self, data: st.DataObject) -> None:
        """Add one, which may be owed something already."""
        world = self.world
        name = data.draw(st.sampled_from([name for name in KINDS if name not in world.present]))
        world.join(name)

    # Where it is kept

    @precondition(lambda self: self.world.memory)
    @rule()
    def to_file(self) -> None:
        """Move what is kept to the file; on a full disk everything stays where it was."""
        try:
            self.world.pool.use_memory = False
        except rex.SpoolError:
            assert disk.full
            assert self.world.pool.use_memory
            return
        self.world.memory = False
        self.world.adopt()

    @precondition(lambda self: not self.world.memory)
    @rule()
    def to_memory(self) -> None:
        """Load what is kept into memory."""
        self.world.pool.use_memory = True
        self.world.memory = True
        self.world.load()

    @rule(names=some_lanes, memory=st.booleans())
    def restart(self, names: list[str], memory: bool) -> None:
        """End the pool and make another one, perhaps with other exporters."""
        self.world.pool.close()
        self.world.reopen(names, memory=memory)

    @rule(names=some_lanes, memory=st.booleans())
    def crash(self, names: list[str], memory: bool) -> None:
        """The program is killed, and started again."""
        old = self.world.pool
        self.world.copy_files()
        self.world.reopen(names, memory=memory)
        old.close()

    @precondition(lambda self: not disk.full)
    @rule(names=some_lanes, seed=st.integers(0, 1 << 32))
    def rot(self, names: list[str], seed: int) -> None:
        """A bit flips in a closed file: the pool opens, and owes nothing that it never owed."""
        world = self.world
        world.pool.close()
        world.flip(random.Random(seed))
        world.unsettled = True
        world.reopen(names, memory=False)
        for name, lane in world.lanes.items():
            owed = world.owed_now(name)
            assert set(owed) <= lane.ever
            lane.owed = owed

    # What the world does

    @rule(name=st.sampled_from(list(KINDS)), mood=st.sampled_from(MOODS))
    def change_mood(self, name: str, mood: Mood) -> None:
        """A target comes, goes, breaks, asks for patience, or wants a person."""
        self.world.lanes[name].diary.mood = mood

    @rule(name=st.sampled_from(["batch", "stable"]), ahead=st.integers(0, 4))
    def spoil(self, name: str, ahead: int) -> None:
        """A target will refuse a record to come for good."""
        self.world.lanes[name].diary.never.add(self.world.number + ahead)

    @precondition(lambda self: self.world.overtaking)
    @rule(name=st.sampled_from(list(KINDS)), ahead=st.integers(0, 4))
    def postpone(self, name: str, ahead: int) -> None:
        """A target will not take a record to come until further notice."""
        self.world.lanes[name].diary.later.add(self.world.number + ahead)

    @rule(name=st.sampled_from(list(KINDS)))
    def relent(self, name: str) -> None:
        """A target takes what it did not take so far."""
        self.world.lanes[name].diary.later.clear()

    @rule(now=st.sampled_from([0.0, 0.2, 7.0, 100.0]), time=st.sampled_from([0.0, 0.2, 7.0, 100.0, -1e6, 1e6]))
    def turn_clocks(self, now: float, time: float) -> None:
        """Time passes, and the wall clock jumps."""
        self.world.turn(now=now, time=time)

    @rule(full=st.booleans())
    def fill_disk(self, full: bool) -> None:
        """The disk is full from now on, or has room again."""
        disk.full = full

    @invariant()
    def they_agree(self) -> None:
        """See `World.check`."""
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        """In the end, with everything in order again, all that is owed arrives."""
        if not hasattr(self, "world"):
            return
        world = self.world
        try:
            disk.full = False
            for name, lane in world.lanes.items():
                lane.diary.mood = "up"
                lane.diary.later.clear()
                if name not in world.present:
                    world.join(name)
            while world.pool.has_unsent_data():
                before = world.pool.status().owed
                tried = world.pool.send_unsent_data()
                assert tried or world.pool.status().owed < before, "something is owed that is not tried"
                world.check()
        finally:
            world.end()


TestPoolBesideModel = PoolBesideModel.TestCase
TestPoolBesideModel.settings = settings(
    max_examples=MODELS,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    report_multiple_bugs=False,
)
