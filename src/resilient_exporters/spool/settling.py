"""Settling: lanes are done with records, as delivered, dead or dropped, and what nobody owes is deleted."""

from __future__ import annotations

import contextlib
import logging
import time as clock
from collections.abc import Iterable, Iterator, Sequence

from resilient_exporters.exceptions import SpoolError, SpoolFull
from resilient_exporters.spool.cursor import runs
from resilient_exporters.spool.interface import DeadLetter, Fate, Slice
from resilient_exporters.spool.ledger import Lane
from resilient_exporters.spool.living import LivingSpool, Parts
from resilient_exporters.spool.locks import if_free
from resilient_exporters.spool.placing import translated
from resilient_exporters.spool.segment import Segment

__all__ = ["SettlingSpool"]

logger = logging.getLogger("resilient_exporters")


class SettlingSpool(LivingSpool):
    """The part of a spool over a log that takes records off the lanes' accounts; see `spool.interface.Spool`."""

    # ---------------------------------------------------------------- settling

    def settle(self, lane: str, places: Sequence[int], fate: Fate) -> int:
        """See `Spool.settle`."""

        def work(parts: Parts) -> int:
            settled = self._settle(parts, parts.ledger.lane(lane), places, fate)
            self._reap(parts)
            return settled

        settled = self._using(work, -1)
        if settled < 0:
            # From a signal handler inside another call: that one does it.
            self._later.append((lane, places, fate))
        return max(settled, 0)

    def _settle_later(self, parts: Parts) -> None:
        while self._later:
            name, places, fate = self._later.popleft()
            self._settle(parts, parts.ledger.lane(name), places, fate)

    def _settle(self, parts: Parts, lane: Lane, places: Sequence[int], fate: Fate) -> int:
        """Settle and write that down; how many records it was."""
        before = lane.settled.records
        try:
            if isinstance(places, range):
                owed = parts.ledger.owed_between(lane, places.start, places.stop - 1)
                ranges = parts.ledger.take_off(lane, [*owed], [*owed.values()])
            else:
                ranges = parts.ledger.settle(lane, places)
        except OSError as error:
            logger.warning("spool_settle_unreadable lane=%r error=%r", lane.name, str(error))
            return 0
        unwritten = (ranges or self._unwritten) and not self._write_state(parts, lane.name, fate, ranges)
        # No room, not even the reserve: deleting what is settled says the same, and makes some.
        if unwritten and self._make_room(parts):
            self._write_state(parts, lane.name, fate, ranges)
        return lane.settled.records - before

    def _make_room(self, parts: Parts) -> bool:
        """Drop what is settled, unless somebody is appending; called with the books held."""
        return if_free(self._gate, lambda: not self._busy and self._reclaim(parts), False)

    def _reclaim(self, parts: Parts) -> bool:
        """Give back the room of what is settled; whether there was any. Called with the gate held."""

        def work() -> bool:
            self._seal_settled(parts)
            reaped = self._reap(parts)
            return parts.state.compact(parts.ledger.settled()) or reaped > 0

        # Not by waiting for the books: who has them may be logging, and wait for this thread in a handler of the log.
        return if_free(self._books, work, False)

    @staticmethod
    def _seal_settled(parts: Parts) -> None:
        """Seal the live segment when half of it is settled: it is deleted as soon as the rest is, too."""
        live = parts.log.live
        if live is not None and live.next > live.base and live.is_settled(half=True):
            with contextlib.suppress(SpoolError):  # then it stays; the caller reports the lack of room
                parts.log.seal()

    def _reap(self, parts: Parts) -> int:
        """Delete sealed segments in which nothing is owed; how many. Called with the books held."""
        settled = parts.ledger.reapable()
        if not settled:
            return 0
        # Before any unlink: else, after a power cut, the missing segment looks like a loss.
        try:
            parts.state.sync()
        except OSError as error:
            logger.warning("spool_state_unsynced path=%r error=%r", parts.state.path, str(error))
        reaped = 0
        for segment in settled:
            try:
                self._files.unlink(segment.path)
            except FileNotFoundError:
                pass
            except OSError as error:
                logger.warning("spool_segment_undeletable path=%r error=%r", segment.path, str(error))
                continue
            parts.log.segments.pop(segment.number, None)
            parts.log.names_unsynced = True
            self._syncer.retire(segment)
            reaped += 1
        return reaped

    # ---------------------------------------------------------------- pinning

    def pin(self, lane: str, places: Sequence[int]) -> None:
        """See `Spool.pin`."""

        def work(parts: Parts) -> None:
            keeper = parts.ledger.lane(lane)
            keeper.places.pinned = list(runs(places))
            self._write_state(parts, lane, None, keeper.places.pinned)

        self._using(work, None)

    def pinned(self, lane: str) -> list[int] | None:
        """See `Spool.pinned`."""

        def work(parts: Parts) -> list[int] | None:
            keeper = parts.ledger.lane(lane)
            ranges = keeper.places.pinned
            if not ranges or ranges[0][0] in keeper.places:
                return None
            owed = parts.ledger.owed_between(keeper, ranges[0][0], ranges[-1][1])
            places = [place for first, last in ranges for place in range(first, last + 1)]
            return places if all(place in owed for place in places) else None

        return self._using(work, None)

    # ---------------------------------------------------------------- dead letters

    def bury(self, lane: str, slice: Slice, reasons: dict[int, str], attempts: int) -> int:
        """See `Spool.bury`."""

        def work(parts: Parts) -> int:
            known, owed = reasons, {}
            keeper = parts.ledger.lane(lane)
            if slice.places:  # else it was never kept, so nothing is to be settled
                owed = parts.ledger.sizes(keeper, [slice.places[at] for at in reasons])
                known = {at: reason for at, reason in reasons.items() if slice.places[at] in owed}
            if known:
                self._add_letters(parts, list(_letters(lane, slice, known, attempts)))
            if owed:
                # The letters first: a crash between the two leaves records owed and dead, never neither.
                self._settle(parts, keeper, list(owed), Fate.DEAD)
                self._reap(parts)
            return len(known)

        buried = self._using(work, -1)
        if buried < 0:
            raise SpoolError("dead letters cannot be kept from inside another call on the spool")
        return buried

    def _add_letters(self, parts: Parts, letters: list[DeadLetter]) -> None:
        try:
            parts.dead.add(letters)
        except OSError as error:
            if not isinstance(translated(error, "writing", parts.dead.path), SpoolFull) or not self._make_room(parts):
                raise
            parts.dead.add(letters)

    def dead_letters(self) -> Iterable[DeadLetter]:
        """See `Spool.dead_letters`."""
        return self._using(lambda parts: list(parts.dead.letters()), [])

    def forget_dead(self, keys: Iterable[int]) -> None:
        """See `Spool.forget_dead`."""

        def work(parts: Parts) -> None:
            parts.dead.forget(keys)
            self._reap(parts)

        self._using(work, None)

    # ---------------------------------------------------------------- dropping

    def drop_oldest(self, size: int) -> dict[str, int]:
        """See `Spool.drop_oldest`."""

        def work(parts: Parts) -> dict[str, int]:
            lost: dict[str, int] = {}
            left = size
            for segment in parts.ledger.segments():
                if left <= 0:
                    break
                left -= self._drop_from(parts, segment, left, lost)
            self._reap(parts)
            return lost

        self._opened()
        with self._gate:
            return {} if self._busy else self._using(work, {})

    def _drop_from(self, parts: Parts, segment: Segment, size: int, lost: dict[str, int]) -> int:
        """Drop what is oldest in a segment; how many bytes that frees."""
        raise NotImplementedError

    def _drop(self, parts: Parts, name: str, places: Sequence[int], lost: dict[str, int]) -> None:
        dropped = self._settle(parts, parts.ledger.lane(name), places, Fate.DROPPED)
        if dropped:
            lost[name] = lost.get(name, 0) + dropped

    def expire(self, now: float) -> dict[str, int]:
        """See `Spool.expire`."""

        def work(parts: Parts) -> dict[str, int]:
            lost: dict[str, int] = {}
            for segment in parts.ledger.segments():
                if segment.expires and segment.expires <= now:
                    self._expire(parts, segment, now, lost)
            self._reap(parts)
            return lost

        return self._using(work, {})

    def _expire(self, parts: Parts, segment: Segment, now: float, lost: dict[str, int]) -> None:
        over: dict[str, list[int]] = {}
        for window in parts.ledger.windows(segment):
            for entry in window.entries:
                if 0.0 < entry.expires <= now:
                    for name in segment.sets.get(entry.set, ()):
                        over.setdefault(name, []).extend(range(entry.first, entry.last + 1))
        for name, places in over.items():
            self._drop(parts, name, places, lost)


def _letters(lane: str, slice: Slice, reasons: dict[int, str], attempts: int) -> Iterator[DeadLetter]:
    now = clock.time()
    for at, reason in sorted(reasons.items()):
        yield DeadLetter(
            key=0,
            lane=lane,
            run=slice.run,
            number=slice.numbers[at],
            accepted=slice.times[at],
            died=now,
            attempts=attempts,
            reason=reason,
            options=slice.options,
            flags=slice.flags,
            payload=slice.payloads[at],
        )
