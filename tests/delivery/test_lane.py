"""One lane, stepped by hand: passes, batches, pauses, and what becomes of each record."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient_exporters import codec
from resilient_exporters.delivery.lane import Lane, Source, Step
from resilient_exporters.exceptions import RecordsRefused, TargetDown, TargetMisconfigured
from resilient_exporters.policies import Retry
from resilient_exporters.records import ExportResult
from resilient_exporters.spool.interface import Flag, Opaque
from resilient_exporters.spool.memory import MemorySpool
from tests.delivery.targets import FakeTarget, Rig, Verdict, down, keep, owed

SINGLE: dict[str, Any] = {"batches": False}


def fails_on(*bad: Any) -> Callable[[list[Any]], Verdict]:
    """A way to judge: calls with one of these records fail, and nobody knows why."""
    return lambda data: ValueError("unknown") if {*bad} & {*data} else None


# --- the order of a pass


@pytest.mark.parametrize("batches", [True, False])
def test_oldest_first(batches: bool) -> None:
    """A pass delivers what is owed in order, each record once."""
    rig = Rig(FakeTarget(batches=batches))
    rig.keep(*range(2500))
    results = rig.run_pass()
    assert (2500, {(None, True)}) == (len(results), {*results})
    assert list(range(2500)) == rig.target.got
    assert (2500, 0) == (rig.lane.delivered, rig.lane.owed())
    assert [] == rig.run_pass()


def test_a_bad_record_is_passed_by() -> None:
    """A record that fails alone is left behind, and what is behind it goes out in order."""
    rig = Rig(FakeTarget(fails_on(0, 3), **SINGLE))
    rig.keep(*range(6))
    assert [False, True, True, False, True, True] == [result.successful for result in rig.run_pass()]
    assert ([1, 2, 4, 5], [0, 3]) == (rig.target.got, rig.owed())


def test_ten_failures_in_a_row_end_a_pass() -> None:
    """A pass gives up after ten failures in a row, and the next one goes on behind those tried in vain."""
    rig = Rig(FakeTarget(fails_on(*range(25)), **SINGLE))
    rig.keep(*range(30))
    assert list(range(10)) == attempted(rig)
    assert [0, *range(10, 19)] == attempted(rig)
    assert [0, *range(19, 25), *range(25, 30)] == attempted(rig)[:12]
    assert list(range(25, 30)) == rig.target.got


def attempted(rig: Rig) -> list[Any]:
    """The records that one pass tries."""
    del rig.target.calls[:]
    rig.run_pass()
    return [one for call in rig.target.calls for one in call]


def test_a_success_behind_turns_the_pass_back() -> None:
    """When the target turns out to be up, the pass goes back to those that it had jumped over."""
    rig = Rig(FakeTarget(fails_on(*range(30)), **SINGLE))
    rig.keep(*range(20))
    rig.run_pass()
    rig.target.judge = fails_on(0)
    rig.run_pass()
    assert ([*range(10, 20), *range(1, 10)], [0]) == (rig.target.got, rig.owed())


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 60), st.sets(st.integers(0, 59)))
def test_bad_records_cost_passes_and_hide_nothing(count: int, bad: set[int]) -> None:
    """With n bad records all good ones are out after n/10 + 1 passes; each pass begins at the oldest."""
    bad = {i for i in bad if i < count}
    rig = Rig(FakeTarget(fails_on(*bad), **SINGLE))
    rig.keep(*range(count))
    for _ in range(len(bad) // 9 + 2):
        oldest = min(rig.owed(), default=None)
        tried = attempted(rig)
        assert tried[:1] == ([] if oldest is None else [oldest])
    assert sorted(bad) == rig.owed()
    assert sorted(rig.target.got) == [i for i in range(count) if i not in bad]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=12), st.booleans())
def test_order_holds_through_outages(history: list[tuple[int, bool]], batches: bool) -> None:
    """When whole calls fail because the target is down, nothing overtakes anything, whatever was sent in between."""
    rig = Rig(FakeTarget(batches=batches))
    sent = 0
    for count, up in history:
        rig.target.judge = (lambda data: None) if up else down()
        rig.keep(*range(sent, sent + count))
        sent += count
        rig.run_pass()
    rig.target.judge = lambda data: None
    rig.run_pass()
    assert list(range(sent)) == rig.target.got


def test_single_records_before_a_given_one() -> None:
    """With `before`, a step tries only older records of that run; others wait, and records of other runs do not."""
    rig = Rig(FakeTarget())
    rig.keep(*range(5))
    assert Step.MORE is rig.lane.step(before=(rig.spool.run, 3))
    assert [0, 1] == rig.target.got
    assert Step.END is rig.lane.step(before=(rig.spool.run, 3))
    assert Step.MORE is rig.lane.step(before=(rig.spool.run + 1, 1))
    assert [0, 1, 2, 3, 4] == rig.target.got


# --- single records, read together


def test_a_single_record_is_settled_before_the_next_is_tried() -> None:
    """So a crash doubles one record at most, although many are read at once."""
    rig = Rig(FakeTarget(**SINGLE))
    rig.keep(*range(500))
    left: list[int] = []

    def judge(data: list[Any]) -> Verdict:
        left.append(rig.lane.owed() + data[0])
        return None

    rig.target.judge = judge
    rig.run_pass()
    assert [500] * 500 == left


def test_single_records_are_read_together_while_calls_are_quick() -> None:
    """Each step takes more than the one before; one that takes a moment ends with the record under way."""
    rig = Rig(FakeTarget(**SINGLE))
    rig.keep(*range(200))

    def tried() -> int:
        before = len(rig.target.calls)
        rig.lane.step()
        return len(rig.target.calls) - before

    rig.lane.begin_pass()
    assert [1, 2, 8, 64] == [tried() for _ in range(4)]
    rig.target.judge = rig.take(0.002)
    assert [1, 1, 1] == [tried() for _ in range(3)]
    rig.target.judge = lambda data: None
    rig.run_pass()
    assert list(range(200)) == rig.target.got


def test_a_row_of_single_records_ends_at_a_failure() -> None:
    """What is behind a bad record waits for the next step, which goes where the pass says."""
    rig = Rig(FakeTarget(fails_on(5), **SINGLE))
    rig.keep(*range(12))
    rig.lane.begin_pass()
    while rig.target.calls[-1:] != [[5]]:
        assert Step.MORE is rig.lane.step()
    assert rig.lane.failing
    assert [0, 1, 2, 3, 4] == rig.target.got


# --- a target that is down


def test_down_ends_a_pass_at_once() -> None:
    """One failure that blames the target is enough, whatever is owed."""
    rig = Rig(FakeTarget(down()))
    rig.keep(*range(5000))
    results = rig.run_pass()
    assert ({(None, False)}, 1) == ({*results}, len(rig.target.calls))
    assert all(result.kept for result in results)
    assert ("down", 5000) == (rig.lane.state, rig.lane.owed())


def test_after_an_outage_batches_grow() -> None:
    """After a failure one record goes first, then two, four, and so on up to whole batches."""
    rig = Rig(FakeTarget(down(), batch_records=50))
    rig.keep(*range(200))
    rig.run_pass()
    rig.target.judge = lambda data: None
    del rig.target.calls[:]
    rig.run_pass()
    assert [1, 2, 4, 8, 16, 32, 50, 50, 37] == [len(call) for call in rig.target.calls]
    assert list(range(200)) == rig.target.got


@pytest.mark.parametrize(
    ("took", "pause"), [(0.0, 0.0), (0.005, 0.0), (0.02, 0.2), (1.0, 10.0), (3.0, 30.0), (60.0, 30.0)]
)
@pytest.mark.usefixtures("paced")
def test_a_slow_failure_paces(took: float, pause: float) -> None:
    """After a failure that took t, the caller's thread tries no sooner than 10 t later, at most 30 s."""
    rig = Rig(FakeTarget())
    rig.target.judge = rig.take(took, TargetDown("down"))
    rig.keep(1)
    rig.run_pass()
    assert pause == pytest.approx(max(rig.lane.not_before - rig.clock.now(), 0.0))
    rig.target.judge = lambda data: None
    rig.run_pass()
    assert rig.lane.not_before <= rig.clock.now()


