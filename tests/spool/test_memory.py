"""What only the memory spool promises: dense places, re-entry, limits, interruption, fork, small cost."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from resilient_exporters.exceptions import PoolClosed, SpoolFull
from resilient_exporters.spool.interface import Fate, Opaque, Slice
from resilient_exporters.spool.memory import MemorySpool
from tests.spool.interruptions import interrupted_at

A = frozenset({"a"})
AB = frozenset({"a", "b"})


def drain(spool: MemorySpool, lane: str = "a") -> list[Any]:
    """Everything a lane owes, in order."""
    found: list[Any] = []
    after = 0
    while part := spool.read(lane, after, 100, 1 << 20):
        after = part.places[-1]
        found += part.payloads
    return found


def keep(spool: MemorySpool, *payloads: Any, lanes: frozenset[str] = A, **more: Any) -> None:
    spool.append(payloads, lanes, time=1.0, **more)


def test_places_are_dense_from_the_first_one() -> None:
    """Places count from `first_place` without gaps, whatever shape the records have."""
    spool = MemorySpool(first_place=5000)
    for number in range(1500):
        keep(spool, b"x", options=b"even" if number % 2 else b"odd")
    keep(spool, *[b"y"] * 1500)
    places, after = [], 0
    while part := spool.read("a", after, 1000, 1 << 20):
        after = part.places[-1]
        places += part.places
    assert places == list(range(5000, 8000))


def test_numbers_of_a_batch_follow_each_other() -> None:
    """A batch takes the next numbers in a row, single records and `draw` the ones around it."""
    spool = MemorySpool()
    assert spool.draw() == 1
    keep(spool, b"x")
    keep(spool, *[b"y"] * 1030)
    assert spool.draw() == 1033
    part = spool.read("a", 0, 2000, 1 << 20)
    assert part is not None
    assert part.numbers == list(range(2, 1033))
    assert part.run == spool.run


def test_data_without_a_codec_is_kept_as_it_is() -> None:
    """An opaque payload comes back as the same object and counts with its rough size."""
    spool = MemorySpool()
    opaque = Opaque([1, 2, 3])
    keep(spool, opaque)
    keep(spool, b"12345", opaque)
    assert drain(spool) == [opaque, b"12345", opaque]
    assert spool.account("a").bytes == 2 * sys.getsizeof(opaque.data) + 5


def test_a_payload_is_freed_when_the_last_lane_has_settled_it() -> None:
    """One record that stays owed does not hold its neighbours' memory."""

    class Watched(bytes):
        """Bytes that tell when they are freed."""

        def __del__(self) -> None:
            freed.append(1)

    freed: list[int] = []
    spool = MemorySpool()
    for _ in range(10):
        keep(spool, Watched(b"x"), lanes=AB)
    spool.settle("a", range(1, 11), Fate.DELIVERED)
    assert freed == []
    spool.settle("b", range(2, 11), Fate.DELIVERED)
    assert len(freed) == 9


def test_blocks_are_freed_when_nobody_owes_anything_in_them() -> None:
    """Memory in use follows what is owed, not what was ever sent."""
    spool = MemorySpool()
    gc.collect()
    before = len(gc.get_objects())
    for round in range(30):
        keep(spool, *[b"x" * 10] * 1000, lanes=AB)
        for lane in AB:
            spool.settle(lane, range(1 + round * 1000, 1001 + round * 1000), Fate.DELIVERED)
    assert spool.size() == 0
    gc.collect()
    assert len(gc.get_objects()) - before < 50


def test_no_room_keeps_nothing_and_work_goes_on() -> None:
    """At the limit an append raises and changes nothing; after settling there is room again."""
    spool = MemorySpool(limit_bytes=1000)
    keep(spool, b"x" * 100)
    before = spool.account("a"), spool.size()
    with pytest.raises(SpoolFull, match="no room for 1000 bytes"):
        keep(spool, b"x" * 1000)
    with pytest.raises(SpoolFull):
        keep(spool, *[b"x"] * 20)
    assert (spool.account("a"), spool.size()) == before
    spool.settle("a", [1], Fate.DELIVERED)
    keep(spool, b"y" * 100)
    assert drain(spool) == [b"y" * 100]


def test_no_memory_is_no_room() -> None:
    """A MemoryError while the columns grow becomes SpoolFull and leaves no trace."""

    class Heavy(bytes):
        """Bytes that there is no memory for."""

        def __len__(self) -> int:
            raise MemoryError

    spool = MemorySpool()
    keep(spool, b"x")
    with pytest.raises(SpoolFull) as caught:
        keep(spool, Heavy(b"y"))
    assert isinstance(caught.value.__cause__, MemoryError)
    keep(spool, b"z")
    assert drain(spool) == [b"x", b"z"]


def test_a_record_that_nobody_owes_is_refused() -> None:
    """An empty lane set is a mistake of the caller, not a record that can never be settled."""
    with pytest.raises(ValueError, match="nobody owes"):
        keep(MemorySpool(), b"x", lanes=frozenset())


@pytest.mark.parametrize("more", [{}, {"expires": 9.0}])
@pytest.mark.parametrize("batch", [1, 3, 1030])
def test_an_interrupted_append_keeps_all_or_nothing(batch: int, more: dict[str, Any]) -> None:
    """KeyboardInterrupt at any moment of an append leaves the record kept or not kept, and the accounts right."""
    line, reached = 0, True
    while reached:
        spool = MemorySpool()
        keep(spool, b"before")

        reached = interrupted_at(line, lambda spool=spool: keep(spool, *[b"outer"] * batch, **more))  # type: ignore[misc]
        keep(spool, b"after")
        found = drain(spool)
        assert found in ([b"before", b"after"], [b"before", *[b"outer"] * batch, b"after"])
        assert spool.account("a").records == len(found)
        assert spool.expire(10.0).get("a", 0) == (len(found) - 2 if more else 0)
        line += 1
    assert line > 10


