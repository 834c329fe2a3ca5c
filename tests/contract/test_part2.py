"""What the library adds of its own: many at once, levels of safety, and the batch method."""

from __future__ import annotations

import json
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryBatchExporter, MemoryExporter

MakePool = Callable[..., rex.ExporterPool]
BACKGROUND = (None, 2, False)


# --- many at once


@pytest.mark.parametrize("kind", [MemoryExporter, MemoryBatchExporter])
@pytest.mark.parametrize("use_memory", [True, False])
@pytest.mark.parametrize("background", [True, False])
def test_send_many_sends_all(
    make_pool: MakePool, tmp_path: Path, kind: Callable[..., Any], use_memory: bool, background: bool
) -> None:
    """`send_many` takes any iterable and keywords; each exporter gets all records, in order, once."""
    up, down = kind("up"), kind("down", up=False)
    options = BACKGROUND if background else ()
    pool = make_pool([up, down], *options, use_memory=use_memory, tmp_file=tmp_path / "kept")
    pool.send_many(({"i": number} for number in range(3000)), table="t")
    down.up = True
    pool.flush(60)
    assert [{"i": number} for number in range(3000)] == up.got == down.got
    assert [{"table": "t"}] * 3000 == up.kwargs == down.kwargs
    assert not pool.has_unsent_data()


def test_send_many_makes_batches(make_pool: MakePool) -> None:
    """Batches reach a batch exporter, not single records."""
    target = MemoryBatchExporter()
    make_pool([target]).send_many(range(5000))
    assert list(range(5000)) == target.got
    assert len(target.batches) < 500


def test_send_many_keeps_order_with_send(make_pool: MakePool) -> None:
    """`send` and `send_many` share one order, also behind an outage."""
    target = MemoryBatchExporter(up=False)
    pool = make_pool([target])
    pool.send(0)
    pool.send_many(range(1, 100))
    pool.send(100)
    target.up = True
    pool.send_many(range(101, 200))
    assert list(range(200)) == target.got


def test_send_many_transforms_each(make_pool: MakePool) -> None:
    """`transform` runs once for each record of `send_many`."""
    target = MemoryBatchExporter()
    make_pool([target], lambda data: data * 2).send_many([1, 2, 3])
    assert [2, 4, 6] == target.got


def test_send_many_of_nothing(make_pool: MakePool) -> None:
    """An empty iterable sends nothing."""
    target = MemoryBatchExporter()
    make_pool([target]).send_many([])
    assert 0 == target.calls


@pytest.mark.uncounted("it is refused in the midst of a chunk")
def test_send_many_refuses_what_send_refuses(make_pool: MakePool, tmp_path: Path) -> None:
    """Data that cannot be kept raises DataTypeError, and an unknown keyword TypeError."""

    class Plain(rex.Exporter):
        def send(self, data: Any) -> rex.ExportResult:
            return rex.ExportResult(None, True)

    pool = make_pool([Plain()], use_memory=False, tmp_file=tmp_path / "kept")
    with pytest.raises(rex.DataTypeError):
        pool.send_many([1, None])
    with pytest.raises(rex.DataTypeError):
        pool.send_many([1, object()])
    with pytest.raises(TypeError, match="tabel"):
        pool.send_many([1], tabel="t")


def test_send_many_needs_constant_memory(make_pool: MakePool, tmp_path: Path) -> None:
    """A long iterable is neither collected nor reported record by record: memory stays within a few megabytes."""

    def records() -> Iterator[dict[str, Any]]:
        for number in range(30_000):
            yield {"i": number, "pad": "x" * 300}

    class Swallowing(rex.Exporter):
        count = 0

        def export(self, batch: Any, **options: Any) -> None:
            self.count += len(batch)

    target = Swallowing()
    pool = make_pool([target], use_memory=False, tmp_file=tmp_path / "kept")
    tracemalloc.start()
    pool.send_many(records())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 30_000 == target.count
    assert peak < 8_000_000


# --- two levels of safety


@pytest.mark.parametrize("safety", ["process", "power"])
def test_both_levels_survive_kill_9(run_script: Callable[..., str], safety: str) -> None:
    """`safety="process"` and `"power"` both keep what `send` accepted through kill -9."""
    run_script(
        """
        pool = rex.ExporterPool([MemoryExporter("t", up=False)], use_memory=False, tmp_file="kept", safety=sys.argv[1])
        for number in range(100):
            pool.send(number)
        die()
        """,
        safety,
        killed=True,
    )
    told = run_script(
        """
        target = MemoryExporter("t")
        rex.ExporterPool([target], use_memory=False, tmp_file="kept").send_unsent_data()
        tell(target.got)
        """
    )
    assert list(range(100)) == json.loads(told)


