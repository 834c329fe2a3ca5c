"""Carrying what is owed from one spool into another: order, owners, ids."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from resilient_exporters.delivery.moving import copy_owed, owed_slices
from resilient_exporters.spool.interface import Fate, Payload
from resilient_exporters.spool.memory import MemorySpool

Row = tuple[int, int, bytes, int, float, Payload, frozenset[str]]
KINDS = st.tuples(
    st.sets(st.sampled_from("abc"), min_size=1),
    st.sampled_from([b"", b"\x81\xa1k\x01"]),
    st.integers(1, 3),
    st.sampled_from([None, 77]),
)


def rows(spool: MemorySpool) -> list[Row]:
    """Everything that is owed, in the order of the log."""
    return [
        (part.run, part.numbers[i], part.options, part.flags, part.times[i], part.payloads[i], lanes)
        for part, lanes in owed_slices(spool)
        for i in range(len(part))
    ]


def anything(payload: Payload) -> None:
    """No objection."""


@settings(max_examples=80, deadline=None)
@given(st.lists(KINDS, max_size=20), st.sets(st.tuples(st.sampled_from("abc"), st.integers(1, 30))))
def test_everything_is_carried(kept: list[tuple[set[str], bytes, int, int | None]], done: set[tuple[str, int]]) -> None:
    """Each owed record arrives once, in order, with its id, time, options and exactly those who owe it."""
    spool = MemorySpool()
    expected: list[tuple[bytes, set[str]]] = []
    for index, (lanes, options, count, run) in enumerate(kept):
        payloads = [f"{index}.{i}".encode() for i in range(count)]
        spool.append(
            payloads, frozenset(lanes), time=float(index), options=options, run=run, first=None if run is None else 5
        )
        expected += [(payload, set(lanes)) for payload in payloads]
    for lane, place in done:
        spool.settle(lane, [place], Fate.DELIVERED)
        if place <= len(expected):
            expected[place - 1][1].discard(lane)
    before = rows(spool)
    assert [(payload, frozenset(lanes)) for payload, lanes in expected if lanes] == [(row[5], row[6]) for row in before]
    other = MemorySpool()
    places = copy_owed(spool, other, anything)
    assert before == rows(other)
    assert places == sorted(places)
    assert len(before) == len(places)
    assert before == rows(spool)


def test_only_what_is_above_a_place() -> None:
    """Records up to a given place are left out."""
    spool, other = MemorySpool(), MemorySpool()
    for payload in (b"1", b"2", b"3"):
        spool.append([payload], frozenset({"a"}), time=1.0)
    assert [3] == copy_owed(spool, other, anything, after=2)
    assert [b"3"] == [row[5] for row in rows(other)]


def test_slices_are_bounded() -> None:
    """A backlog is carried in slices, not in one piece."""
    spool = MemorySpool()
    for i in range(2500):
        spool.append([str(i).encode()], frozenset({"a"}), time=1.0)
    parts = [len(part) for part, _ in owed_slices(spool)]
    assert (2500, True) == (sum(parts), max(parts) <= 1000)