def test_an_interrupted_settle_leaves_the_accounts_right() -> None:
    """KeyboardInterrupt at any moment of a settle: what can be read is what the account says; repeating works."""
    line, reached = 0, True
    while reached:
        spool = MemorySpool()
        keep(spool, *[b"12"] * 5, lanes=AB)
        spool.settle("b", [1, 2], Fate.DELIVERED)

        reached = interrupted_at(line, lambda spool=spool: spool.settle("a", [1, 3], Fate.DELIVERED))  # type: ignore[misc]
        for lane in AB:
            assert (len(drain(spool, lane)), 2 * len(drain(spool, lane))) == spool.account(lane)[:2]
        for lane in AB:
            spool.settle(lane, [1, 2, 3, 4, 5], Fate.DELIVERED)
        assert spool.size() == 0
        line += 1
    assert line > 10


def test_many_threads_lose_nothing() -> None:
    """Threads append and settle side by side; every record is settled exactly once and the accounts end at zero."""
    spool = MemorySpool()
    done: list[int] = []
    writers_left = threading.Semaphore(0)

    def write() -> None:
        for number in range(1000):
            keep(spool, b"x", *[b"y"] * (number % 3), lanes=AB)
        writers_left.release()

    def deliver(lane: str) -> None:
        settled, over = 0, False
        while not over:
            over = finished.is_set()
            while part := spool.read(lane, 0, 50, 1000):
                over = False
                spool.settle(lane, part.places, Fate.DELIVERED)
                settled += len(part)
        done.append(settled)

    finished = threading.Event()
    threads = [threading.Thread(target=write) for _ in range(3)]
    threads += [threading.Thread(target=deliver, args=(lane,)) for lane in AB]
    for thread in threads:
        thread.start()
    for _ in range(3):
        assert writers_left.acquire(timeout=60)
    finished.set()
    for thread in threads:
        thread.join()
    assert done == [5997, 5997]
    assert spool.account("a") == (0, 0, None)
    assert spool.size() == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_is_refused() -> None:
    """In the child every method raises PoolClosed, also when the fork happened while another thread held the lock."""
    spool = MemorySpool()
    keep(spool, b"x")
    calls: list[Callable[[], object]] = [
        spool.draw,
        lambda: keep(spool, b"y"),
        lambda: spool.read("a", 0, 1, 1),
        lambda: spool.settle("a", [1], Fate.DELIVERED),
        lambda: spool.bury("a", Slice(1, b"", 0), {}, 1),
        spool.dead_letters,
        lambda: spool.forget_dead([1]),
        lambda: spool.account("a"),
        spool.owing,
        spool.size,
        lambda: spool.drop_oldest(1),
        lambda: spool.expire(1.0),
        spool.sync,
        spool.close,
    ]
    locked, release = threading.Event(), threading.Event()

    def hold() -> None:
        with spool._lock:
            locked.set()
            release.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    locked.wait()
    child = os.fork()
    if not child:
        refused = 0
        for call in calls:
            try:
                call()
            except PoolClosed as error:
                refused += "prefork" in str(error)
        os._exit(refused)
    release.set()
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == len(calls)
    keep(spool, b"y")
    assert drain(spool) == [b"x", b"y"]


def test_after_close_the_accounts_can_still_be_read() -> None:
    """A closed spool takes and gives nothing, but says what it ended with."""
    spool = MemorySpool()
    keep(spool, b"x")
    spool.close()
    spool.close()
    with pytest.raises(PoolClosed):
        keep(spool, b"y")
    with pytest.raises(PoolClosed):
        spool.read("a", 0, 1, 1)
    assert spool.account("a").records == 1
    assert spool.owing() == ("a",)
    assert list(spool.dead_letters()) == []
    assert spool.size() > 0


def test_records_cost_little_memory() -> None:
    """`size()` is an honest estimate: what 200-byte records take is below 320 bytes each and near what is said."""
    pytest.importorskip("resource")
    tracemalloc = pytest.importorskip("tracemalloc")
    spool = MemorySpool()
    tracemalloc.start()
    try:
        for _ in range(20_000):
            keep(spool, bytes(bytearray(200)))
        used = tracemalloc.get_traced_memory()[0] / 20_000
    finally:
        tracemalloc.stop()
    assert used < 320
    assert 0.8 < spool.size() / 20_000 / used < 1.2


def test_the_cost_of_an_append_does_not_grow_with_the_lanes() -> None:
    """A thousand lanes that owe a record are one object beside it, not a thousand."""
    few, many = MemorySpool(), MemorySpool()
    crowd = frozenset(f"lane {number}" for number in range(1000))
    keep(few, b"x")
    keep(many, b"x", lanes=crowd)
    steps: list[int] = []
    for spool, lanes in ((few, A), (many, crowd)):
        calls = 0

        def count(*_: object) -> None:
            nonlocal calls
            calls += 1

        sys.setprofile(count)
        try:
            for _ in range(100):
                keep(spool, b"x", lanes=lanes)
        finally:
            sys.setprofile(None)
        steps.append(calls)
    assert steps[0] == steps[1]