@pytest.mark.parametrize("safety", ["none", "", None, 5])
def test_an_unknown_level_is_refused(safety: Any) -> None:
    """A `safety` that is neither raises InvalidConfigError."""
    with pytest.raises(rex.InvalidConfigError):
        rex.ExporterPool([], safety=safety)


def test_sync_returns_when_all_is_safe(make_pool: MakePool, tmp_path: Path) -> None:
    """`sync` may be called at any time, with nothing or something kept, in memory or on disk."""
    for use_memory in (True, False):
        pool = make_pool([MemoryExporter(up=False)], use_memory=use_memory, tmp_file=tmp_path / "kept")
        pool.sync()
        pool.send(1)
        pool.sync()
        pool.close()


# --- the batch method


def test_a_batch_has_records_with_data_and_ids(make_pool: MakePool) -> None:
    """`export(batch)` gets records with `data` and a stable id, and the keywords as keywords."""
    seen: list[Any] = []

    class Batching(rex.Exporter):
        up = False

        def export(self, batch: Any, *, table: str = "none") -> None:
            seen.append(([record.data for record in batch.records], [record.id for record in batch.records], table))
            assert len(batch) == len(batch.records)
            assert [record.data for record in batch] == [batch.records[i].data for i in range(len(batch))]
            if not self.up:
                raise rex.TargetDown

    target = Batching()
    pool = make_pool([target])
    pool.send("a", table="x")
    target.up = True
    pool.send("b", table="x")
    pool.send("c", table="y")
    ids: dict[str, Any] = {}
    for data, id_, table in seen:
        for one, two in zip(data, id_, strict=True):
            assert two == ids.setdefault(one, two)
            assert {"a": "x", "b": "x", "c": "y"}[one] == table
    assert 3 == len(set(ids.values()))


def test_ids_survive_a_restart(make_pool: MakePool, tmp_path: Path) -> None:
    """The id of a record is the same in the next process and after moves between memory and file."""
    seen: list[Any] = []

    class Noting(MemoryBatchExporter):
        def export(self, batch: Any, /, **options: Any) -> None:
            seen.extend(record.id for record in batch.records)
            super().export(batch, **options)

    pool = make_pool([Noting("t", error=rex.TargetDown())], tmp_file=tmp_path / "kept")
    pool.send(1)
    pool.use_memory = False
    pool.send_unsent_data()
    pool.close()
    make_pool([Noting("t")], use_memory=False, tmp_file=tmp_path / "kept").send_unsent_data()
    assert 3 == len(seen)
    assert 1 == len(set(seen))


