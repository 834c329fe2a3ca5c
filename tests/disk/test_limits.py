"""The byte budget with each policy, and the time to live: what is dropped is counted where it is and announced once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex
from resilient_exporters.policies import WhenFull
from resilient_exporters.testing import MemoryBatchExporter, MemoryExporter
from tests.model.world import clocks, turned_by_hand

BUDGET = 64 * 1024
SENT = 300
MakePool = Callable[..., rex.ExporterPool]


def padded(number: int) -> dict[str, Any]:
    """A record of about a kilobyte."""
    return {"n": number, "pad": "x" * 1000}


def numbers(target: MemoryExporter | MemoryBatchExporter) -> list[int]:
    return [data["n"] for data in target.got]


@pytest.fixture(params=["memory", "file"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakePool]:
    """Makes pools that keep in memory, or in a file, within the budget."""
    pools: list[rex.ExporterPool] = []

    def made(exporters: list[rex.Exporter], when_full: WhenFull = "raise", **options: Any) -> rex.ExporterPool:
        limits = rex.Limits(bytes=BUDGET, when_full=when_full, free_floor=0)
        place = {"use_memory": request.param == "memory", "tmp_file": tmp_path / "kept"}
        pools.append(rex.ExporterPool(exporters, limits=limits, **place, **options))
        return pools[-1]

    yield made
    for pool in pools:
        pool.close(timeout=0.0)


@pytest.fixture(autouse=True)
def still() -> Iterator[None]:
    """Time passes only when a test lets it."""
    with turned_by_hand():
        yield


def announced(caplog: pytest.LogCaptureFixture, event: str) -> int:
    """How often a warning with that event came."""
    return sum(record.getMessage().startswith(event) for record in caplog.records if record.levelno >= logging.WARNING)


@contextmanager
def shortage() -> Iterator[threading.Event]:
    """An event that is set when a shortage is announced, in whatever thread."""
    full = threading.Event()
    logger = logging.getLogger("resilient_exporters")
    handler = logging.Handler()

    def notice(record: logging.LogRecord) -> bool:
        if record.getMessage().startswith("spool_full"):
            full.set()
        return False

    handler.addFilter(notice)
    logger.addHandler(handler)
    try:
        yield full
    finally:
        logger.removeHandler(handler)


def balance(pool: rex.ExporterPool) -> list[tuple[int, int, int, int]]:
    """For each exporter: owed, delivered, dead, dropped."""
    return [(lane.owed, lane.delivered, lane.dead, lane.dropped) for lane in pool.status().exporters]


def test_raise(make: MakePool) -> None:
    """Beyond the budget `send` raises when nobody has the record; it is taken again as soon as there is room."""
    target = MemoryExporter("t", up=False)
    pool = make([target])
    kept = 0
    with pytest.raises(rex.SpoolFull):
        while kept < SENT:
            assert pool.send(padded(kept))[0].kept
            kept += 1
    assert pool.status().spool_bytes <= BUDGET
    assert 40 <= kept < 64
    target.up = True
    pool.send(padded(kept))
    assert list(range(kept + 1)) == numbers(target)
    assert [(0, kept + 1, 0, 0)] == balance(pool)


def test_raise_with_one_that_took_it(make: MakePool) -> None:
    """When another exporter took the record, the result says that it is lost for the one that is down."""
    up, down = MemoryExporter("up"), MemoryExporter("down", up=False)
    pool = make([up, down])
    lost = 0
    for number in range(SENT):
        first, second = pool.send(padded(number))
        assert first.successful
        assert second.kept or isinstance(second.error, rex.SpoolFull)
        lost += not second.kept
    assert SENT - 64 < lost < SENT - 40
    assert [(0, SENT, 0, 0), (SENT - lost, 0, 0, lost)] == balance(pool)
    down.up = True
    assert pool.flush()
    assert list(range(SENT - lost)) == numbers(down)


def test_drop_oldest(make: MakePool, caplog: pytest.LogCaptureFixture) -> None:
    """Old records make room for new ones: counted for those that owed them, announced once."""
    up, down, later = MemoryExporter("up"), MemoryExporter("down", up=False), MemoryExporter("later", up=False)
    pool = make([up, down, later], "drop_oldest")
    for number in range(SENT):
        results = pool.send(padded(number))
        assert [True, False, False] == [result.successful for result in results]
        assert results[1].kept
        assert results[2].kept
        assert pool.status().spool_bytes <= BUDGET
    (_, _, _, none), (owed, _, _, dropped), (others, _, _, other_dropped) = balance(pool)
    assert (0, SENT, SENT) == (none, owed + dropped, others + other_dropped)
    assert 30 <= owed < 64
    assert 1 == announced(caplog, "spool_full")
    down.up = later.up = True
    assert pool.flush()
    assert list(range(SENT - owed, SENT)) == numbers(down) == numbers(later)


def test_drop_newest(make: MakePool, caplog: pytest.LogCaptureFixture) -> None:
    """New records are dropped while there is no room: counted, announced once; the old ones arrive."""
    up, down = MemoryExporter("up"), MemoryExporter("down", up=False)
    pool = make([up, down], "drop_newest")
    kept = sum(pool.send(padded(number))[1].kept for number in range(SENT))
    assert pool.status().spool_bytes <= BUDGET
    assert [(0, SENT, 0, 0), (kept, 0, 0, SENT - kept)] == balance(pool)
    assert 1 == announced(caplog, "spool_full")
    down.up = True
    assert pool.flush()
    assert list(range(kept)) == numbers(down)


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_each_shortage_is_announced(make: MakePool, caplog: pytest.LogCaptureFixture, policy: WhenFull) -> None:
    """A shortage that ended and comes back is announced again."""
    target = MemoryExporter("t", up=False)
    pool = make([target], policy)
    for shortage in range(3):
        target.up = False
        for number in range(100):
            pool.send(padded(number))
        assert shortage + 1 == announced(caplog, "spool_full")
        target.up = True
        assert pool.flush()
        clocks.now += 100.0


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "raise"])
def test_bursts(make: MakePool, policy: WhenFull) -> None:
    """Bursts follow the policy, too, and the accounts balance: what `send_many` raised for was not accepted."""
    target = MemoryBatchExporter("t", up=False)
    pool = make([target], policy)
    sent: list[int] = []
    for first in range(0, SENT, 10):
        burst = range(first, first + 10)
        try:
            pool.send_many(padded(number) for number in burst)
            sent += burst
        except rex.SpoolFull:
            assert "raise" == policy
    owed, _, _, dropped = balance(pool)[0]
    assert len(sent) == owed + dropped
    assert pool.status().spool_bytes <= BUDGET
    target.up = True
    assert pool.flush()
    assert owed == len(numbers(target))
    assert (sent[-owed:] if policy == "drop_oldest" else sent[:owed]) == numbers(target)


def test_block(make: MakePool) -> None:
    """A sender waits until another thread has made room; then its record is kept or taken like any other."""
    target = MemoryExporter("t", up=False)
    pool = make([target], "block")
    sender = threading.Thread(target=lambda: [pool.send(padded(number)) for number in range(SENT)], daemon=True)
    with shortage() as full:
        sender.start()
        assert full.wait(30.0)
        assert 40 <= pool.status().exporters[0].owed < 64
        target.up = True
        while sender.is_alive():
            pool.send_unsent_data()
            sender.join(0.01)
    assert pool.flush()
    assert list(range(SENT)) == numbers(target)
    assert [(0, SENT, 0, 0)] == balance(pool)


def test_close_ends_blocking(make: MakePool) -> None:
    """Closing the pool ends the wait of a blocked sender with an error."""
    pool = make([MemoryExporter("t", up=False)], "block")
    errors: list[Exception] = []

    def send() -> None:
        try:
            for number in range(SENT):
                pool.send(padded(number))
        except rex.PoolClosed as error:
            errors.append(error)

    sender = threading.Thread(target=send, daemon=True)
    with shortage() as full:
        sender.start()
        assert full.wait(30.0)
        pool.close(timeout=0.0)
        sender.join(30.0)
    assert not sender.is_alive()
    assert 1 == len(errors)


def test_dead_letters_are_in_the_budget(make: MakePool) -> None:
    """Dead letters take from the budget; what has no room is neither lost nor counted twice."""
    target = MemoryBatchExporter("t", refuse=lambda data: data["n"] % 2 == 1)
    pool = make([target])
    refused = 0
    for number in range(SENT):
        try:
            pool.send(padded(number))
        except rex.SpoolFull:
            refused += 1
        assert pool.status().spool_bytes <= BUDGET
    owed, delivered, dead, dropped = balance(pool)[0]
    assert SENT - refused == owed + delivered + dead + dropped
    assert 40 <= owed + dead < 64
    assert 0 == dropped


@pytest.mark.parametrize("kind", [MemoryExporter, MemoryBatchExporter])
def test_what_is_under_way_is_not_counted_twice(
    make: MakePool, kind: type[MemoryExporter | MemoryBatchExporter]
) -> None:
    """Records that are dropped to make room while they are on their way count once: as delivered or as dropped."""
    target = kind("t")
    target.hang()
    pool = make([target], "drop_oldest", num_threads=2, wait_for_result=False)
    for number in range(20):
        pool.send(padded(number))
    target.wait_for_calls(1)
    for number in range(20, SENT):
        pool.send(padded(number))
    target.release()
    assert pool.flush(30.0)
    owed, delivered, dead, dropped = balance(pool)[0]
    assert (SENT, 0, 0) == (delivered + dropped, owed, dead)
    assert len(numbers(target)) == len(set(numbers(target))) == delivered


def test_time_to_live(make: MakePool, caplog: pytest.LogCaptureFixture) -> None:
    """What is owed for too long is dropped, counted where it was owed, and announced; the rest arrives."""
    up, down = MemoryExporter("up"), MemoryExporter("down", up=False)
    pool = make([up, down])
    view = pool.using(ttl=60.0)
    for number in range(10):
        view.send(padded(number))
    for number in range(10, 15):
        pool.send(padded(number))
    clocks.time += 61.0
    clocks.now += 61.0
    view.send(padded(15))
    assert [(0, 16, 0, 0), (6, 0, 0, 10)] == balance(pool)
    assert 1 == announced(caplog, "records_expired")
    down.up = True
    assert pool.flush()
    assert list(range(10, 16)) == numbers(down)


def test_a_pools_own_time_to_live(tmp_path: Path) -> None:
    """`Limits(ttl=...)` applies to every record, over a restart, too."""
    path = tmp_path / "kept"
    limits = rex.Limits(ttl=60.0)
    with rex.ExporterPool([MemoryExporter("t", up=False)], use_memory=False, tmp_file=path, limits=limits) as pool:
        for number in range(5):
            pool.send(padded(number))
        clocks.time += 30.0
        pool.send(padded(5))
    clocks.time += 31.0
    clocks.now += 61.0
    target = MemoryExporter("t")
    with rex.ExporterPool([target], use_memory=False, tmp_file=path, limits=limits) as pool:
        assert pool.flush()
        assert [5] == numbers(target)
        assert [(0, 1, 0, 5)] == balance(pool)