@pytest.mark.parametrize(
    ("asked", "took", "pause"), [(7.0, 0.0, 7.0), (7.0, 1.0, 10.0), (90.0, 1.0, 90.0), (0.0, 0.0, 0.0)]
)
@pytest.mark.usefixtures("paced")
def test_retry_after_is_honoured(asked: float, took: float, pause: float) -> None:
    """A pause that the target asked for is kept, also one beyond the cap of our own."""
    rig = Rig(FakeTarget())
    rig.target.judge = rig.take(took, TargetDown("busy", retry_after=asked))
    rig.keep(1)
    rig.run_pass()
    assert pause == pytest.approx(rig.lane.not_before - rig.clock.now())
    assert pause <= rig.lane.backoff()


def test_back_off_grows_with_the_failures() -> None:
    """In the background the bound of the pause doubles with each failure, without end but for its cap."""
    rig = Rig(FakeTarget(down()))
    rig.keep(1)
    for failures in range(1, 20):
        rig.run_pass()
        assert failures == rig.lane.misses
        assert 0.0 <= rig.lane.backoff() <= Retry().bound(failures)
    rig.target.judge = lambda data: None
    rig.run_pass()
    assert 0 == rig.lane.misses


def test_the_deadline_of_a_batch() -> None:
    """A batch is to be done within the exporter's time."""
    rig = Rig(FakeTarget(timeout=7.0))
    rig.keep(1)
    rig.run_pass()
    assert rig.clock.now() + 7.0 == rig.target.seen[0].deadline


