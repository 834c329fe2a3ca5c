"""The lanes of an engine: exporters come, with what they were owed before, and go, and what they are owed stays."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence

from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.events import Events
from resilient_exporters.delivery.keeper import Keeper
from resilient_exporters.delivery.lane import Lane, Source
from resilient_exporters.delivery.lying import Lying, letters_in
from resilient_exporters.delivery.settings import Settings
from resilient_exporters.delivery.sharing import Shared
from resilient_exporters.delivery.target import Target
from resilient_exporters.exceptions import TimeoutError
from resilient_exporters.records import ExportResult
from resilient_exporters.spool.interface import Slice, Spool

__all__ = ["Roster"]


class Roster:
    """Who is served.

    Args:
        settings: What the user chose.
        clock: Tells the time.

    Attributes:
        lanes: By name; replaced as a whole, so that who reads it needs no lock.
        changing: Held by whoever adds or removes lanes, or gives records of one to another.
        lying: Dead letters that no lane counts.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.lanes: dict[str, Lane] = {}
        self.changing = threading.RLock()
        self.lying = Lying()
        self._settings = settings
        self._clock = clock
        self._shared = Shared(self.now)

    def now(self) -> dict[str, Lane]:
        """The lanes of the moment."""
        return self.lanes

    def add(
        self,
        name: str,
        target: Target,
        brought: Sequence[Source],
        keeper: Keeper,
        events: Events,
        on_settled: Callable[[Lane, Slice, list[ExportResult]], None],
    ) -> Lane:
        """Serve an exporter from now on.

        Args:
            name: Its lane.
            target: The exporter.
            brought: Spools with records that it owed before.
            keeper: Has the spool that it will owe records in.
            events: Told of changes of the target.
            on_settled: Gets each batch of a pass.
        """
        with self.changing, keeper.in_place():
            sources = [*brought, Source(keeper.once, name, once=True), Source(keeper.spool, name)]
            lane = Lane(
                name,
                target,
                sources,
                self._clock,
                self._settings.retry,
                events=events,
                shared=self._shared,
                on_settled=on_settled,
            )
            lane.dead = sum(self.lying.in_spool(source.spool).pop(source.lane, 0) for source in sources)
            self.lanes = {**self.lanes, name: lane}
        return lane

    def take_over(self, spool: Spool, lanes: dict[str, str], keeper: Keeper) -> bool:
        """Keep here what a memory spool holds of an exporter that joins; False when it must be read in place.

        Args:
            spool: What it kept when it was alone.
            lanes: Name here for each lane there.
            keeper: Keeps it.
        """
        letters = Counter(lanes[letter.lane] for letter in spool.dead_letters())
        lying = self.lying.in_spool(keeper.spool)
        taken = keeper.bring(spool, lanes.__getitem__)
        if taken:
            lying.update(letters)
        return taken

    def switch_to_file(self, file: Spool, keeper: Keeper) -> None:
        """Keep in a file from now on; dead letters that lie there already count for the lanes that are here."""
        old, before = keeper.spool, letters_in(file)
        keeper.switch(file)
        for name, lane in self.lanes.items():
            with lane.mutex:
                lane.dead += before.pop(name, 0)
        self.lying.carry(old, file, before)

    def remove(self, names: Sequence[str], keeper: Keeper, *, waits: bool) -> list[Lane]:
        """Serve some exporters no longer; what they are owed stays in the spool. The lanes that are gone.

        Args:
            names: Their lanes.
            keeper: Has the spool in which it stays.
            waits: Whether to wait for calls that run, each for as long as the exporter's timeout.

        Raises:
            TimeoutError: A call goes on; nothing has changed.
            SpoolError: There is no room for what an exporter had brought along and still owes; it stays.
        """
        lanes = [lane for lane in map(self.lanes.get, names) if lane is not None]
        retired: list[Lane] = []
        try:
            for lane in lanes:
                if not lane.turns.drive(lane.turns.retire, lane.target.timeout if waits else 0.0):
                    raise TimeoutError(f"{lane.name} is at work and stays in the pool: remove it again when it is not")
                retired.append(lane)
                _take_home(lane, keeper)
        except BaseException:
            for lane in retired:
                lane.turns.serve_again()
            raise
        with self.changing:
            self.lanes = {name: lane for name, lane in self.lanes.items() if lane not in lanes}
        for lane in lanes:
            self.lying.in_spool(keeper.spool)[lane.name] = lane.dead
        return lanes


def _take_home(lane: Lane, keeper: Keeper) -> None:
    """Leave what a lane owes in the pool's own spool only: what it brought along is carried there."""
    for source in [source for source in lane.sources if source.spool is not keeper.spool]:
        while keeper.carry(source.spool, source.lane, None if source.once else lane.name, anew=False):
            pass
    lane.let_go()
