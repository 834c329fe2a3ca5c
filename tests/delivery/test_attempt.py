"""Attempts: whatever an exporter does becomes an outcome, and refused batches are narrowed down."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient_exporters.delivery.attempt import Again, Delivered, Hold, Outcome, Refused, attempt, bare, described
from resilient_exporters.exceptions import (
    ConnectionError,
    RecordsRefused,
    TargetDown,
    TargetMisconfigured,
    TimeoutError,
)
from resilient_exporters.records import Batch, ExportResult, Record, RecordId
from resilient_exporters.testing.clock import ManualClock
from tests.delivery.targets import FakeTarget

Verdict = BaseException | ExportResult | None


def batch_of(count: int, doubt: bool = False) -> Batch:
    """A batch of the numbers from 0 on."""
    records = [Record(RecordId(7, i + 1), 0.0, {}, lambda i=i: i) for i in range(count)]  # type: ignore[misc]  # a default
    numbers = range(1, count + 1)
    return Batch(records, lane="t", run=7, numbers=numbers, deadline=60.0, doubt=doubt)


def tried(target: FakeTarget, count: int = 1, clock: ManualClock | None = None) -> Outcome:
    return attempt(target, batch_of(count), {}, clock or ManualClock())


def says(verdict: Verdict) -> Callable[[list[Any]], Verdict]:
    return lambda data: verdict


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_a_batch_that_returns_is_delivered() -> None:
    """Returning from `export` means that the target has all of it."""
    assert Delivered() == tried(FakeTarget(), 3)


def test_what_send_returns_travels() -> None:
    """A successful `send` is delivered, with what it returned."""
    assert Delivered("id 5") == tried(FakeTarget(says(ExportResult("id 5", True)), batches=False))


def test_what_a_failing_send_returns_travels() -> None:
    """A `send` that reports a failure is to be tried again, and what it returned is not lost."""
    outcome = tried(FakeTarget(says(ExportResult("half", False)), batches=False))
    assert isinstance(outcome, Again)
    assert ("half", False) == (outcome.returned, outcome.down)


@pytest.mark.parametrize("value", [True, "ok", (1, True), 0])
def test_anything_but_a_result_is_a_failure(value: Any) -> None:
    """A `send` that returns something else has failed, and the error says so."""
    outcome = tried(Odd(value))
    assert isinstance(outcome, Again)
    assert "ExportResult" in str(outcome.error)


class Odd(FakeTarget):
    def __init__(self, value: Any) -> None:
        super().__init__(batches=False)
        self.value = value

    def send(self, record: Record) -> ExportResult:
        return self.value  # type: ignore[no-any-return]  # that is what is tested


def test_down_says_how_long() -> None:
    """TargetDown blames the target, and its pause travels."""
    outcome = tried(FakeTarget(says(TargetDown("busy", retry_after=7.0))))
    assert isinstance(outcome, Again)
    assert (True, 7.0) == (outcome.down, outcome.after)


@pytest.mark.parametrize(
    "error", [ConnectionError("x"), TimeoutError("x"), ConnectionResetError(), builtins.TimeoutError(), OSError()]
)
def test_errors_of_the_connection_blame_the_target(error: Exception) -> None:
    """An exporter of batches whose connection fails is down; one of single records may mean the record."""
    outcome = tried(FakeTarget(says(error)))
    assert isinstance(outcome, Again)
    assert outcome.down
    single = tried(FakeTarget(says(error), batches=False))
    assert isinstance(single, Again)
    assert not single.down


@pytest.mark.parametrize("error", [ValueError("?"), Unprintable(), GeneratorExit(), BaseException("odd")])
def test_unknown_errors_blame_nobody(error: BaseException) -> None:
    """Anything else that is raised leaves open who is to blame, and drops the connection."""
    target = FakeTarget(says(error))
    outcome = tried(target, 2)
    assert isinstance(outcome, Again)
    assert (False, 1) == (outcome.down, target.disconnects)
    assert error is outcome.error


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_interrupts_go_on(interrupt: type[BaseException]) -> None:
    """KeyboardInterrupt and SystemExit reach the caller, and the doubtful connection is dropped."""
    target = FakeTarget(says(interrupt()))
    with pytest.raises(interrupt):
        tried(target)
    assert 1 == target.disconnects


def test_misconfigured_holds() -> None:
    """TargetMisconfigured holds everything."""
    outcome = tried(FakeTarget(says(TargetMisconfigured("no table"))), 2)
    assert isinstance(outcome, Hold)
    assert not outcome.only_these


def test_refusals_are_taken_at_their_word() -> None:
    """RecordsRefused concerns the records it names; one that is named twice is refused for good."""
    outcome = tried(FakeTarget(says(RecordsRefused(permanent={0: "a", 2: "b"}, later={2: "c", 3: "d"}))), 5)
    assert isinstance(outcome, Refused)
    assert ({0: "a", 2: "b"}, {3: "d"}, None) == (outcome.permanent, outcome.later, outcome.then)


@pytest.mark.parametrize("index", [-1, 2, 99, "0", None, 0.5])
def test_bad_indexes_are_a_failure(index: Any) -> None:
    """A refusal of records that are not in the batch settles nothing."""
    outcome = tried(FakeTarget(says(RecordsRefused(permanent={index: "?"}))), 2)
    assert isinstance(outcome, Again)
    assert not outcome.down


def test_bad_indexes_beside_good_ones_are_ignored() -> None:
    """A refusal that also names records that are there counts for those."""
    outcome = tried(FakeTarget(says(RecordsRefused(permanent={1: "bad", 9: "?"}))), 2)
    assert isinstance(outcome, Refused)
    assert {1: "bad"} == outcome.permanent


def test_reasons_are_text() -> None:
    """A reason may be any object; what is kept is its text."""
    outcome = tried(FakeTarget(says(RecordsRefused(permanent={0: ValueError("no")}))), 2)  # type: ignore[dict-item]
    assert isinstance(outcome, Refused)
    assert {0: "no"} == outcome.permanent


def test_reasons_that_cannot_be_printed_do_no_harm() -> None:
    """A reason whose text raises refuses its record all the same."""
    reasons: Any = {0: "plain", 1: Unprintable()}
    outcome = tried(FakeTarget(says(RecordsRefused(permanent=reasons))), 3)
    assert isinstance(outcome, Refused)
    assert {0, 1} == {*outcome.permanent}
    assert "Unprintable" in outcome.permanent[1]


def test_kept_errors_hold_no_frames() -> None:
    """An error that is kept has no traceback, nor have those behind it: frames would keep a dropped pool alive."""
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner
    except ValueError as error:
        kept = bare(error)
    assert kept.__traceback__ is None
    assert kept.__cause__ is not None
    assert kept.__cause__.__traceback__ is None


def test_errors_in_circles_end() -> None:
    """Errors that are each other's cause are no endless loop."""
    one, two = ValueError(), KeyError()
    one.__cause__, two.__cause__ = two, one
    assert one is bare(one)