def test_misconfigured_holds_everything() -> None:
    """TargetMisconfigured ends the pass, keeps all, and is over when the target takes something."""
    rig = Rig(FakeTarget(lambda data: TargetMisconfigured("no such table")))
    rig.keep(*range(100))
    rig.run_pass()
    assert ("held", 100, 1) == (rig.lane.state, rig.lane.owed(), len(rig.target.calls))
    assert "no such table" in str(rig.lane.last_error)
    rig.target.judge = lambda data: None
    rig.run_pass()
    assert ("up", 0) == (rig.lane.state, rig.lane.owed())


def test_changes_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """The log names a target that goes down and one that is back, once each, not once per record."""
    caplog.set_level(logging.WARNING)
    rig = Rig(FakeTarget(down()))
    rig.keep(*range(10))
    for _ in range(20):
        rig.run_pass()
        rig.clock.advance(100.0)
    rig.target.judge = lambda data: None
    rig.run_pass()
    assert ["target_down", "target_up"] == [record.getMessage().split()[0] for record in caplog.records]


def test_an_alarm_is_not_drowned_by_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    """A target that is misconfigured when it comes back is an alarm, however short ago it went down."""
    caplog.set_level(logging.WARNING)
    rig = Rig(FakeTarget(down()))
    rig.keep(1)
    rig.run_pass()
    rig.target.judge = lambda data: TargetMisconfigured("no such table")
    rig.run_pass()
    assert "no such table" in caplog.records[-1].getMessage()


# --- batches


def test_a_batch_ends_at_its_bytes() -> None:
    """A batch ends when its payloads reach the bytes that the exporter wants, but has one record at least."""
    rig = Rig(FakeTarget(batch_bytes=100))
    rig.keep("x" * 60, "y" * 60, "z" * 500, "a")
    rig.run_pass()
    assert [2, 1, 1] == [len(call) for call in rig.target.calls]