def test_a_batch_has_one_set_of_keywords(make_pool: MakePool) -> None:
    """All records of a batch were sent with the same keyword arguments."""
    target = MemoryBatchExporter(up=False)
    pool = make_pool([target])
    for number in range(60):
        pool.send(number, table=number // 20)
    target.up = True
    pool.send_unsent_data()
    assert list(range(60)) == target.got
    assert [{"table": number // 20} for number in range(60)] == target.kwargs
    assert all(len({number // 20 for number in batch}) == 1 for batch in target.batches)


@pytest.mark.parametrize(
    "error", [rex.TargetDown("d"), rex.TargetDown(retry_after=60), ValueError("unknown"), OSError()]
)
def test_down_or_unknown_means_all_again_later(make_pool: MakePool, error: Exception) -> None:
    """TargetDown and anything unknown keep the whole batch for later."""
    target = MemoryBatchExporter(error=error)
    pool = make_pool([target])
    pool.send_many(range(20))
    assert pool.has_unsent_data()
    target.error = None
    pool.send_unsent_data()
    assert list(range(20)) == target.got


def test_misconfigured_holds_everything_and_alarms(make_pool: MakePool, caplog: pytest.LogCaptureFixture) -> None:
    """TargetMisconfigured keeps everything, says so in the log once and in the status, and heals when told to try."""
    target = MemoryBatchExporter("mis", error=rex.TargetMisconfigured("no such table"))
    pool = make_pool([target])
    for number in range(5):
        (result,) = pool.send(number)
        assert ((None, False), True) == (result, result.kept)
    alarms = [record for record in caplog.records if "no such table" in f"{record.getMessage()} {record.__dict__}"]
    assert 1 == len(alarms)
    assert "no such table" in str(pool.status())
    target.error = None
    pool.send_unsent_data()
    assert list(range(5)) == target.got


class Picky(MemoryBatchExporter):
    """Refuses "bad" for good and "busy" for now."""

    busy = True

    def export(self, batch: Any, /, **options: Any) -> None:
        data = [record.data for record in batch.records]
        permanent = {at: "no such thing" for at, one in enumerate(data) if one == "bad"}
        later = {at: "not now" for at, one in enumerate(data) if one == "busy" and self.busy}
        self.error = rex.RecordsRefused(permanent=permanent, later=later) if permanent or later else None
        super().export(batch, **options)


def test_refused_records_concern_these_only(make_pool: MakePool) -> None:
    """RecordsRefused makes dead letters of some, keeps others for later, and the rest was taken."""
    target = Picky("t")
    pool = make_pool([target])
    pool.send_many(["good 1", "bad", "busy", "good 2", "bad", "good 3"])
    assert ["good 1", "good 2", "good 3"] == target.got
    assert pool.has_unsent_data()
    target.busy = False
    pool.send_unsent_data()
    assert ["good 1", "good 2", "good 3", "busy"] == target.got
    assert not pool.has_unsent_data()
    (lane,) = pool.status().exporters
    assert (4, 2, 0) == (lane.delivered, lane.dead, lane.owed)


@pytest.mark.parametrize("at", [-1, 1, 99, "0", None])
def test_a_verdict_on_records_that_are_not_there_is_a_failure(make_pool: MakePool, at: Any) -> None:
    """A RecordsRefused that names records outside the batch raises nowhere: the batch counts as failed."""
    target = MemoryBatchExporter("t", error=rex.RecordsRefused(permanent={at: "?"}))
    other = MemoryExporter("other")
    pool = make_pool([target, other])
    result, fine = pool.send("x")
    assert ((None, False), True, (None, True)) == (result, result.kept, fine)
    target.error = None
    pool.send_unsent_data()
    assert not pool.has_unsent_data()


def test_many_refusals_in_a_row_mean_misconfigured(make_pool: MakePool) -> None:
    """A target that suddenly refuses everything, as after a changed schema, is held: not all become dead letters."""
    target = MemoryBatchExporter("t", refuse=lambda data: True)
    pool = make_pool([target])
    pool.send_many(range(20_000))
    pool.send_unsent_data()
    (lane,) = pool.status().exporters
    assert lane.dead < 10_000
    assert lane.owed == 20_000 - lane.dead
    target.refuse = None
    pool.send_unsent_data()
    assert 20_000 - lane.dead == len(target.got)


def test_retry_after_is_honoured_in_the_background(make_pool: MakePool) -> None:
    """In the background a target that asks for a pause is left alone for that long, and tried again after it."""
    target = MemoryBatchExporter("t", error=rex.TargetDown("busy", retry_after=0.3))
    pool = make_pool([target], *BACKGROUND)
    began = time.monotonic()
    pool.send(1)
    target.wait_for_calls(1)
    target.error = None
    pool.send(2)
    target.wait_for(2)
    assert time.monotonic() - began >= 0.3
    assert [1, 2] == target.got


def test_a_dead_target_delays_nobody(make_pool: MakePool) -> None:
    """In the background, targets that hang or are down delay neither another target nor `send`."""
    hung, dead, well = MemoryBatchExporter("hung"), MemoryBatchExporter("dead", up=False), MemoryBatchExporter("well")
    hung.hang()
    pool = make_pool([hung, dead, well], None, 3, False)
    try:
        started = time.monotonic()
        for number in range(300):
            pool.send(number)
        well.wait_for(300)
        assert time.monotonic() - started < 30
        assert list(range(300)) == well.got
    finally:
        hung.release()


def test_a_refusal_is_in_the_result(make_pool: MakePool) -> None:
    """A record that was refused for good is a failure that is not kept, with the reason."""
    target = MemoryBatchExporter(refuse=lambda data: data == "bad")
    pool = make_pool([target])
    (result,) = pool.send("bad")
    assert [(None, False)] == [result]
    assert "refused on command" in str(result.error)
    assert [(None, True)] == pool.send("good")


def test_open_and_close_surround_exports(make_pool: MakePool) -> None:
    """`open` is called before the first export and once; a down target is opened again after its failure."""
    target = MemoryBatchExporter(up=False)
    pool = make_pool([target])
    pool.send(1)
    opened = target.opened
    assert opened >= 1
    target.up = True
    pool.send(2)
    for number in range(3, 6):
        pool.send(number)
    assert target.opened <= opened + 1
    assert [1, 2, 3, 4, 5] == target.got


def test_many_callers_become_few_batches(make_pool: MakePool) -> None:
    """Threads that call `send` at the same time share batches, and each gets its own result."""
    target = MemoryBatchExporter(seconds=0.005)
    pool = make_pool([target])
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda i=i: results.extend(pool.send((i, n))[0] for n in range(20))) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [(None, True)] * 160 == results
    assert {(i, n) for i in range(8) for n in range(20)} == set(target.got)
    assert target.calls < 120
