"""The rate of a target: the buckets by themselves, and a lane that keeps to them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from resilient_exporters.delivery.lane import Step
from resilient_exporters.delivery.throttle import Throttle
from resilient_exporters.policies import Rate
from tests.delivery.targets import FakeTarget, Rig, down, engine_of, send


@given(
    rate=st.floats(0.1, 1000.0),
    steps=st.lists(st.tuples(st.floats(0.0, 3.0), st.integers(1, 50)), max_size=60),
)
def test_no_more_than_the_rate_and_one_second(rate: float, steps: list[tuple[float, int]]) -> None:
    """Whatever is asked for and when: never more than what the time brought and one full bucket."""
    throttle = Throttle(Rate(records=rate), 0.0)
    now, taken = 0.0, 0
    for pause, wanted in steps:
        now += pause
        if throttle.wait(now) == 0.0:
            records = min(wanted, throttle.room(now)[0])
            throttle.take(records, 0, now)
            taken += records
        assert taken <= max(rate, 1.0) + now * rate + 1e-6


@given(rate=st.floats(0.1, 1000.0), wanted=st.integers(1, 1000))
def test_waiting_as_long_as_told_is_enough(rate: float, wanted: int) -> None:
    """Who waits for the time that it was told may go on then, and does not have to wait much longer than needed."""
    throttle = Throttle(Rate(records=rate), 5.0)
    throttle.take(min(wanted, throttle.room(5.0)[0]), 0, 5.0)
    wait = throttle.wait(5.0)
    assert throttle.wait(5.0 + wait) == 0.0
    assert wait <= max(0.1, 1.0 / rate) + 1e-6


def test_a_record_larger_than_the_bucket_goes_and_is_paid_back() -> None:
    """A record of five seconds' worth of bytes goes out of a full bucket, and nothing goes for the next four."""
    throttle = Throttle(Rate(bytes=100), 0.0)
    assert throttle.fits(500, 0.0)
    throttle.take(1, 500, 0.0)
    assert not throttle.fits(1, 4.0)
    assert throttle.wait(4.0) > 0.0
    assert throttle.fits(1, 4.02)


def test_both_limits_hold() -> None:
    """With a rate of records and one of bytes, the one that is used up first counts."""
    throttle = Throttle(Rate(records=100, bytes=10), 0.0)
    assert throttle.room(0.0) == (100, 10)
    throttle.take(1, 10, 0.0)
    assert throttle.room(0.0) == (99, 1)
    assert throttle.wait(0.0) > 0.0


def test_a_clock_that_stands_brings_nothing() -> None:
    """Asking often does not fill the bucket."""
    throttle = Throttle(Rate(records=1), 0.0)
    throttle.take(1, 0, 0.0)
    assert not any(throttle.fits(1, 0.0) for _ in range(100))


def test_a_pass_takes_what_the_rate_allows() -> None:
    """A pass hands over a second's worth at first, then what the time has brought."""
    rig = Rig(FakeTarget(rate=Rate(records=10)))
    rig.keep(*range(25))
    rig.run_pass()
    assert list(range(10)) == rig.target.got
    assert rig.lane.step() is Step.WAIT
    rig.clock.advance(0.5)
    rig.run_pass()
    assert list(range(15)) == rig.target.got


def test_a_pass_keeps_to_the_bytes() -> None:
    """Bytes are counted as they are kept; the batch ends at the record that uses up the bucket."""
    rig = Rig(FakeTarget(rate=Rate(bytes=100)))
    rig.keep(*["x" * 28] * 20)
    size = rig.spool.account("t").bytes // 20
    rig.run_pass()
    assert -(-100 // size) == len(rig.target.got)


def test_what_fails_counts_as_well() -> None:
    """A target that is down is not asked more often than its rate allows."""
    rig = Rig(FakeTarget(down(), batches=False, rate=Rate(records=2)))
    rig.keep(*range(5))
    for _ in range(10):
        rig.run_pass()
    assert len(rig.target.calls) == 2


def test_nothing_owed_is_the_end_at_any_rate() -> None:
    """A lane that owes nothing says so, although its bucket is empty."""
    rig = Rig(FakeTarget(rate=Rate(records=1)))
    rig.keep(0)
    rig.run_pass()
    assert rig.lane.step() is Step.END


def test_a_new_record_beyond_the_rate_is_not_tried() -> None:
    """In the caller's thread a record beyond the rate is not handed over, and nobody sleeps for it."""
    target = FakeTarget(batches=False, rate=Rate(records=2))
    engine = engine_of(t=target)
    results = [send(engine, number)["t"] for number in range(3)]
    assert [True, True, False] == [result.successful for result in results]
    assert [0, 1] == target.got
