"""Where a lane is in what it owes: which slice it tries next, and where it goes on after what came of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto

from resilient_exporters.delivery.attempt import Again, Hold, Outcome, progressed, trouble_of
from resilient_exporters.delivery.slices import Slices, older, part_of
from resilient_exporters.delivery.sources import Source, Sources
from resilient_exporters.delivery.target import Target
from resilient_exporters.spool.interface import Slice, Spool

__all__ = ["Position", "Step"]

_FAILURES_END_A_PASS = 10
"""So many failures in a row, and a pass has learned enough: n bad records cost n/10 passes."""
_UNKNOWN_MEANS_DOWN = 3
"""A batch that fails so often for a reason unknown may hold a bad record: only then it is taken apart."""


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


@dataclass(slots=True)
class _Spot:
    """A place in one source.

    Attributes:
        source: The source; None before the first slice.
        after: The pass goes on behind this place.
        tried: Highest place tried in vain since the last success.
        overtaken: Highest place that a success has passed: what is owed up to there is out of its order already.
        pinned: The batch in doubt, which is repeated as it was.
    """

    source: Source | None
    after: int = 0
    tried: int = 0
    overtaken: int = 0
    pinned: Slice | None = None


class Position:
    """Leads the passes of one lane, for its driver, who holds the lane's mutex where this is at a spool.

    A *pass* tries what is owed, oldest first. When the oldest fails without saying who is to blame, the pass goes
    on behind the records tried in vain since the last success; ten failures in a row end it. A success there tells
    that the target is up: then the pass goes back in the end to those it had passed by.

    A pass that nobody asked for, inside `send` or in the background, goes on behind a record only after more than three
    failures in a row, or when it was overtaken before: see `may_be_down`.

    Args:
        target: The exporter.
        sources: What it is owed from.
        slices: Cuts batches out of them.

    Attributes:
        seen: Place up to which records have had their first attempt, or were there before this lane.
    """

    def __init__(self, target: Target, sources: Sources, slices: Slices) -> None:
        self._target = target
        self._sources = sources
        self._end = 0
        """Place of the newest record when the last slice was taken."""
        self.seen: int
        self.all_tried()
        self._slices = slices
        self._spot = _Spot(None)
        self._jumped: int | None = None
        """Place behind which records were passed by in this pass."""
        self._won = False
        """Whether something was taken since then."""
        self._failures = 0
        self._flight: tuple[Source, Slice | None] = (sources.own, None)
        self._held: set[tuple[int, int]] = set()
        """Run and number of records that were kept on request, and wait for a pass to be asked for."""
        self._only_new = False
        self._visited: Source | None = None
        """A spool of somebody else that the lane goes through; meanwhile its own spot is `_left`."""
        self._left = self._spot

    # What comes next

    def begin(self) -> None:
        """Start again at the oldest record."""
        spot = self._spot
        spot.after, self._failures, self._jumped, self._only_new = 0, 0, None, False
        if self._target.stable and spot.pinned is None and spot.source is not None:
            spot.pinned = self._slices.recalled(spot.source)

    def take(self, before: tuple[int, int] | None, *, pins: bool) -> Slice | None:
        """The slice to try next, which is under way from now on; None when everything owed has been tried.

        Args:
            before: Run and number of a record: of its run, only older ones are taken.
            pins: Whether the spool notes what a stable target is about to get.
        """
        self._end = self._sources.own.spool.next_place - 1
        source, kept = self._next()
        if kept is None and self._turn_back():
            source, kept = self._next()
        if kept is not None and kept is not self._spot.pinned:
            if before is not None and kept.run == before[0]:
                kept = older(kept, before[1])
            if kept is not None and pins and self._target.stable:
                source.spool.pin(source.lane, kept.places)
        self._flight = source, kept
        return kept

    def out_of(self, row: Slice, index: int, source: Source) -> Slice | None:
        """One record of a slice, under way from now on; None when the spool it came from was exchanged meanwhile.

        Args:
            row: What `take` returned.
            index: Which record of it; those before it have been tried.
            source: Where the slice was owed from.
        """
        if self.source is not source:
            return None
        one = part_of(row, index, index + 1)
        self._flight = source, one
        return one

    @property
    def caught_up(self) -> bool:
        """Whether behind what is under way nothing was owed when it was taken."""
        source, kept = self._flight
        return kept is not None and source is self._sources.own and kept.places[-1] >= self._end

    @property
    def source(self) -> Source:
        """Where the slice under way is owed from; another one when its spool was exchanged meanwhile."""
        return self._flight[0]

    def has_more(self) -> bool:
        """Whether something is owed that this pass has not tried."""
        return self._next()[1] is not None

    def owes_tried(self) -> bool:
        """Whether something is owed that has had its first attempt, here or before it was brought along."""
        for source in self._sources:
            kept = None if source.once else source.spool.read(source.lane, 0, 1, 1)
            if kept is not None and (source.brought or kept.places[0] <= self.seen):
                return True
        return False

    def _next(self) -> tuple[Source, Slice | None]:
        """The batch in doubt if there is one, else the next of the first source that holds something."""
        for source in self._sources if self._visited is None else [self._visited]:
            if source.brought and self._only_new:
                continue
            spot = self._spot if source is self._spot.source else _Spot(source, pinned=self._slices.recalled(source))
            kept = spot.pinned or self._read(source, spot)
            if kept is not None or source.spool.account(source.lane).records:
                self._spot = spot
                return source, kept
            if source.brought:
                self._sources.let_go_of(source)
        return self._sources.own, None

    def _read(self, source: Source, spot: _Spot) -> Slice | None:
        """The slice behind a spot; where only new records are tried, none that waits for a pass."""
        while True:
            kept = self._slices.read(source, spot.after)
            if kept is None or not self._held or not self._only_new:
                return kept
            free = next((i for i, number in enumerate(kept.numbers) if (kept.run, number) in self._held), len(kept))
            if free:
                return part_of(kept, 0, free)
            spot.after = kept.places[0]

    def _turn_back(self) -> bool:
        """At the end: go back to what was passed by, if a success there has shown that the target is up."""
        if self._jumped is None or not self._won:
            return False
        self._spot.after, self._jumped = self._jumped, None
        return True

    # What came of it

    def advance(self, kept: Slice, outcome: Outcome, misses: int) -> Step:
        """Decide where the pass goes on.

        Args:
            kept: What was tried.
            outcome: What came of it.
            misses: Failures of the target in a row, passes included.
        """
        self.seen = max(self.seen, kept.places[-1])
        if self._held:
            self._held.difference_update((kept.run, number) for number in kept.numbers)
        if progressed(outcome, len(kept)):
            self._overtake(kept)
        else:
            self._failures += 1
        trouble = trouble_of(outcome)
        if trouble is not None and self._blames_target(trouble, misses):
            if self._target.stable:
                self._spot.pinned = kept
            else:
                self._slices.shrink()
            return Step.STOP
        if not self._failures:
            return Step.MORE
        if len(kept) > 1 and isinstance(outcome, Again):
            self._slices.shrink()
        else:
            self._go_behind(kept)
        return Step.STOP if self._failures >= _FAILURES_END_A_PASS else Step.MORE

    def attempted(self) -> None:
        """An attempt has an outcome: what was in doubt is so no longer."""
        self._spot.pinned = None

    def overtook(self) -> None:
        """The target has taken a new record, ahead of all that is owed."""
        self._spot.tried = self._failures = 0
        if self._spot.source is self._sources.own:
            self._spot.overtaken = self._sources.own.spool.next_place - 1

    def _overtake(self, kept: Slice) -> None:
        """The target has taken some of a slice."""
        spot = self._spot
        spot.tried = self._failures = 0
        spot.after = kept.places[-1]
        spot.overtaken = max(spot.overtaken, spot.after)
        self._won = True
        self._slices.grow(kept)

    def _go_behind(self, kept: Slice) -> None:
        """Look for a good record: behind the slice, or, when the oldest failed again, behind all tried in vain."""
        spot, last = self._spot, kept.places[-1]
        if spot.after == 0 and spot.tried > last:
            self._jumped, self._won, spot.after = last, False, spot.tried
        else:
            spot.after = last
        spot.tried = max(spot.tried, last)

    def _blames_target(self, trouble: Again | Hold, misses: int) -> bool:
        """Whether to stop, instead of looking for a good record behind this one."""
        if isinstance(trouble, Hold):
            return not trouble.only_these
        return trouble.down or self._target.stable or (self._target.batches and misses < _UNKNOWN_MEANS_DOWN)

    # What a sender asks

    @property
    def failing(self) -> bool:
        """Whether the last attempt of the pass failed."""
        return self._failures > 0

    def may_be_down(self, misses: int) -> bool:
        """Whether what just failed has been overtaken by nothing, and failed so rarely that the target may be down.

        Args:
            misses: Failures of the target in a row, passes included.
        """
        return self.failing and misses <= _UNKNOWN_MEANS_DOWN and self._spot.after > self._spot.overtaken

    def lets_new_pass(self, before: tuple[int, int] | None) -> bool:
        """Whether order lets a new record go after a pass: all that is still owed has been overtaken anyway.

        Args:
            before: The new record's run and number; what is owed of its run and is not older does not count.
        """
        for source in self._sources:
            overtaken = self._spot.overtaken if source is self._spot.source else 0
            kept = source.spool.read(source.lane, overtaken, 1, 1)
            if kept is not None and (before is None or kept.run != before[0] or kept.numbers[0] < before[1]):
                return False
        return True

    # By hand

    def hold(self, id: tuple[int, int]) -> None:
        """Take a record that is about to be kept, by run and number, for one that had its first attempt."""
        self._held.add(id)

    def go_on_with_new(self) -> None:
        """Go on with what has not had its first attempt."""
        spot, self._only_new = self._spot, True
        spot.source, spot.after, spot.pinned = self._sources.own, self.seen, None

    def all_tried(self) -> None:
        """Take all that is kept for records that have had their first attempt."""
        self.seen = self._sources.own.spool.next_place - 1

    def pass_by(self) -> None:
        """Do not try again what just failed."""
        _, kept = self._flight
        if kept is not None:
            self._spot.after, self._spot.pinned, self._failures = kept.places[-1], None, 0

    # Elsewhere

    def turn_aside(self, source: Source) -> None:
        """Go through a spool that is not the lane's own, until `come_back`."""
        self._visited = source
        self._left, self._spot = self._spot, _Spot(source)

    def come_back(self) -> None:
        """Go on where the lane was before it turned aside."""
        self._visited = None
        self._spot = self._left

    def move(self, old: Spool, new: Spool, moved: dict[int, int]) -> None:
        """Go on in another spool, into which the records of the old one were carried.

        Args:
            old: The spool that is given up.
            new: The one that has its records now.
            moved: Place there for a place here.
        """
        source, kept = self._flight
        self._sources.move(old, new)
        self.seen = new.next_place - 1
        if kept is not None and source.spool is old:
            kept.places = [moved.get(place, 0) for place in kept.places]
            self._flight = (replace(source, spool=new), kept)
            if self._target.stable and 0 not in kept.places:
                new.pin(source.lane, kept.places)
        if self._visited is None:
            spot = self._spot  # changed in place: the driver may come back from a call at this moment
            spot.after = spot.tried = spot.overtaken = 0
            spot.source = next((s for s in self._sources if s.lane == source.lane and s.spool is new), None)
