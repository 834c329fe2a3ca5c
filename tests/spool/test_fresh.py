"""Records that come into memory without a lock: none is lost, doubled or given to others, whatever comes in between."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from resilient_exporters.exceptions import SpoolFull
from resilient_exporters.spool.fresh import LARGEST
from resilient_exporters.spool.interface import Fate, SpoolMoving
from resilient_exporters.spool.memory import MemorySpool
from tests.spool.interruptions import at_line, interrupted_at

A = frozenset({"a"})
B = frozenset({"b"})


def drain(spool: MemorySpool, lane: str = "a") -> list[Any]:
    """Everything a lane owes, in order."""
    found: list[Any] = []
    after = 0
    while part := spool.read(lane, after, 100, 1 << 20):
        after = part.places[-1]
        found += part.payloads
    return found


def open_spool(before: int = 2, **more: Any) -> MemorySpool:
    """A spool into which plain records of lane a come without a lock, as all but the first of those before did."""
    spool = MemorySpool(**more)
    for payload in (b"first", b"second")[:before]:
        spool.append_one(payload, A, 1.0)
    assert A is spool._fresh.lanes
    assert 2 * (before - 1) == len(spool._fresh.cells)
    return spool


def test_it_is_as_if_they_had_been_appended() -> None:
    """Places, numbers, times and accounts are those of records that came one after the other the long way."""
    spool = MemorySpool()
    assert 1 == spool.draw()
    for number in range(3000):
        if number % 1000 == 500:
            spool.append([b"long"], A, time=float(number))
        else:
            spool.append_one(b"x" * (number % 7), A, float(number))
    assert 3002 == spool.draw()
    assert 3001 == spool.next_place
    part = spool.read("a", 0, 5000, 1 << 20)
    assert part is not None
    assert list(range(1, 3001)) == part.places
    assert list(range(2, 3002)) == part.numbers
    assert [float(number) for number in range(3000)] == part.times
    sizes = sum(4 if number % 1000 == 500 else number % 7 for number in range(3000))
    assert (3000, sizes, 0.0) == spool.account("a")
    assert 3000 == spool.settle("a", part.places, Fate.DELIVERED)
    assert 0 == spool.size()


def test_each_lane_gets_its_own() -> None:
    """Records for one set of lanes and then for another are not mixed up."""
    spool = MemorySpool()
    for number in range(40):
        spool.append_one(bytes([number]), A if number % 8 < 4 else B, 1.0)
    assert [bytes([number]) for number in range(40) if number % 8 < 4] == drain(spool)
    assert [bytes([number]) for number in range(40) if number % 8 >= 4] == drain(spool, "b")


def _read(spool: MemorySpool) -> None:
    drain(spool)


def _append(spool: MemorySpool) -> None:
    spool.append([b"other"], A, time=1.0)


def _append_one(spool: MemorySpool) -> None:
    spool.append_one(b"other", A, 1.0)


def _append_for_others(spool: MemorySpool) -> None:
    spool.append_one(b"for b", B, 1.0)


def _freeze(spool: MemorySpool) -> None:
    spool.freeze()


def _in_another_thread(act: Callable[[MemorySpool], None]) -> Callable[[MemorySpool], None]:
    def acting(spool: MemorySpool) -> None:
        thread = threading.Thread(target=act, args=(spool,))
        thread.start()
        thread.join(0.2)  # it may wait for the lock, until the thread that we stop here goes on
        threads.append(thread)

    threads: list[threading.Thread] = []
    acting.threads = threads  # type: ignore[attr-defined]
    return acting


@pytest.mark.parametrize("before", [1, 2])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["signal", "thread"])
@pytest.mark.parametrize("act", [_read, _append, _append_one, _append_for_others, _freeze])
def test_whatever_comes_between_two_lines(act: Callable[[MemorySpool], None], elsewhere: bool, before: int) -> None:
    """A record is kept once if `append_one` returned, and not at all if it raised, whatever another thread or a signal
    handler does before any of its lines.
    """
    number, reached = 0, True
    while reached:
        spool = open_spool(before)
        between = _in_another_thread(act) if elsewhere else act
        refused = False

        def send(spool: MemorySpool = spool) -> None:
            nonlocal refused
            try:
                spool.append_one(b"mine", A, 2.0)
            except SpoolMoving:
                refused = True

        code = MemorySpool.append_one.__code__
        reached = at_line(number, code, lambda spool=spool, between=between: between(spool), send)  # type: ignore[misc]
        for thread in getattr(between, "threads", []):
            thread.join()
        found = drain(spool)  # of a frozen spool: what is carried elsewhere
        assert ([] if refused else [b"mine"]) == [payload for payload in found if payload == b"mine"]
        assert [b"first", b"second"][:before] == found[:before]
        assert len(found) == spool.account("a").records
        assert (reached and act is _append_for_others) == (drain(spool, "b") == [b"for b"])
        number += 1
    assert number > 5


def test_an_interrupt_keeps_all_or_nothing() -> None:
    """KeyboardInterrupt at any moment of `append_one`, or of the look that puts records into blocks, costs nothing."""
    number, reached = 0, True
    while reached:
        spool = open_spool()

        def work(spool: MemorySpool = spool) -> None:
            spool.append_one(b"mine", A, 2.0)
            drain(spool)
            spool.append_one(b"next", A, 3.0)

        reached = interrupted_at(number, work)
        found = drain(spool)
        assert found in ([b"first", b"second", b"mine", b"next"][:many] for many in (2, 3, 4))
        assert len(found) == spool.account("a").records
        assert 2 + len(found) - 2 == spool.settle("a", range(1, len(found) + 1), Fate.DELIVERED)
        assert 0 == spool.size()
        number += 1
    assert number > 20


@pytest.mark.parametrize("limit", [1000, 100_000, 2_000_000])
def test_the_budget_is_kept(limit: int) -> None:
    """Whatever came without a lock, `size()` never passes the limit, and nearly all of it can be used."""
    spool = MemorySpool(limit_bytes=limit)
    with pytest.raises(SpoolFull):
        for _ in range(limit):
            spool.append_one(b"x" * 200, A, 1.0)
    assert limit - 280 < spool.size() <= limit


def test_a_large_record_takes_the_long_way() -> None:
    """A record too large to be counted later is counted at once."""
    spool = open_spool(limit_bytes=1_000_000)
    with pytest.raises(SpoolFull):
        spool.append_one(b"x" * 1_000_000, A, 1.0)
    spool.append_one(b"x" * (LARGEST + 1), A, 1.0)
    assert [5, 6, LARGEST + 1] == [len(payload) for payload in drain(spool)]


def test_threads_that_send_while_others_look() -> None:
    """Each record of many threads is found exactly once, and each thread's in its order."""
    spool = MemorySpool()
    found: list[bytes] = []
    over = threading.Event()

    def send(name: int) -> None:
        for number in range(5000):
            spool.append_one(b"%d %d" % (name, number), A, 1.0)

    def look() -> None:
        while True:
            last = over.is_set()
            while part := spool.read("a", 0, 100, 1 << 20):
                found.extend(bytes(payload) for payload in part.payloads if isinstance(payload, bytes))
                spool.settle("a", part.places, Fate.DELIVERED)
            if last:
                return

    senders = [threading.Thread(target=send, args=(name,)) for name in range(4)]
    looker = threading.Thread(target=look)
    for thread in (*senders, looker):
        thread.start()
    for thread in senders:
        thread.join()
    over.set()
    looker.join()
    for name in range(4):
        assert [b"%d %d" % (name, number) for number in range(5000)] == [
            payload for payload in found if payload.startswith(b"%d " % name)
        ]
    assert 20_000 == len(found)
    assert 0 == spool.size()
