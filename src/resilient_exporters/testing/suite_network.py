"""The part of the suite for exporters in which a network fails: what is between exporter and target breaks."""

from __future__ import annotations

import threading

import pytest

from resilient_exporters.records import ExportResult
from resilient_exporters.testing.suite_base import PATIENCE, SuiteBase

__all__ = ["NetworkTests"]

_SHORT = 1.0
"""Seconds that an attempt may take where the target hangs."""
_DRIP = 50
"""Bytes a millisecond: a record takes a few of these, and ten of them far less than any time-out."""


class NetworkTests(SuiteBase):
    """Requests and replies are lost, cut, held up and drip; without `proxy` all of these are skipped."""

    def test_a_lost_reply(self) -> None:
        """A reply that is lost on its way leaves the record in doubt: it is sent again, and doubled by nobody exact."""
        proxy = self.network()
        pool = self.pool(self.make_exporter())
        pool.send(self.record(0))
        proxy.swallow_replies(to=self.request)
        (result,) = pool.send(self.record(1))
        proxy.wait_for_faults(1)
        proxy.heal()
        assert result.kept or result.successful, f"a record was lost: {result!r}"
        pool.send(self.record(2))
        self.deliver(pool)
        self.check(self.records(3), doubt=True)

    @pytest.mark.parametrize("after", [0, 1, 20, 200])
    def test_a_request_that_is_cut(self, after: int) -> None:
        """A connection that breaks in the middle of a request leaves nothing half done."""
        proxy = self.network()
        pool = self.pool(self.make_exporter())
        pool.send(self.record(0))
        proxy.reset_requests(after=after)
        pool.send_many(self.records(20, first=1))
        proxy.heal()
        self.deliver(pool)
        self.check(self.records(21), doubt=True)

    @pytest.mark.parametrize("after", [1, 20])
    def test_a_reply_that_is_cut(self, after: int) -> None:
        """A connection that breaks in the middle of a reply leaves the batch in doubt, and nothing worse."""
        proxy = self.network()
        pool = self.pool(self.make_exporter())
        pool.send(self.record(0))
        proxy.cut_replies(after=after)
        pool.send_many(self.records(20, first=1))
        proxy.heal()
        self.deliver(pool)
        self.check(self.records(21), doubt=True)

    def test_a_connection_that_breaks_while_nobody_sends(self) -> None:
        """A connection that was lost between two sends is made anew, and nothing is lost or doubled."""
        proxy = self.network()
        pool = self.pool(self.make_exporter())
        for number in range(3):
            pool.send(self.record(number))
            proxy.reset_all()
        self.deliver(pool)
        self.check(self.records(3))

    def test_a_connection_on_which_bytes_drip(self) -> None:
        """A connection that is slow but works is no reason to send anything twice."""
        self.network().trickle = _DRIP
        pool = self.pool(self.make_exporter())
        pool.send_many(self.records(10))
        self.deliver(pool)
        self.check(self.records(10))

    def test_a_connection_on_which_bytes_drip_too_slowly(self) -> None:
        """When the bytes of a batch do not get through in time, the attempt ends, and all is delivered later."""
        proxy = self.network()
        exporter = self.make_exporter()
        exporter.timeout = _SHORT
        pool = self.pool(exporter, num_threads=2, wait_for_result=False)
        proxy.trickle = 1
        pool.send_many(self.records(100))
        pool.flush(2 * _SHORT)
        proxy.heal()
        assert pool.flush(PATIENCE), f"still owed: {pool.status()}"
        self.check(self.records(100), doubt=True)

    def test_a_target_that_hangs(self) -> None:
        """An export ends within its time although the target does not answer, and the record is kept."""
        proxy = self.network()
        exporter = self.make_exporter()
        exporter.timeout = _SHORT
        pool = self.pool(exporter)
        pool.send(self.record(0))
        proxy.stalled = True
        results: list[ExportResult] = []
        thread = threading.Thread(target=lambda: results.extend(pool.send(self.record(1))), daemon=True)
        thread.start()
        thread.join(PATIENCE)
        hangs = thread.is_alive()
        proxy.heal()
        thread.join(PATIENCE)
        assert not hangs, f"an export of at most {_SHORT} s has not ended after {PATIENCE} s"
        assert not results[0].successful
        assert results[0].kept
        self.deliver(pool)
        self.check(self.records(2), doubt=True)
