"""The heart: takes records in, keeps what must be kept, and has lanes deliver it, from whichever threads there are."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Sequence

from resilient_exporters.delivery.background import Background
from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.events import Events
from resilient_exporters.delivery.foreground import Answers, Foreground, Shipment
from resilient_exporters.delivery.keeper import Keep, Keeper
from resilient_exporters.delivery.lane import Lane, Source
from resilient_exporters.delivery.lots import Lots
from resilient_exporters.delivery.lying import Lying
from resilient_exporters.delivery.orphans import Orphans
from resilient_exporters.delivery.parcel import Lot, Parcel
from resilient_exporters.delivery.process import Birth, refuse_fork
from resilient_exporters.delivery.receipt import Receipt, Receipts
from resilient_exporters.delivery.reentry import inside
from resilient_exporters.delivery.reporting import orphan, status_of
from resilient_exporters.delivery.roster import Roster
from resilient_exporters.delivery.senders import Senders
from resilient_exporters.delivery.settings import Settings
from resilient_exporters.delivery.shortways import ShortWay, at_once, in_background
from resilient_exporters.delivery.solo import solo
from resilient_exporters.delivery.target import Target
from resilient_exporters.exceptions import PoolClosed
from resilient_exporters.records import ExportResult
from resilient_exporters.spool.backed import BackedSpool
from resilient_exporters.spool.interface import Payload, Slice, Spool
from resilient_exporters.spool.memory import MemorySpool
from resilient_exporters.status import PoolStatus

__all__ = ["Engine"]

_LAST_SENDS = 1.0
"""Seconds that closing waits at most for the calls of other threads."""


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
        self.clock = clock
        self.closed = False
        self.ended = self._ending = False
        self._roster = Roster(settings, clock)
        self.events = Events(name, clock, settings.observers)
        self.keeper = Keeper(name, spool, settings.limits, clock, self._roster.now, self.events)
        self._foreground = Foreground(name, settings, self.keeper, clock, self._roster.now)
        self._senders = Senders(settings, self.keeper, self._foreground, self._roster.now)
        self._lots = Lots(settings, self.keeper, self._foreground, clock, self._roster.now)
        self._background: Background | None = None
        self._starting = threading.RLock()
        self._orphans = Orphans(name, self.keeper, self._roster.now, self._roster.changing, self.events)
        self._receipts = Receipts()
        self._born = Birth.now
        self._last: PoolStatus | None = None
        self._lost = 0

    @property
    def lanes(self) -> dict[str, Lane]:
        """The lanes of the moment, by name."""
        return self._roster.lanes

    @property
    def lying(self) -> Lying:
        """Dead letters that no lane counts."""
        return self._roster.lying

    @property
    def spool(self) -> Spool:
        """Where owed records wait now."""
        return self.keeper.spool

    # Lanes

    def add(self, name: str, target: Target, brought: Sequence[Source] = ()) -> None:
        """Serve an exporter from now on, whatever else it owed before in spools that it brings along."""
        lane = self._roster.add(name, target, brought, self.keeper, self.events, self._settled)
        self._orphans.look_again()
        if self._background is not None:
            self._background.add(lane)

    def take_over(self, spool: Spool, lanes: dict[str, str]) -> bool:
        """Keep here what a memory spool holds of an exporter that joins. See `Roster.take_over`."""
        return self._roster.take_over(spool, lanes, self.keeper)

    def switch_to_file(self, file: Spool) -> None:
        """Keep in a file from now on. See `Roster.switch_to_file`."""
        self._roster.switch_to_file(file, self.keeper)

    def remove(self, names: Sequence[str], *, waits: bool) -> None:
        """Serve some exporters no longer; what they are owed stays in the spool, as orphans. See `Roster.remove`."""
        self.check_open()
        for lane in self._roster.remove(names, self.keeper, waits=waits):
            if self._background is not None:
                self._background.remove(lane.name)
        self._orphans.look_again()

    def orphans(self) -> list[str]:
        """Lanes that owe records and that nobody serves."""
        return self._orphans.names()

    def adopt(self, orphan: str, lane: str) -> int:
        """Give what is owed to an absent exporter to a present one; how many records. See `Orphans.adopt`."""
        self.check_open()
        adopted = self._orphans.adopt(orphan, lane)
        self._wake()
        return adopted

    def drop(self, orphan: str) -> int:
        """Drop what is owed to an absent exporter; how many records. See `Orphans.drop`."""
        self.check_open()
        return self._orphans.drop(orphan)

    def _look_around(self) -> None:
        """Tell what has not been told: of orphans, and of damage."""
        self._orphans.tell()
        self.keeper.look_for_damage()

    # Taking in

    def send(self, shipments: Sequence[Shipment], how: Keep, reentrant: bool) -> dict[str, ExportResult] | None:
        """Send a record to its lanes; the results by lane, or None in background mode.

        Raises:
            SpoolError: The record was neither taken nor kept by anybody.
        """
        self.check_open()
        self._look_around()
        if self.settings.background:
            self._accept(shipments, how)
            return None
        answers = Answers()
        if reentrant:
            for name in [name for shipment in shipments for name in shipment.lanes]:
                lane = self.lanes.get(name)
                answers.failed(lane, lane.queued()) if lane is not None else answers.absent(name)
            self._senders.keep_failed(shipments, answers, how)
        else:
            self._senders.deliver(shipments, answers, how)
        return answers.results

    def parcel(self, payload: Payload, options: bytes, flags: int = 0) -> Parcel:
        """A new record with the next number."""
        spool = self.spool
        return Parcel(spool.run, spool.draw(), self.clock.time(), payload, options, flags)

    def save(self, parcel: Parcel, lanes: Iterable[str]) -> None:
        """Keep a record for lanes, whatever the settings say."""
        self.check_open()
        lanes = frozenset(lanes)
        if self.settings.manual and self.settings.background:
            for name in lanes:
                if (lane := self.lanes.get(name)) is not None:
                    lane.hold(parcel.run, parcel.number)
        self.keeper.keep(parcel, lanes, Keep(self.settings.sync))
        self._wake()

    def _accept(self, shipments: Sequence[Shipment], how: Keep) -> None:
        """Background: keep first, deliver later."""
        for shipment in shipments:
            if not shipment.lanes:
                continue
            parcel, lanes = shipment.parcel, frozenset(shipment.lanes)
            if self.settings.saves:
                self.keeper.keep(parcel, lanes, how)
            else:
                self.keeper.keep_once(Lot([parcel.payload], parcel.options, parcel.flags, lanes))
        self._wake()

    def _wake(self) -> None:
        if self.settings.background:
            background = self.background()
            if background.asleep:
                background.wake()

    # Short ways

    def short_way(self, names: list[str], how: Keep) -> ShortWay | None:
        """The way of a plain record with everything looked up beforehand; None when there is no short one.

        It holds for the spool, the lanes and the settings of the moment: whoever changes one of these throws it away.

        Args:
            names: The lanes that records are for.
            how: How they are kept.
        """
        lanes = [lane for lane in map(self.lanes.get, names) if lane is not None]
        if how.ttl is not None or not self.settings.saves or len(lanes) < len(names):
            return None
        if self.settings.background:
            return in_background(self.spool, frozenset(names), how.sync, self.background(), self.clock)
        threads = self.settings.num_threads > 1 and len(names) > 1
        if threads or any(lane.target.batches or lane.throttle is not None for lane in lanes):
            return None
        ways = [solo(lane, self.clock) for lane in lanes]
        go_on = functools.partial(self._senders.go_on, how, names)
        keep = functools.partial(self._senders.keep_interrupted, how, names)
        return at_once(self.spool, ways, self.clock, go_on, keep)

    # Many at once

    def send_many(self, lots: Iterable[Lot], how: Keep, reentrant: bool) -> dict[str, ExportResult] | None:
        """Send lots of records; one result per lane for all of them, or None in background mode.

        `returned` is the number of records that the target took.

        Raises:
            SpoolError: A lot was neither taken nor kept by anybody; the lots before it are as told by the spool.
        """
        self.check_open()
        self._look_around()
        totals = {name: ExportResult(0, True, exporter=name) for name in self.lanes}
        for lot in lots:
            if self.settings.background:
                self.keeper.keep_lot(lot, how) if self.settings.saves else self.keeper.keep_once(lot)
                self._wake()
            else:
                self._lots.deliver(lot, how, reentrant, totals)
        return None if self.settings.background else totals

    # Receipts

    def submit(
        self,
        shipments: Sequence[Shipment],
        how: Keep,
        reentrant: bool,
        gather: Callable[[dict[str, ExportResult]], object],
    ) -> Receipt:
        """Send a record, and tell later what came of it."""
        lanes = [name for shipment in shipments for name in shipment.lanes]
        pending = self._receipts.pending(lanes, gather)
        if self.settings.background and lanes:
            for shipment in shipments:
                self._receipts.expect(shipment.parcel.run, shipment.parcel.number, pending)
            self.send(shipments, how, reentrant)
            return Receipt(pending.future, kept=self.settings.saves, hurry=self.background().hurry)
        pending.future.set_result(gather(self.send(shipments, how, reentrant) or {}))
        return Receipt(pending.future, kept=False)

    def _settled(self, lane: Lane, kept: Slice, results: list[ExportResult]) -> None:
        if self._receipts:
            self._receipts.settled(lane.name, kept.run, kept.numbers, results)

    # What is kept

    def send_unsent(self, names: Iterable[str]) -> list[ExportResult]:
        """Make a pass over what each of these lanes owes, at once; one result per record attempted."""
        self.check_open()
        lanes = [lane for lane in map(self.lanes.get, names) if lane is not None]
        if self.settings.background:
            return self.background().passes(lanes)
        results: list[ExportResult] = []
        self._foreground.passes(lanes, results)
        return results

    def flush(self, timeout: float | None) -> bool:
        """Deliver what can be delivered; whether nothing that a present exporter owes is left."""
        self.check_open()
        ends = None if timeout is None else self.clock.now() + timeout
        lanes = list(self.lanes.values())
        if self.settings.background:
            return self.background().drain(lanes, ends)
        self._foreground.passes(lanes, None, ends)
        return not any(lane.owed() for lane in lanes)

    def owing(self) -> dict[str, int]:
        """Records owed, by lane; also lanes that nobody serves."""
        if self._last is not None:
            owed = {lane.name: lane.owed for lane in self._last.exporters}
            owed |= {orphan.name: orphan.owed for orphan in self._last.orphans}
        else:
            self.check_ours()
            owed = {name: lane.owed() for name, lane in self.lanes.items()}
            owed |= {name: self.spool.account(name).records for name in self.orphans()}
        return {name: records for name, records in owed.items() if records}

    def status(self) -> PoolStatus:
        """All of it at this moment; what it was at the end when the pool is closed."""
        if self._last is not None:
            return self._last
        self.check_ours()
        next_attempts = {} if self._background is None else {n: self._background.next_attempt(n) for n in self.lanes}
        lanes = tuple(status_of(lane, self.clock, next_attempts.get(name)) for name, lane in self.lanes.items())
        orphans = tuple(orphan(self.spool, name, self.clock) for name in self.orphans())
        return PoolStatus(self.name, lanes, orphans, self.spool.size())

    # Life

    def background(self) -> Background:
        """The threads that deliver in the background, made when first needed."""
        background = self._background
        if background is None:
            background = Background(self.settings, self.clock, self.name, self.keeper.expire, self.lanes.values())
            background.connected = self._foreground.connected
            with self._starting:
                if self._background is None:
                    self._background = background
                    for lane in self.lanes.values():
                        background.add(lane)
                background = self._background
        background.workers.limit = self.settings.num_threads
        return background

    def all_tried(self) -> None:
        """From here on in the background: what is kept had its first attempt in the caller's thread."""
        for lane in self.lanes.values():
            lane.all_tried()

    def start(self) -> None:
        """Deliver in the background what was kept before, if that is how this pool works."""
        if self.settings.background and not self.settings.manual and self.spool.owing():
            self.background()

    def check_open(self) -> None:
        """Raise PoolClosed after `close`, PoolForked in a forked child."""
        self.check_ours()
        if self.closed:
            raise PoolClosed(f"{self.name} was closed; make a new pool")

    def check_ours(self) -> None:
        """Raise PoolForked in a forked child."""
        if not self.ours():
            refuse_fork(self.name)

    def ours(self) -> bool:
        """Whether it was made in this process, and not in the one that this was forked from."""
        return self._born is Birth.now

    def release(self) -> Spool:
        """Stop, without letting go of what is kept: another engine goes on with it."""
        self._stop()
        for lane in self.lanes.values():
            lane.turns.drive(lambda: None, lane.target.timeout)
        return self.spool

    def close(self, timeout: float) -> int:
        """Deliver in the background for a while, then let go of everything; how many records stay in memory only.

        Interrupted (Ctrl-C), it goes on with what is left to do when it is called again.
        """
        if self.ended or self._ending:
            return 0
        self._ending = True
        try:
            return self._end(timeout)
        finally:
            self._ending = False

    def _end(self, timeout: float) -> int:
        if not self.closed and self.settings.background and not self.settings.manual and self.owing():
            self.flush(timeout)
        self._stop()
        if self._last is None:
            self._see_senders_out(timeout)
            last = self.status()
            self._lost = self._lost_at_end()
            self._last = last
        for spool in {id(s.spool): s.spool for lane in self.lanes.values() for s in lane.sources}.values():
            spool.close()
        self.spool.close()
        self.ended = True
        return self._lost

    def _see_senders_out(self, timeout: float) -> None:
        """Let the sends of other threads end that are in the midst of a call: the last status counts them, too."""
        if self.settings.background or inside.here.calls:
            return
        ends = self.clock.now() + min(timeout, _LAST_SENDS)
        for lane in self.lanes.values():
            lane.turns.drive(lambda: None, max(ends - self.clock.now(), 0.0))

    def _lost_at_end(self) -> int:
        """Records that are owed and wait in memory only."""
        if isinstance(self.spool, BackedSpool):
            return self.spool.lost_at_end()
        return sum(self.owing().values()) if isinstance(self.spool, MemorySpool) else 0

    def _stop(self) -> None:
        self.closed = True
        self.keeper.stop()
        self._foreground.stop()
        if self._background is not None:
            self._background.workers.stop()
        self._receipts.close()
