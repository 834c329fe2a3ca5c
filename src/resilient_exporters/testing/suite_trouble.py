"""The part of the suite for exporters in which things fail: targets that are down, errors, refusals, restarts."""

from __future__ import annotations

from typing import Any

import pytest

from resilient_exporters.exceptions import TargetDown
from resilient_exporters.exporters.binding import takes_batches
from resilient_exporters.testing.suite_base import SuiteBase

__all__ = ["TroubleTests"]


class _Strange(BaseException):
    """What no `except Exception` catches."""


class TroubleTests(SuiteBase):
    """Whatever fails, nothing is lost, and nothing comes twice but what was in doubt."""

    # A target that is down

    def test_nothing_is_contacted_before_the_first_send(self) -> None:
        """An exporter can be made, joined and named while its target is down."""
        self.break_target()
        pool = self.pool(self.make_exporter())
        repr(pool)
        self.heal_target()
        self.send(pool, 0)
        self.check(self.records(1))

    def test_what_a_target_that_is_down_misses_is_delivered_later(self) -> None:
        """Records are kept while the target is down, and arrive in order when it is back, each once."""
        pool = self.pool(self.make_exporter())
        pool.send(self.record(0))
        self.break_target()
        for data in self.records(3, first=1):
            (result,) = pool.send(data)
            assert not result.successful, "a target that is down took a record"
            assert result.kept, f"a record was not kept: {result!r}"
        self.heal_target()
        self.deliver(pool)
        self.check(self.records(4))

    def test_another_process_delivers_what_is_owed(self) -> None:
        """What was kept in a file is delivered by the next program, with another exporter object."""
        self.break_target()
        pool = self.kept_in_file(self.make_exporter())
        for data in self.records(3):
            pool.send(data)
        pool.close()
        self.heal_target()
        pool = self.kept_in_file(self.make_exporter())
        assert pool.has_unsent_data(), "the next program does not find what is owed"
        self.deliver(pool)
        self.check(self.records(3))

    # Failures in the middle

    def test_any_error_keeps_the_record(self) -> None:
        """Whatever comes out of a client library, the record is kept and delivered later, once."""
        exporter = self.make_exporter()
        self.failing(exporter, [ValueError("injected"), OSError("injected"), TargetDown("injected")], late=False)
        pool = self.pool(exporter)
        for data in self.records(4):
            pool.send(data)
        self.deliver(pool)
        self.check(self.records(4))

    def test_no_exception_is_too_strange(self) -> None:
        """An exception that is no `Exception` ends nothing but the attempt."""
        exporter = self.make_exporter()
        self.failing(exporter, [_Strange("injected")], late=False)
        pool = self.pool(exporter)
        (result,) = pool.send(self.record(0))
        assert result.kept, f"a record was not kept: {result!r}"
        self.deliver(pool)
        self.send(pool, 1)
        self.check(self.records(2))

    def test_a_failure_after_the_target_has_it(self) -> None:
        """When a record may have arrived it is sent again; an exact exporter notices that it is there already."""
        exporter = self.make_exporter()
        self.failing(exporter, [TargetDown("injected")], late=True)
        pool = self.pool(exporter)
        (result,) = pool.send(self.record(0))
        assert not result.successful
        pool.send(self.record(1))
        self.deliver(pool)
        self.check(self.records(2), doubt=True)

    def test_a_restart_after_a_failure_in_doubt(self) -> None:
        """Also the next program, with another exporter object, does not double what an exact target has."""
        exporter = self.make_exporter()
        self.failing(exporter, [TargetDown("injected")], late=True)
        pool = self.kept_in_file(exporter)
        pool.send(self.record(0))
        pool.close()
        pool = self.kept_in_file(self.make_exporter())
        self.deliver(pool)
        pool.send(self.record(1))
        self.check(self.records(2), doubt=True)

    def test_an_interrupt_keeps_the_record(self) -> None:
        """Ctrl-C in the middle of an export reaches the caller; the record is kept, and the exporter works on."""
        exporter = self.make_exporter()
        self.failing(exporter, [KeyboardInterrupt()], late=True)
        pool = self.pool(exporter)
        with pytest.raises(KeyboardInterrupt):
            pool.send(self.record(0))
        assert pool.has_unsent_data()
        self.deliver(pool)
        self.send(pool, 1)
        self.check(self.records(2), doubt=True)

    def test_ids_do_not_change(self) -> None:
        """A record has the same id in each attempt, in the next program as well."""
        exporter = self.make_exporter()
        first = self.failing(exporter, [TargetDown("injected")] * 2, late=False)
        if not takes_batches(type(exporter)):
            pytest.skip("an exporter of single records does not see ids")
        pool = self.kept_in_file(exporter)
        pool.send_many(self.records(3))
        pool.send_unsent_data()
        pool.close()
        exporter = self.make_exporter()
        second = self.failing(exporter, [], late=False)
        self.deliver(self.kept_in_file(exporter))
        ids: dict[bytes, Any] = {}
        for data, id in first.ids + second.ids:
            assert ids.setdefault(data, id) == id, f"a record was {ids[data]}, and is {id} now"
        assert len(set(ids.values())) == 3, f"three records have the ids {ids.values()}"

    def test_records_are_not_changed(self) -> None:
        """An exporter leaves the data that it gets as it is: others may share it."""
        exporter = self.make_exporter()
        seen = self.failing(exporter, [], late=False)
        self.pool(exporter).send_many(self.records(3))
        assert seen.changed == 0, "the exporter changed its records"

    def test_its_answers_make_sense(self) -> None:
        """It answers with what was agreed, and about the records that it got: no others, and none twice."""
        exporter = self.make_exporter()
        seen = self.failing(exporter, [], late=False)
        pool = self.pool(exporter)
        pool.send(self.record(0))
        pool.send_many(self.records(3, first=1))
        if self.bad_record is not None:
            pool.send_many([self.bad_record, *self.records(2, first=4)])
        assert not seen.nonsense, f"the exporter {'; it '.join(seen.nonsense)}"

    # Records that the target refuses

    def test_a_bad_record_costs_no_good_one(self) -> None:
        """Of a batch, the records that the target refuses for good become dead letters, and all others arrive."""
        if self.bad_record is None:
            pytest.skip("this suite has no `bad_record`")
        pool = self.pool(self.make_exporter())
        pool.send_many([*self.records(5), self.bad_record, *self.records(5, first=5)])
        self.deliver(pool)
        self.check(self.records(10))
        assert pool.status().exporters[0].dead == 1

    def test_a_bad_record_alone(self) -> None:
        """A record that is refused for good is told so at once, is not kept, and keeps nothing back."""
        if self.bad_record is None:
            pytest.skip("this suite has no `bad_record`")
        pool = self.pool(self.make_exporter())
        (result,) = pool.send(self.bad_record)
        assert not result.successful
        assert result.error is not None
        assert not result.kept, "a record that is refused for good is tried for ever"
        self.send(pool, 0)
        self.check(self.records(1))
