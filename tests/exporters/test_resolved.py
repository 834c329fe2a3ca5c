"""`Resolved` against a plain set, and its form in bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_exporters.exporters.resolved import Resolved

numbers = st.integers(1, 40) | st.integers(2**40, 2**40 + 10)


def members(resolved: Resolved) -> set[int]:
    spans = [(1, resolved.floor), *resolved.ranges]
    return {number for first, last in spans for number in range(first, last + 1)}


@given(st.lists(st.lists(numbers)))
def test_is_a_set(added: list[list[int]]) -> None:
    """Whatever is added in whatever order, it holds that and nothing else."""
    resolved, expected = Resolved(), set[int]()
    for batch in added:
        resolved = resolved.add(batch)
        expected |= set(batch)
        assert expected == members(resolved)
    asked = [*range(-1, 43), *range(2**40 - 2, 2**40 + 13)]
    assert [number in expected for number in asked] == [number in resolved for number in asked]


@given(st.sets(numbers))
def test_has_one_form(added: set[int]) -> None:
    """Equal sets are equal values and equal bytes, and come back from them."""
    resolved = Resolved().add(added)
    stepwise = Resolved()
    for number in sorted(added, reverse=True):
        stepwise = stepwise.add([number])
    assert resolved == stepwise
    assert resolved == Resolved.from_bytes(stepwise.to_bytes())


@given(st.sets(numbers))
def test_ranges_neither_touch_nor_overlap(added: set[int]) -> None:
    """Ranges are as few as possible, ascending, apart from each other and the floor."""
    resolved = Resolved().add(added)
    last = resolved.floor
    for first, stop in resolved.ranges:
        assert first > last + 1
        assert stop >= first
        last = stop


@given(st.binary(max_size=12))
def test_bytes_are_a_set_or_refused(data: bytes) -> None:
    """Any bytes either are the one form of a set, or are refused."""
    try:
        resolved = Resolved.from_bytes(data)
    except ValueError:
        return
    assert data == resolved.to_bytes()


@given(st.sets(numbers, min_size=1), st.data())
def test_cut_off(added: set[int], data: st.DataObject) -> None:
    """A form that lost its end never becomes a set with numbers that were not in it."""
    whole = Resolved().add(added)
    encoded = whole.to_bytes()
    try:
        resolved = Resolved.from_bytes(encoded[: data.draw(st.integers(0, len(encoded) - 1))])
    except ValueError:
        return
    assert members(resolved) <= added


def test_drawing() -> None:
    """The bytes are as drawn: version, floor, then a gap and a length for each range, as varints."""
    resolved = Resolved().add([1, 2, 3, 6, 7, 300])
    assert Resolved(3, ((6, 7), (300, 300))) == resolved
    assert bytes([1, 3, 2, 2, 0xA4, 0x02, 1]) == resolved.to_bytes()


def test_adding_changes_nothing() -> None:
    """It is a value: adding makes a new one."""
    empty = Resolved()
    assert empty.add([1]) != empty
    assert Resolved() == empty


@pytest.mark.parametrize("wrong", [0, -5])
def test_numbers_count_from_one(wrong: int) -> None:
    """A number below 1 is a mistake, not a member."""
    with pytest.raises(ValueError, match="count from 1"):
        Resolved().add([3, wrong])


@pytest.mark.parametrize(
    "data", [b"", b"\x01", b"\x02\x00", b"\x01\x05\x01", b"\x01\x80", b"\x01\x05\x00\x01", b"\x01\x80\x00"]
)
def test_damaged(data: bytes) -> None:
    """Bytes of another kind, cut off, or not in the one form are refused."""
    with pytest.raises(ValueError, match="set of record numbers"):
        Resolved.from_bytes(data)


def test_stays_small() -> None:
    """A million records in order are a floor; a thousand gaps are a few kilobytes."""
    assert Resolved().add(range(1, 1_000_001)) == Resolved(1_000_000)
    assert len(Resolved().add(range(1, 1_000_001, 1000)).to_bytes()) < 4000
