"""One exporter's way through the log: one attempt at a time, and what it tells about the target."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Literal

from resilient_exporters.delivery.attempt import (
    Again,
    Delivered,
    Hold,
    Outcome,
    Refused,
    attempt,
    bare,
    progressed,
    trouble_of,
)
from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.events import Events
from resilient_exporters.delivery.guard import Guard
from resilient_exporters.delivery.news import News
from resilient_exporters.delivery.parcel import Parcel, batch_of, slice_of
from resilient_exporters.delivery.position import Position, Step
from resilient_exporters.delivery.results import result_of, results_of
from resilient_exporters.delivery.sharing import Shared
from resilient_exporters.delivery.slices import Slices
from resilient_exporters.delivery.sources import Source, Sources
from resilient_exporters.delivery.target import Target
from resilient_exporters.delivery.throttle import Throttle
from resilient_exporters.delivery.turns import Turns, Waiting
from resilient_exporters.exceptions import Queued, SpoolError
from resilient_exporters.policies import Retry
from resilient_exporters.records import ExportResult
from resilient_exporters.spool.block import size_of
from resilient_exporters.spool.interface import Fate, Slice, Spool

__all__ = ["Lane", "Source", "Step"]

_log = logging.getLogger("resilient_exporters")

_SLOW_FAILURE = 0.01
"""Seconds; a failure that took less is cheap enough to be tried again at each send."""
_ROW = 0.001
"""Seconds for which records of a target of single ones are tried as they were read together: others may drop them."""
_PACE, _PACE_CAP = 10.0, 30.0
"""After a slow failure of t seconds the caller's thread tries again `_PACE` x t later, at most `_PACE_CAP` seconds."""


