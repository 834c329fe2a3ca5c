"""The heart: takes records in, keeps what must be kept, and has lanes deliver it, from whichever threads there are."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from resilient_exporters.delivery.attempt import Delivered, Refused
from resilient_exporters.delivery.background import Background
from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.lane import Lane, Source, Step
from resilient_exporters.delivery.moving import copy_owed
from resilient_exporters.delivery.parcel import Parcel
from resilient_exporters.delivery.process import Birth, refuse_fork
from resilient_exporters.delivery.reentry import at_work
from resilient_exporters.delivery.target import Target
from resilient_exporters.delivery.workers import Workers
from resilient_exporters.exceptions import DataTypeError, PoolClosed, SpoolError, TimeoutError
from resilient_exporters.policies import Limits, Retry
from resilient_exporters.records import ExportResult
from resilient_exporters.spool.backed import BackedSpool
from resilient_exporters.spool.interface import Payload, Spool
from resilient_exporters.spool.memory import MemorySpool

__all__ = ["Engine", "Settings", "Shipment"]

_log = logging.getLogger("resilient_exporters")


@dataclass(slots=True)
class Settings:
    """What the user chose; the facade changes it, the engine obeys from the next call on.

    Args:
        num_threads: Exporters served at once, at least 1.
        waits: Whether `send` waits for results; without effect with one thread.
        manual: Whether what is kept goes out only on request.
        saves: Whether the pool keeps what a target did not take.
        budget: Seconds that a `send` in the caller's thread may spend on older records.
        connectivity: Asked before older records are tried, or None.
        sync: Whether what is kept is safe against a power cut when the call returns.
        retry: Pauses between attempts in the background.
        limits: How much is kept.
    """

    num_threads: int = 1
    waits: bool = True
    manual: bool = False
    saves: bool = True
    budget: float = 1.0
    connectivity: Callable[[], bool] | None = None
    sync: bool = False
    retry: Retry = field(default_factory=Retry)
    limits: Limits = field(default_factory=Limits)

    @property
    def background(self) -> bool:
        return self.num_threads > 1 and not self.waits


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


class _Answers:
    """What a send has learned so far.

    Attributes:
        results: By lane.
        dead: Lanes whose target refused the record for good.
        abandoned: Calls that go on although nobody waits for them any more.
    """

    def __init__(self) -> None:
        self.results: dict[str, ExportResult] = {}
        self.dead: set[str] = set()
        self.abandoned: list[_Run] = []


class _Run:
    """One lane's part of a send, on a thread of the pool.

    Attributes:
        began: `clock.now()` at which the record itself was tried, or None.
        done: Set when it is over.
        interrupt: What is to reach the caller, or None.
        kept: Set when a record that nobody waits for any more was kept, so that it can be settled.
    """

    def __init__(self, lane: Lane, shipment: Shipment) -> None:
        self.lane = lane
        self.shipment = shipment
        self.began: float | None = None
        self.done = threading.Event()
        self.interrupt: BaseException | None = None
        self.kept = threading.Event()
        self._lock = threading.Lock()
        self._answers: _Answers | None = None
        self.abandoned = False

    def finish(self, answers: _Answers) -> None:
        """It is over."""
        with self._lock:
            self._answers = answers
        self.done.set()

    def take(self) -> _Answers | None:
        """What came of it; None when it goes on, which from now on nobody waits for."""
        with self._lock:
            self.abandoned = self._answers is None
            return self._answers

    def abandoned_now(self) -> bool:
        """Whether nobody waits for it any more."""
        with self._lock:
            return self.abandoned


class Engine:
    """Delivers for one pool, or for one exporter alone.

    Lanes know the spool, nobody here knows the pool: so a pool that is dropped is collected at once.

    Args:
        name: The pool's.
        settings: Shared with the pool.
        spool: Where owed records wait.
        clock: Tells the time.
    """

    def __init__(self, name: str, settings: Settings, spool: Spool, clock: Clock) -> None:
        self.name = name
        self.settings = settings
        self.spool = spool
        self.clock = clock
        self.lanes: dict[str, Lane] = {}
        self.accepted = 0
        self.closed = False
        self._gate = threading.RLock()
        self._moving = False
        self._late: list[tuple[list[Parcel], frozenset[str]]] = []
        self._once = MemorySpool()
        self._background: Background | None = None
        self._workers: Workers | None = None
        self._asked = (-1.0, True)
        self._orphans_named: set[str] = set()
        self._orphans_looked_for = False
        self._born = Birth.now

    # Lanes

    def add(self, name: str, target: Target, brought: Sequence[Source] = ()) -> None:
        """Serve an exporter from now on.

        Args:
            name: Its lane.
            target: The exporter.
            brought: Spools with records that it owed before.
        """
        sources = [*brought, Source(self._once, name, once=True), Source(self.spool, name)]
        lane = Lane(name, target, sources, self.clock, self.settings.retry)
        self.lanes = {**self.lanes, name: lane}
        self._orphans_looked_for = False
        if self._background is not None:
            self._background.add(lane)

    def remove(self, name: str) -> None:
        """Serve an exporter no longer; what it owes stays."""
        self.lanes = {other: lane for other, lane in self.lanes.items() if other != name}
        if self._background is not None:
            self._background.remove(name)

    # Taking in

    def send(self, shipments: Sequence[Shipment], reentrant: bool) -> dict[str, ExportResult] | None:
        """Send records to their lanes; the results by lane, or None in background mode.

        Raises:
            SpoolError: The record was neither taken nor kept by anybody.
        """
        self.check_open()
        self._name_orphans()
        if self.settings.background:
            self._accept(shipments)
            return None
        answers = _Answers()
        if reentrant:
            answers.results = {name: self._waiting(name) for shipment in shipments for name in shipment.lanes}
        else:
            self._deliver(shipments, answers)
        try:
            self._keep_failed(shipments, answers)
        finally:
            for run in answers.abandoned:
                run.kept.set()
        return answers.results

    def parcel(self, payload: Payload, options: bytes, flags: int = 0) -> Parcel:
        """A new record with the next number."""
        spool = self.spool
        return Parcel(spool.run, spool.draw(), self.clock.time(), payload, options, flags)

    def save(self, parcel: Parcel, lanes: Iterable[str]) -> None:
        """Keep a record for lanes, whatever the settings say."""
        self.check_open()
        self._keep([parcel], frozenset(lanes))
        self._wake()

    def _waiting(self, name: str) -> ExportResult:
        lane = self.lanes[name]
        return ExportResult(None, False, error=lane.queued(), exporter=name)

    def _accept(self, shipments: Sequence[Shipment]) -> None:
        """Background: keep first, deliver later."""
        for shipment in shipments:
            if not shipment.lanes:
                continue
            parcel, lanes = shipment.parcel, frozenset(shipment.lanes)
            if self.settings.saves:
                self._keep([parcel], lanes)
            else:
                self._append(self._once, parcel, lanes)
        self.accepted += 1
        self._wake()

    def _wake(self) -> None:
        if self.settings.background:
            background = self._start_background()
            if background.asleep:
                background.wake()

    # Keeping

    def _keep_failed(self, shipments: Sequence[Shipment], answers: _Answers) -> None:
        """Keep each record once, for the lanes that do not have it."""
        trouble: SpoolError | None = None
        results = answers.results
        for shipment in shipments:
            owing = [r for name in shipment.lanes if not (r := results[name]).successful and name not in answers.dead]
            if not owing:
                continue
            if not self.settings.saves:
                self._drop(owing)
                continue
            try:
                self._keep([shipment.parcel], frozenset(str(result.exporter) for result in owing))
            except SpoolError as error:
                trouble = error
                for result in owing:
                    error.__cause__ = error.__cause__ or result.error
                    result.error = error
            else:
                for result in owing:
                    result.kept = True
        self.accepted += 1
        if trouble is not None and not any(result.successful or result.kept for result in results.values()):
            raise trouble

    def _drop(self, results: list[ExportResult]) -> None:
        for result in results:
            self.lanes[str(result.exporter)].dropped += 1

    def _keep(self, parcels: list[Parcel], lanes: frozenset[str]) -> None:
        """Append to the spool of the moment; during a switch made by this very thread, after it."""
        with self._gate:
            if self._moving:
                self._late.append((parcels, lanes))
                return
            for parcel in parcels:
                self._append(self.spool, parcel, lanes)

    def _append(self, spool: Spool, parcel: Parcel, lanes: frozenset[str]) -> None:
        spool.append(
            [parcel.payload],
            lanes,
            time=parcel.time,
            first=parcel.number,
            run=parcel.run,
            options=parcel.options,
            flags=parcel.flags,
            sync=self.settings.sync,
        )

    # Delivering in the caller's thread

    def _deliver(self, shipments: Sequence[Shipment], answers: _Answers) -> None:
        """Bring records to their lanes; an interrupt keeps them for the lanes that do not have them, and goes on."""
        deadline = self.clock.now() + self.settings.budget
        jobs = [(self.lanes[name], shipment) for shipment in shipments for name in shipment.lanes]
        try:
            if self.settings.num_threads > 1 and len(jobs) > 1:
                self._side_by_side(jobs, deadline, answers)
            else:
                for lane, shipment in jobs:
                    self._through(lane, shipment, deadline, answers)
        except (KeyboardInterrupt, SystemExit) as interrupt:
            for lane, _ in jobs:
                answers.results.setdefault(lane.name, ExportResult(None, False, error=interrupt, exporter=lane.name))
            self._keep_failed(shipments, answers)
            raise

    def _side_by_side(self, jobs: list[tuple[Lane, Shipment]], deadline: float, answers: _Answers) -> None:
        """Run the lanes on the pool's threads, and wait until each has answered or is past its time."""
        workers = self._start_workers()
        runs = [_Run(lane, shipment) for lane, shipment in jobs]
        for run in runs:
            workers.run(functools.partial(self._on_thread, run, deadline))
        for run in runs:
            self._wait_for(run, answers)
        interrupts = [run.interrupt for run in runs if run.interrupt is not None]
        if interrupts:
            raise interrupts[0]

    def _on_thread(self, run: _Run, deadline: float) -> None:
        mine = _Answers()
        try:
            with at_work:
                self._through(run.lane, run.shipment, deadline, mine, run)
        except (KeyboardInterrupt, SystemExit) as interrupt:
            run.interrupt = interrupt
        finally:
            run.finish(mine)

    def _wait_for(self, run: _Run, answers: _Answers) -> None:
        """Take over what a lane answered; one that is past its time counts as failed, and settles for itself later."""
        lane, timeout = run.lane, run.lane.target.timeout
        ends = self.clock.now() + timeout + self.settings.budget
        while not run.done.wait(min(timeout, 0.05) if run.began is None else timeout):
            began = run.began
            now = self.clock.now()
            if (began is not None and now - began >= timeout) or now >= ends:
                break
        answered = run.take()
        if answered is not None:
            answers.results.update(answered.results)
            answers.dead |= answered.dead
            if lane.name in answered.results:
                return
        error = run.interrupt or TimeoutError(f"{lane.name} has not returned within {timeout} s; the record is kept")
        answers.results[lane.name] = ExportResult(None, False, error=error, exporter=lane.name)
        if answered is None:
            answers.abandoned.append(run)

    def _through(
        self, lane: Lane, shipment: Shipment, deadline: float, answers: _Answers, run: _Run | None = None
    ) -> None:
        """One record through one lane: older ones first, then itself, unless it has to wait."""
        if not lane.enter(lane.target.timeout):
            answers.results[lane.name] = self._waiting(lane.name)
            return
        try:
            free = self._clear_the_way(lane, deadline, shipment.parcel)
            if run is not None:
                run.began = self.clock.now()
            if (failure := shipment.failed.get(lane.name)) is not None:
                answers.results[lane.name] = ExportResult(None, False, error=failure, exporter=lane.name)
            elif free:
                self._direct(lane, shipment.parcel, answers)
            else:
                answers.results[lane.name] = self._waiting(lane.name)
            if run is not None and run.abandoned_now():
                self._settle_late(run, answers)
        finally:
            lane.leave()

    def _settle_late(self, run: _Run, answers: _Answers) -> None:
        """The sender took the record for failed and kept it; what came of it after all is noted now."""
        lane, parcel = run.lane, run.shipment.parcel
        run.kept.wait(lane.target.timeout)
        if answers.results[lane.name].successful:
            lane.settle_number(parcel.run, parcel.number)

    def _clear_the_way(self, lane: Lane, deadline: float, parcel: Parcel) -> bool:
        """Look after what is owed; whether a new record may be tried now."""
        if lane.owed() and not self.settings.manual:
            return self._look_after(lane, deadline, parcel)
        return lane.not_before <= self.clock.now()

    def _direct(self, lane: Lane, parcel: Parcel, answers: _Answers) -> None:
        """Try a new record; one that is refused for good becomes a dead letter at once."""
        outcome, answers.results[lane.name] = lane.direct(parcel)
        if isinstance(outcome, Delivered):
            lane.delivered += 1
        elif isinstance(outcome, Refused) and outcome.permanent and self.settings.saves:
            with self._gate:
                self.spool.bury(lane.name, parcel.slice(), outcome.permanent, 1)
            lane.dead += 1
            answers.dead.add(lane.name)

    def _look_after(self, lane: Lane, deadline: float, parcel: Parcel) -> bool:
        """Send what is owed, oldest first; whether a new record may be tried after it.

        Records that were sent after this one, from inside an exporter of this very send, wait for their turn.
        """
        newest = (parcel.run, parcel.number)
        if self.clock.now() < lane.not_before or not self._connected():
            return False
        lane.begin_pass()
        while True:
            step = lane.step(before=newest)
            if step is not Step.MORE:
                return step is Step.END
            now = self.clock.now()
            if now < lane.not_before:
                return False
            if now >= deadline:
                return not lane.owed()

    def _connected(self) -> bool:
        """The user's own verdict on the connection, asked at most once a second."""
        ask = self.settings.connectivity
        if ask is None:
            return True
        at, verdict = self._asked
        now = self.clock.now()
        if at < 0 or now - at >= 1.0:
            verdict = bool(ask())
            self._asked = (now, verdict)
        return verdict

    # What is kept

    def send_unsent(self, names: Iterable[str] | None = None) -> list[ExportResult]:
        """Make a pass over what each lane owes, at once; one result per record attempted."""
        self.check_open()
        lanes = [lane for name, lane in self.lanes.items() if names is None or name in set(names)]
        if self.settings.background:
            return self._force(lanes)
        results: list[ExportResult] = []
        for lane in lanes:
            if not lane.owed() or not lane.enter(lane.target.timeout):
                continue
            try:
                lane.begin_pass()
                while lane.step(results) is Step.MORE:
                    pass
            finally:
                lane.leave()
        return results

    def _force(self, lanes: list[Lane]) -> list[ExportResult]:
        background = self._start_background()
        collected: list[list[ExportResult]] = [[] for _ in lanes]
        passes = [background.force(lane.name, results) for lane, results in zip(lanes, collected, strict=True)]
        for lane, done in zip(lanes, passes, strict=True):
            done.wait(lane.target.timeout)
        return [result for results in collected for result in list(results)]

    def owing(self) -> dict[str, int]:
        """Records owed, by lane; also lanes that nobody serves."""
        owed = {name: lane.owed() for name, lane in self.lanes.items()}
        for name in self.orphans():
            owed[name] = self.spool.account(name).records
        return {name: records for name, records in owed.items() if records}

    def flush(self, timeout: float | None) -> bool:
        """Deliver what can be delivered; whether nothing that a present exporter owes is left."""
        self.check_open()
        ends = None if timeout is None else self.clock.now() + timeout
        if not self.settings.background:
            return self._flush_here(ends)
        background = self._start_background()
        for lane in self.lanes.values():
            if lane.owed():
                background.force(lane.name, [])
        with background.progress:
            while any(lane.owed() for lane in self.lanes.values()):
                left = None if ends is None else ends - self.clock.now()
                if left is not None and left <= 0:
                    return False
                background.progress.wait(left)
        return True

    def _flush_here(self, ends: float | None) -> bool:
        for lane in self.lanes.values():
            if not lane.owed() or not lane.enter(lane.target.timeout):
                continue
            try:
                lane.begin_pass()
                while lane.step() is Step.MORE and (ends is None or self.clock.now() < ends):
                    pass
            finally:
                lane.leave()
        return not any(lane.owed() for lane in self.lanes.values())

    def _name_orphans(self) -> None:
        """Say once which records belong to exporters that are not here."""
        if self._orphans_looked_for:
            return
        self._orphans_looked_for = True
        for name in self.orphans():
            if name not in self._orphans_named:
                self._orphans_named.add(name)
                _log.warning(
                    "orphans pool=%s exporter=%s owed=%d: they wait for an exporter of that name",
                    self.name,
                    name,
                    self.spool.account(name).records,
                )

    def orphans(self) -> list[str]:
        """Lanes that owe records and that nobody serves."""
        return [name for name in self.spool.owing() if name not in self.lanes]

    # Memory and file

    def switch(self, new: Spool) -> None:
        """Carry all that is owed into another spool and go on there.

        Args:
            new: The spool to use from now on; a `BackedSpool` keeps the old one behind it.

        Raises:
            SpoolError: It could not take everything: nothing has changed.
            DataTypeError: Something kept in memory cannot be written to a file: nothing has changed.
        """
        with self._standing_still() as lanes:
            self._carry(new, lanes)

    def _carry(self, new: Spool, lanes: list[Lane]) -> None:
        old, start = self.spool, new.next_place
        try:
            places = copy_owed(old, new, check=None if isinstance(new, MemorySpool) else _bytes_only)
        except BaseException:
            new.undo_appends()
            raise
        moved = {place: start + i for i, place in enumerate(places)}
        if isinstance(new, BackedSpool):
            new.loaded(places)
        self._adopt(old, new, moved, lanes)
        if not isinstance(new, BackedSpool):
            old.close()

    def switch_back(self) -> None:
        """Go on in the file that a `BackedSpool` has behind it: append to it what it does not hold.

        Raises:
            SpoolError, DataTypeError: As for `switch`.
        """
        with self._standing_still() as lanes:
            old = self.spool
            assert isinstance(old, BackedSpool)
            file, loaded = old.file, old.places
            start = file.next_place
            try:
                places = copy_owed(old, file, after=len(loaded), check=_bytes_only)
            except BaseException:
                file.undo_appends()
                raise
            moved = {i + 1: place for i, place in enumerate(loaded)} | {p: start + i for i, p in enumerate(places)}
            self._adopt(old, file, moved, lanes)

    def _adopt(self, old: Spool, new: Spool, moved: dict[int, int], lanes: list[Lane]) -> None:
        for lane in lanes:
            lane.move(old, new, moved)
        self.spool = new
        self._orphans_looked_for = False

    @contextmanager
    def _standing_still(self) -> Iterator[list[Lane]]:
        """Nothing is appended, read or settled meanwhile; calls into exporters go on."""
        with self._gate:
            self._moving = True
            lanes = list(self.lanes.values())
            for lane in lanes:
                lane.mutex.acquire()
            try:
                yield lanes
            finally:
                for lane in lanes:
                    lane.mutex.release()
                self._moving = False
                late, self._late = self._late, []
                for parcels, names in late:
                    self._keep(parcels, names)

    # Threads

    def _start_background(self) -> Background:
        background = self._background
        if background is None:
            with self._gate:
                background = self._background
                if background is None:
                    background = Background(self.settings.num_threads, self.clock, self.name)
                    background.manual = self.settings.manual
                    background.connected = self._connected
                    for lane in self.lanes.values():
                        background.add(lane)
                    self._background = background
        background.workers.limit = self.settings.num_threads
        background.manual = self.settings.manual
        return background

    def _start_workers(self) -> Workers:
        if self._workers is None:
            grace = max(lane.target.timeout for lane in self.lanes.values())
            self._workers = Workers(self.settings.num_threads, grace, self.clock, self.name)
        self._workers.limit = self.settings.num_threads
        return self._workers

    def _stop_threads(self) -> None:
        if self._workers is not None:
            self._workers.stop()
        if self._background is not None:
            self._background.workers.stop()

    # The end

    def check_open(self) -> None:
        """Raise PoolClosed after `close`, PoolForked in a forked child."""
        if self._born is not Birth.now:
            refuse_fork(self.name)
        if self.closed:
            raise PoolClosed(f"{self.name} was closed; make a new pool")

    def ours(self) -> bool:
        """Whether it was made in this process, and not in the one that this was forked from."""
        return self._born is Birth.now

    def release(self) -> Spool:
        """Stop, without letting go of what is kept: another engine goes on with it."""
        self.closed = True
        self._stop_threads()
        for lane in self.lanes.values():
            if lane.lock.acquire(timeout=lane.target.timeout):
                lane.lock.release()
        return self.spool

    def bring(self, spool: Spool, renamed: Callable[[str], str]) -> bool:
        """Take over what a memory spool owes, behind what is kept here; False when it must be read in place."""
        if not isinstance(spool, MemorySpool) or isinstance(spool, BackedSpool) or any(True for _ in spool.dead_letters()):
            return False
        with self._gate:
            try:
                copy_owed(spool, self.spool, renamed, None if isinstance(self.spool, MemorySpool) else _bytes_only)
            except (DataTypeError, SpoolError):
                self.spool.undo_appends()
                return False
        spool.close()
        return True

    def close(self, timeout: float) -> int:
        """Deliver in the background for a while, then let go of everything; how many records stay in memory only."""
        if self.closed:
            return 0
        if self.settings.background and not self.settings.manual and self.owing():
            self.flush(timeout)
        self.closed = True
        self._stop_threads()
        left = sum(self.owing().values()) if isinstance(self.spool, MemorySpool) else 0
        for spool in {id(s.spool): s.spool for lane in self.lanes.values() for s in lane.sources}.values():
            spool.close()
        self.spool.close()
        return left


def _bytes_only(payload: Payload) -> Payload:
    if isinstance(payload, bytes):
        return payload
    raise DataTypeError(
        f"use_memory cannot be switched off: a kept record of type {type(payload.data).__name__} cannot be written to a file;"
        " convert it in `transform=`, or deliver it first"
    )
