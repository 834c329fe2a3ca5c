"""Looks after orphans, records owed to exporters that are not there: names them once, has them adopted or dropped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from resilient_exporters.delivery.events import Events
from resilient_exporters.delivery.keeper import Keeper
from resilient_exporters.exceptions import InvalidConfigError

__all__ = ["Orphans"]


class Orphans:
    """The orphans of one engine.

    Args:
        name: The pool's.
        keeper: Has the spool that they wait in.
        lanes: The lanes of the moment.
        changing: Held by whoever adds or removes lanes; here for as long as some records change hands.
        events: Told of each orphan once.
    """

    def __init__(
        self,
        name: str,
        keeper: Keeper,
        lanes: Callable[[], Mapping[str, object]],
        changing: threading.RLock,
        events: Events,
    ) -> None:
        self._name = name
        self._keeper = keeper
        self._lanes = lanes
        self._changing = changing
        self._events = events
        self._named: set[str] = set()
        self._looked = False

    def names(self) -> list[str]:
        """Lanes that owe records and that nobody serves."""
        lanes = self._lanes()
        return [name for name in self._keeper.spool.owing() if name not in lanes]

    def look_again(self) -> None:
        """Exporters have come or gone."""
        self._looked = False
        self._named.difference_update(self._lanes())

    def tell(self) -> None:
        """Say once which records belong to exporters that are not here."""
        if self._looked:
            return
        self._looked = True
        for name in self.names():
            if name not in self._named:
                self._named.add(name)
                owed = self._keeper.spool.account(name).records
                line = "pool=%s exporter=%s owed=%d: they wait for an exporter of that name"
                self._events.tell("orphans", line, self._name, name, owed, exporter=name, records=owed)

    def adopt(self, orphan: str, lane: str) -> int:
        """Give what is owed to an orphan to a lane, as new records; how many it was.

        Raises:
            InvalidConfigError: No such orphan, or no such lane.
            SpoolError: There is no room; those given until then are the lane's.
        """
        self._check(orphan)
        if lane not in self._lanes():
            has = ", ".join(self._lanes()) or "none"
            raise InvalidConfigError(f"{self._name} has no exporter named {lane!r} to adopt records; it has {has}")
        return self._some_at_a_time(orphan, lane)

    def drop(self, orphan: str) -> int:
        """Drop what is owed to an orphan; how many records it was.

        Raises:
            InvalidConfigError: No such orphan.
        """
        self._check(orphan)
        return self._some_at_a_time(orphan, None)

    def _some_at_a_time(self, orphan: str, lane: str | None) -> int:
        """In constant memory, and never while an exporter of the orphan's name is here or the lane is not."""
        done = 0
        while True:
            with self._changing:
                lanes = self._lanes()
                if orphan in lanes or not (lane is None or lane in lanes):
                    break
                some = self._keeper.carry(None, orphan, lane)
            if not some:
                break
            done += some
        self._keeper.spool.sync()
        return done

    def _check(self, orphan: str) -> None:
        names = self.names()
        if orphan not in names:
            has = ", ".join(names) or "none"
            raise InvalidConfigError(f"{self._name} owes nothing to an absent exporter {orphan!r}; orphans: {has}")
