"""One exporter's way through the log: what it owes next, one attempt at a time, and what that meant."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Literal

from resilient_exporters.delivery.attempt import (
    Again,
    Delivered,
    Hold,
    Outcome,
    Refused,
    attempt,
    bare,
    described,
)
from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.events import Events
from resilient_exporters.delivery.guard import Guard
from resilient_exporters.delivery.parcel import Parcel, batch_of, slice_of
from resilient_exporters.delivery.sharing import Shared
from resilient_exporters.delivery.target import Target
from resilient_exporters.delivery.throttle import Throttle
from resilient_exporters.delivery.turns import Turns, Waiting
from resilient_exporters.exceptions import Queued, SpoolError
from resilient_exporters.policies import Retry
from resilient_exporters.records import ExportResult
from resilient_exporters.spool.block import size_of
from resilient_exporters.spool.interface import Fate, Flag, Slice, Spool
from resilient_exporters.status import EventName

__all__ = ["Lane", "Source", "Step"]

_log = logging.getLogger("resilient_exporters")

_FAILURES_END_A_PASS = 10
"""So many failures in a row, and a pass has learned enough: n bad records cost n/10 passes."""
_UNKNOWN_MEANS_DOWN = 3
"""A batch that fails so often for a reason unknown may hold a bad record: only then it is taken apart."""
_SLOW_FAILURE = 0.01
"""Seconds; a failure that took less is cheap enough to be tried again at each send."""
_PACE, _PACE_CAP = 10.0, 30.0
"""After a slow failure of t seconds the caller's thread tries again `_PACE` x t later, at most `_PACE_CAP` seconds."""


_QUIET = 60.0
"""Seconds in which a target that comes and goes, or one bad record between good ones, is announced once."""


class Step(Enum):
    """What one step of a lane found."""

    MORE = auto()
    """A batch was tried; go on."""
    END = auto()
    """Everything owed has been tried."""
    STOP = auto()
    """The target is down, held, or failed too often in a row."""
    WAIT = auto()
    """The target's rate does not allow more now."""


@dataclass(frozen=True, slots=True)
class Source:
    """A spool that a lane is owed records from, and the name it has there.

    Args:
        once: Whether a record is dropped after its first attempt, whatever came of it.
        brought: Whether the exporter brought it along when it joined: it is let go of when it is empty.
    """

    spool: Spool
    lane: str
    once: bool = False
    brought: bool = False