def test_unprintable_errors_have_a_text() -> None:
    """An error whose text raises is described all the same."""
    assert "Unprintable" in described(Unprintable())


# --- bisection


def refuses(*bad: int) -> Callable[[list[Any]], Verdict]:
    """A way to judge of an atomic target: a batch with a bad record is refused as a whole."""
    return lambda data: RecordsRefused(permanent=dict.fromkeys(range(len(data)), "bad")) if {*bad} & {*data} else None


def test_one_bad_record_in_a_thousand() -> None:
    """The one bad record is found in about twenty calls; all others are delivered, in order."""
    target = FakeTarget(refuses(637), atomic=True)
    outcome = tried(target, 1000)
    assert isinstance(outcome, Refused)
    assert ({637: "bad"}, {}, None) == (outcome.permanent, outcome.later, outcome.then)
    assert [i for i in range(1000) if i != 637] == target.got
    assert len(target.calls) <= 2 * math.ceil(math.log2(1000)) + 1


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 80), st.sets(st.integers(0, 79), max_size=6))
def test_any_few_bad_records_are_found(count: int, bad: set[int]) -> None:
    """Whichever few records are bad, these are refused and all others delivered, once and in order."""
    bad = {i for i in bad if i < count}
    target = FakeTarget(refuses(*bad), atomic=True)
    outcome = tried(target, count)
    assert [i for i in range(count) if i not in bad] == target.got
    if bad:
        assert isinstance(outcome, Refused)
        assert (bad, {}) == ({*outcome.permanent}, outcome.later)
    else:
        assert Delivered() == outcome


