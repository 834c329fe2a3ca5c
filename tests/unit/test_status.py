"""Status values: frozen, and their sums hold."""

from __future__ import annotations

import dataclasses

import pytest

from resilient_exporters.status import LaneStatus, Orphan, PoolStatus


def test_accepted_is_the_sum_of_what_became_of_the_records() -> None:
    """A lane's accepted records are those delivered, owed, dead and dropped together."""
    assert LaneStatus("a", owed=1, delivered=20, dead=300, dropped=4000).accepted == 4321


def test_a_new_lane_has_nothing() -> None:
    """A lane that was never used is idle, owes nothing and plans nothing."""
    lane = LaneStatus("a")
    assert (lane.state, lane.accepted, lane.oldest_age, lane.last_error, lane.next_attempt) == (
        "idle",
        0,
        None,
        None,
        None,
    )


def test_owed_counts_orphans() -> None:
    """What a pool owes is the sum over its exporters and over those that are not there any more."""
    lanes = (LaneStatus("a", owed=2), LaneStatus("b", owed=3, delivered=9))
    assert PoolStatus("pool", lanes, (Orphan("c", 5, 100, 1.0),)).owed == 10


def test_status_is_frozen() -> None:
    """A status is a value: nothing in it can be set."""
    status = PoolStatus("pool", (LaneStatus("a"),))
    with pytest.raises(dataclasses.FrozenInstanceError):
        status.name = "b"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        status.exporters[0].owed = 1  # type: ignore[misc]
