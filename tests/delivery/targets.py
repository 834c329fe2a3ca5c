"""A target that does as it is told, and lanes that are stepped by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from resilient_exporters import codec
from resilient_exporters.delivery.engine import Engine
from resilient_exporters.delivery.foreground import Shipment
from resilient_exporters.delivery.keeper import Keep
from resilient_exporters.delivery.lane import Lane, Source, Step
from resilient_exporters.delivery.settings import Settings
from resilient_exporters.exceptions import RecordsRefused, TargetDown
from resilient_exporters.policies import Rate, Retry
from resilient_exporters.records import Batch, ExportResult, Record
from resilient_exporters.spool.interface import Spool
from resilient_exporters.spool.memory import MemorySpool
from resilient_exporters.testing.clock import ManualClock

__all__ = [
    "PATIENCE",
    "FakeTarget",
    "Rig",
    "down",
    "engine_of",
    "in_threads",
    "keep",
    "owed",
    "run_pass",
    "send",
    "shipment",
]

PATIENCE = 60.0
"""Seconds until a thread that does not come back is taken for hung."""

Verdict = BaseException | ExportResult | None


class FakeTarget:
    """A `Target` that asks the test what to do with each call.

    Attributes:
        judge: Gets the data of a call; what it returns is raised, or returned by `send`. None = all taken.
        calls: The data of each call, taken or not.
        got: The data that was taken, in order.
        seen: The batches of all calls.
        kwargs: The keyword arguments of all calls.
        disconnects: How often the connection was dropped.
    """

    def __init__(
        self,
        judge: Callable[[list[Any]], Verdict] | None = None,
        *,
        batches: bool = True,
        atomic: bool = False,
        stable: bool = False,
        batch_records: int = 1000,
        batch_bytes: int = 1 << 20,
        timeout: float = 30.0,
        accepts: set[str] | None = None,
        batch_age: float = 0.0,
        rate: Rate | None = None,
    ) -> None:
        self.judge = judge or (lambda data: None)
        self.batches = batches
        self.atomic = atomic
        self.stable = stable
        self.batch_records = batch_records
        self.batch_bytes = batch_bytes
        self.batch_age = batch_age
        self.rate = rate
        self.timeout = timeout
        self.accepts = accepts
        self.calls: list[list[Any]] = []
        self.got: list[Any] = []
        self.seen: list[Batch] = []
        self.kwargs: list[dict[str, Any]] = []
        self.disconnects = 0
        self.running = 0
        self.most_running = 0
        self.changed = threading.Condition()

    def accepted(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in kwargs.items() if self.accepts is None or name in self.accepts}

    def transform(self, data: Any) -> Any:
        return ("transformed", data)

    def send(self, record: Record) -> ExportResult:
        verdict = self._called([record.data], dict(record.kwargs))
        if isinstance(verdict, ExportResult):
            if verdict.successful:
                self._take([record.data])
            return verdict
        self._take([record.data])
        return ExportResult(None, True)

    def export(self, batch: Batch, kwargs: Mapping[str, Any]) -> None:
        self.seen.append(batch)
        data = [record.data for record in batch.records]
        try:
            self._called(data, dict(kwargs))
        except RecordsRefused as refused:
            if not self.atomic:
                self._take([one for i, one in enumerate(data) if i not in refused.permanent and i not in refused.later])
            raise
        self._take(data)

    def probe(self) -> None:
        """Nothing to ask."""

    def disconnect(self) -> None:
        self.disconnects += 1

    def wait_for(self, reached: Callable[[], bool]) -> None:
        """Return when something is true that calls change."""
        with self.changed:
            assert self.changed.wait_for(reached, PATIENCE)

    def _called(self, data: list[Any], kwargs: dict[str, Any]) -> Verdict:
        with self.changed:
            self.calls.append(data)
            self.kwargs.append(kwargs)
            self.running += 1
            self.most_running = max(self.running, self.most_running)
            self.changed.notify_all()
        try:
            verdict = self.judge(data)
        finally:
            with self.changed:
                self.running -= 1
        if isinstance(verdict, BaseException):
            raise verdict
        return verdict

    def _take(self, data: list[Any]) -> None:
        with self.changed:
            self.got.extend(data)
            self.changed.notify_all()


class Rig:
    """One lane over one spool, with a clock that is turned by hand.

    Args:
        target: Whom the lane serves.
        spool: Where it is owed records; by default a new memory spool.
    """

    def __init__(self, target: FakeTarget, spool: Spool | None = None) -> None:
        self.target = target
        self.spool = spool or MemorySpool()
        self.clock = ManualClock(now=1000.0)
        self.lane = Lane("t", target, [Source(self.spool, "t")], self.clock, Retry())

    def keep(self, *data: Any, **kwargs: Any) -> None:
        """Have the lane owe records."""
        keep(self.spool, *data, **kwargs)

    def run_pass(self) -> list[ExportResult]:
        """A whole pass."""
        return run_pass(self.lane)

    def owed(self) -> list[Any]:
        """What the lane owes."""
        return owed(self.spool)

    def take(self, seconds: float, verdict: Verdict = None) -> Callable[[list[Any]], Verdict]:
        """A way to judge that lets time pass in each call."""

        def judge(data: list[Any]) -> Verdict:
            self.clock.advance(seconds)
            return verdict

        return judge


def keep(spool: Spool, *data: Any, lanes: tuple[str, ...] = ("t",), options: bytes = b"", flags: int = 0) -> None:
    """Append each record by itself."""
    for one in data:
        spool.append([codec.encode(one)], frozenset(lanes), time=1.0, options=options, flags=flags)


def owed(spool: Spool, lane: str = "t") -> list[Any]:
    """The data that a lane is owed."""
    found: list[Any] = []
    after = 0
    while (kept := spool.read(lane, after, 1000, 1 << 30)) is not None:
        found += [codec.decode(payload) for payload in kept.payloads if isinstance(payload, bytes)]
        after = kept.places[-1]
    assert len(found) == spool.account(lane).records
    return found


def run_pass(lane: Lane) -> list[ExportResult]:
    """One pass over what a lane owes; a result per record tried."""
    results: list[ExportResult] = []
    lane.begin_pass()
    while lane.step(results) is Step.MORE:
        pass
    return results


def engine_of(clock: ManualClock | None = None, spool: Spool | None = None, **targets: FakeTarget) -> Engine:
    """An engine in the caller's thread that serves these targets."""
    engine = Engine("pool", Settings(), spool or MemorySpool(), clock or ManualClock(now=1000.0))
    for name, target in targets.items():
        engine.add(name, target)
    return engine


def shipment(engine: Engine, data: Any, **kwargs: Any) -> Shipment:
    """A record for all lanes."""
    options = codec.encode_options(kwargs) if kwargs else b""
    return Shipment(engine.parcel(codec.encode(data), options), list(engine.lanes))


def send(engine: Engine, data: Any, **kwargs: Any) -> dict[str, ExportResult]:
    """Send a record to all lanes; the results by lane, none of them in the background."""
    return engine.send([shipment(engine, data, **kwargs)], Keep(), reentrant=False) or {}


def in_threads(*jobs: Callable[[], object]) -> list[BaseException]:
    """Run jobs at the same time, to the end of all; what they raised."""
    raised: list[BaseException] = []
    start = threading.Barrier(len(jobs))

    def run(job: Callable[[], object]) -> None:
        start.wait(PATIENCE)
        try:
            job()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a thread hangs"
    return raised


def down(retry_after: float | None = None) -> Callable[[list[Any]], Verdict]:
    """A way to judge: the target is down."""
    return lambda data: TargetDown("down", retry_after=retry_after)
