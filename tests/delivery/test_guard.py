"""The guard: many refusals in a row mean a changed schema, and nothing is buried."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from resilient_exporters.delivery.attempt import Again, Delivered, Hold, Outcome, Refused
from resilient_exporters.delivery.guard import Guard
from resilient_exporters.exceptions import RecordsRefused, TargetDown, TargetMisconfigured
from tests.delivery.targets import FakeTarget, Rig, Verdict, engine_of, send


def refused(*permanent: int, later: tuple[int, ...] = (), unjudged: int = 0) -> Refused:
    return Refused(RecordsRefused(), dict.fromkeys(permanent, "no"), dict.fromkeys(later, "wait"), unjudged)


def believed(guard: Guard, outcome: Outcome, count: int) -> bool:
    """Whether the guard lets an outcome be what it is."""
    judged = guard.judge(outcome, count)
    if judged is outcome:
        return True
    assert isinstance(judged, Refused)
    assert isinstance(outcome, Refused)
    assert ({}, {**outcome.permanent, **outcome.later}) == (judged.permanent, judged.later)
    assert isinstance(judged.then, Hold)
    assert judged.then.only_these
    assert isinstance(judged.then.error, TargetMisconfigured)
    return False


def test_other_outcomes_pass() -> None:
    """The guard judges refusals only."""
    guard = Guard()
    for outcome in (Delivered(), Again(ValueError()), Hold(ValueError())):
        assert believed(guard, outcome, 1000)


@pytest.mark.parametrize(("count", "verdict"), [(99, True), (100, False), (1000, False)])
def test_a_large_batch_that_is_refused_to_the_last(count: int, verdict: bool) -> None:
    """A batch of at least 100 of which nothing is taken is not believed; a smaller one may be bad by chance."""
    assert verdict is believed(Guard(), refused(*range(count)), count)


def test_a_large_batch_that_is_refused_but_for_one() -> None:
    """Of 199 records 198 may be bad: that is the end of the benefit of the doubt."""
    assert believed(Guard(), refused(*range(1, 199)), 199)
    assert not believed(Guard(), refused(*range(1, 200)), 200)


@pytest.mark.parametrize(("bad", "verdict"), [(100, True), (101, False)])
def test_more_than_half_of_two_hundred(bad: int, verdict: bool) -> None:
    """Half of the last 200 records may be bad, not more, in whatever batches they came."""
    guard = Guard()
    for _ in range(200 - bad):
        assert believed(guard, Delivered(), 1)
    verdicts = [believed(guard, refused(0), 1) for _ in range(bad)]
    assert [True] * (bad - 1) + [verdict] == verdicts


def test_single_records_from_the_start() -> None:
    """A target of single records that refuses them all from the start loses less than 200 to dead letters."""
    guard = Guard()
    assert [True] * 199 + [False] * 50 == [believed(guard, refused(0), 1) for _ in range(249)]


def test_good_times_are_forgotten() -> None:
    """A million records that went well before do not hide a schema that changed now."""
    guard = Guard()
    for _ in range(1000):
        guard.judge(Delivered(), 1000)
    assert [True, False, False] == [believed(guard, refused(*range(99)), 99) for _ in range(3)]


def test_few_bad_records_are_believed_for_ever() -> None:
    """A tenth of bad records is what dead letters are for."""
    guard = Guard()
    for _ in range(200):
        assert believed(guard, refused(0, 1, 2), 30)


def test_records_to_be_tried_later_do_not_count() -> None:
    """What a target refuses for now says nothing of its schema."""
    guard = Guard()
    for _ in range(50):
        assert believed(guard, refused(0, later=tuple(range(1, 9))), 10)


def test_records_taken_elsewhere_count() -> None:
    """Records that were delivered without a word to the guard count as taken when the next refusal comes."""
    guard = Guard()
    for _ in range(1000):
        guard.taken += 9
        assert believed(guard, refused(0), 1)


def test_what_bisection_did_not_reach_counts_as_refused() -> None:
    """A batch that an atomic target refuses in every part tried is refused to the last."""
    assert not believed(Guard(), refused(*range(20), later=tuple(range(20, 1000)), unjudged=980), 1000)


def test_trouble_outweighs_the_alarm() -> None:
    """When the target went down in the middle, that is what is told."""
    down = Again(TargetDown("gone"), down=True)
    guard = Guard()
    guard.judge(refused(*range(100)), 100)
    judged = guard.judge(Refused(RecordsRefused(), dict.fromkeys(range(150), "no"), {150: "?"}, 0, down), 151)
    assert isinstance(judged, Refused)
    assert ({}, down) == (judged.permanent, judged.then)


# --- in a lane


class Schema:
    """A table that lacks a column: it takes what is in `fits`."""

    def __init__(self) -> None:
        self.fits: Callable[[Any], bool] = lambda data: False

    def __call__(self, data: list[Any]) -> Verdict:
        bad = {i: f"no column for {one}" for i, one in enumerate(data) if not self.fits(one)}
        return RecordsRefused(permanent=bad) if bad else None


@pytest.mark.parametrize("atomic", [False, True])
def test_a_changed_schema_buries_nothing(atomic: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A target that refuses whole batches is held with one alarm; everything stays owed and goes out in the end."""
    caplog.set_level(logging.WARNING)
    schema = Schema()
    rig = Rig(FakeTarget(schema if not atomic else _whole(schema), atomic=atomic))
    rig.keep(*range(3000))
    for _ in range(5):
        rig.run_pass()
    assert (0, 0, "held", 3000) == (rig.lane.delivered, rig.lane.dead, rig.lane.state, rig.lane.owed())
    (alarm,) = [record.getMessage() for record in caplog.records]
    for word in ("target_held", "1000 of 1000 records refused", "no column for", "changed schema"):
        assert word in alarm
    schema.fits = lambda data: True
    rig.run_pass()
    assert list(range(3000)) == rig.target.got
    assert ("up", 0) == (rig.lane.state, rig.lane.owed())


