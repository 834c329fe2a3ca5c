"""Slices that lanes side by side share: the same ones where they owe the same, and never a record that is not owed."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import pytest

from resilient_exporters.spool import FileSpool
from resilient_exporters.spool.interface import Fate, Slice
from tests.counts import MODELS
from tests.spool.spooling import AB, keep

SETS = [frozenset("abc"), frozenset("ab"), frozenset("c")]


def read(spool: FileSpool, lane: str, after: int = 0, records: int = 1000) -> Slice:
    part = spool.read(lane, after, records, 1 << 20)
    assert part is not None
    return part


def test_lanes_side_by_side_get_the_same_slices(tmp_path: Path) -> None:
    """Who comes second to a place gets what the first one got, although more has come since."""
    with closing(FileSpool(tmp_path / "q")) as spool:
        spool.account("a"), spool.account("b")
        keep(spool, *(b"%d" % number for number in range(100)), lanes=AB)
        read(spool, "b", 0, 1)
        first = read(spool, "a")
        keep(spool, *(b"%d" % number for number in range(100, 150)), lanes=AB)
        second = read(spool, "b")
        assert second == first
        assert second is not first
        assert second.payloads is first.payloads
        assert read(spool, "b", second.places[-1]).payloads == [b"%d" % number for number in range(100, 150)]


def test_who_is_far_behind_takes_larger_slices(tmp_path: Path) -> None:
    """Short slices are those of a lane that keeps up; one that was down does not go through its backlog by them."""
    with closing(FileSpool(tmp_path / "q")) as spool:
        read_by_b: list[int] = []
        for number in range(200):
            keep(spool, b"%d" % number, lanes=AB)
            read_by_b.append(len(read(spool, "b", number)))
        assert read_by_b == [1] * 200
        assert len(read(spool, "a")) == 200


@pytest.mark.parametrize("seed", range(MODELS))
def test_what_is_read_is_what_is_owed(tmp_path: Path, seed: int) -> None:
    """Whatever lanes read, settle and lose in whatever order: each is handed the next of its own, and all of them."""
    chance = random.Random(seed)
    with closing(FileSpool(tmp_path / "q", segment_size=chance.choice([400, 4000, 1 << 20]))) as spool:
        owed: dict[str, dict[int, bytes]] = {"a": {}, "b": {}, "c": {}}
        after = dict.fromkeys(owed, 0)
        for step in range(120):
            lane = chance.choice("abc")
            action = chance.random()
            if action < 0.3:
                lanes, place = chance.choice(SETS), spool.next_place
                payloads = [b"%d.%d" % (step, i) for i in range(chance.choice([1, 1, 1, 20]))]
                spool.append(payloads, lanes, time=1.0)
                for name in lanes:
                    owed[name].update(enumerate(payloads, place))
            elif action < 0.35:
                for place in chance.sample([*owed[lane]], min(2, len(owed[lane]))):
                    spool.settle(lane, [place], Fate.DROPPED)
                    del owed[lane][place]
            else:
                part = spool.read(lane, after[lane], chance.choice([1, 5, 1000]), chance.choice([10, 1 << 20]))
                left = [place for place in sorted(owed[lane]) if place > after[lane]]
                if part is None:
                    assert left == []
                    after[lane] = 0
                    continue
                assert part.places == left[: len(part)]
                assert part.payloads == [owed[lane][place] for place in part.places]
                after[lane] = part.places[-1]
                if chance.random() < 0.7:
                    spool.settle(lane, part.places, Fate.DELIVERED)
                    for place in part.places:
                        del owed[lane][place]
        for name, records in owed.items():
            assert spool.account(name).records == len(records)
