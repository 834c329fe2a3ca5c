"""The part of the suite for exporters in which all goes well: delivery, names, life."""

from __future__ import annotations

import threading

import pytest

from resilient_exporters.exceptions import TargetDown
from resilient_exporters.testing.suite_base import PATIENCE, SuiteBase

__all__ = ["DeliveryTests"]


class DeliveryTests(SuiteBase):
    """What is sent arrives, once and in order, however and from wherever it is sent."""

    # What goes well

    def test_what_is_sent_arrives(self) -> None:
        """Each record that is reported as taken is in the target, in order."""
        pool = self.pool(self.make_exporter())
        for number in range(5):
            self.send(pool, number)
        self.check(self.records(5))

    def test_many_at_once_arrive(self) -> None:
        """Many records arrive in order."""
        pool = self.pool(self.make_exporter())
        (result,) = pool.send_many(self.records(300))
        assert result == (300, True), f"not taken: {result!r}"
        self.check(self.records(300))

    def test_one_alone_works(self) -> None:
        """An exporter outside any pool sends, too."""
        with self.make_exporter() as exporter:
            result = exporter.send(self.record(0))
            assert result.successful, f"not taken: {result!r}"
        self.check(self.records(1))

    def test_it_may_be_called_from_any_thread(self) -> None:
        """Calls come from one thread at a time, but not always from the same one."""
        pool = self.pool(self.make_exporter())
        for data in self.records(3):
            thread = threading.Thread(target=pool.send, args=(data,))
            thread.start()
            thread.join(PATIENCE)
        self.check(self.records(3))

    def test_it_works_in_the_background(self) -> None:
        """Worker threads deliver what was sent without waiting."""
        pool = self.pool(self.make_exporter(), num_threads=2, wait_for_result=False)
        for data in self.records(50):
            pool.send(data)
        assert pool.flush(PATIENCE), f"still owed: {pool.status()}"
        self.check(self.records(50))

    def test_keywords_are_taken(self) -> None:
        """The keyword arguments that the exporter names are taken, late as well, and others are refused."""
        exporter = self.make_exporter()
        failing = self.failing(exporter, [TargetDown("injected")], late=False)
        pool = self.pool(exporter)
        if not failing.takes_any_keyword:
            with pytest.raises(TypeError):
                pool.send(self.record(0), **{"no such keyword": 1})
        pool.send(self.record(0), **self.keywords)
        assert [dict(self.keywords)] == failing.keywords, "the exporter did not get its keywords"
        self.deliver(pool)
        assert [dict(self.keywords)] * 2 == failing.keywords, "the exporter did not get its keywords again"
        self.check(self.records(1))

    # Names and secrets

    def test_the_name_is_stable(self) -> None:
        """The same program run again gives the exporter the same name: records are owed to it."""
        first, second = self.make_exporter(), self.make_exporter()
        assert first.name == second.name, f"{first.name!r} and {second.name!r} are one target"

    def test_it_says_what_it_guarantees(self) -> None:
        """The guarantee is one of three words."""
        assert self.make_exporter().guarantee in {"exact", "window", "at least once"}

    def test_secrets_are_not_shown(self) -> None:
        """No secret is in name, repr, results or status, also not when the target is down."""
        exporter = self.make_exporter()
        pool = self.pool(exporter)
        shown = [exporter.name, repr(exporter)]
        if self.proxy is not None or type(self).break_target is not SuiteBase.break_target:
            self.break_target()
            (result,) = pool.send(self.record(0))
            shown += [repr(result), str(result.error), repr(result.error.__cause__ if result.error else None)]
        shown += [repr(pool), str(pool.status())]
        self.heal_target()
        for secret in self.secrets:
            assert not [text for text in shown if secret in text], "a secret is shown"

    # Life

    def test_it_may_be_closed_and_used_again(self) -> None:
        """After `close` an exporter connects again when it is in another pool; closing twice does no harm."""
        exporter = self.make_exporter()
        for number in range(3):
            pool = self.pool(exporter)
            self.send(pool, number)
            pool.close()
            exporter.close()
            exporter.close()
        self.check(self.records(3))

    def test_it_may_be_closed_unused(self) -> None:
        """An exporter that never sent anything can be closed."""
        self.make_exporter().close()