def _whole(schema: Schema) -> Callable[[list[Any]], Verdict]:
    """An atomic target: one bad record, and the batch is refused."""
    return lambda data: (
        RecordsRefused(permanent=dict.fromkeys(range(len(data)), "no column for it")) if schema(data) else None
    )


def test_what_still_fits_goes_out() -> None:
    """While a target is held for its refusals it gets the records that it does take, and single ones in between."""
    schema = Schema()
    schema.fits = lambda data: data % 4 == 0
    rig = Rig(FakeTarget(schema))
    rig.keep(*range(2000))
    rig.run_pass()
    assert list(range(0, 2000, 4)) == rig.target.got
    assert (0, 1500, "held") == (rig.lane.dead, rig.lane.owed(), rig.lane.state)


def test_single_bad_records_are_buried_again_later() -> None:
    """When the target takes most records again, the few that it really refuses become dead letters."""
    schema = Schema()
    rig = Rig(FakeTarget(schema))
    rig.keep(*range(1000))
    rig.run_pass()
    schema.fits = lambda data: data % 100 != 7
    rig.run_pass()
    rig.run_pass()
    assert (990, 10, 0) == (rig.lane.delivered, rig.lane.dead, rig.lane.owed())


def test_the_reasons_stay_with_the_results() -> None:
    """The result of a record that the guard keeps tells what happened, and that it is kept."""
    rig = Rig(FakeTarget(Schema()))
    rig.keep(*range(100))
    results = rig.run_pass()
    assert {(False, True)} == {(result.successful, result.kept) for result in results}
    assert isinstance(results[0].error, TargetMisconfigured)


@pytest.mark.parametrize("batches", [False, True])
def test_a_sender_in_the_foreground_is_guarded_too(batches: bool) -> None:
    """Records that are sent one by one are kept, too, once too many in a row were refused."""
    schema = Schema()
    target = FakeTarget(schema, batches=batches)
    engine = engine_of(t=target)
    results = [send(engine, i)["t"] for i in range(300)]
    assert [False] * 199 + [True] * 101 == [result.kept for result in results]
    (lane,) = engine.status().exporters
    assert (199, 101, "held") == (lane.dead, lane.owed, lane.state)
    schema.fits = lambda data: True
    engine.send_unsent(["t"])
    assert list(range(199, 300)) == target.got
