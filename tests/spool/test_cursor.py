"""A place set behaves as a set of numbers, whatever the order in which ranges come."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from resilient_exporters.spool.cursor import Places, runs

TOP = 40
RANGES = st.lists(st.tuples(st.integers(1, TOP), st.integers(0, 8)).map(lambda pair: (pair[0], sum(pair))), max_size=20)


@given(RANGES, st.integers(0, TOP), st.integers(1, TOP))
def test_it_is_a_set(ranges: list[tuple[int, int]], floor: int, place: int) -> None:
    """Adding counts what is new, and every question has the answer that a plain set gives."""
    places, model = Places(floor), set(range(1, floor + 1))
    for first, last in ranges:
        new = set(range(first, last + 1)) - model
        assert places.add(first, last) == len(new)
        model |= new
    assert [each in places for each in range(1, TOP + 20)] == [each in model for each in range(1, TOP + 20)]
    assert places.after(place) == next(each for each in range(place + 1, TOP + 30) if each not in model)
    assert places.top == max(model, default=0)
    missing = [each for first, last in places.missing(1, TOP) for each in range(first, last + 1)]
    assert missing == [each for each in range(1, TOP + 1) if each not in model]
    if place in model:
        first, last = places.around(place)
        assert set(range(first, last + 1)) <= model
        assert not {first - 1, last + 1} & model


@given(RANGES, st.integers(1, TOP), st.integers(0, 10))
def test_it_answers_for_stretches(ranges: list[tuple[int, int]], first: int, length: int) -> None:
    """Whether a stretch is covered or touched."""
    places, stretch = Places(0, ranges), set(range(first, first + length))
    model = {each for low, high in ranges for each in range(low, high + 1)}
    assert places.covers(first, first + length - 1) == (stretch <= model)
    assert places.touches(first, first + length - 1) == bool(stretch & model)


@given(RANGES)
def test_it_is_kept_short(ranges: list[tuple[int, int]]) -> None:
    """Ranges never touch each other or the floor, and the same set looks the same however it came about."""
    places = Places(0, ranges)
    edges = [(0, places.floor), *places.ranges()]
    assert all(left[1] + 1 < right[0] for left, right in pairwise(edges))
    assert places == Places(places.floor, reversed(places.ranges()))


@given(RANGES, st.integers(1, TOP))
def test_cutting(ranges: list[tuple[int, int]], place: int) -> None:
    """After a cut nothing from there on is in the set, and everything before is as it was."""
    places = Places(0, ranges)
    before = [each in places for each in range(1, place)]
    places.cut(place)
    assert before == [each in places for each in range(1, place)]
    assert not places.touches(place, TOP + 20)


@given(st.sets(st.integers(1, TOP)).map(sorted))
def test_runs(numbers: list[int]) -> None:
    """Runs of neighbours say the same as the numbers, in as few ranges as can be."""
    found = list(runs(numbers))
    assert numbers == [each for first, last in found for each in range(first, last + 1)]
    assert all(left[1] + 1 < right[0] for left, right in pairwise(found))
