"""The spools that owe one exporter records, in the order in which it gets them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from resilient_exporters.spool.interface import Spool

__all__ = ["Source", "Sources"]

_LOOK_RECORDS, _LOOK_BYTES = 1000, 1 << 20
"""Most that is read at once to find a record by its id."""


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


class Sources:
    """What a lane owes its records from, oldest first. Whoever changes it holds the lane's mutex.

    Args:
        sources: At least one; the last is the spool that new records are kept in.
    """

    def __init__(self, sources: Iterable[Source]) -> None:
        self._sources = list(sources)
        self._clear_at: list[int] = []

    def __iter__(self) -> Iterator[Source]:
        return iter(self._sources)

    @property
    def own(self) -> Source:
        """The spool that new records are kept in."""
        return self._sources[-1]

    def owed(self) -> int:
        """Records that wait for this exporter."""
        return sum(source.spool.account(source.lane).records for source in self._sources)

    def clear(self) -> bool:
        """Whether nothing waits; when nothing was kept since the last time, by a single comparison."""
        ends = [source.spool.next_place for source in self._sources]
        if ends == self._clear_at:
            return True
        if self.owed():
            return False
        self._clear_at = ends
        return True

    def find(self, run: int, number: int) -> tuple[Source, int] | None:
        """Where a record that is owed stands, by its id: its source and its place there."""
        for source in self._sources:
            kept = source.spool.read(source.lane, 0, _LOOK_RECORDS, _LOOK_BYTES)
            while kept is not None:
                if kept.run == run and number in kept.numbers:
                    return source, kept.places[kept.numbers.index(number)]
                kept = source.spool.read(source.lane, kept.places[-1], _LOOK_RECORDS, _LOOK_BYTES)
        return None

    def let_go(self) -> None:
        """Let go of all spools that were brought along; they are empty."""
        for source in [source for source in self._sources if source.brought]:
            self.let_go_of(source)

    def let_go_of(self, source: Source) -> None:
        """Let go of an empty spool that was brought along, and close it when no other lane is owed anything there."""
        self._sources = [other for other in self._sources if other is not source]
        if not source.spool.owing():
            source.spool.close()

    def move(self, old: Spool, new: Spool) -> None:
        """Be owed from another spool what one was owed from."""
        self._sources = [replace(s, spool=new) if s.spool is old else s for s in self._sources]
        self._clear_at = []