@settings(max_examples=60, deadline=None)
@given(st.integers(100, 300), st.integers(1, 300))
def test_many_bad_records_cost_a_bounded_number_of_calls(count: int, every: int) -> None:
    """A batch is worth 64 refusals; what is not judged by then waits, and nothing is lost or invented."""
    bad = set(range(0, count, every))
    target = FakeTarget(refuses(*bad), atomic=True)
    outcome = tried(target, count)
    assert isinstance(outcome, Refused)
    assert {*outcome.permanent} <= bad
    assert sorted([*target.got, *outcome.permanent, *outcome.later]) == list(range(count))
    assert target.got == sorted(target.got)
    assert sum(bool(bad & {*call}) for call in target.calls) <= 64
    assert outcome.unjudged == len(outcome.later)


def test_a_part_is_a_batch_of_its_own() -> None:
    """Each part has the ids of its records, and its own name."""
    target = FakeTarget(refuses(2), atomic=True)
    tried(target, 4)
    for part, data in zip(target.seen, target.calls, strict=True):
        assert [i + 1 for i in data] == list(part.numbers) == [record.id.number for record in part.records]
        assert "t" == part.lane
    assert len({part.token for part in target.seen}) == len(target.seen)


@pytest.mark.parametrize("error", [TargetDown("gone"), TargetMisconfigured("no table"), ValueError("?")])
def test_trouble_ends_the_search(error: Exception) -> None:
    """A target that goes down meanwhile keeps what it took; the rest, the refused part included, is tried again."""

    def judge(data: list[Any]) -> Verdict:
        return error if 4 in data and len(data) <= 4 else refuses(2, 4)(data)

    target = FakeTarget(judge, atomic=True)
    outcome = tried(target, 8)
    assert isinstance(outcome, Refused)
    assert [0, 1, 3] == target.got
    assert ({2}, {4, 5, 6, 7}, 0) == ({*outcome.permanent}, {*outcome.later}, outcome.unjudged)
    assert outcome.then is not None
    assert error is outcome.then.error


def test_a_deadline_ends_the_search() -> None:
    """When the time of the batch is over, the rest waits."""
    clock = ManualClock()

    def judge(data: list[Any]) -> Verdict:
        clock.advance(25.0)
        return refuses(0)(data)

    target = FakeTarget(judge, atomic=True)
    outcome = tried(target, 8, clock)
    assert isinstance(outcome, Refused)
    assert ([[*range(8)], [0, 1, 2, 3], [0, 1]], {}) == (target.calls, outcome.permanent)
    assert {*range(8)} == {*outcome.later}


def test_only_atomic_targets_are_narrowed_down() -> None:
    """Another target that refuses all records is believed: it may have looked at each."""
    for target in (FakeTarget(refuses(1)), FakeTarget(refuses(1), atomic=True, stable=True)):
        outcome = tried(target, 4)
        assert isinstance(outcome, Refused)
        assert (1, {0, 1, 2, 3}) == (len(target.calls), {*outcome.permanent})


def test_a_partial_refusal_is_not_narrowed_down() -> None:
    """An atomic target that tells the bad records from the others is asked once."""
    target = FakeTarget(says(RecordsRefused(permanent={1: "bad"}, later={2: "busy"})), atomic=True)
    outcome = tried(target, 4)
    assert isinstance(outcome, Refused)
    assert (1, {1: "bad"}, {2: "busy"}) == (len(target.calls), outcome.permanent, outcome.later)


def test_a_target_that_changes_its_mind_has_it_all() -> None:
    """A batch that was refused as a whole and then taken in halves is delivered."""
    target = FakeTarget(lambda data: refuses(0)(data) if len(data) == 4 else None, atomic=True)
    assert Delivered() == tried(target, 4)
    assert [0, 1, 2, 3] == target.got


def test_a_target_that_failed_is_asked_before_the_next_batch() -> None:
    """`probe` is called when the last attempt failed, and what it raises spares the target the batch."""

    class Probed(FakeTarget):
        probes = 0

        def probe(self) -> None:
            self.probes += 1
            raise TargetDown("not yet")

    target = Probed()
    assert isinstance(attempt(target, batch_of(1), {}, ManualClock()), Delivered)
    outcome = attempt(target, batch_of(1, doubt=True), {}, ManualClock())
    assert isinstance(outcome, Again)
    assert outcome.down
    assert 1 == target.probes