class Lane:
    """Drives one exporter. Whoever has its turn may call the methods; one batch is in flight, always.

    A *pass* tries what is owed, oldest first. When the oldest fails without saying who is to blame, the pass goes
    on behind the records tried in vain since the last success; ten failures in a row end it. A success there tells
    that the target is up: then the pass goes back in the end to those it had passed by.
    """

    def __init__(
        self,
        name: str,
        target: Target,
        sources: list[Source],
        clock: Clock,
        retry: Retry,
        *,
        events: Events | None = None,
        shared: Shared | None = None,
        on_settled: Callable[[Lane, Slice, list[ExportResult]], None] | None = None,
    ) -> None:
        self.name = name
        self.target = target
        self.sources = sources
        self.turns = Turns()
        self.mutex = threading.Lock()
        """Held while the lane is at its spool, never during a call: the spools stay what they are meanwhile."""
        self.delivered = self.dead = self.dropped = 0
        self.last_error: BaseException | None = None
        self.since: float | None = None
        """`clock.now()` at which the call into the exporter began that runs now."""
        self.state: Literal["up", "down", "held"] = "up"
        self.not_before = 0.0
        """`clock.now()` before which the caller's thread does not try again."""
        self.misses = 0
        """Failures in a row, passes included."""
        self.on_settled = on_settled
        self.events = events or Events("", clock)
        self.shared = shared or Shared()
        self.throttle = None if target.rate is None else Throttle(target.rate, clock.now())
        self._clock = clock
        self._retry = retry
        self._guard = Guard()
        self._clear_at: list[int] = []
        self._alone: set[tuple[int, int]] = set()
        """Run and number of new records whose first attempt left a stable target in doubt: it knows each as a batch."""
        self._buried = 0
        """Dead letters of the step under way, to be told when the mutex is free."""
        self._said: dict[str, float] = {}
        self._loud = False
        self._after = 0
        self._tried = 0
        self._jumped: int | None = None
        self._overtaken = 0
        """Highest place that a success has passed: what is owed up to there is out of its order already."""
        self._won = False
        self._failures = 0
        self._limit = target.batch_records
        self._pinned: Slice | None = None
        self._at: Source | None = None
        self._only: Source | None = None
        self.changes = 0
        """Odd while records are being settled and counted: who reads several counters reads them again then."""
        self.seen = sources[-1].spool.next_place - 1
        """Place up to which records have had their first attempt, or were there before this lane."""
        self._flight: tuple[Source, Slice | None] = (sources[-1], None)

    # What is owed

    def owed(self) -> int:
        """Records that wait for this exporter."""
        return sum(source.spool.account(source.lane).records for source in self.sources)

    def clear(self) -> bool:
        """Whether nothing waits; when nothing was kept since the last time, by a single comparison."""
        ends = [source.spool.next_place for source in self.sources]
        if ends == self._clear_at:
            return True
        if self.owed():
            return False
        self._clear_at = ends
        return True

    def queued(self) -> Queued:
        """The verdict on a new record that has to wait, with the last failure as its cause."""
        verdict = Queued(self.owed())
        verdict.__cause__ = self.last_error
        return verdict

    @property
    def failing(self) -> bool:
        """Whether the last attempt of the pass failed."""
        return self._failures > 0

    def blames_target(self) -> bool:
        """Whether what just failed has been overtaken by nothing, and failed so rarely that the target may be down."""
        return 0 < self._failures and self.misses <= _UNKNOWN_MEANS_DOWN and self._after > self._overtaken

    def lets_new_pass(self, before: tuple[int, int] | None) -> bool:
        """Whether order lets a new record go after a pass: all that is still owed has been overtaken anyway.

        Args:
            before: The new record's run and number; what is owed of its run and is not older does not count.
        """
        with self.mutex:
            for source in self.sources:
                kept = source.spool.read(source.lane, self._overtaken if source is self._at else 0, 1, 1)
                if kept is not None and (before is None or kept.run != before[0] or kept.numbers[0] < before[1]):
                    return False
        return True

    def go_on_behind(self, place: int) -> None:
        """Go on with what was kept after a place, after a pass that somebody asked for."""
        with self.mutex:
            self._at, self._after, self._pinned = self.sources[-1], place, None

    def pass_by(self) -> None:
        """Do not try again what just failed."""
        with self.mutex:
            _, kept = self._flight
            if kept is not None:
                self._after, self._pinned, self._failures = kept.places[-1], None, 0

    def allows(self, parcel: Parcel) -> bool:
        """Whether the target's rate allows to try a new record now."""
        return self.throttle is None or self.throttle.fits(size_of((parcel.payload,)), self._clock.now())

    def left_to_fill(self) -> float:
        """Seconds for which what is owed may still wait for more, to fill a batch."""
        age = self.target.batch_age
        if age <= 0.0 or not self.target.batches:
            return 0.0
        accounts = [source.spool.account(source.lane) for source in self.sources]
        since = [account.oldest for account in accounts if account.oldest is not None]
        full = sum(account.records for account in accounts) >= self.target.batch_records
        if full or not since or sum(account.bytes for account in accounts) >= self.target.batch_bytes:
            return 0.0
        return min(max(min(since) + age - self._clock.time(), 0.0), age)

    # A pass over what is owed

    def begin_pass(self) -> None:
        """Start again at the oldest record."""
        self._after = 0
        self._failures = 0
        self._jumped = None
        with self.mutex:
            if self.target.stable and self._pinned is None and self._at is not None:
                self._pinned = self._recalled(self._at)

    def step(self, results: list[ExportResult] | None = None, before: tuple[int, int] | None = None) -> Step:
        """Read one batch, attempt it, settle what came of it.

        Args:
            results: Gets one result per record.
            before: Run and number of a record: of its run, only older ones are tried.
        """
        with self.mutex:
            source, kept = self._flight = self._next()
            if kept is None and self._turn_back():
                source, kept = self._flight = self._next()
            if kept is not None and before is not None and kept.run == before[0] and kept is not self._pinned:
                kept = _older(kept, before[1])
                self._flight = source, kept
            wait = self.throttle is not None and self.throttle.wait(self._clock.now()) > 0.0
            if kept is not None and self.target.stable and kept is not self._pinned and not wait:
                source.spool.pin(source.lane, kept.places)
        if kept is None:
            return Step.END
        if wait:
            return Step.WAIT
        tries = self.misses + 1
        outcome = self._attempt(kept)
        with self.mutex:
            source, _ = self._flight
            try:
                self.changes += 1
                self._settle(source, kept, outcome, tries)
            finally:
                self.changes += 1
            step = self._advance(kept, outcome)
        if self._buried:
            buried, self._buried = self._buried, 0
            self.tell_dead(buried, outcome)
        if results is not None or self.on_settled is not None:
            self._report(kept, outcome, source, results)
        return step

    def interrupted(self, interrupt: BaseException) -> None:
        """Take an interrupt that ended a step for a failure of the target."""
        self._down(Again(bare(interrupt), down=True), 0.0)

    def settle_number(self, run: int, number: int) -> None:
        """Settle a kept record by its id, as delivered."""
        with self.mutex:
            for source in self.sources:
                kept = source.spool.read(source.lane, 0, self.target.batch_records, self.target.batch_bytes)
                while kept is not None:
                    if kept.run == run and number in kept.numbers:
                        place = kept.places[kept.numbers.index(number)]
                        source.spool.settle(source.lane, [place], Fate.DELIVERED)
                        self.delivered += 1
                        return
                    kept = source.spool.read(
                        source.lane, kept.places[-1], self.target.batch_records, self.target.batch_bytes
                    )

    def move(self, old: Spool, new: Spool, moved: dict[int, int]) -> None:
        """Go on in another spool, into which the records of the old one were carried; needs `mutex`.

        Args:
            old: The spool that is given up.
            new: The one that has its records now.
            moved: Place there for a place here.
        """
        source, kept = self._flight
        self.sources = [replace(s, spool=new) if s.spool is old else s for s in self.sources]
        self._clear_at = []
        self.seen = new.next_place - 1
        if self._only is None:
            self._after = self._tried = self._overtaken = 0
        if kept is not None and source.spool is old:
            kept.places = [moved.get(place, 0) for place in kept.places]
            self._flight = (replace(source, spool=new), kept)
            if self.target.stable and 0 not in kept.places:
                new.pin(source.lane, kept.places)
        if self._only is None:
            self._at = next((s for s in self.sources if s.lane == source.lane and s.spool is new), None)

    def more(self) -> bool:
        """Whether something is owed that this pass has not tried; False when another thread is in the lane."""
        if not self.turns.is_free():
            return False
        with self.mutex:
            return self._next()[1] is not None

    def _next(self) -> tuple[Source, Slice | None]:
        """The batch in doubt if there is one, else the next of the first source that holds something."""
        for source in self.sources if self._only is None else [self._only]:
            kept = self._pinned if source is self._at else self._recalled(source)
            pinned, kept = kept, kept or self._read(source, self._after if source is self._at else 0)
            if kept is not None or source.spool.account(source.lane).records:
                if source is not self._at:
                    self._at, self._after, self._tried, self._overtaken, self._pinned = source, 0, 0, 0, pinned
                return source, kept
            if source.brought:
                self._drained(source)
        return self.sources[-1], None

    def _recalled(self, source: Source) -> Slice | None:
        """The batch that was in doubt when the target was last tried, maybe by another process."""
        places = source.spool.pinned(source.lane) if self.target.stable else None
        if not places:
            return None
        kept = source.spool.read(source.lane, places[0] - 1, len(places), sys.maxsize)
        return kept if kept is not None and [*kept.places] == places else None

    def _read(self, source: Source, after: int) -> Slice | None:
        size, batch_bytes = self._size(), self.target.batch_bytes
        if self.throttle is not None:
            records, most = self.throttle.room(self._clock.now())
            size, batch_bytes = min(size, records), min(batch_bytes, most)
        kept = source.spool.read(source.lane, after, size, batch_bytes)
        if kept is not None and kept.flags & Flag.BUNDLED and len(kept) > 1:
            return source.spool.read(source.lane, after, 1, 1)
        if kept is None:
            return None
        return self._as_tried(kept) if self._alone else _first_of(kept, self.shared.aligned(kept))

    def _as_tried(self, kept: Slice) -> Slice:
        """The slice up to the first record that was tried as a batch of its own; or that record."""
        ids = [(kept.run, number) for number in kept.numbers]
        first = next((i for i, id in enumerate(ids) if id in self._alone), len(kept))
        return _first_of(kept, first or 1)

    def _size(self) -> int:
        return self._limit if self.target.batches else 1

    def let_go(self) -> None:
        """Let go of empty spools that were brought along; for the driver."""
        with self.mutex:
            for source in [source for source in self.sources if source.brought]:
                self._drained(source)

    def _drained(self, source: Source) -> None:
        """A source brought along is empty: let go of it when no other lane is owed anything there."""
        self.sources = [other for other in self.sources if other is not source]
        if not source.spool.owing():
            source.spool.close()

    def _settle(self, source: Source, kept: Slice, outcome: Outcome, tries: int) -> None:
        """Note in the spool which records the lane owes no longer."""
        spool, lane = source.spool, source.lane
        if isinstance(outcome, Delivered):
            self._took(len(kept), spool.settle(lane, kept.places, Fate.DELIVERED))
        elif isinstance(outcome, Refused):
            rest = [p for i, p in enumerate(kept.places) if i not in outcome.permanent and i not in outcome.later]
            if rest:
                self._took(len(rest), spool.settle(lane, rest, Fate.DELIVERED))
            if outcome.permanent:
                self._bury(source, kept, outcome.permanent, tries)
        if source.once and not isinstance(outcome, Delivered):
            self.dropped += spool.settle(lane, kept.places, Fate.DROPPED)

    def _took(self, records: int, owed: int) -> None:
        """The target has records, of which so many were still owed: the others were dropped while on their way."""
        self.delivered += records
        self.dropped -= records - owed

    def _bury(self, source: Source, kept: Slice, reasons: dict[int, str], tries: int) -> None:
        """Make dead letters; without room for them the records stay owed, and are refused again until there is."""
        try:
            dead = source.spool.bury(source.lane, kept, reasons, tries)
        except SpoolError as error:
            _log.debug("dead_letters_without_room exporter=%s records=%d error=%s", self.name, len(reasons), error)
        else:
            self.dead += dead
            self._buried += dead

    def _advance(self, kept: Slice, outcome: Outcome) -> Step:
        """Decide where the pass goes on."""
        self.seen = max(self.seen, kept.places[-1])
        trouble = _trouble(outcome)
        if self._progressed(kept, outcome):
            self._tried = self._failures = 0
            self._after = kept.places[-1]
            self._overtaken = max(self._overtaken, self._after)
            self._won = True
            self._alone.difference_update([(kept.run, number) for number in kept.numbers] if self._alone else ())
            self._limit = min(self._limit * 2, self.target.batch_records)
        else:
            self._failures += 1
        if trouble is not None and self._blames_target(trouble):
            self._limit = 1 if not self.target.stable else self._limit
            self._pinned = kept if self.target.stable else None
            return Step.STOP
        if not self._failures:
            return Step.MORE
        if len(kept) > 1 and isinstance(outcome, Again):
            self._limit = 1
        else:
            if self._after == 0 and self._tried > kept.places[-1]:
                self._jumped, self._won, self._after = kept.places[-1], False, self._tried
            else:
                self._after = kept.places[-1]
            self._tried = max(self._tried, kept.places[-1])
        return Step.STOP if self._failures >= _FAILURES_END_A_PASS else Step.MORE

    def _turn_back(self) -> bool:
        """At the end: go back to what was passed by, if a success there has shown that the target is up."""
        if self._jumped is None or not self._won:
            return False
        self._after, self._jumped = self._jumped, None
        return True

    def _progressed(self, kept: Slice, outcome: Outcome) -> bool:
        if isinstance(outcome, Refused):
            return len(outcome.later) < len(kept.numbers)
        return isinstance(outcome, Delivered)

    def _blames_target(self, trouble: Again | Hold) -> bool:
        """Whether to stop, instead of looking for a good record behind this one."""
        if isinstance(trouble, Hold):
            return not trouble.only_these
        return trouble.down or self.target.stable or (self.target.batches and self.misses < _UNKNOWN_MEANS_DOWN)

    # Records that are not kept

    def gathered(self, mine: Waiting) -> list[Waiting]:
        """What the driver wants to be tried, with what can go along in one batch."""
        alone = not self.target.batches or self.target.stable or self.throttle is not None
        return [mine] if alone else self.turns.gather(mine, self._limit)

    def took_one(self) -> None:
        """The target has taken a new record that was tried alone."""
        self.delivered += 1
        self._guard.taken += 1

    def failed_one(self, parcel: Parcel, outcome: Outcome, took: float) -> Waiting:
        """What came of a new record that was tried alone and not taken, after so many seconds."""
        outcome = self._guard.judge(outcome, 1)
        self._learn(outcome, took, progressed=isinstance(outcome, Refused) and not outcome.later)
        return self._answered(Waiting(parcel), outcome, 0)

    def direct(self, group: list[Waiting]) -> None:
        """Try new records at once, as one batch, and tell those who wait what came of it."""
        kept = slice_of([waiting.parcel for waiting in group if waiting.parcel is not None])
        try:
            outcome = self._attempt(kept)
            if isinstance(outcome, Delivered) or (isinstance(outcome, Refused) and not outcome.later):
                self._tried = self._failures = 0
                if self._at is self.sources[-1]:
                    self._overtaken = self._at.spool.next_place - 1
            for index, waiting in enumerate(group):
                self._answered(waiting, outcome, index)
            if self.target.stable and isinstance(outcome, Again):
                self._alone.update((kept.run, number) for number in kept.numbers)
        finally:
            for waiting in group:
                if waiting.called is not None:
                    waiting.called.set()

    def _answered(self, waiting: Waiting, outcome: Outcome, index: int) -> Waiting:
        """Note for a new record's sender what came of it."""
        waiting.outcome = outcome
        waiting.result = self._result(outcome, index)
        waiting.refused = outcome.permanent.get(index) if isinstance(outcome, Refused) else None
        return waiting

    def visit(self, source: Source, results: list[ExportResult] | None = None) -> None:
        """Make a pass over a spool that is not the lane's own; needs the driver."""
        before = self._at, self._after, self._tried, self._overtaken, self._pinned
        with self.mutex:
            self._only = source
            self._at, self._after, self._tried, self._overtaken, self._pinned = source, 0, 0, 0, None
        try:
            self.begin_pass()
            while self.step(results) is Step.MORE:
                pass
        finally:
            with self.mutex:
                self._only = None
                self._at, self._after, self._tried, self._overtaken, self._pinned = before

    # One attempt

    def _attempt(self, kept: Slice) -> Outcome:
        """Call the exporter, and learn from what came of it how the target is."""
        clock = self._clock
        began = self.since = clock.now()
        doubt = self.misses > 0
        if self.throttle is not None:
            self.throttle.take(len(kept.numbers), size_of(kept.payloads), began)
        try:
            deadline = began + self.target.timeout
            batch, kwargs = batch_of(self.target, self.name, kept, self.shared, deadline=deadline, doubt=doubt)
            outcome = self._guard.judge(attempt(self.target, batch, kwargs, clock), len(batch))
        finally:
            self.since = None
        self._pinned = None
        self._learn(outcome, clock.now() - began, self._progressed(kept, outcome))
        return outcome

    def _learn(self, outcome: Outcome, took: float, progressed: bool) -> None:
        """What an attempt tells about the target."""
        trouble = _trouble(outcome)
        if trouble is not None:
            self._down(trouble, took)
            return
        self._up()
        if not progressed:
            self._pace(took)

    def _up(self) -> None:
        was, self.state = self.state, "up"
        self.misses = 0
        self.not_before = 0.0
        if was != "up":
            self._say("target_up", "owed=%d", self.owed())

    def _say(self, what: EventName, detail: str, value: object, error: str | None = None) -> None:
        """Tell a change of state; one that changes all the time is told once in a while, and its end if it was told."""
        loud = self._loud if what == "target_up" else self._is_due(what)
        self._loud = what != "target_up" and (loud or self._loud)
        if loud:
            line, owed = f"exporter=%s {detail}", self.owed()
            self.events.tell(what, line, self.name, value, exporter=self.name, records=owed, error=error)
        else:
            _log.debug(f"{what} exporter=%s {detail}", self.name, value)

    def _is_due(self, what: EventName) -> bool:
        """Whether it was not told for a while; then it counts as told now."""
        now = self._clock.now()
        due = now - self._said.get(what, -_QUIET) >= _QUIET
        if due:
            self._said[what] = now
        return due

    def tell_dead(self, records: int, outcome: Outcome | None) -> None:
        """Tell that records have become dead letters, once in a while."""
        if self._is_due("records_dead"):
            error = described(outcome.error) if isinstance(outcome, Refused) else None
            line = "exporter=%s records=%d error=%s: they are dead letters"
            self.events.tell(
                "records_dead", line, self.name, records, error, exporter=self.name, records=records, error=error
            )

    def _down(self, outcome: Again | Hold, took: float) -> None:
        state: Literal["down", "held"] = "held" if isinstance(outcome, Hold) else "down"
        was, self.state = self.state, state
        self.misses += 1
        self.last_error = outcome.error
        self._pace(took, (outcome.after or 0.0) if isinstance(outcome, Again) else 0.0)
        if was != state:
            error = described(outcome.error)
            self._say("target_held" if state == "held" else "target_down", "error=%s", error, error)

    def _pace(self, took: float, asked: float = 0.0) -> None:
        """Leave the target alone for a while after an attempt in vain; at least for as long as it asked."""
        pause = min(_PACE * took, _PACE_CAP) if took >= _SLOW_FAILURE else 0.0
        self.not_before = self._clock.now() + max(pause, asked)

    def backoff(self) -> float:
        """Seconds until a worker should try again after a pass that left something behind."""
        delay = self._retry.delay(max(self.misses, 1))
        return max(delay, self.not_before - self._clock.now())

    # Results

    def _report(self, kept: Slice, outcome: Outcome, source: Source, results: list[ExportResult] | None) -> None:
        """One result per record; equal ones are one object, so that a long list stays small."""
        if isinstance(outcome, Refused):
            mine = [self._result(outcome, i, kept=not source.once) for i in range(len(kept))]
        else:
            mine = [self._result(outcome, 0, kept=not source.once)] * len(kept)
        if results is not None:
            results.extend(mine)
        if self.on_settled is not None:
            self.on_settled(self, kept, mine)

    def _result(self, outcome: Outcome, index: int, kept: bool = False) -> ExportResult:
        if isinstance(outcome, Delivered):
            return ExportResult(outcome.returned, True, exporter=self.name)
        if isinstance(outcome, Refused):
            if index in outcome.permanent:
                return ExportResult(None, False, error=outcome.error, exporter=self.name)
            if index not in outcome.later:
                return ExportResult(None, True, exporter=self.name)
        returned = outcome.returned if isinstance(outcome, Again) else None
        return ExportResult(returned, False, error=outcome.error, exporter=self.name, kept=kept)


def _trouble(outcome: Outcome) -> Again | Hold | None:
    """What an outcome says against the target, and not against single records."""
    if isinstance(outcome, Refused):
        return outcome.then
    return None if isinstance(outcome, Delivered) else outcome


def _older(kept: Slice, number: int) -> Slice | None:
    """The part of a slice before the first record that is not older."""
    end = next((i for i, other in enumerate(kept.numbers) if other >= number), len(kept))
    return _first_of(kept, end) if end else None


def _first_of(kept: Slice, count: int) -> Slice:
    """The first records of a slice."""
    if count == len(kept):
        return kept
    columns = (kept.places[:count], kept.numbers[:count], kept.times[:count], kept.payloads[:count])
    return Slice(kept.run, kept.options, kept.flags, *columns, expires=kept.expires)
