"""Delivers in the time of the caller: in its own thread, or on threads for which it waits."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.keeper import Keeper
from resilient_exporters.delivery.lane import Lane, Source, Step
from resilient_exporters.delivery.parcel import Parcel, slice_of
from resilient_exporters.delivery.reentry import at_work
from resilient_exporters.delivery.settings import Settings
from resilient_exporters.delivery.turns import Waiting
from resilient_exporters.delivery.workers import Workers
from resilient_exporters.exceptions import Queued, SpoolError, TimeoutError
from resilient_exporters.records import ExportResult
from resilient_exporters.spool.interface import Spool

__all__ = ["Answers", "Foreground", "Shipment"]

_GLANCE = 0.05
"""Seconds between looks at a lane that has not begun with the record."""


@dataclass(slots=True)
class Shipment:
    """A record and the lanes it is for.

    Args:
        parcel: The record.
        lanes: Names of the lanes, in their order.
        failed: Why lanes cannot even try it: their own transform raised.
    """

    parcel: Parcel
    lanes: list[str]
    failed: dict[str, BaseException] = field(default_factory=dict)


class Answers:
    """What a send has learned so far.

    Attributes:
        results: By lane.
        dead: Lanes whose target refused the record for good.
        abandoned: Calls that go on although nobody waits for them any more.
    """

    __slots__ = ("abandoned", "dead", "results")

    def __init__(self) -> None:
        self.results: dict[str, ExportResult] = {}
        self.dead: set[str] = set()
        self.abandoned: list[_Run] = []

    def failed(self, lane: Lane, error: BaseException | None) -> None:
        """The lane does not have the record."""
        self.results[lane.name] = ExportResult(None, False, error=error, exporter=lane.name)

    def absent(self, name: str) -> None:
        """The lane's exporter came or went while the record was on its way to it: kept, the record waits for it."""
        error = Queued(0, f"kept, because {name} came or went while the record was on its way")
        self.results[name] = ExportResult(None, False, error=error, exporter=name)


class _Run:
    """One lane's part of a send, on a thread of the pool.

    Attributes:
        began: `clock.now()` at which the record itself was tried, or None.
        done: Set when it is over.
        interrupt: What is to reach the caller, or None.
        kept: Set when a record that nobody waits for any more was kept, so that it can be settled.
        abandoned: Whether nobody waits for it any more.
    """

    def __init__(self, lane: Lane, shipment: Shipment) -> None:
        self.lane = lane
        self.shipment = shipment
        self.began: float | None = None
        self.done = threading.Event()
        self.interrupt: BaseException | None = None
        self.kept = threading.Event()
        self.abandoned = False
        self._lock = threading.Lock()
        self._answers: Answers | None = None

    def finish(self, answers: Answers) -> bool:
        """The record was tried; False when nobody waits for the answer any more."""
        with self._lock:
            if not self.abandoned:
                self._answers = answers
            return not self.abandoned

    def take(self) -> Answers | None:
        """What came of it; None when it goes on, which from now on nobody waits for."""
        with self._lock:
            self.abandoned = self._answers is None
            return self._answers


