"""`rate=` of an exporter: what goes beyond it is queued in the caller's thread, and spread over time by workers."""

from __future__ import annotations

import time
from typing import Any

import pytest

import resilient_exporters as rex
from resilient_exporters.policies import Rate
from tests.delivery.targets import PATIENCE


class Slow(rex.Exporter):
    """Remembers when it got what."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.got: list[Any] = []
        self.times: list[float] = []

    def send(self, data: Any) -> rex.ExportResult:
        self.got.append(data)
        self.times.append(time.monotonic())
        return rex.ExportResult(None, True)


@pytest.mark.parametrize("wrong", [{}, {"records": 0}, {"bytes": -1}, {"records": "1"}, {"records": float("nan")}])
def test_a_wrong_rate_is_refused(wrong: dict[str, Any]) -> None:
    """A rate is a number above 0, and one of the two is given."""
    with pytest.raises(rex.InvalidConfigError):
        Rate(**wrong)


def test_something_else_is_refused() -> None:
    """`rate=` takes a Rate and nothing else."""
    with pytest.raises(rex.InvalidConfigError, match="rate"):
        Slow(rate=10)


def test_a_record_beyond_the_rate_is_queued() -> None:
    """In the caller's thread the record is kept, its error is `Queued`, and nobody sleeps."""
    exporter = Slow(rate=Rate(records=0.01))
    with rex.ExporterPool([exporter]) as pool:
        began = time.monotonic()
        assert pool.send(1)[0].successful
        (second,) = pool.send(2)
        assert not second.successful
        assert second.kept
        assert isinstance(second.error, rex.exceptions.Queued)
        assert time.monotonic() - began < PATIENCE
        assert [1] == exporter.got
        assert pool.has_unsent_data()
        assert [] == pool.send_unsent_data()


def test_alone_it_keeps_to_the_rate_as_well() -> None:
    """An exporter without a pool queues what goes beyond its rate."""
    exporter = Slow(rate=Rate(records=0.01))
    assert exporter.send(1).successful
    assert isinstance(exporter.send(2).error, rex.exceptions.Queued)
    exporter.use_memory = True
    assert exporter.has_unsent_data()
    with pytest.warns(ResourceWarning):
        del exporter


@pytest.mark.parametrize("manual", [False, True])
def test_workers_keep_to_the_rate(manual: bool) -> None:
    """In the background all is delivered, in order, and no faster than the rate."""
    exporter = Slow(rate=Rate(records=50))
    with rex.ExporterPool([exporter], None, 2, False, manual_reexport=manual) as pool:
        for number in range(75):
            pool.send(number)
        assert pool.flush(PATIENCE)
        assert list(range(75)) == exporter.got
        assert exporter.times[-1] - exporter.times[0] >= 0.4


def test_other_exporters_do_not_wait() -> None:
    """The rate of one exporter does not hold back another."""
    slow, fast = Slow(name="slow", rate=Rate(records=0.01)), Slow(name="fast")
    with rex.ExporterPool([slow, fast]) as pool:
        for number in range(20):
            pool.send(number)
        assert list(range(20)) == fast.got
        assert [0] == slow.got
