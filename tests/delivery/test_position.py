"""Position: which slice comes next, and where a pass goes on, without an exporter or a lane."""

from __future__ import annotations

from typing import Any

import pytest

from resilient_exporters import codec
from resilient_exporters.delivery.attempt import Again, Delivered, Hold, Outcome
from resilient_exporters.delivery.position import Position, Step
from resilient_exporters.delivery.sharing import Shared
from resilient_exporters.delivery.slices import Slices
from resilient_exporters.delivery.sources import Source, Sources
from resilient_exporters.spool.interface import Fate, Slice
from resilient_exporters.spool.memory import MemorySpool
from resilient_exporters.testing.clock import ManualClock
from tests.delivery.targets import FakeTarget, keep


class Way:
    """The position of a lane that owes numbers, in a pass that has begun."""

    def __init__(self, count: int, **options: Any) -> None:
        self.spool = MemorySpool()
        self.target = FakeTarget(**options)
        self.sources = Sources([Source(self.spool, "t")])
        slices = Slices(self.target, None, ManualClock(), Shared())
        self.position = Position(self.target, self.sources, slices)
        keep(self.spool, *range(count))
        self.position.begin()

    def take(self) -> list[Any]:
        """The data of the next slice."""
        self.kept = self.position.take(None, pins=True)
        return [] if self.kept is None else data_of(self.kept)

    def tell(self, outcome: Outcome, misses: int = 1) -> Step:
        """Tell what came of the slice."""
        assert self.kept is not None
        if isinstance(outcome, Delivered):
            self.spool.settle("t", self.kept.places, Fate.DELIVERED)
        self.position.attempted()
        return self.position.advance(self.kept, outcome, misses)


def data_of(kept: Slice) -> list[Any]:
    return [codec.decode(payload) for payload in kept.payloads if isinstance(payload, bytes)]


FAILED = Again(ValueError("who knows"))
DOWN = Again(ConnectionError("gone"), down=True)


def test_a_pass_goes_on_behind_what_failed_and_comes_back() -> None:
    """The second pass jumps behind what the first has tried in vain; a success there turns it back."""
    way = Way(4, batches=False)
    assert ([0], Step.MORE, [1], Step.MORE) == (way.take(), way.tell(FAILED), way.take(), way.tell(FAILED))
    way.position.begin()
    assert ([0], Step.MORE, [2], Step.MORE) == (way.take(), way.tell(FAILED), way.take(), way.tell(Delivered()))
    assert ([3], Step.MORE, [1]) == (way.take(), way.tell(Delivered()), way.take())


@pytest.mark.parametrize(
    ("outcome", "misses", "step", "following"),
    [
        (DOWN, 1, Step.STOP, [0]),
        (FAILED, 2, Step.STOP, [0]),
        (FAILED, 3, Step.MORE, [0]),
        (Hold(ValueError("no table")), 1, Step.STOP, [0]),
        (Hold(ValueError("these"), only_these=True), 1, Step.MORE, []),
    ],
)
def test_what_a_failed_batch_means(outcome: Outcome, misses: int, step: Step, following: list[int]) -> None:
    """A target that is to blame ends the pass; one that fails for reasons unknown at the third time is taken apart."""
    way = Way(3)
    assert ([0, 1, 2], step, following) == (way.take(), way.tell(outcome, misses), way.take())


def test_a_batch_in_doubt_comes_again_as_it_was() -> None:
    """After a failure a stable target gets the same batch, whatever was kept meanwhile."""
    way = Way(2, stable=True)
    assert ([0, 1], Step.STOP) == (way.take(), way.tell(DOWN))
    keep(way.spool, 2)
    way.position.begin()
    assert ([0, 1], Step.MORE, [2]) == (way.take(), way.tell(Delivered()), way.take())


def test_a_new_record_must_wait_for_what_nothing_has_overtaken() -> None:
    """Order lets a new record go only when a success has passed all that is still owed."""
    way = Way(2, batches=False)
    assert ([0], Step.MORE) == (way.take(), way.tell(FAILED))
    assert not way.position.lets_new_pass(None)
    assert way.position.may_be_down(1)
    assert ([1], Step.MORE) == (way.take(), way.tell(Delivered()))
    assert way.position.lets_new_pass(None)


def test_an_exchange_during_a_call_keeps_the_batch_in_doubt() -> None:
    """What was under way is found again in the other spool, and comes again as it was."""
    way = Way(2, stable=True)
    other = MemorySpool()
    keep(other, "before", 0, 1)
    assert [0, 1] == way.take()
    way.position.move(way.spool, other, {1: 2, 2: 3})
    assert other is way.position.source.spool
    assert Step.STOP == way.tell(DOWN)
    other.settle("t", [1], Fate.DROPPED)
    assert ([0, 1], [2, 3]) == (way.take(), other.pinned("t"))


def test_a_lane_comes_back_from_another_spool() -> None:
    """After a visit elsewhere the pass goes on where it was."""
    way = Way(2, batches=False)
    other = MemorySpool()
    keep(other, "theirs")
    assert ([0], Step.MORE) == (way.take(), way.tell(FAILED))
    way.position.turn_aside(Source(other, "t"))
    assert ["theirs"] == way.take()
    way.position.come_back()
    assert [1] == way.take()
