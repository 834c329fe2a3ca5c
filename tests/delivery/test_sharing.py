"""What lanes share: one rendering for all, of exactly the records that each of them has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_exporters import codec
from resilient_exporters.delivery.sharing import Shared, shareable
from resilient_exporters.exceptions import SpoolError
from resilient_exporters.spool.interface import Flag, Opaque, Slice

TWO = ("a", "b")


class Render:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, data: Sequence[Any]) -> list[Any]:
        self.asked += 1
        return [*data]


def slice_of(*data: Any, first: int = 1, run: int = 7, flags: int = 0) -> Slice:
    numbers = list(range(first, first + len(data)))
    return Slice(run, b"", flags, numbers, numbers, [1.0] * len(data), [codec.encode(one) for one in data])


def test_equal_slices_are_rendered_once() -> None:
    """The second lane gets what was made for the first, the very same object."""
    shared, render = Shared(lambda: TWO), Render()
    made = shared.rendered(slice_of("a", 2), render)
    assert ["a", 2] == made
    assert made is shared.rendered(slice_of("a", 2), render)
    assert 1 == render.asked


def test_other_records_are_rendered_anew() -> None:
    """A slice that begins alike but holds other records gets its own form."""
    shared, render = Shared(lambda: TWO), Render()
    shared.rendered(slice_of("a", 2), render)
    assert ["a", 3] == shared.rendered(slice_of("a", 3), render)
    assert ["a", 3, 4] == shared.rendered(slice_of("a", 3, 4), render)


def test_one_alone_holds_nothing() -> None:
    """With nobody to share with, nothing is held."""
    shared, render = Shared(lambda: ("a",)), Render()
    for _ in range(2):
        assert [1, 2] == shared.rendered(slice_of(1, 2), render)
    assert 2 == render.asked


def test_what_is_held_is_bounded() -> None:
    """After a few megabytes the oldest form goes."""
    shared, render = Shared(lambda: TWO), Render()
    for number in range(10):
        shared.rendered(slice_of("x" * 500_000, "y" * 500_000, first=2 * number + 1), render)
    shared.rendered(slice_of("x" * 500_000, "y" * 500_000), render)
    assert 11 == render.asked


def test_slices_are_cut_to_where_another_lane_has_been() -> None:
    """A slice that reaches further ends where the other lane's did, or where its next one began."""
    shared, render = Shared(lambda: TWO), Render()
    shared.rendered(slice_of(*range(8), first=11), render)
    assert 8 == shared.aligned(slice_of(*range(12), first=11))
    assert 4 == shared.aligned(slice_of(*range(12), first=7))
    assert 12 == shared.aligned(slice_of(*range(12), first=11, run=8))
    assert 200 == shared.aligned(slice_of(*range(200), first=11))


def test_what_differs_between_exporters_is_not_shared() -> None:
    """Data that an exporter's own transform still has to change, or that is not encoded, is nobody else's."""
    assert shareable(slice_of(1))
    assert not shareable(slice_of(1, flags=Flag.RAW))
    opaque = slice_of(1)
    opaque.payloads = [Opaque(object())]
    assert not shareable(opaque)


@given(st.lists(st.none() | st.text() | st.tuples(st.integers()) | st.binary() | st.sets(st.integers()), max_size=20))
def test_many_payloads_decode_as_each_does(data: list[Any]) -> None:
    """`decode_all` gives what `decode` gives, whether or not there is something in it that takes the slow way."""
    assert data == codec.decode_all([codec.encode(one) for one in data])


def test_a_payload_that_is_none_is_named() -> None:
    """One bad payload among good ones is an error."""
    with pytest.raises(SpoolError, match="undecodable"):
        codec.decode_all([codec.encode(1), b"\xc1"])
