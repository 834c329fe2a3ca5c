"""Policies: pauses and limits are frozen values that refuse nonsense."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_exporters.exceptions import InvalidConfigError
from resilient_exporters.policies import Limits, Retry


@given(st.floats(0.001, 10), st.floats(10, 1000), st.integers(1, 10_000), st.integers(0, 1 << 32).map(random.Random))
def test_delay_stays_within_its_bound(base: float, cap: float, failures: int, rng: random.Random) -> None:
    """A pause is never negative and never above the bound, which is never above the cap, however many failures."""
    retry = Retry(base, cap)
    assert 0.0 <= retry.delay(failures, rng) <= retry.bound(failures) <= cap


def test_bound_doubles_up_to_the_cap() -> None:
    """The bound starts at the base, doubles with each failure and stops at the cap."""
    retry = Retry(base=0.5, cap=3)
    assert [retry.bound(failures) for failures in range(1, 6)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_delay_uses_the_full_width() -> None:
    """Pauses spread over all of the range from 0 to the bound, so that many senders do not come back at once."""
    retry, rng = Retry(base=1, cap=1), random.Random(7)
    delays = [retry.delay(1, rng) for _ in range(1000)]
    assert min(delays) < 0.05
    assert max(delays) > 0.95
    assert 0.45 < sum(delays) / len(delays) < 0.55


@pytest.mark.parametrize(
    "values",
    [
        {"base": 0},
        {"base": -1},
        {"base": 2, "cap": 1},
        {"base": float("nan")},
        {"cap": float("inf")},
        {"base": "1"},
        {"base": True},
        {"cap": None},
    ],
    ids=repr,
)
def test_wrong_retry(values: dict[str, Any]) -> None:
    """A base or cap that is no number in its range is refused when the value is made."""
    with pytest.raises(InvalidConfigError, match="Retry: "):
        Retry(**values)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"bytes": 0}, "bytes"),
        ({"bytes": 1.5}, "bytes"),
        ({"bytes": True}, "bytes"),
        ({"when_full": "explode"}, "when_full"),
        ({"when_full": None}, "when_full"),
        ({"free_floor": -1}, "free_floor"),
        ({"free_floor": "1 MB"}, "free_floor"),
        ({"ttl": 0}, "ttl"),
        ({"ttl": float("nan")}, "ttl"),
        ({"ttl": "1h"}, "ttl"),
    ],
    ids=repr,
)
def test_wrong_limits(values: dict[str, Any], name: str) -> None:
    """A limit out of its range is refused when the value is made, by name."""
    with pytest.raises(InvalidConfigError, match=f"Limits: {name} is"):
        Limits(**values)


@pytest.mark.parametrize("when_full", ["raise", "block", "drop_oldest", "drop_newest"])
def test_every_answer_to_full_is_taken(when_full: Any) -> None:
    """All documented ways of dealing with a lack of room are accepted, beside the other limits."""
    limits = Limits(bytes=1, when_full=when_full, free_floor=0, ttl=0.5)
    assert limits.when_full == when_full


@pytest.mark.parametrize("value", [Retry(), Limits()], ids=repr)
def test_policies_are_frozen(value: Any) -> None:
    """A policy cannot be changed after it was made; equal ones compare equal."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, dataclasses.fields(value)[0].name, 5)
    assert value == type(value)()