class Foreground:
    """Drives lanes for callers that wait.

    Args:
        name: The pool's, for the threads' names.
        settings: What the user chose.
        keeper: Keeps what is refused for good.
        clock: Tells the time.
        lanes: The lanes of the moment.
    """

    def __init__(
        self, name: str, settings: Settings, keeper: Keeper, clock: Clock, lanes: Callable[[], dict[str, Lane]]
    ) -> None:
        self._name = name
        self._settings = settings
        self._keeper = keeper
        self._clock = clock
        self._lanes = lanes
        self._workers: Workers | None = None
        self._asked_at = float("-inf")
        self._verdict = True

    def deliver(self, shipments: Sequence[Shipment], answers: Answers) -> None:
        """Bring records to their lanes, each lane's older ones first.

        Raises:
            KeyboardInterrupt, SystemExit: From an exporter; `answers` tells who has the record.
        """
        deadline = self._clock.now() + self._settings.budget
        lanes = self._lanes()
        wanted = [(n, shipment) for shipment in shipments for n in shipment.lanes if n not in answers.results]
        jobs = [(lanes[n], shipment) for n, shipment in wanted if n in lanes]
        for n, _ in wanted:
            if n not in lanes:
                answers.absent(n)
        try:
            if self._settings.num_threads > 1 and len(jobs) > 1:
                self._side_by_side(jobs, deadline, answers)
            else:
                for lane, shipment in jobs:
                    self._through(lane, shipment, deadline, answers)
        except (KeyboardInterrupt, SystemExit) as interrupt:
            for lane, _ in jobs:
                if lane.name not in answers.results:
                    answers.failed(lane, interrupt)
            raise

    # One lane

    def _through(
        self, lane: Lane, shipment: Shipment, deadline: float, answers: Answers, run: _Run | None = None
    ) -> None:
        """One record through one lane, in this thread or, when another drives the lane, by that one."""
        waiting = Waiting(shipment.parcel if lane.name not in shipment.failed else None)

        def job() -> None:
            try:
                self._drive(lane, shipment, deadline, waiting, run)
            except SpoolError as error:
                waiting.result = waiting.result or _lost_sight(lane, error)
            self.answer(lane, shipment, waiting, answers)
            if run is not None and not run.finish(answers):
                self._settle_late(run, answers)

        if not lane.turns.drive(job, lane.target.timeout, waiting):
            self.answer(lane, shipment, waiting, answers)

    def _drive(self, lane: Lane, shipment: Shipment, deadline: float, waiting: Waiting, run: _Run | None) -> None:
        free = self._clear_the_way(lane, deadline, shipment.parcel)
        if run is not None:
            run.began = self._clock.now()
        if free and waiting.parcel is not None and lane.allows(waiting.parcel):
            lane.direct(lane.gathered(waiting))

    def answer(self, lane: Lane, shipment: Shipment, waiting: Waiting, answers: Answers) -> None:
        """The result for the sender; a record that is refused for good becomes a dead letter at once."""
        result = waiting.result
        if result is None:
            answers.failed(lane, shipment.failed.get(lane.name) or lane.queued())
            return
        answers.results[lane.name] = result
        if result.successful:
            lane.delivered += 1
        elif waiting.refused is not None and self._settings.saves:
            try:
                self._keeper.bury(lane.name, slice_of([shipment.parcel]), {0: waiting.refused})
            except SpoolError as error:  # then it is owed, if that finds room
                error.__cause__ = error.__cause__ or result.error
                answers.failed(lane, error)
            else:
                lane.dead += 1
                answers.dead.add(lane.name)
                lane.tell_dead(1, waiting.outcome)

    def _clear_the_way(self, lane: Lane, deadline: float, parcel: Parcel) -> bool:
        """Look after what is owed; whether a new record may be tried now."""
        if not lane.clear() and not self._settings.manual:
            return self.look_after(lane, deadline, (parcel.run, parcel.number))
        return lane.not_before <= self._clock.now()

    def look_after(self, lane: Lane, deadline: float, before: tuple[int, int] | None = None) -> bool:
        """Send what is owed, oldest first; whether a new record may be tried after it.

        Args:
            lane: Driven by the caller.
            deadline: `clock.now()` at which to stop.
            before: Id of the new record: those that were sent after it, from inside an exporter of this very send,
                wait for their turn.
        """
        if self._clock.now() < lane.not_before or not self.connected():
            return False
        self._keeper.expire()
        lane.begin_pass()
        while True:
            step = lane.step(before=before)
            if step is not Step.MORE:
                return step is Step.END and lane.lets_new_pass(before)
            if lane.blames_target():
                return False
            now = self._clock.now()
            if now < lane.not_before:
                return False
            if now >= deadline:
                return not lane.owed()

    def connected(self) -> bool:
        """The user's own verdict on the connection, asked at most once a second."""
        ask = self._settings.connectivity
        if ask is None:
            return True
        now = self._clock.now()
        if now - self._asked_at >= 1.0:
            self._asked_at = now
            self._verdict = bool(ask())
        return self._verdict

    # Side by side

    def _side_by_side(self, jobs: list[tuple[Lane, Shipment]], deadline: float, answers: Answers) -> None:
        """Run the lanes on the pool's threads, and wait until each has answered or is past its time."""
        workers = self._threads()
        runs = [_Run(lane, shipment) for lane, shipment in jobs]
        for run in runs:
            workers.run(functools.partial(self._on_thread, run, deadline))
        try:
            for run in runs:
                self._wait_for(run)
                self._take(run, answers)
        except (KeyboardInterrupt, SystemExit) as interrupt:
            for run in runs:
                self._take(run, answers, interrupt)
            raise
        interrupts = [run.interrupt for run in runs if run.interrupt is not None]
        if interrupts:
            raise interrupts[0]

    def _on_thread(self, run: _Run, deadline: float) -> None:
        mine = Answers()
        try:
            at_work(lambda: self._through(run.lane, run.shipment, deadline, mine, run))
        except (KeyboardInterrupt, SystemExit) as interrupt:
            run.interrupt = interrupt
        finally:
            run.finish(mine)
            run.done.set()

    def _wait_for(self, run: _Run) -> None:
        """Wait until a lane has answered, or is past its time."""
        clock, timeout = self._clock, run.lane.target.timeout
        ends = clock.now() + 2 * timeout + self._settings.budget
        while not run.done.wait(min(timeout, _GLANCE)):
            now = clock.now()
            if (run.began is not None and now - run.began >= timeout) or now >= ends:
                break

    def _take(self, run: _Run, answers: Answers, interrupt: BaseException | None = None) -> None:
        """Take over what a lane has answered; one that has not yet counts as failed, and settles for itself later."""
        lane, answered = run.lane, run.take()
        if answered is not None:
            answers.results.update(answered.results)
            answers.dead |= answered.dead
        else:
            answers.abandoned.append(run)
        if lane.name not in answers.results:
            late = TimeoutError(f"{lane.name} has not returned within {lane.target.timeout} s; the record is kept")
            answers.failed(lane, run.interrupt or interrupt or late)

    def _settle_late(self, run: _Run, answers: Answers) -> None:
        """The sender took the record for failed and kept it; what came of it after all is noted now."""
        lane, parcel = run.lane, run.shipment.parcel
        run.kept.wait(lane.target.timeout)
        if answers.results[lane.name].successful:
            lane.delivered -= 1
            lane.settle_number(parcel.run, parcel.number)

    def _threads(self) -> Workers:
        if self._workers is None:
            grace = max(lane.target.timeout for lane in self._lanes().values())
            self._workers = Workers(self._settings.num_threads, grace, self._clock, self._name)
        self._workers.limit = self._settings.num_threads
        return self._workers

    # Many, and what is kept

    def visit(self, names: Iterable[str], spool: Spool) -> dict[str, BaseException | None]:
        """Have lanes deliver what a spool of the caller's owes, behind what they owe already; the last errors."""
        deadline = self._clock.now() + self._settings.budget
        lanes = self._lanes()
        errors: dict[str, BaseException | None] = {}
        for lane in [lanes[name] for name in names if name in lanes]:
            errors[lane.name] = lane.queued()
            lane.turns.drive(functools.partial(self._visit, lane, spool, deadline, errors), lane.target.timeout)
        return errors

    def _visit(self, lane: Lane, spool: Spool, deadline: float, errors: dict[str, BaseException | None]) -> None:
        try:
            free = self._settings.manual or not lane.owed() or self.look_after(lane, deadline)
        except SpoolError as error:
            errors[lane.name] = _lost_sight(lane, error).error
            return
        if free:
            lane.visit(Source(spool, lane.name))
            errors[lane.name] = lane.last_error

    def passes(self, lanes: list[Lane], results: list[ExportResult] | None, ends: float | None = None) -> None:
        """Make a pass over what each lane owes, however long the pause should be."""
        self._keeper.expire(at_once=True)
        for lane in lanes:
            if lane.owed():
                lane.turns.drive(functools.partial(self._pass, lane, results, ends), lane.target.timeout)

    def _pass(self, lane: Lane, results: list[ExportResult] | None, ends: float | None) -> None:
        try:
            lane.begin_pass()
            while lane.step(results) is Step.MORE and (ends is None or self._clock.now() < ends):
                pass
        except SpoolError as error:
            result = _lost_sight(lane, error)
            if results is not None:
                results.append(result)

    def stop(self) -> None:
        """Start nothing more on the pool's threads."""
        if self._workers is not None:
            self._workers.stop()


def _lost_sight(lane: Lane, error: SpoolError) -> ExportResult:
    """The result of a lane whose spool fails while it looks after what is owed: its own trouble, no other lane's."""
    lane.last_error = error
    return ExportResult(None, False, error=error, exporter=lane.name)
