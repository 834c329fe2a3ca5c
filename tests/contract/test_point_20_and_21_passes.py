"""Points 20 and 21: what a pass over the kept records does, and in which order records arrive."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import resilient_exporters as rex
from resilient_exporters.testing import MemoryBatchExporter, MemoryExporter

MakePool = Callable[..., rex.ExporterPool]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", [MemoryExporter, MemoryBatchExporter])
def test_it_returns_when_a_target_is_still_down(make_pool: MakePool, threads: int, kind: Callable[..., Any]) -> None:
    """`send_unsent_data` returns although a target is down, and sends nothing to one that has the record."""
    ok, bad = kind("ok"), kind("bad", up=False)
    pool = make_pool([ok, bad], num_threads=threads)
    for number in range(3):
        pool.send(number)
    for _ in range(3):
        results = pool.send_unsent_data()
        assert 0 < len(results) <= 3
        assert {("bad", False)} == {(result.exporter, result.successful) for result in results}
        assert all(result.kept for result in results)
    assert [0, 1, 2] == ok.got
    bad.up = True
    assert [(None, True)] * 3 == pool.send_unsent_data()
    assert [] == pool.send_unsent_data()
    assert [0, 1, 2] == ok.got == bad.got


def test_its_results_are_flat_and_in_order(make_pool: MakePool) -> None:
    """One result per export attempted, never nested, with what each exporter returned."""
    a, b = (MemoryExporter("a", up=False, returned="A"), MemoryExporter("b", up=False, returned="B"))
    pool = make_pool([a, b])
    for number in range(3):
        pool.send(number)
    a.up = b.up = True
    results = pool.send_unsent_data()
    assert 6 == len(results)
    assert [rex.ExportResult] * 6 == [type(result) for result in results]
    assert [("A", True)] * 3 == [result for result in results if result.exporter == "a"]
    assert [("B", True)] * 3 == [result for result in results if result.exporter == "b"]


def test_one_bad_record_hides_no_good_one(make_pool: MakePool) -> None:
    """A bad record at the front does not hide the good ones behind it."""
    target = MemoryExporter(refuse=lambda data: data == "bad")
    pool = make_pool([target])
    for data in ("bad", 1, 2, "bad", 3):
        pool.save_unsent_data(data, {}, target.name)
    results = pool.send_unsent_data()
    assert [False, True, True, False, True] == [result.successful for result in results]
    assert [1, 2, 3] == target.got
    assert pool.has_unsent_data()


def test_one_call_reaches_all_good_records_after_an_outage(make_pool: MakePool) -> None:
    """After sends in vain, one call of `send_unsent_data` delivers all good records around a bad one."""
    target = MemoryExporter(up=False, refuse=lambda data: data == "bad")
    pool = make_pool([target])
    for data in ("bad", 1, 2, "bad", 3):
        pool.send(data)
    target.up = True
    pool.send_unsent_data()
    assert {1, 2, 3} == set(target.got)


def test_ten_failures_in_a_row_end_a_pass(make_pool: MakePool) -> None:
    """A pass ends after ten failures in a row; a `send` makes one pass and then does not try its own record."""
    target = MemoryExporter(up=False)
    pool = make_pool([target])
    for number in range(30):
        pool.save_unsent_data(number, {}, target.name)
    assert 10 == len(pool.send_unsent_data())
    assert 10 == target.calls
    assert isinstance(pool.send(30)[0].error, rex.Queued)
    assert 20 == target.calls


def test_bad_records_cost_passes_and_not_for_ever(make_pool: MakePool) -> None:
    """With n bad records at the front, about n/10 passes reach the good ones, each pass trying the oldest first."""
    tried: list[int] = []

    def refuse(data: int) -> bool:
        tried.append(data)
        return data < 35

    target = MemoryExporter(refuse=refuse)
    pool = make_pool([target])
    for number in range(40):
        pool.save_unsent_data(number, {}, target.name)
    passes = 0
    while not target.got:
        tried.clear()
        pool.send_unsent_data()
        passes += 1
        assert 0 == tried[0]
        assert passes <= 5
    assert [35, 36, 37, 38, 39] == target.got


def test_bad_records_cost_sends_and_not_for_ever(make_pool: MakePool) -> None:
    """Plain sends get past bad records as well, and new records go out then."""
    target = MemoryExporter(refuse=lambda data: data < 35)
    pool = make_pool([target])
    for number in range(40):
        pool.save_unsent_data(number, {}, target.name)
    number = 40
    while not {35, 40} <= set(target.got):
        pool.send(number)
        number += 1
        assert number <= 50
    while len(target.got) < number - 35:
        pool.send_unsent_data()
        assert target.calls < 200
    assert list(range(35, number)) == target.got


def test_a_pass_begins_anew_after_a_success(make_pool: MakePool) -> None:
    """Once a record went out, records that were tried in vain have their turn again, oldest first."""
    bad = set(range(12))
    target = MemoryExporter(refuse=lambda data: data in bad)
    pool = make_pool([target])
    for number in range(15):
        pool.save_unsent_data(number, {}, target.name)
    pool.send_unsent_data()
    pool.send_unsent_data()
    bad.clear()
    pool.send_unsent_data()
    pool.send_unsent_data()
    assert sorted(target.got) == list(range(15))
    assert not pool.has_unsent_data()


def test_failures_of_new_records_do_not_count(make_pool: MakePool) -> None:
    """First attempts of new records do not count as tried in vain: order holds when the target was down."""
    target = MemoryExporter(up=False)
    pool = make_pool([target])
    for number in range(10):
        pool.send(number)
    target.up = True
    pool.send_unsent_data()
    assert list(range(10)) == target.got


@pytest.mark.parametrize("sends", [1, 5, 10, 11, 35, 100])
@pytest.mark.parametrize("kind", [MemoryExporter, MemoryBatchExporter])
def test_order_holds_when_the_target_was_down(make_pool: MakePool, sends: int, kind: Callable[..., Any]) -> None:
    """However long the target was down, everything arrives in the order of the `send` calls."""
    target = kind("t", up=False)
    pool = make_pool([target])
    for number in range(sends):
        pool.send(number)
    target.up = True
    for number in range(sends, sends + 5):
        pool.send(number)
    pool.send_unsent_data()
    assert list(range(sends + 5)) == target.got


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "send", "send", "send", "resend", "switch"]), max_size=60))
def test_order_holds_through_any_outages(steps: list[str]) -> None:
    """Targets that come and go between sends get their records in order, each once, whatever the place."""
    a, b = MemoryExporter("a"), MemoryBatchExporter("b")
    targets: dict[str, Any] = {"a": a, "b": b}
    pool = rex.ExporterPool([a, b], tmp_file=io.BytesIO())
    sent = 0
    for step in steps:
        if step == "send":
            pool.send(sent)
            sent += 1
        elif step == "resend":
            pool.send_unsent_data()
        elif step == "switch":
            pool.use_memory = not pool.use_memory
        else:
            targets[step].up = not targets[step].up
        for target in targets.values():
            assert list(range(len(target.got))) == target.got
    a.up = b.up = True
    pool.send_unsent_data()
    pool.close()
    assert list(range(sent)) == a.got == b.got


def test_flush_delivers_a_large_backlog(make_pool: MakePool, tmp_path: Path) -> None:
    """`flush` delivers everything that can be delivered."""
    target = MemoryBatchExporter("t", up=False)
    pool = make_pool([target], use_memory=False, tmp_file=tmp_path / "kept")
    for number in range(5000):
        pool.save_unsent_data(number, {}, "t")
    target.up = True
    pool.flush()
    assert list(range(5000)) == target.got
    assert not pool.has_unsent_data()


def test_in_the_background_every_lane_tries_at_once(make_pool: MakePool) -> None:
    """In background mode `send_unsent_data` makes every lane try at once, however long it would have waited."""
    targets = [MemoryExporter(f"t{number}", error=OSError("down")) for number in range(3)]
    pool = make_pool(targets, None, 3, False)
    for number in range(5):
        pool.send(number)
    for _ in range(6):
        calls = [target.calls for target in targets]
        pool.send_unsent_data()
        assert all(target.calls > before for target, before in zip(targets, calls, strict=True))
    for target in targets:
        target.error = None
    pool.send_unsent_data()
    for target in targets:
        assert list(range(5)) == sorted(target.got)
    assert not pool.has_unsent_data()


def test_results_cost_little(make_pool: MakePool) -> None:
    """Equal results may be one object, so that a long list costs little more than its eight bytes a record."""
    target = MemoryBatchExporter("t", up=False)
    pool = make_pool([target])
    for number in range(3000):
        pool.save_unsent_data(number, {}, "t")
    target.up = True
    results = pool.send_unsent_data()
    assert 3000 == len(results)
    assert len({id(result) for result in results}) < 100


def test_nothing_kept_nothing_tried(make_pool: MakePool) -> None:
    """With nothing kept there is nothing to try and nothing to return."""
    target = MemoryExporter()
    pool = make_pool([target])
    pool.send(1)
    assert [] == pool.send_unsent_data()
    assert 1 == target.calls


def test_by_hand_new_records_overtake_kept_ones(make_pool: MakePool) -> None:
    """With `manual_reexport=True` new records overtake; the kept ones keep their order among themselves."""
    target = MemoryExporter(up=False)
    pool = make_pool([target], manual_reexport=True)
    for number in range(20):
        target.up = number % 2 == 1
        pool.send(number)
    target.up = True
    pool.send_unsent_data()
    assert [*range(1, 20, 2), *range(0, 20, 2)] == target.got


def test_order_holds_in_the_background_after_a_failure(make_pool: MakePool) -> None:
    """In the background, too, the oldest is tried first: it is not overtaken once the target is back."""
    for attempt in range(10):
        target = MemoryExporter("t", up=False)
        pool = make_pool([target], None, 2, False, name=f"pool{attempt}", retry=rex.Retry(base=1000, cap=1000))
        pool.send(1)
        target.wait_for_calls(1)
        pool.send_unsent_data()  # when it returns no pass is under way
        target.up = True
        pool.send(2)
        pool.send_unsent_data()
        assert [1, 2] == target.got


def test_a_record_refused_on_its_own_may_be_overtaken(make_pool: MakePool) -> None:
    """While one record is refused the others wait until it is clear that it is the record, and then go on."""
    bad = {3}
    target = MemoryExporter(refuse=lambda data: data in bad)
    pool = make_pool([target])
    results = [pool.send(number)[0] for number in range(8)]
    assert [number not in {3, 4, 5} for number in range(8)] == [result.successful for result in results]
    bad.clear()
    pool.send(8)
    assert [0, 1, 2, 4, 5, 6, 7, 3, 8] == target.got


@pytest.mark.parametrize("failures", [1, 2, 3])
@pytest.mark.parametrize("error", [ConnectionRefusedError, TimeoutError, ValueError])
def test_a_target_that_fails_a_few_times_gets_all_in_order(
    make_pool: MakePool, failures: int, error: type[Exception]
) -> None:
    """Records are not overtaken by a newer one because the target came back in between."""
    left = [error()] * failures

    def refuse(data: object) -> bool:
        if left:
            raise left.pop()
        return False

    target = MemoryExporter(refuse=refuse)
    pool = make_pool([target])
    for number in range(6):
        pool.send(number)
    pool.send_unsent_data()
    assert list(range(6)) == target.got
