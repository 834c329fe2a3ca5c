"""`ExporterSuite`, the tests that every exporter must pass: subclass it, say how to make one and how to look."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.exceptions import TargetDown
from resilient_exporters.exporters.binding import takes_batches
from resilient_exporters.exporters.exporter import Exporter
from resilient_exporters.exporters.pool import ExporterPool
from resilient_exporters.records import ExportResult
from resilient_exporters.testing.between import Between
from resilient_exporters.testing.proxy import FaultProxy

__all__ = ["ExporterSuite"]

_PATIENCE = 20.0
"""Seconds until something that must happen is taken for not happening."""
_SHORT = 1.0
"""Seconds that an attempt may take where the target hangs."""


class ExporterSuite:
    """Tests of one exporter, for pytest; what a subclass does not offer is skipped, with the reason.

    A subclass must write `make_exporter` and `arrived`. An exporter that goes through a network should set `proxy`, in
    a fixture of its own, and connect to `proxy.port`: then its target can break, hang and lose replies.

    Attributes:
        proxy: Stands between exporter and target, or None.
        request: Bytes in a request that stores something: its reply is the one to be lost; b"" = any.
        bad_record: Data that the target refuses for good, among good ones, or None.
        keywords: Keyword arguments that `send` takes and that change nothing of what `arrived` tells.
        secrets: Texts given to the exporter that must never be shown.

    Example:
        >>> class TestMine(ExporterSuite):
        ...     def make_exporter(self):
        ...         return FileExporter(self.folder / "x")
        ...     def arrived(self):
        ...         return [json.loads(line) for line in (self.folder / "x").read_text().splitlines()]
    """

    proxy: FaultProxy | None = None
    request: bytes = b""
    bad_record: Any = None
    keywords: dict[str, Any] = {}  # noqa: RUF012  # replaced by subclasses, never changed
    secrets: tuple[str, ...] = ()
    folder: Path
    """A folder of the test's own."""

    # What subclasses write

    def make_exporter(self) -> Exporter:
        """A new exporter, each time to the same target; the target may be down."""
        raise NotImplementedError

    def arrived(self) -> list[Any]:
        """The data that is in the target, in the order in which it came; empty when nothing is there yet."""
        raise NotImplementedError

    def record(self, number: int) -> Any:
        """Data to send; different for each number, and equal to what `arrived` gives back."""
        return {"number": number, "text": f"nº {number}"}

    def break_target(self) -> None:
        """Make the target unreachable until `heal_target`."""
        if self.proxy is None:
            pytest.skip("this suite cannot break its target: no `proxy`, and `break_target` is not overridden")
        self.proxy.refuse = True
        self.proxy.reset_all()

    def heal_target(self) -> None:
        """Undo `break_target`."""
        if self.proxy is not None:
            self.proxy.heal()

    # Tools

    @pytest.fixture(autouse=True)
    def _around(self, tmp_path: Path) -> Iterator[None]:
        self.set_up(tmp_path)
        yield
        self.tear_down()

    def set_up(self, folder: Path) -> None:
        """Begin a test in an empty folder."""
        self.folder = folder
        self._pools: list[ExporterPool] = []

    def tear_down(self) -> None:
        """End a test: close what it has opened."""
        for pool in self._pools:
            pool.close(timeout=0.0)

    def pool(self, *exporters: Exporter, **options: Any) -> ExporterPool:
        """A pool that is closed at the end of the test."""
        pool = ExporterPool(exporters, **options)
        self._pools.append(pool)
        return pool

    def kept_in_file(self, *exporters: Exporter) -> ExporterPool:
        """A pool that keeps what is owed in one and the same file."""
        return self.pool(*exporters, use_memory=False, tmp_file=self.folder / "owed")

    def records(self, count: int, first: int = 0) -> list[Any]:
        """Some data to send."""
        return [self.record(number) for number in range(first, first + count)]

    def send(self, pool: ExporterPool, number: int) -> None:
        """Send a record that must be taken at once."""
        (result,) = pool.send(self.record(number))
        assert result.successful, f"not taken: {result!r}, {result.error.__cause__ if result.error else None!r}"

    def check(self, expected: list[Any], *, doubt: bool = False) -> None:
        """Fail unless exactly this arrived; after doubt, an exporter that is not exact may have repeated some."""
        arrived = self.arrived()
        if doubt and self.make_exporter().guarantee != "exact":
            arrived = [one for i, one in enumerate(arrived) if one not in arrived[:i]]
        assert arrived == expected, f"the target has {arrived!r}, not {expected!r}"

    def deliver(self, pool: ExporterPool) -> None:
        """Have everything that is owed delivered, in a few passes at most."""
        for _ in range(5):
            pool.send_unsent_data()
        assert not pool.has_unsent_data(), f"still owed: {pool.status()}"

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
            thread.join(_PATIENCE)
        self.check(self.records(3))

    def test_it_works_in_the_background(self) -> None:
        """Worker threads deliver what was sent without waiting."""
        pool = self.pool(self.make_exporter(), num_threads=2, wait_for_result=False)
        for data in self.records(50):
            pool.send(data)
        assert pool.flush(_PATIENCE), f"still owed: {pool.status()}"
        self.check(self.records(50))

    def test_keywords_are_taken(self) -> None:
        """The keyword arguments that the exporter names are taken, late as well, and others are refused."""
        exporter = self.make_exporter()
        failing = self._failing(exporter, [TargetDown("injected")], late=False)
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
        if self.proxy is not None or type(self).break_target is not ExporterSuite.break_target:
            self.break_target()
            (result,) = pool.send(self.record(0))
            shown += [repr(result), str(result.error), repr(result.error.__cause__ if result.error else None)]
        shown += [repr(pool), str(pool.status())]
        self.heal_target()
        for secret in self.secrets:
            assert not [text for text in shown if secret in text], "a secret is shown"

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
        self._failing(exporter, [ValueError("injected"), OSError("injected"), TargetDown("injected")], late=False)
        pool = self.pool(exporter)
        for data in self.records(4):
            pool.send(data)
        self.deliver(pool)
        self.check(self.records(4))

    def test_a_failure_after_the_target_has_it(self) -> None:
        """When a record may have arrived it is sent again; an exact exporter notices that it is there already."""
        exporter = self.make_exporter()
        self._failing(exporter, [TargetDown("injected")], late=True)
        pool = self.pool(exporter)
        (result,) = pool.send(self.record(0))
        assert not result.successful
        pool.send(self.record(1))
        self.deliver(pool)
        self.check(self.records(2), doubt=True)

    def test_a_restart_after_a_failure_in_doubt(self) -> None:
        """Also the next program, with another exporter object, does not double what an exact target has."""
        exporter = self.make_exporter()
        self._failing(exporter, [TargetDown("injected")], late=True)
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
        self._failing(exporter, [KeyboardInterrupt()], late=True)
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
        first = self._failing(exporter, [TargetDown("injected")] * 2, late=False)
        if not takes_batches(type(exporter)):
            pytest.skip("an exporter of single records does not see ids")
        pool = self.kept_in_file(exporter)
        pool.send_many(self.records(3))
        pool.send_unsent_data()
        pool.close()
        exporter = self.make_exporter()
        second = self._failing(exporter, [], late=False)
        self.deliver(self.kept_in_file(exporter))
        ids: dict[bytes, Any] = {}
        for data, id in first.ids + second.ids:
            assert ids.setdefault(data, id) == id, f"a record was {ids[data]}, and is {id} now"
        assert len(set(ids.values())) == 3, f"three records have the ids {ids.values()}"

    def test_records_are_not_changed(self) -> None:
        """An exporter leaves the data that it gets as it is: others may share it."""
        exporter = self.make_exporter()
        seen = self._failing(exporter, [], late=False)
        self.pool(exporter).send_many(self.records(3))
        assert seen.changed == 0, "the exporter changed its records"

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

    # A network between exporter and target

    def test_a_lost_reply(self) -> None:
        """A reply that is lost on its way leaves the record in doubt: it is sent again, and doubled by nobody exact."""
        proxy = self._proxy()
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
        proxy = self._proxy()
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
        proxy = self._proxy()
        pool = self.pool(self.make_exporter())
        pool.send(self.record(0))
        proxy.cut_replies(after=after)
        pool.send_many(self.records(20, first=1))
        proxy.heal()
        self.deliver(pool)
        self.check(self.records(21), doubt=True)

    def test_a_target_that_hangs(self) -> None:
        """An export ends within its time although the target does not answer, and the record is kept."""
        proxy = self._proxy()
        exporter = self.make_exporter()
        exporter.timeout = _SHORT
        pool = self.pool(exporter)
        pool.send(self.record(0))
        proxy.stalled = True
        results: list[ExportResult] = []
        thread = threading.Thread(target=lambda: results.extend(pool.send(self.record(1))), daemon=True)
        thread.start()
        thread.join(_PATIENCE)
        hangs = thread.is_alive()
        proxy.heal()
        thread.join(_PATIENCE)
        assert not hangs, f"an export of at most {_SHORT} s has not ended after {_PATIENCE} s"
        assert not results[0].successful
        assert results[0].kept
        self.deliver(pool)
        self.check(self.records(2), doubt=True)

    def _proxy(self) -> FaultProxy:
        if self.proxy is None:
            pytest.skip("this suite has no `proxy`")
        return self.proxy

    def _failing(self, exporter: Exporter, errors: list[BaseException], *, late: bool) -> Between:
        """Have the exporter's next calls raise these errors: before it does anything, or when all was done."""
        return Between(exporter, errors, late)