class Lane:
    """Drives one exporter. Whoever has its turn may call the methods; one batch is in flight, always.

    Args:
        name: The lane's, under which spools know it.
        target: The exporter.
        sources: What it is owed from, oldest first.
        clock: Tells the time.
        retry: How long a worker waits after failures.
        events: Where changes of the target are told.
        shared: What lanes side by side have made of the same records.
        on_settled: Gets each batch of a pass, with one result per record.
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
        self.sources = Sources(sources)
        self.clear = self.sources.clear
        """Whether nothing waits; bound beforehand, because each send asks."""
        self.turns = Turns()
        self.mutex = threading.Lock()
        """Held while the lane is at its spool, never during a call: the spools stay what they are meanwhile."""
        self.throttle = None if target.rate is None else Throttle(target.rate, clock.now())
        self.news = News(name, clock, events or Events("", clock), self.sources.owed)
        self.delivered = self.dead = self.dropped = 0
        self.changes = 0
        """Odd while records are being settled and counted: who reads several counters reads them again then."""
        self.last_error: BaseException | None = None
        self.since: float | None = None
        """`clock.now()` at which the call into the exporter began that runs now."""
        self.state: Literal["up", "down", "held"] = "up"
        self.misses = 0
        """Failures in a row, passes included."""
        self.not_before = 0.0
        """`clock.now()` before which the caller's thread does not try again."""
        self._clock = clock
        self._retry = retry
        self._shared = shared or Shared()
        self._on_settled = on_settled
        self._slices = Slices(target, self.throttle, clock, self._shared)
        self._position = Position(target, self.sources, self._slices)
        self._guard = Guard()
        self._buried = 0
        """Dead letters of the step under way, to be told when the mutex is free."""

    # What is owed

    def owed(self) -> int:
        """Records that wait for this exporter."""
        return self.sources.owed()

    def queued(self) -> Queued:
        """The verdict on a new record that has to wait, with the last failure as its cause."""
        verdict = Queued(self.owed())
        verdict.__cause__ = self.last_error
        return verdict

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

    def more(self) -> bool:
        """Whether something is owed that this pass has not tried; False when another thread is in the lane."""
        if not self.turns.is_free():
            return False
        with self.mutex:
            return self._position.has_more()

    def settle_number(self, run: int, number: int) -> None:
        """Settle a kept record by its id, as delivered."""
        with self.mutex:
            found = self.sources.find(run, number)
            if found is not None:
                source, place = found
                source.spool.settle(source.lane, [place], Fate.DELIVERED)
                self.delivered += 1

    def let_go(self) -> None:
        """Let go of empty spools that were brought along; for the driver."""
        with self.mutex:
            self.sources.let_go()

    def move(self, old: Spool, new: Spool, moved: dict[int, int]) -> None:
        """Go on in another spool, into which the records of the old one were carried; needs `mutex`.

        Args:
            old: The spool that is given up.
            new: The one that has its records now.
            moved: Place there for a place here.
        """
        self._position.move(old, new, moved)

    # A pass over what is owed

    def begin_pass(self) -> None:
        """Start again at the oldest record."""
        with self.mutex:
            self._position.begin()

    def step(self, results: list[ExportResult] | None = None, before: tuple[int, int] | None = None) -> Step:
        """Read one batch, or for a target of single records some of them; attempt it, settle what came of it.

        Args:
            results: Gets one result per record.
            before: Run and number of a record: of its run, only older ones are tried.
        """
        with self.mutex:
            wait = self.throttle is not None and self.throttle.wait(self._clock.now()) > 0.0
            kept = self._position.take(before, pins=not wait)
        if kept is None:
            return Step.END
        if wait:
            return Step.WAIT
        return self._try(kept, results) if self.target.batches or len(kept) == 1 else self._try_in_a_row(kept, results)

    def _try_in_a_row(self, row: Slice, results: list[ExportResult] | None) -> Step:
        """Attempt and settle records one by one, until one fails or a moment is over."""
        ends, source = self._clock.now() + _ROW, self._position.source
        for index in range(len(row)):
            with self.mutex:
                kept = self._position.out_of(row, index, source)
            if kept is None:
                break
            step = self._try(kept, results)
            if step is not Step.MORE or self.failing or self._clock.now() >= ends:
                self._slices.expect(index + 1)
                return step
        return Step.MORE

    def _try(self, kept: Slice, results: list[ExportResult] | None) -> Step:
        """Attempt what is under way, settle what came of it."""
        tries = self.misses + 1
        outcome = self._attempt(kept)
        with self.mutex:
            source = self._position.source
            self._settle(source, kept, outcome, tries)
            step = self._position.advance(kept, outcome, self.misses)
        self._report(source, kept, outcome, results)
        return step

    def interrupted(self, interrupt: BaseException) -> None:
        """Take an interrupt that ended a step for a failure of the target."""
        self._down(Again(bare(interrupt), down=True), 0.0)

    @property
    def failing(self) -> bool:
        """Whether the last attempt of the pass failed."""
        return self._position.failing

    def blames_target(self) -> bool:
        """Whether what just failed has been overtaken by nothing, and failed so rarely that the target may be down."""
        return self._position.may_be_down(self.misses)

    def lets_new_pass(self, before: tuple[int, int] | None) -> bool:
        """Whether order lets a new record go after a pass; see `Position.lets_new_pass`."""
        with self.mutex:
            return self._position.lets_new_pass(before)

    def go_on_with_new(self) -> None:
        """Go on with what has not had its first attempt, after a pass that somebody asked for."""
        with self.mutex:
            self._position.go_on_with_new()

    @property
    def caught_up(self) -> bool:
        """Whether the last step took all there was."""
        return self._position.caught_up

    def owes_tried(self) -> bool:
        """Whether something is owed that has had its first attempt."""
        with self.mutex:
            return self._position.owes_tried()

    def hold(self, run: int, number: int) -> None:
        """Take a record that is about to be kept for one that has had its first attempt."""
        with self.mutex:
            self._position.hold((run, number))

    def all_tried(self) -> None:
        """Take all that is kept for records that have had their first attempt."""
        with self.mutex:
            self._position.all_tried()

    def pass_by(self) -> None:
        """Do not try again what just failed."""
        with self.mutex:
            self._position.pass_by()

    def visit(self, source: Source) -> None:
        """Make a pass over a spool that is not the lane's own; needs the driver."""
        with self.mutex:
            self._position.turn_aside(source)
        try:
            self.begin_pass()
            while self.step() is Step.MORE:
                pass
        finally:
            with self.mutex:
                self._position.come_back()

    def _settle(self, source: Source, kept: Slice, outcome: Outcome, tries: int) -> None:
        """Note in the spool which records the lane owes no longer, and count them."""
        self.changes += 1
        try:
            if isinstance(outcome, Delivered):
                self._took(source, kept.places)
            elif isinstance(outcome, Refused):
                refused = outcome.permanent.keys() | outcome.later.keys()
                self._took(source, [place for i, place in enumerate(kept.places) if i not in refused])
                self._bury(source, kept, outcome.permanent, tries)
            if source.once and not isinstance(outcome, Delivered):
                self.dropped += source.spool.settle(source.lane, kept.places, Fate.DROPPED)
        finally:
            self.changes += 1

    def _took(self, source: Source, places: Sequence[int]) -> None:
        """The target has records; those that are owed no longer were dropped while on their way."""
        if places:
            owed = source.spool.settle(source.lane, places, Fate.DELIVERED)
            self.delivered += len(places)
            self.dropped -= len(places) - owed

    def _bury(self, source: Source, kept: Slice, reasons: dict[int, str], tries: int) -> None:
        """Make dead letters; without room for them the records stay owed, and are refused again until there is."""
        if not reasons:
            return
        try:
            dead = source.spool.bury(source.lane, kept, reasons, tries)
        except SpoolError as error:
            _log.debug("dead_letters_without_room exporter=%s records=%d error=%s", self.name, len(reasons), error)
        else:
            self.dead += dead
            self._buried += dead

    def _report(self, source: Source, kept: Slice, outcome: Outcome, results: list[ExportResult] | None) -> None:
        """Tell of dead letters, and who asked for the pass or waits for its records what came of them."""
        if self._buried:
            buried, self._buried = self._buried, 0
            self.tell_dead(buried, outcome)
        if results is not None or self._on_settled is not None:
            mine = results_of(outcome, len(kept), self.name, kept=not source.once)
            if results is not None:
                results.extend(mine)
            if self._on_settled is not None:
                self._on_settled(self, kept, mine)

    # Records that are not kept

    def allows(self, parcel: Parcel) -> bool:
        """Whether the target's rate allows to try a new record now."""
        return self.throttle is None or self.throttle.fits(size_of((parcel.payload,)), self._clock.now())

    def gathered(self, mine: Waiting) -> list[Waiting]:
        """What the driver wants to be tried, with what can go along in one batch."""
        alone = not self.target.batches or self.target.stable or self.throttle is not None
        return [mine] if alone else self.turns.gather(mine, self._slices.limit)

    def direct(self, group: list[Waiting]) -> None:
        """Try new records at once, as one batch, and tell those who wait what came of it."""
        kept = slice_of([waiting.parcel for waiting in group if waiting.parcel is not None])
        try:
            outcome = self._attempt(kept)
            if isinstance(outcome, Delivered) or (isinstance(outcome, Refused) and not outcome.later):
                self._position.overtook()
            elif self.target.stable and isinstance(outcome, Again):
                self._slices.keep_alone(kept)
            for index, waiting in enumerate(group):
                self._answered(waiting, outcome, index)
        finally:
            for waiting in group:
                if waiting.called is not None:
                    waiting.called.set()

    def took_one(self) -> None:
        """The target has taken a new record that was tried alone."""
        self.delivered += 1
        self._guard.taken += 1

    def failed_one(self, parcel: Parcel, outcome: Outcome, took: float) -> Waiting:
        """What came of a new record that was tried alone and not taken, after so many seconds."""
        outcome = self._guard.judge(outcome, 1)
        self._learn(outcome, 1, took)
        return self._answered(Waiting(parcel), outcome, 0)

    def tell_dead(self, records: int, outcome: Outcome | None) -> None:
        """Tell that records have become dead letters, once in a while."""
        self.news.dead(records, outcome)

    def _answered(self, waiting: Waiting, outcome: Outcome, index: int) -> Waiting:
        """Note for a new record's sender what came of it."""
        waiting.outcome = outcome
        waiting.result = result_of(outcome, index, self.name)
        waiting.refused = outcome.permanent.get(index) if isinstance(outcome, Refused) else None
        return waiting

    # One attempt

    def _attempt(self, kept: Slice) -> Outcome:
        """Call the exporter, and learn from what came of it how the target is."""
        clock, count = self._clock, len(kept.numbers)
        began = self.since = clock.now()
        doubt = self.misses > 0
        if self.throttle is not None:
            self.throttle.take(count, size_of(kept.payloads), began)
        try:
            deadline = began + self.target.timeout
            batch, kwargs = batch_of(self.target, self.name, kept, self._shared, deadline=deadline, doubt=doubt)
            outcome = self._guard.judge(attempt(self.target, batch, kwargs, clock), count)
        finally:
            self.since = None
        self._position.attempted()
        self._learn(outcome, count, clock.now() - began)
        return outcome

    def _learn(self, outcome: Outcome, count: int, took: float) -> None:
        """What an attempt at `count` records, which took so many seconds, tells about the target."""
        trouble = trouble_of(outcome)
        if trouble is not None:
            self._down(trouble, took)
            return
        self._up()
        if not progressed(outcome, count):
            self._pace(took)

    def _up(self) -> None:
        was, self.state = self.state, "up"
        self.misses = 0
        self.not_before = 0.0
        if was != "up":
            self.news.up()

    def _down(self, trouble: Again | Hold, took: float) -> None:
        was, self.state = self.state, "held" if isinstance(trouble, Hold) else "down"
        self.misses += 1
        self.last_error = trouble.error
        self._pace(took, (trouble.after or 0.0) if isinstance(trouble, Again) else 0.0)
        if was != self.state:
            self.news.trouble(trouble)

    def _pace(self, took: float, asked: float = 0.0) -> None:
        """Leave the target alone for a while after an attempt in vain; at least for as long as it asked."""
        pause = min(_PACE * took, _PACE_CAP) if took >= _SLOW_FAILURE else 0.0
        self.not_before = self._clock.now() + max(pause, asked)

    def backoff(self) -> float:
        """Seconds until a worker should try again after a pass that left something behind."""
        delay = self._retry.delay(max(self.misses, 1))
        return max(delay, self.not_before - self._clock.now())
