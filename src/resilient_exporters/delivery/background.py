"""Drives lanes from worker threads: when each is to run next, and who waits for it."""

from __future__ import annotations

import logging
import math
import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.lane import Lane, Step
from resilient_exporters.delivery.settings import Settings
from resilient_exporters.delivery.workers import MOMENT, Workers
from resilient_exporters.exceptions import PoolClosed
from resilient_exporters.records import ExportResult

__all__ = ["Background"]

_log = logging.getLogger("resilient_exporters")

_GRACE = 1.0
"""Seconds; a call that runs longer no longer counts against the number of threads."""
_ASK_AGAIN = 1.0
"""Seconds after which the user's `connectivity` is asked again."""
_AFTER_A_DEFECT = 5.0
"""Seconds for which a lane rests after an error that should not have happened."""
_SOONER = 0.001
"""Seconds by which a turn must come sooner to be planned anew."""
_TURN = 0.05
"""Seconds a lane may keep its thread while others wait."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class _Seat:
    """A lane's place in the background: when it runs, and what is asked of its next run.

    Attributes:
        idle: Whether nothing is planned: new records must wake it.
        running: Whether a thread is in it.
        busy: Whether its last run found something to try.
        lingers: Whether it looks again in a moment, for what is sent meanwhile; nobody needs to wake it.
        again: Whether it was woken while it ran.
        forced: Whether the next run starts a pass, however long the pause should be.
        retry_at: `clock.now()` of the next pass over what was left behind; 0 = nothing was.
        blocked: Whether nothing may be tried before `retry_at`.
        held_back: Whether the target's rate allows nothing before the next turn, whatever arrives.
        planned: `clock.now()` of the next turn; infinite when there is none.
        passing: Whether a pass over what was left behind is under way.
        anew: Whether new records begin a pass, because nothing was taken since the last failure.
        ticket: Counts plans, so that an old one is known when its time comes.
        watched: Whether somebody will look whether its call is over in time.
        collecting: Lists that get the results of the next pass, with the event that tells its end.
    """

    lane: Lane
    idle: bool = True
    running: bool = False
    busy: bool = False
    lingers: bool = False
    again: bool = False
    forced: bool = False
    retry_at: float = 0.0
    blocked: bool = False
    held_back: bool = False
    planned: float = math.inf
    ticket: int = 0
    passing: bool = False
    anew: bool = False
    watched: bool = False
    collecting: list[tuple[list[ExportResult], threading.Event]] = field(default_factory=list)


class Background:
    """Runs lanes on up to `limit` threads.

    Args:
        settings: What the user chose; up to `num_threads` calls into exporters run at once, those older than a second
            not counted.
        clock: Tells the time.
        name: The pool's, for the threads' names.
        expire: Drops what has outlived its time.
        lanes: Those to serve from the first `wake` on.
    """

    def __init__(
        self, settings: Settings, clock: Clock, name: str, expire: Callable[[], None], lanes: Iterable[Lane] = ()
    ) -> None:
        self.workers = Workers(settings.num_threads, _GRACE, clock, name)
        self._settings = settings
        self._expire = expire
        self.asleep = True
        """Whether some lane is idle, so that a record just kept must wake it. Read without a lock."""
        self.connected: Callable[[], bool] = lambda: True
        self._stepping = threading.RLock()
        self.progress = threading.Condition(self._stepping)
        """Notified whenever a lane has made a step or comes to rest."""
        self._clock = clock
        self._lock = threading.RLock()  # a signal handler may send while its thread is in here
        self._seats = {lane.name: _Seat(lane) for lane in lanes}

    def add(self, lane: Lane) -> None:
        """Serve a lane from now on; one that is served already goes on as it was."""
        with self._lock:
            seat = self._seats.get(lane.name)
            if seat is None or seat.lane is not lane:
                self._seats[lane.name] = _Seat(lane)
            self.asleep = True
        self.wake()

    def remove(self, name: str) -> None:
        """Serve a lane no longer; who waits for a pass of it, or for all to be delivered, waits no longer for it."""
        with self._lock:
            seat = self._seats.pop(name, None)
            for _, done in seat.collecting if seat is not None else ():
                done.set()
        with self._stepping:
            self.progress.notify_all()

    def wake(self) -> None:
        """There may be something to do for idle lanes; an interrupt (Ctrl-C) reaches the caller when they know."""
        try:
            self._wake()
        except BaseException:
            self._wake()
            raise

    def _wake(self) -> None:
        with self._lock:
            for seat in self._seats.values():
                if seat.running:
                    seat.again = True
                elif seat.idle:
                    self._wake_locked(seat)
            self.asleep = any(seat.idle for seat in self._seats.values())

    def _wake_locked(self, seat: _Seat) -> None:
        """Plan an idle lane's turn; one that gathers a batch stays idle, so that each record may complete it."""
        left = seat.lane.left_to_fill()
        if left <= 0.0:
            self._plan_locked(seat, 0.0)
            return
        at = self._clock.now() + left
        if at < seat.planned - _SOONER:
            self._plan_locked(seat, at)
            seat.idle = True

    def force(self, name: str, results: list[ExportResult]) -> threading.Event:
        """Have a lane make a pass at once; the event is set when it is over."""
        done = threading.Event()
        with self._lock:
            seat = self._seats.get(name)
            if seat is None:  # it was removed
                done.set()
                return done
            seat.collecting.append((results, done))
            seat.forced = seat.again = True
            if not seat.running:
                self._plan_locked(seat, 0.0)
        return done

    def passes(self, lanes: list[Lane]) -> list[ExportResult]:
        """Have lanes make a pass at once, and wait for all, for a hung one as long as one attempt may take."""
        collected: list[list[ExportResult]] = [[] for _ in lanes]
        events = [self.force(lane.name, results) for lane, results in zip(lanes, collected, strict=True)]
        for lane, done in zip(lanes, events, strict=True):
            done.wait(lane.target.timeout)
        return [result for results in collected for result in list(results)]

    def drain(self, lanes: list[Lane], ends: float | None) -> bool:
        """Have lanes try at once, and wait until nothing is owed; False when the time is over before."""
        for lane in lanes:
            if lane.owed():
                self.force(lane.name, [])
        with self._stepping:
            while any((lane.owed() or lane.changes & 1) and not lane.turns.retired for lane in lanes):
                left = None if ends is None else ends - self._clock.now()
                if left is not None and left <= 0:
                    return False
                self.progress.wait(left)
        return True

    def next_attempt(self, name: str) -> float | None:
        """Seconds until the lane's next planned pass, or until its target's rate allows more; None = neither."""
        seat = self._seats.get(name)
        if seat is None:
            return None
        at = seat.retry_at or (seat.planned if seat.held_back else math.inf)
        return None if at == math.inf else max(at - self._clock.now(), 0.0)

    def hurry(self) -> None:
        """Somebody waits for what was just sent: lanes that linger look now."""
        with self._lock:
            for seat in self._seats.values():
                if seat.lingers:
                    self._plan_locked(seat, 0.0)

    def _plan_locked(self, seat: _Seat, at: float) -> None:
        self.workers.run(self._next_run_locked(seat), at)
        # Last: whoever is interrupted before leaves a lane that the next one wakes.
        seat.planned = at
        seat.idle = seat.lingers = False

    def _linger_locked(self, seat: _Seat) -> None:
        """Plan a look in a moment: who sends all the time would else wake the lane for each record."""
        seat.idle, seat.lingers = False, True
        self.workers.soon(self._next_run_locked(seat))

    def _next_run_locked(self, seat: _Seat) -> Callable[[], None]:
        """The lane's next run, in the place of the one that was planned; a plan does not keep a removed lane alive."""
        seat.ticket += 1
        ticket, planned_for = seat.ticket, weakref.ref(seat)
        return lambda: self._run(planned_for(), ticket)

    def _run(self, seat: _Seat | None, ticket: int) -> None:
        """One turn of a lane on a worker thread."""
        with self._lock:
            if seat is None or seat.ticket != ticket or seat.running or self._seats.get(seat.lane.name) is not seat:
                return
            seat.running, seat.again, seat.held_back, seat.planned = True, False, False, math.inf
            seat.busy = seat.lingers = False
            collecting = seat.collecting
            seat.collecting = []
            forced, seat.forced = seat.forced, False
        self._watch(seat)
        rest: float | None = _AFTER_A_DEFECT
        try:
            rest = self._turn(seat, forced, [results for results, _ in collecting])
        except PoolClosed:
            _log.info("call_outlived_pool exporter=%s: what it had in hand stays kept", seat.lane.name)
        except BaseException:  # a defect of this library, or of a spool: the lane goes on, but not in a tight loop
            _log.exception("lane_failed exporter=%s: it is tried again in %s s", seat.lane.name, _AFTER_A_DEFECT)
            seat.blocked, seat.retry_at = True, self._clock.now() + _AFTER_A_DEFECT
        finally:
            for _, done in collecting:
                done.set()
            self._rest(seat, rest)
            with self._stepping:
                self.progress.notify_all()

    def _rest(self, seat: _Seat, rest: float | None) -> None:
        """Plan the lane's next turn: `rest` seconds from now, or when something new arrives.

        A lane that had something to do comes to rest only after it has looked once more, a moment later. A record kept
        before `asleep` was set woke nobody; so the lane looks once more after it was.
        """
        with self._lock:
            seat.running = False
            if seat.forced or (seat.again and rest is None) or (seat.again and not (seat.blocked or seat.held_back)):
                rest = 0.0
            if self._may_linger(seat, rest):
                self._linger_locked(seat)
                return
            if rest is not None:
                self._plan_locked(seat, self._clock.now() + rest if rest else 0.0)
            rests = rest is None or (not (seat.blocked or seat.held_back) and rest > 0)
            if rests:
                seat.idle = self.asleep = True
        if rests and seat.lane.more():
            self.wake()

    @staticmethod
    def _may_linger(seat: _Seat, rest: float | None) -> bool:
        """Whether only new records can give the lane something to do within a moment, and they may well come."""
        waits = seat.blocked or seat.held_back or seat.anew
        return seat.busy and not waits and (rest is None or rest > MOMENT)

    def _turn(self, seat: _Seat, forced: bool, lists: list[list[ExportResult]]) -> float | None:
        """Step the lane until it must wait; the seconds it must, or None for until something new arrives."""
        lane = seat.lane
        if not forced and self._is_cut_off(lane):
            return _ASK_AGAIN
        rest: list[float | None] = []
        lane.turns.drive(lambda: rest.append(self._drive(seat, forced, lists)), lane.target.timeout)
        return rest[0] if rest else lane.target.timeout

    def _is_cut_off(self, lane: Lane) -> bool:
        """Whether the user says that there is no connection, and the lane owes what would have to wait for one."""
        if self._settings.manual or self._settings.connectivity is None:
            return False
        return lane.owes_tried() and not self.connected()

    def _drive(self, seat: _Seat, forced: bool, lists: list[list[ExportResult]]) -> float | None:
        lane = seat.lane
        self._expire()
        if self._settings.manual:
            return self._turn_by_hand(seat, forced, lists)
        now = self._clock.now()
        if forced or (seat.retry_at and now >= seat.retry_at):
            lane.begin_pass()
            seat.retry_at, seat.blocked, seat.passing = 0.0, False, True
        elif seat.blocked:
            return max(seat.retry_at - now, 0.0)
        elif seat.anew:  # the target may be back: then the oldest goes first, not the record that woke us
            if now < lane.not_before:
                return lane.not_before - now
            lane.begin_pass()
            seat.passing = True
        return self._steps(seat, lists, now + _TURN)

    def _steps(self, seat: _Seat, lists: list[list[ExportResult]], ends: float) -> float | None:
        """Go on with the pass, or with what is new; the first failure of a new record ends that until the next pass."""
        lane = seat.lane
        while True:
            if not seat.passing and (left := lane.left_to_fill()) > 0.0:
                return min(left, max(seat.retry_at - self._clock.now(), 0.001)) if seat.retry_at else left
            step = self._step(lane, lists)
            if step is Step.WAIT:
                return self._hold_back(seat)
            seat.busy |= step is Step.MORE
            if step is Step.MORE and lane.failing and not (seat.passing and (lists or not lane.blames_target())):
                step = Step.STOP
            if step is not Step.MORE:
                seat.passing = False
                return self._pass_over(seat, step)
            if not (lists or seat.passing) and lane.caught_up and lane.target.batches:
                return None  # what has come meanwhile is little: in a moment it is more, and still one batch
            if not lists and self._clock.now() >= ends:
                with self._stepping:
                    self.progress.notify_all()
                return 0.0

    def _step(self, lane: Lane, lists: list[list[ExportResult]]) -> Step:
        collected: list[ExportResult] | None = [] if lists else None
        try:
            step = lane.step(collected)
        except (KeyboardInterrupt, SystemExit) as interrupt:  # there is no caller to reach: a failure like any other
            lane.interrupted(interrupt)
            return Step.STOP
        for results in lists:
            results.extend(collected or ())
        return step

    def _hold_back(self, seat: _Seat) -> float:
        """Let the lane rest until its target's rate allows a batch; how many seconds that is."""
        seat.held_back = True
        throttle = seat.lane.throttle
        assert throttle is not None
        return max(throttle.wait(self._clock.now()), 0.001)

    def _turn_by_hand(self, seat: _Seat, forced: bool, lists: list[list[ExportResult]]) -> float | None:
        """By hand: a pass when somebody asked for one; otherwise one attempt at each new record."""
        lane = seat.lane
        if forced:
            lane.begin_pass()
            while self._step(lane, lists) is Step.MORE:
                pass
        lane.go_on_with_new()
        while (step := self._step(lane, lists)) is not Step.END:
            seat.busy = True
            if step is Step.WAIT:
                return self._hold_back(seat)
            if step is Step.STOP or lane.failing:
                lane.pass_by()
        return None

    def _pass_over(self, seat: _Seat, step: Step) -> float | None:
        """What was left behind is tried again after a pause; what is new need not wait unless the target is down."""
        lane = seat.lane
        if step is Step.END and not lane.owed():
            seat.retry_at, seat.blocked, seat.anew = 0.0, False, False
            return None
        seat.blocked = step is Step.STOP
        seat.anew = lane.failing
        if not seat.retry_at:
            seat.retry_at = self._clock.now() + lane.backoff()
        return max(seat.retry_at - self._clock.now(), 0.001)

    def _watch(self, seat: _Seat) -> None:
        """Have somebody look whether the lane's call is over in time; one look per lane is planned at most."""
        if not seat.watched:
            seat.watched = True
            self._look_at(seat, self._clock.now() + seat.lane.target.timeout)

    def _look_at(self, seat: _Seat, at: float) -> None:
        watched = weakref.ref(seat)
        self.workers.run(lambda: self._look(watched()), at)

    def _look(self, seat: _Seat | None) -> None:
        """Report a call that runs longer than one attempt may."""
        if seat is None:
            return
        since, timeout, now = seat.lane.since, seat.lane.target.timeout, self._clock.now()
        if since is None or not seat.running:
            seat.watched = False
            return
        if now - since < timeout:
            self._look_at(seat, since + timeout)
            return
        seat.watched = False
        seat.lane.news.stuck(timeout)
