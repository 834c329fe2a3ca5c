"""What the library adds of its own: receipts, per-call options, life cycle, status and limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryBatchExporter, MemoryExporter

MakePool = Callable[..., rex.ExporterPool]
BACKGROUND = (None, 2, False)


# --- receipts


@pytest.mark.parametrize("background", [True, False])
def test_a_receipt_gives_what_a_waiting_send_gives(make_pool: MakePool, background: bool) -> None:
    """`submit(...)` gives a receipt with `.kept` and `.result(timeout)`."""
    target = MemoryExporter("t", returned="r")
    pool = make_pool([target], *(BACKGROUND if background else ()))
    receipt = pool.submit({"i": 1}, table="t")
    assert [("r", True)] == receipt.result(60)
    assert isinstance(receipt.kept, bool)
    assert ([{"i": 1}], [{"table": "t"}]) == (target.got, target.kwargs)


def test_a_receipt_of_a_failure(make_pool: MakePool) -> None:
    """A failed attempt is in the receipt's result, and the record is kept."""
    error = ValueError("boom")
    target = MemoryExporter("t", error=error)
    pool = make_pool([target], *BACKGROUND)
    receipt = pool.submit(1)
    (result,) = receipt.result(60)
    assert (None, False) == result
    assert result.kept
    assert "boom" in str(result.error)
    assert receipt.kept


def test_a_receipt_that_is_not_ready_in_time(make_pool: MakePool) -> None:
    """`.result(timeout)` raises TimeoutError when the target takes longer, and gives the result later."""
    target = MemoryExporter("t")
    target.hang()
    pool = make_pool([target], *BACKGROUND)
    receipt = pool.submit(1)
    try:
        assert receipt.kept
        with pytest.raises(TimeoutError):
            receipt.result(0.05)
    finally:
        target.release()
    assert [(None, True)] == receipt.result(60)


def test_a_receipt_can_be_awaited(make_pool: MakePool) -> None:
    """`await receipt` works, and the loop goes on meanwhile."""
    target = MemoryExporter("t")
    target.hang()
    pool = make_pool([target], *BACKGROUND)

    async def main() -> list[Any]:
        receipt = pool.submit(1)
        asyncio.get_running_loop().call_soon(target.release)
        return list(await receipt)

    assert [(None, True)] == asyncio.run(asyncio.wait_for(main(), 10))


def test_many_receipts_at_once(make_pool: MakePool) -> None:
    """Hundreds of receipts can be gathered."""
    target = MemoryBatchExporter("t")
    pool = make_pool([target], *BACKGROUND)

    async def main() -> list[Any]:
        return await asyncio.gather(*(pool.submit(number) for number in range(300)))

    assert [[(None, True)]] * 300 == asyncio.run(asyncio.wait_for(main(), 20))
    assert list(range(300)) == target.got


def test_no_call_of_background_mode_waits_for_a_target(make_pool: MakePool, tmp_path: Path) -> None:
    """Beside a target that hangs, a task gets through all calls that keep, count and tell, and the loop goes on."""
    target = MemoryBatchExporter("t")
    target.hang()
    pool = make_pool([target], *BACKGROUND, use_memory=False, tmp_file=tmp_path / "kept")

    async def main() -> list[Any]:
        receipts = []
        for number in range(0, 300, 3):
            receipts.append(pool.submit(number))
            pool.send(number + 1)
            pool.using(safety="power").send_many([number + 2])
            assert pool.has_unsent_data()
            assert pool.status().exporters[0].accepted == number + 3
            await asyncio.sleep(0)
        assert [] == target.got
        target.release()
        return await asyncio.gather(*receipts)

    assert [[(None, True)]] * 100 == asyncio.run(asyncio.wait_for(main(), 20))
    pool.flush(20)
    assert list(range(300)) == target.got


# --- per-call options


def test_using_binds_options_to_a_view(make_pool: MakePool, tmp_path: Path) -> None:
    """`pool.using(safety=..., ttl=...)` is a view that sends with these options, and leaves keywords to exporters."""
    target = MemoryExporter("t", up=False)
    pool = make_pool([target], use_memory=False, tmp_file=tmp_path / "kept")
    view = pool.using(safety="power", ttl=60)
    view.send("a", safety="of the exporter", ttl=5)
    view.send_many(["b", "c"], table="t")
    pool.send("d")
    target.up = True
    pool.send_unsent_data()
    assert ["a", "b", "c", "d"] == target.got
    assert {"safety": "of the exporter", "ttl": 5} == target.kwargs[0]


def test_a_record_whose_time_is_over_is_dropped_and_counted(make_pool: MakePool) -> None:
    """A record that outlives its `ttl` is dropped, and the status counts it."""
    target = MemoryExporter("t", up=False)
    pool = make_pool([target])
    pool.using(ttl=0.01).send("short")
    pool.using(ttl=600).send("long")
    over = time.time() + 0.05
    while time.time() < over:
        time.sleep(0)
    target.up = True
    pool.send_unsent_data()
    assert ["long"] == target.got
    (lane,) = pool.status().exporters
    assert (1, 1, 0) == (lane.delivered, lane.dropped, lane.owed)


@pytest.mark.parametrize("options", [{"safety": "none"}, {"ttl": -1}, {"ttl": "x"}, {"table": "t"}])
def test_wrong_options_are_refused(make_pool: MakePool, options: dict[str, Any]) -> None:
    """Options of a wrong name, kind or range are refused."""
    with pytest.raises((rex.InvalidConfigError, TypeError)):
        make_pool([]).using(**options)


# --- life cycle