def test_a_batch_has_one_set_of_keywords() -> None:
    """Records of one batch were sent with the same keyword arguments, and these arrive, filtered."""
    rig = Rig(FakeTarget(accepts={"table"}))
    for i in range(6):
        rig.keep(i, options=codec.encode_options({"table": i // 3, "other": 1}))
    rig.keep(6)
    rig.run_pass()
    assert [[0, 1, 2], [3, 4, 5], [6]] == rig.target.calls
    assert [{"table": 0}, {"table": 1}, {}] == rig.target.kwargs


def test_a_batch_has_one_run() -> None:
    """Records of different runs are in different batches, each with its own ids."""
    rig = Rig(FakeTarget())
    for run in (5, 5, 9):
        rig.spool.append([codec.encode(run)], frozenset({"t"}), time=1.0, run=run, first=3 + len(rig.target.calls))
    rig.run_pass()
    assert [5, 9] == [batch.run for batch in rig.target.seen]
    assert all(record.id.run == batch.run for batch in rig.target.seen for record in batch.records)


def test_bundled_records_go_one_at_a_time() -> None:
    """Records whose keyword arguments no codec can write go alone, each with its own."""
    rig = Rig(FakeTarget())
    for i in range(3):
        bundle = Opaque((i, {"table": i}))
        rig.spool.append([bundle], frozenset({"t"}), time=1.0, flags=Flag.BUNDLED)
    rig.run_pass()
    assert ([[0], [1], [2]], [{"table": 0}, {"table": 1}, {"table": 2}]) == (rig.target.calls, rig.target.kwargs)


def test_records_whose_transform_has_not_run() -> None:
    """A record marked raw goes through the exporter's transform on its way, others do not."""
    rig = Rig(FakeTarget())
    rig.keep("raw", flags=Flag.RAW)
    rig.keep("done")
    rig.run_pass()
    assert [[("transformed", "raw")], ["done"]] == rig.target.calls


def test_ids_stay_the_same() -> None:
    """However often and with whom a record is tried, its id is the same."""
    rig = Rig(FakeTarget(down()))
    rig.keep(*range(8))
    for _ in range(3):
        rig.run_pass()
    rig.target.judge = lambda data: None
    rig.run_pass()
    ids: dict[Any, Any] = {}
    for batch in rig.target.seen:
        for record in batch.records:
            assert record.id == ids.setdefault(record.data, record.id)
    assert list(range(1, 9)) == [ids[i].number for i in range(8)]


def test_doubt_is_told() -> None:
    """The first attempt is no repetition; one after a failure may be."""
    rig = Rig(FakeTarget(down()))
    rig.keep(1)
    rig.run_pass()
    rig.run_pass()
    assert [False, True] == [batch.doubt for batch in rig.target.seen]


def test_a_batch_that_fails_for_unknown_reasons_is_taken_apart() -> None:
    """The third time in a row a batch fails without a reason it may be one of its records: they go alone."""
    rig = Rig(FakeTarget(fails_on(3)))
    rig.keep(*range(8))
    for _ in range(4):
        rig.run_pass()
    assert ([3], 7) == (rig.owed(), len(rig.target.got))
    assert [i for i in range(8) if i != 3] == sorted(rig.target.got)


# --- refusals


def test_refused_records_become_dead_letters() -> None:
    """Records refused for good are dead letters with their reasons, those refused for now stay owed."""

    def judge(data: list[Any]) -> Verdict:
        permanent = {i: f"{one} is bad" for i, one in enumerate(data) if one in {2, 5}}
        later = {i: "busy" for i, one in enumerate(data) if one == 4}
        return RecordsRefused(permanent=permanent, later=later) if permanent or later else None

    rig = Rig(FakeTarget(judge))
    rig.keep(*range(7))
    results = rig.run_pass()
    assert [True, True, False, True, False, False, True] == [result.successful for result in results]
    assert [False, False, False, False, True, False, False] == [result.kept for result in results]
    assert ([0, 1, 3, 6], [4]) == (rig.target.got, rig.owed())
    assert {2: "2 is bad", 5: "5 is bad"} == {
        codec.decode(letter.payload): letter.reason
        for letter in rig.spool.dead_letters()
        if isinstance(letter.payload, bytes)
    }
    assert (4, 2, 1) == (rig.lane.delivered, rig.lane.dead, rig.lane.owed())
    rig.target.judge = lambda data: None
    rig.run_pass()
    assert [0, 1, 3, 6, 4] == rig.target.got


def test_a_dead_letter_tells_how_often_it_was_tried() -> None:
    """The number of attempts counts those before the one that refused it."""
    rig = Rig(FakeTarget(down()))
    rig.keep("bad")
    for _ in range(3):
        rig.run_pass()
    rig.target.judge = lambda data: RecordsRefused(permanent={0: "bad"})
    rig.run_pass()
    (letter,) = rig.spool.dead_letters()
    assert 4 == letter.attempts


def test_a_bad_record_of_an_atomic_target() -> None:
    """An atomic target that refuses a batch loses one record to the dead letters, and none of those around it."""

    def judge(data: list[Any]) -> Verdict:
        return RecordsRefused(permanent=dict.fromkeys(range(len(data)), "bad")) if 613 in data else None

    rig = Rig(FakeTarget(judge, atomic=True))
    rig.keep(*range(1000))
    rig.run_pass()
    assert (999, 1, 0) == (rig.lane.delivered, rig.lane.dead, rig.lane.owed())
    assert [i for i in range(1000) if i != 613] == rig.target.got


def test_trouble_in_the_middle_of_a_search_ends_the_pass() -> None:
    """When an atomic target goes down while a batch is narrowed down, what it took is settled, and the pass ends."""
    up = [True]

    def judge(data: list[Any]) -> Verdict:
        if not up[0] or (0 not in data and len(data) == 2):
            up[0] = False
            return TargetDown("gone")
        return RecordsRefused(permanent=dict.fromkeys(range(len(data)), "bad")) if 1 in data else None

    rig = Rig(FakeTarget(judge, atomic=True, batch_records=4))
    rig.keep(*range(8))
    rig.lane.begin_pass()
    assert Step.STOP is rig.lane.step()
    assert ([0], 1, [2, 3, 4, 5, 6, 7], "down") == (rig.target.got, rig.lane.dead, rig.owed(), rig.lane.state)
    rig.target.judge = lambda data: None
    rig.run_pass()
    assert ([0, 2, 3, 4, 5, 6, 7], "up") == (rig.target.got, rig.lane.state)


@pytest.mark.usefixtures("paced")
def test_slow_refusals_for_now_are_paced() -> None:
    """A target that takes its time to say "not now" to everything may not hold up every call either."""
    rig = Rig(FakeTarget())
    rig.target.judge = rig.take(1.0, RecordsRefused(later={0: "busy"}))
    rig.keep(1)
    rig.run_pass()
    assert 10.0 == pytest.approx(rig.lane.not_before - rig.clock.now())


# --- stable batches


def test_a_batch_in_doubt_is_repeated_as_it_was() -> None:
    """A target that knows batches by their names gets the same batch again, whatever was kept meanwhile."""
    rig = Rig(FakeTarget(down(), stable=True))
    rig.keep(0, 1, 2)
    rig.run_pass()
    rig.keep(3, 4)
    rig.run_pass()
    rig.target.judge = lambda data: None
    rig.run_pass()
    assert [[0, 1, 2]] * 3 + [[3, 4]] == rig.target.calls
    assert 2 == len({batch.token for batch in rig.target.seen})


def test_a_batch_in_doubt_survives_a_visit() -> None:
    """Records that come out of another spool meanwhile do not change the batch in doubt."""
    rig = Rig(FakeTarget(down(), stable=True))
    rig.keep(0, 1)
    rig.run_pass()
    rig.keep(2)
    rig.target.judge = lambda data: None
    other = MemorySpool()
    keep(other, "x", "y")
    rig.lane.visit(Source(other, "t"))
    rig.run_pass()
    assert [[0, 1], ["x", "y"], [0, 1], [2]] == rig.target.calls


def test_a_batch_in_doubt_is_not_cut_by_a_newer_sender() -> None:
    """Also a sender of an older record than the newest of a batch in doubt repeats it whole."""
    rig = Rig(FakeTarget(down(), stable=True))
    rig.keep(*range(4))
    rig.run_pass()
    rig.lane.begin_pass()
    rig.lane.step(before=(rig.spool.run, 3))
    assert {(0, 1, 2, 3)} == {tuple(call) for call in rig.target.calls}


# --- other sources


def test_nothing_is_tried_twice_that_is_tried_once() -> None:
    """A record that is not to be kept is dropped after its first attempt, and counted."""
    once = MemorySpool()
    rig = Rig(FakeTarget(down()))
    lane = Lane("t", rig.target, [Source(once, "t", once=True), Source(rig.spool, "t")], rig.clock, Retry())
    keep(once, 1, 2, 3)
    lane.begin_pass()
    lane.step()
    assert (0, 3) == (lane.owed(), lane.dropped)


def test_what_was_brought_goes_first_and_is_let_go() -> None:
    """A spool that an exporter brought along is older: it is emptied first, and then closed."""
    brought, rig = MemorySpool(), Rig(FakeTarget())
    lane = Lane("t", rig.target, [Source(brought, "old", brought=True), Source(rig.spool, "t")], rig.clock, Retry())
    keep(brought, 1, 2, lanes=("old",))
    rig.keep(3)
    lane.begin_pass()
    while lane.step() is Step.MORE:
        pass
    assert [1, 2, 3] == rig.target.got
    assert 1 == len([*lane.sources])


def test_what_was_brought_for_another_stays_open() -> None:
    """A brought spool that still owes another lane something is not closed under its feet."""
    brought, rig = MemorySpool(), Rig(FakeTarget())
    lane = Lane("t", rig.target, [Source(brought, "a", brought=True), Source(rig.spool, "t")], rig.clock, Retry())
    keep(brought, 1, lanes=("a", "b"))
    lane.begin_pass()
    while lane.step() is Step.MORE:
        pass
    assert [1] == owed(brought, "b")


def test_a_failing_brought_record_holds_back_the_new_ones() -> None:
    """Nothing of the lane's own overtakes what was brought while its target is down."""
    brought, rig = MemorySpool(), Rig(FakeTarget(down()))
    lane = Lane("t", rig.target, [Source(brought, "t", brought=True), Source(rig.spool, "t")], rig.clock, Retry())
    keep(brought, 1)
    rig.keep(2)
    lane.begin_pass()
    assert Step.STOP is lane.step()
    rig.target.judge = lambda data: None
    lane.begin_pass()
    while lane.step() is Step.MORE:
        pass
    assert [1, 2] == rig.target.got


def test_a_visit_leaves_the_lane_as_it_was() -> None:
    """After a pass over another spool the lane goes on where it was."""
    rig = Rig(FakeTarget(fails_on(0), **SINGLE))
    rig.keep(0, 1)
    rig.lane.begin_pass()
    rig.lane.step()
    other = MemorySpool()
    keep(other, "x", "y")
    rig.lane.visit(Source(other, "t"))
    while rig.lane.step() is Step.MORE:
        pass
    assert (["x", "y", 1], [0], 0) == (rig.target.got, rig.owed(), other.account("t").records)


def test_a_record_is_settled_by_its_number() -> None:
    """A call that came back late settles the record that was kept meanwhile, wherever it stands."""
    rig = Rig(FakeTarget(batch_records=10))
    rig.keep(*range(100))
    rig.lane.settle_number(rig.spool.run, 58)
    rig.lane.settle_number(rig.spool.run, 1000)
    rig.lane.settle_number(rig.spool.run + 1, 3)
    assert ([i for i in range(100) if i != 57], 1) == (rig.owed(), rig.lane.delivered)


# --- results


def test_equal_results_are_one_object() -> None:
    """A batch's results are one shared object, so that a list of them costs 8 bytes a record."""
    rig = Rig(FakeTarget())
    rig.keep(*range(1000))
    assert 1 == len({id(result) for result in rig.run_pass()})


def test_what_send_returned_is_in_the_result() -> None:
    """The results of single records carry what `send` returned, also of failures."""
    rig = Rig(FakeTarget(lambda data: ExportResult(f"r{data[0]}", data[0] != 1), **SINGLE))
    rig.keep(*range(3))
    assert [("r0", True), ("r1", False), ("r2", True)] == rig.run_pass()


def test_the_waiting_are_told_how_many_are_before_them() -> None:
    """A record that has to wait learns how many are before it, and of the last failure."""
    rig = Rig(FakeTarget(down()))
    rig.keep(*range(7))
    rig.run_pass()
    verdict = rig.lane.queued()
    assert 7 == verdict.before
    assert isinstance(verdict.__cause__, TargetDown)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_accounts_balance(data: st.DataObject) -> None:
    """Whatever a target does, each record is owed, delivered, dead or dropped: in one of these, once."""
    verdicts = st.sampled_from(["take", "down", "hold", "unknown", "refuse", "later", "whole"])

    def judge(records: list[Any]) -> Verdict:
        choice = data.draw(verdicts)
        some = {i: "no" for i in range(len(records)) if records[i] % 3 == 0}
        return {
            "down": TargetDown("d"),
            "hold": TargetMisconfigured("h"),
            "unknown": ValueError("u"),
            "refuse": RecordsRefused(permanent=some) if some else None,
            "later": RecordsRefused(later=some) if some else None,
            "whole": RecordsRefused(permanent=dict.fromkeys(range(len(records)), "no")),
        }.get(choice)

    atomic = data.draw(st.booleans())
    target = FakeTarget(
        judge, atomic=atomic, stable=data.draw(st.booleans()), batch_records=data.draw(st.integers(1, 9))
    )
    rig = Rig(target)
    rig.keep(*range(data.draw(st.integers(0, 30))))
    accepted = rig.lane.owed()
    for _ in range(data.draw(st.integers(1, 4))):
        rig.run_pass()
        lane = rig.lane
        assert accepted == lane.owed() + lane.delivered + lane.dead + lane.dropped
        assert lane.dead == len(tuple(rig.spool.dead_letters()))
        assert lane.owed() == len(rig.owed())
    assert math.isfinite(rig.lane.not_before)
