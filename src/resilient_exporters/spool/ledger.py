"""What each lane owes: reading it from the log, settling it, counting it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from resilient_exporters.spool.cursor import Places, runs
from resilient_exporters.spool.handed import Handed
from resilient_exporters.spool.interface import Slice
from resilient_exporters.spool.log import Log
from resilient_exporters.spool.picking import Pick
from resilient_exporters.spool.reader import Reader
from resilient_exporters.spool.recent import Handout, Recent, own_sets
from resilient_exporters.spool.segment import Segment, Tally
from resilient_exporters.spool.window import Entry, Window

__all__ = ["Lane", "Ledger"]


class Lane:
    """One lane's side of the log.

    Attributes:
        name: Its name.
        places: Where it owes nothing: settled, never owed, or lost.
        settled: Records and bytes that it settled since opening.
        before: Records and bytes that it owed at opening.
        handed: What it was handed and has not settled.
        oldest: Place and time of the oldest record owed, as last seen.
    """

    __slots__ = ("before", "handed", "index", "name", "oldest", "places", "segment", "settled", "window")

    def __init__(self, name: str, places: Places) -> None:
        self.name = name
        self.places = places
        self.settled = Tally()
        self.before = Tally()
        self.handed = Handed()
        self.oldest: tuple[int, float] | None = None
        # Where it reads: a window of a segment, and the next entry in it.
        self.segment: Segment | None = None
        self.window: Window | None = None
        self.index = 0


class Ledger(Reader):
    """The lanes and their cursors over one log.

    All of it belongs to whoever holds the books, a lock of the spool that owns this ledger. The live segment may grow
    meanwhile: what is behind its `end` at the time of looking is not looked at.

    Args:
        log: The log.
        retire: Closes a segment's file as soon as nobody uses it.
    """

    def __init__(self, log: Log, retire: Callable[[Segment], object]) -> None:
        super().__init__(log, retire)
        self.lanes: dict[str, Lane] = {}
        self.lost = 0
        self.found_gaps: list[Segment] = []
        # Segments in which somebody settled: the live one, and sealed ones that may be owed nowhere.
        self._settled: dict[int, Segment] = {}
        self._handouts = Recent()

    # ---------------------------------------------------------------- lanes

    def lane(self, name: str) -> Lane:
        """The lane of this name, made when there is none."""
        found = self.lanes.get(name)
        if found is None:
            found = self.lanes[name] = Lane(name, Places())
        return found

    def balance(self, name: str) -> tuple[int, int]:
        """Records and bytes that a lane owes."""
        records, size = self.log.promised(name)
        lane = self.lanes.get(name)
        if lane is not None:
            records += lane.before.records - lane.settled.records
            size += lane.before.bytes - lane.settled.bytes
        return records, size

    def owing(self) -> list[str]:
        """Names of the lanes that owe something; one walk over all that was promised, however many names there were."""
        owed: Counter[str] = Counter()
        for names, tally in list(self.log.counts.items()):
            for name in names:
                owed[name] += tally.records
        for lane in list(self.lanes.values()):
            owed[lane.name] += lane.before.records - lane.settled.records
        return sorted(name for name, records in owed.items() if records > 0)

    def settled(self) -> dict[str, Places]:
        """Lane -> places at which it owes nothing."""
        return {lane.name: lane.places for lane in list(self.lanes.values())}

    def names(self) -> list[str]:
        return sorted({*self.lanes, *self.log.lanes()})

    def segments(self) -> list[Segment]:
        """All segments, oldest first, as of now."""
        return list(self.log.segments.values())

    def open_balance(self, segment: Segment) -> None:
        """Count what the lanes owe in a segment of an earlier run."""
        last = segment.next - 1
        lanes = [self.lane(name) for name in segment.owed()]
        if any(lane.places.touches(segment.base, last) > lane.places.covers(segment.base, last) for lane in lanes):
            # Has to be looked at; once before counting, since damage changes what there is to count.
            deque(self.windows(segment), maxlen=0)
        segment.counted = True
        for name, owed in segment.owed().items():
            lane = self.lane(name)
            records, size = 0, 0
            if not lane.places.touches(segment.base, last):
                records, size = owed.records, owed.bytes
            elif not lane.places.covers(segment.base, last):
                records, size = self._unsettled(segment, lane)
            segment.note_done(name, owed.records - records, owed.bytes - size)
            lane.before.records += records
            lane.before.bytes += size
        self._settled[segment.number] = segment

    def _unsettled(self, segment: Segment, lane: Lane) -> tuple[int, int]:
        owed = self.owed_between(lane, segment.base, segment.next - 1)
        return len(owed), sum(owed.values())

    # ---------------------------------------------------------------- reading

    def _rescan(self, segment: Segment) -> None:
        """Find out what a segment that turned out to be damaged still holds; what is gone counts as dropped."""
        promised = segment.owed()
        done = dict(segment.done)
        known = set(segment.gaps)
        segment.rescan()
        segment.done = {}
        self._forget_windows()
        self._handouts.clear()
        for lane in self.lanes.values():
            lane.segment = lane.window = None
            lane.handed = Handed()
        if not known.issuperset(segment.gaps):
            self.found_gaps.append(segment)
        if not segment.counted:
            return
        for name, owed in promised.items():
            lane = self.lane(name)
            records, size = self._unsettled(segment, lane)
            gone = done.get(name, Tally())
            lost = owed.records - gone.records - records
            lane.settled.records += lost
            lane.settled.bytes += owed.bytes - gone.bytes - size
            now = segment.owed().get(name, Tally())
            segment.note_done(name, now.records - records, now.bytes - size)
            self.lost += max(lost, 0)
        self._settled[segment.number] = segment

    def read(self, lane: Lane, after: int, records: int, size: int) -> Slice | None:
        """The next records that a lane owes behind `after`."""
        place = lane.places.after(after)
        found = self._as_others(lane, place, records, size) or self._pick(lane, place, records, size)
        if found is None:
            return None
        lane.handed.note(found.places, found.payloads)  # type: ignore[arg-type]  # bytes in files
        if lane.places.floor == found.places[0] - 1:
            lane.oldest = found.places[0], found.times[0]
        return found

    def _as_others(self, lane: Lane, place: int, records: int, size: int) -> Slice | None:
        """What another lane was handed at a place, if it is this lane's as well."""
        there = self._handouts.find(place, lane.name, lane.places, records, size, self.log.next_place - place)
        if there is None:
            return None
        lane.segment, lane.window, lane.index = there.segment, there.window, there.entry
        return replace(there.slice)

    def _pick(self, lane: Lane, place: int, records: int, size: int) -> Slice | None:
        """What a lane owes from a place on, picked from the segments."""
        pick = Pick(lane.places, place, records, size)
        sets: dict[Segment, set[int]] = {}
        for segment, window in self._windows_for(lane, pick):
            mine = sets[segment] = own_sets(segment, lane.name)
            lane.index = pick.take(window, lane.index, mine)
            if pick.full:
                break
        found = pick.found
        if found is not None and len(self.lanes) > 1:
            taken = sum(map(len, found.payloads))  # type: ignore[arg-type]  # bytes in files
            self._handouts.note(Handout(found, taken, size, sets, lane.segment, lane.window, lane.index))
            return replace(found)
        return found

    def _windows_for(self, lane: Lane, pick: Pick) -> Iterator[tuple[Segment, Window]]:
        """Windows from the one on that holds what is picked next; the lane remembers how far it got."""
        if not self._seek(lane, pick.place):
            return
        while True:
            segment, window = lane.segment, lane.window
            if segment is None:
                # Damage was found: go on behind what was read before it.
                if not self._seek(lane, pick.place):
                    return
            elif window is None:
                if not self._next_segment(lane, segment):
                    return
            else:
                yield segment, window
                following = self.window(segment, window.stop, window.context)
                if following is None and not segment.sealed:
                    return
                if lane.segment is not None:
                    lane.window, lane.index = following, 0

    def _next_segment(self, lane: Lane, segment: Segment) -> bool:
        segments = self.segments()
        at = bisect_right(segments, segment.number, key=lambda other: other.number)
        return self._enter_first(lane, segments[at:], 0)

    def _enter_first(self, lane: Lane, segments: list[Segment], place: int) -> bool:
        """Go to the first of these segments that holds records of the lane; False when none does."""
        for segment in segments:
            if any(lane.name in lanes for lanes in list(segment.counts)):
                self._enter(lane, segment, place)
                return True
        return False

    def _enter(self, lane: Lane, segment: Segment, place: int) -> None:
        _, offset, context = segment.mark_before(place)
        # Reading may find damage, which makes all lanes forget where they are: so first read, then note.
        window = self.window(segment, offset, context)
        lane.segment, lane.window, lane.index = segment, window, 0

    def _seek(self, lane: Lane, place: int) -> bool:
        """Make the lane's window the one that holds `place`, or the first behind it; False when there is none."""
        segment, window = lane.segment, lane.window
        if segment is not None and window is not None and segment.number in self.log.segments:
            entries = window.entries
            if entries and entries[0].first <= place <= window.last() + 1:
                # The last entry that begins at or before the place: if that ends before it, it is skipped.
                lane.index = max(bisect_right(entries, place, key=lambda entry: entry.first) - 1, 0)
                return True
        lane.segment = lane.window = None
        return self._enter_first(lane, self._segments_from(place), place)

    def _segments_from(self, place: int) -> list[Segment]:
        """The segments from the one on that holds a place."""
        segments = self.segments()
        return segments[bisect_right(segments, place, key=lambda segment: segment.next) :]

    # ---------------------------------------------------------------- settling

    def settle(self, lane: Lane, places: Sequence[int]) -> list[tuple[int, int]]:
        """Take places off a lane's account; the ranges around them at which it owes nothing now."""
        if not places:
            return []
        whole = lane.handed.whole(places)
        if whole is not None:
            lane.handed.forget(places[0])
            owed = lane.places.missing(places[0], places[-1])
            if sum(last - first + 1 for first, last in owed) == len(places):
                return self.take_off(lane, *whole)
        sizes = self.sizes(lane, places)
        fresh = sorted(sizes)
        around = self.take_off(lane, fresh, [sizes[place] for place in fresh])
        lane.handed.forget_up_to(lane.places.floor)
        return around

    def sizes(self, lane: Lane, places: Iterable[int]) -> dict[int, int]:
        """Place -> payload size of those of these places that the lane owes."""
        sizes: dict[int, int] = {}
        unknown = []
        settled, handed = lane.places, lane.handed
        for place in places:
            if place in settled:
                continue
            size = handed.size(place)
            if size >= 0:
                sizes[place] = size
            else:
                unknown.append(place)
        if unknown:
            # Not handed out lately: look it up. What the lane does not owe is not found, and so ignored.
            owed = self.owed_between(lane, min(unknown), max(unknown))
            sizes.update((place, owed[place]) for place in unknown if place in owed)
        return sizes

    def take_off(self, lane: Lane, places: Sequence[int], sizes: Sequence[int]) -> list[tuple[int, int]]:
        """Settle records that the lane owes; the ranges around them at which it owes nothing now.

        Args:
            lane: Who owes them.
            places: Where they are, ascending.
            sizes: Their payload sizes.
        """
        if not places:
            return []
        stretches = list(runs(places))
        for first, last in stretches:
            lane.places.add(first, last)
        total = sum(sizes)
        lane.settled.records += len(places)
        lane.settled.bytes += total
        segment = lane.segment
        if segment is not None and segment.base <= places[0] and places[-1] < segment.next:
            self._note_done(lane, segment, len(places), total)
        else:
            self._note_by_segment(lane, places, sizes)
        # Only now, when what is between them has grown together.
        return list(dict.fromkeys(lane.places.around(first) for first, _ in stretches))

    def _note_by_segment(self, lane: Lane, places: Sequence[int], sizes: Sequence[int]) -> None:
        """Note for each segment what a lane has settled there."""
        at = 0
        for segment in self._segments_from(places[0]):
            if at == len(places):
                break
            stop = bisect_left(places, segment.next, at)
            if stop > at:
                self._note_done(lane, segment, stop - at, sum(sizes[at:stop]))
                at = stop

    def _note_done(self, lane: Lane, segment: Segment, records: int, size: int) -> None:
        segment.note_done(lane.name, records, size)
        self._settled[segment.number] = segment

    def reapable(self) -> list[Segment]:
        """Sealed segments in which nothing is owed."""
        found: list[Segment] = []
        for number, segment in list(self._settled.items()):
            if number in self.log.segments and not segment.sealed:
                continue
            if number in self.log.segments and segment.is_settled():
                found.append(segment)
            else:
                del self._settled[number]
        return found

    def owed_between(self, lane: Lane, first: int, last: int) -> dict[int, int]:
        """Place -> payload size of what a lane owes from `first` to `last`."""
        found: dict[int, int] = {}
        for segment in self._segments_from(first):
            if segment.base > last:
                break
            for window in self.windows(segment, first):
                if window.entries and window.entries[0].first > last:
                    break
                for entry in window.entries:
                    if lane.name in segment.sets.get(entry.set, ()):
                        found.update(_owed_in(entry, lane.places, first, last))
        return found


def _owed_in(entry: Entry, places: Places, first: int, last: int) -> Iterator[tuple[int, int]]:
    for low, high in places.missing(max(first, entry.first), min(last, entry.last)):
        for place in range(low, high + 1):
            yield place, len(entry.payloads[place - entry.first])