def test_flush_waits_for_the_background(make_pool: MakePool) -> None:
    """`flush(timeout)` returns when everything is delivered."""
    target = MemoryExporter(seconds=0.001)
    pool = make_pool([target], *BACKGROUND)
    for number in range(100):
        pool.send(number)
    pool.flush(30)
    assert list(range(100)) == target.got


def test_flush_returns_in_time(make_pool: MakePool) -> None:
    """`flush(timeout)` returns within about its time when a target hangs or is down."""
    hung, dead = MemoryExporter("hung"), MemoryExporter("dead", up=False)
    hung.hang()
    pool = make_pool([hung, dead], *BACKGROUND)
    try:
        pool.send(1)
        started = time.monotonic()
        pool.flush(0.2)
        assert time.monotonic() - started < 30
        assert pool.has_unsent_data()
    finally:
        hung.release()


def test_flush_in_the_foreground_ends_although_a_target_is_down(make_pool: MakePool) -> None:
    """Without a background, `flush` makes its passes and returns."""
    ok, dead = MemoryExporter("ok", up=False), MemoryExporter("dead", up=False)
    pool = make_pool([ok, dead])
    for number in range(50):
        pool.send(number)
    ok.up = True
    pool.flush(5)
    assert list(range(50)) == ok.got
    assert pool.has_unsent_data()


# --- status


@pytest.mark.parametrize("use_memory", [True, False])
def test_the_accounts_balance(make_pool: MakePool, tmp_path: Path, use_memory: bool) -> None:
    """For each exporter accepted = delivered + owed + dead + dropped, after every step."""
    good, down = MemoryExporter("good"), MemoryExporter("down", up=False)
    picky = MemoryBatchExporter("picky", refuse=lambda data: data % 5 == 0)
    pool = make_pool([good, down, picky], use_memory=use_memory, tmp_file=tmp_path / "kept")

    def check(accepted: int) -> None:
        for lane in pool.status().exporters:
            assert accepted == lane.accepted, lane
            assert lane.accepted == lane.delivered + lane.owed + lane.dead + lane.dropped

    for number in range(1, 21):
        pool.send(number)
        check(number)
    assert ["good", "down", "picky"] == [lane.name for lane in pool.status().exporters]
    assert [20, 0, 16] == [lane.delivered for lane in pool.status().exporters]
    assert [0, 20, 0] == [lane.owed for lane in pool.status().exporters]
    assert [0, 0, 4] == [lane.dead for lane in pool.status().exporters]
    down.up = True
    pool.send_unsent_data()
    check(20)
    pool.use_memory = not use_memory
    check(20)


def test_the_status_is_one_frozen_value(make_pool: MakePool) -> None:
    """`status()` gives a value that does not change when the pool goes on, and shows the last error."""
    target = MemoryExporter("t", error=ValueError("boom"))
    pool = make_pool([target], name="pool")
    pool.send(1)
    status = pool.status()
    assert "pool" == status.name
    (lane,) = status.exporters
    pool.send(2)
    assert (1, 2) == (lane.owed, pool.status().exporters[0].owed)
    assert "boom" in str(lane.last_error)
    assert lane.owed_bytes > 0
    assert lane.oldest_age is not None
    assert lane.oldest_age >= 0
    with pytest.raises(AttributeError):
        setattr(status, "name", "changed")  # noqa: B010  # mypy knows already


# --- limits


@pytest.mark.parametrize("use_memory", [True, False])
def test_a_byte_budget_raises_by_default(make_pool: MakePool, tmp_path: Path, use_memory: bool) -> None:
    """With a byte budget that is used up nobody has the record, so `send` raises SpoolFull and nothing is lost."""
    limits = rex.Limits(bytes=100_000)
    target = MemoryExporter("t", up=False)
    pool = make_pool([target], use_memory=use_memory, tmp_file=tmp_path / "kept", limits=limits)
    kept = 0
    with pytest.raises(rex.SpoolFull):
        while kept < 1000:
            pool.send({"i": kept, "pad": "x" * 1000})
            kept += 1
    assert kept > 20
    target.up = True
    pool.send_unsent_data()
    assert list(range(kept)) == [data["i"] for data in target.got]


def test_drop_newest_is_counted_and_reported(make_pool: MakePool) -> None:
    """With `when_full="drop_newest"` the oldest stay; what is dropped is counted, and its result says not kept."""
    target = MemoryExporter("t", up=False)
    pool = make_pool([target], limits=rex.Limits(bytes=100_000, when_full="drop_newest"), manual_reexport=True)
    kept = [pool.send({"i": number, "pad": "x" * 1000})[0].kept for number in range(300)]
    owed = kept.count(True)
    assert [True] * owed + [False] * (300 - owed) == kept
    (lane,) = pool.status().exporters
    assert (owed, 300 - owed) == (lane.owed, lane.dropped)
    target.up = True
    pool.send_unsent_data()
    assert list(range(owed)) == [data["i"] for data in target.got]


def test_drop_oldest_is_counted_and_announced(make_pool: MakePool, caplog: pytest.LogCaptureFixture) -> None:
    """With `when_full="drop_oldest"` the newest stay; what was dropped is counted and announced."""
    target = MemoryExporter("t", up=False)
    pool = make_pool([target], limits=rex.Limits(bytes=100_000, when_full="drop_oldest"))
    for number in range(300):
        pool.send({"i": number, "pad": "x" * 1000})
    (lane,) = pool.status().exporters
    assert lane.dropped > 100
    assert 300 == lane.dropped + lane.owed
    assert any("drop" in record.getMessage().lower() for record in caplog.records)
    target.up = True
    pool.send_unsent_data()
    assert list(range(300 - len(target.got), 300)) == [data["i"] for data in target.got]
