"""Dead letters of a pool, of an exporter in it, or of an exporter alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from resilient_exporters.delivery.engine import Engine
from resilient_exporters.delivery.keeper import Keep
from resilient_exporters.delivery.lane import Lane
from resilient_exporters.delivery.parcel import Parcel
from resilient_exporters.delivery.reentry import at_work, inside
from resilient_exporters.exceptions import SpoolFull
from resilient_exporters.exporters.deadletters import DeadLetter, DeadLetters, Shelf, below, is_at
from resilient_exporters.spool.interface import Spool

if TYPE_CHECKING:
    from resilient_exporters.exporters.core import Core

__all__ = ["PoolLetters"]


class PoolLetters(DeadLetters):
    """The dead letters of a pool, of an exporter in it, or of an exporter alone.

    Args:
        core: Of that pool or exporter.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    def _opened(self, change: bool) -> Shelf:
        core, path = self._core, ""
        while (pool := core.pool) is not None:
            core, path = pool._rex, below(core.name, path)
        engine = core.engine()
        engine.check_open()
        return _EngineShelf(engine, path)


class _EngineShelf:
    """Dead letters in the spools of an engine: its own, and those that exporters brought along.

    Args:
        engine: The engine of the outermost pool.
        path: Only those of lanes at or below it.
    """

    def __init__(self, engine: Engine, path: str) -> None:
        self._engine = engine
        self._path = path
        # From inside an exporter, or a logging handler, this very thread may have a lane.
        self._patient = not inside.here.calls

    def letters(self) -> Iterator[DeadLetter]:
        for spool, named in self._spools():
            for kept in spool.dead_letters():
                name = named.get(kept.lane, kept.lane)
                if is_at(name, self._path):
                    yield DeadLetter.of(kept, name, spool)

    def _spools(self) -> Iterator[tuple[Spool, dict[str, str]]]:
        """Each spool once, with names of lanes here for those there."""
        engine = self._engine
        yield engine.spool, {}
        spools: dict[int, Spool] = {}
        named: dict[int, dict[str, str]] = {}
        for lane in engine.lanes.values():
            for source in lane.sources:
                if source.spool is not engine.spool:
                    spools[id(source.spool)] = source.spool
                    named.setdefault(id(source.spool), {})[source.lane] = lane.name
        yield from ((spool, named[key]) for key, spool in spools.items())

    def replay(self, letters: Sequence[DeadLetter]) -> int:
        kept: list[DeadLetter] = []
        try:
            at_work(lambda: self._keep(letters, kept))
        finally:
            if kept:
                self._engine.spool.sync()
                self._forget(kept)
                self._wake()
        return len(kept)

    def _keep(self, letters: Sequence[DeadLetter], kept: list[DeadLetter]) -> None:
        engine = self._engine
        for letter in letters:
            spool, was = engine.spool, letter.kept
            parcel = Parcel(spool.run, spool.draw(), was.accepted, was.payload, was.options, was.flags)
            if not engine.keeper.keep(parcel, frozenset({letter.exporter}), Keep()):
                # The user's policy for a full spool drops what comes last; but a dead letter is not to be lost.
                if (lane := engine.lanes.get(letter.exporter)) is not None:
                    self._count(lane, dropped=-1)
                raise SpoolFull(f"no room to replay more dead letters; {len(kept)} were replayed")
            kept.append(letter)

    def drop(self, letters: Sequence[DeadLetter]) -> int:
        self._forget(letters, dropped=True)
        return len(letters)

    def _forget(self, letters: Sequence[DeadLetter], *, dropped: bool = False) -> None:
        """Forget letters where they lie, and take them off their lanes' accounts."""
        homes = {id(letter.home): letter.home for letter in letters if letter.home is not None}
        for home in homes.values():
            home.forget_dead([letter.kept.key for letter in letters if letter.home is home])
        for letter in letters:
            if (lane := self._engine.lanes.get(letter.exporter)) is not None:
                self._count(lane, dead=-1, dropped=int(dropped))
            elif letter.home is not None:
                self._engine.lying.in_spool(letter.home)[letter.kept.lane] -= 1

    def _count(self, lane: Lane, *, dead: int = 0, dropped: int = 0) -> None:
        held = lane.mutex.acquire(blocking=self._patient)
        try:
            lane.dead += dead
            lane.dropped += dropped
        finally:
            if held:
                lane.mutex.release()

    def close(self) -> None:
        """The engine goes on."""

    def _wake(self) -> None:
        if self._engine.settings.background:
            self._engine.background().wake()
