"""What each lane owes: reading it from the log, settling it, counting it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from resilient_exporters.spool.cursor import Places, runs
from resilient_exporters.spool.frame import FLAG_SHIFT, KIND_SHIFT, MAX_FLAGS, OPTIONS, RECORD_SIZE, Context, Kind
from resilient_exporters.spool.interface import Slice
from resilient_exporters.spool.log import Log
from resilient_exporters.spool.scan import Scan
from resilient_exporters.spool.segment import Damaged, Entry, Segment, Tally, Window

__all__ = ["Lane", "Ledger"]

# Records that were handed out and not settled are remembered with their size, at most so many a lane.
_HANDED = 1 << 16
# Sealed segments whose files stay open for reading.
_OPEN = 16
# `meta` of a frame with one record, without options or expiry, is below this.
_PLAIN = (Kind.ONE << KIND_SHIFT) + OPTIONS
_FLAGS = MAX_FLAGS << FLAG_SHIFT


class Lane:
    """One lane's side of the log.

    Attributes:
        name: Its name.
        places: Where it owes nothing: settled, never owed, or lost.
        settled: Records and bytes that it settled since opening.
        before: Records and bytes that it owed at opening.
        handed: Place -> size of records handed out and not settled.
        oldest: Place and time of the oldest record owed, as last seen.
    """

    __slots__ = ("before", "handed", "index", "name", "oldest", "places", "segment", "settled", "window")

    def __init__(self, name: str, places: Places) -> None:
        self.name = name
        self.places = places
        self.settled = Tally()
        self.before = Tally()
        self.handed: dict[int, int] = {}
        self.oldest: tuple[int, float] | None = None
        # Where it reads: a window of a segment, and the next entry in it.
        self.segment: Segment | None = None
        self.window: Window | None = None
        self.index = 0


class Ledger:
    """The lanes and their cursors over one log.

    All of it belongs to whoever holds the books, a lock of the spool that owns this ledger. The live segment may grow
    meanwhile: what is behind its `end` at the time of looking is not looked at.

    Args:
        log: The log.
        retire: Closes a segment's file as soon as nobody uses it.
    """

    def __init__(self, log: Log, retire: Callable[[Segment], object]) -> None:
        self.log = log
        self.lanes: dict[str, Lane] = {}
        self.lost = 0
        self.found_gaps: list[Segment] = []
        self._retire = retire

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

    def _unsettled(self, segment: Segment, lane: Lane) -> tuple[int, int]:
        owed = self.owed_between(lane, segment.base, segment.next - 1)
        return len(owed), sum(owed.values())

    # ---------------------------------------------------------------- reading

    def windows(self, segment: Segment, place: int = 0) -> Iterator[Window]:
        """The windows of a segment from the one on that may hold `place`."""
        _, offset, context = segment.mark_before(place)
        while (window := self.window(segment, offset, context)) is not None:
            yield window
            offset, context = window.stop, window.context

    def window(self, segment: Segment, offset: int, context: Context) -> Window | None:
        """Read on in a segment; damage that is met is counted and stepped over."""
        self._opened(segment)
        if segment.gaps and not segment.scanned:
            self._rescan(segment)
        try:
            return segment.window(offset, context)
        except Damaged:
            self._rescan(segment)
        return segment.window(offset, context)

    def _opened(self, segment: Segment) -> None:
        if segment.handle is None:
            segment.handle = self.log.files.open(segment.path)
            self.log.open[segment.number] = segment
            self.prune(segment)

    def prune(self, using: Segment | None = None) -> None:
        """Close sealed segments that were opened longest ago, so that a long backlog does not use up all handles."""
        for number in list(self.log.open)[:-_OPEN]:
            segment = self.log.open.pop(number)
            if segment is not using:
                self._retire(segment)

    def _rescan(self, segment: Segment) -> Scan:
        """Find out what a segment that turned out to be damaged still holds; what is gone counts as dropped."""
        promised = segment.owed()
        done = dict(segment.done)
        known = set(segment.gaps)
        found = segment.rescan()
        segment.done = {}
        for lane in self.lanes.values():
            lane.segment = lane.window = None
        if not known.issuperset(segment.gaps):
            self.found_gaps.append(segment)
        if not segment.counted:
            return found
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
        return found

    def read(self, lane: Lane, after: int, records: int, size: int) -> Slice | None:
        """The next records that a lane owes behind `after`."""
        pick = _Pick(lane, lane.places.after(after), records, size)
        for segment, window in self._windows_for(lane, pick):
            mine = {number for number, lanes in segment.sets.items() if lane.name in lanes}
            lane.index = pick.take(window, lane.index, mine)
            if pick.full:
                break
        found = pick.found
        if found is None:
            return None
        lane.handed.update(zip(found.places, map(len, found.payloads), strict=True))  # type: ignore[arg-type]  # bytes
        if len(lane.handed) > _HANDED:
            lane.handed = dict(islice(lane.handed.items(), len(lane.handed) - _HANDED // 2, None))
        if lane.places.floor == found.places[0] - 1:
            lane.oldest = found.places[0], found.times[0]
        return found

    def _windows_for(self, lane: Lane, pick: _Pick) -> Iterator[tuple[Segment, Window]]:
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
        following = next(
            (
                other
                for other in self.segments()
                if other.number > segment.number and any(lane.name in lanes for lanes in list(other.counts))
            ),
            None,
        )
        if following is None:
            return False
        self._enter(lane, following, 0)
        return True

    def _enter(self, lane: Lane, segment: Segment, place: int) -> None:
        _, offset, context = segment.mark_before(place)
        # Reading may find damage, which makes all lanes forget where they are: so first read, then note.
        window = self.window(segment, offset, context)
        lane.segment, lane.window, lane.index = segment, window, 0

    def _seek(self, lane: Lane, place: int) -> bool:
        """Make the lane's window the one that holds `place`, or the first behind it; False when there is none."""
        segment, window = lane.segment, lane.window
        if segment is not None and window is not None and segment.number in self.log.segments:
            frames = window.frames
            if frames and window.base + frames[0][4] <= place <= window.last() + 1:
                # The last frame that begins at or before the place: if that ends before it, it is skipped.
                lane.index = max(bisect_right(frames, place - window.base, key=lambda frame: frame[4]) - 1, 0)
                return True
        lane.segment = lane.window = None
        for segment in self.segments():
            if segment.next > place and any(lane.name in lanes for lanes in list(segment.counts)):
                self._enter(lane, segment, place)
                return True
        return False

    # ---------------------------------------------------------------- settling

    def settle(self, lane: Lane, places: Iterable[int]) -> list[tuple[int, int]]:
        """Take places off a lane's account; the ranges around them at which it owes nothing now."""
        sizes = self.sizes(lane, places)
        for place in sizes:
            lane.handed.pop(place, None)
        return self.take_off(lane, sizes)

    def sizes(self, lane: Lane, places: Iterable[int]) -> dict[int, int]:
        """Place -> payload size of those of these places that the lane owes."""
        sizes: dict[int, int] = {}
        unknown = []
        settled, handed = lane.places, lane.handed
        for place in places:
            if place in settled:
                continue
            size = handed.get(place, -1)
            if size >= 0:
                sizes[place] = size
            else:
                unknown.append(place)
        if unknown:
            # Not handed out lately: look it up. What the lane does not owe is not found, and so ignored.
            owed = self.owed_between(lane, min(unknown), max(unknown))
            sizes.update((place, owed[place]) for place in unknown if place in owed)
        return sizes

    def take_off(self, lane: Lane, sizes: dict[int, int]) -> list[tuple[int, int]]:
        """Settle records that the lane owes, place -> size; the ranges around them at which it owes nothing now."""
        fresh = sorted(sizes)
        stretches = list(runs(fresh))
        for first, last in stretches:
            lane.places.add(first, last)
        lane.settled.records += len(fresh)
        lane.settled.bytes += sum(sizes.values())
        at = 0
        for segment in self.segments() if fresh else ():
            if segment.next <= fresh[at]:
                continue
            stop = bisect_left(fresh, segment.next, at)
            if stop > at:
                segment.note_done(lane.name, stop - at, sum(sizes[place] for place in fresh[at:stop]))
                at = stop
                if at == len(fresh):
                    break
        # Only now, when what is between them has grown together.
        return list(dict.fromkeys(lane.places.around(first) for first, _ in stretches))

    def owed_between(self, lane: Lane, first: int, last: int) -> dict[int, int]:
        """Place -> payload size of what a lane owes from `first` to `last`."""
        found: dict[int, int] = {}
        for segment in self.segments():
            if segment.base > last or segment.next <= first:
                continue
            for window in self.windows(segment, first):
                if window.frames and window.base + window.frames[0][4] > last:
                    break
                for entry in window.entries():
                    if entry.last >= first and lane.name in segment.sets.get(entry.set, ()):
                        found.update(_owed_in(entry, lane.places, first, last))
        return found


def _owed_in(entry: Entry, places: Places, first: int, last: int) -> Iterator[tuple[int, int]]:
    for place, size in enumerate(entry.records.lengths, entry.first):
        if first <= place <= last and place not in places:
            yield place, size


class _Pick:
    """Collects what a lane owes into one slice.

    Attributes:
        place: All records of the lane before it were looked at.
        found: The slice, None before the first record.
        full: Nothing more goes in.
    """

    __slots__ = ("_left", "_places", "_records", "found", "full", "place")

    def __init__(self, lane: Lane, place: int, records: int, size: int) -> None:
        self._places = lane.places
        self._records = records
        self._left = size
        self.place = place
        self.found: Slice | None = None
        self.full = False

    def take(self, window: Window, start: int, mine: set[int]) -> int:
        """Take records of a window from a frame on, where lane sets in `mine` are the lane's; where to go on."""
        frames, data, base = window.frames, window.data, window.base
        number_shift = window.shift - base
        found, settled = self.found, self._places
        place, left, records = self.place, self._left, self._records
        top = settled.top
        index = start
        for index in range(start, len(frames)):
            at, length, meta, extra, here, time = frames[index]
            here += base
            if meta >= _PLAIN or (
                found is not None and (found.options or found.expires or meta & _FLAGS != found.flags << FLAG_SHIFT)
            ):
                # Not the common frame, one record without options or expiry, or not of the kind collected so far.
                self.place, self._left, self._records = place, left, records
                if not self._take_any(window, index, mine):
                    return index
                place, left, records, found = self.place, self._left, self._records, self.found
                if self.full:
                    return index + 1
                continue
            if here < place or meta & 0xFF not in mine or (here <= top and here in settled):
                continue
            if found is None or window.run != found.run:
                if found is not None:
                    self.full = True
                    break
                found = self.found = Slice(window.run, b"", meta >> FLAG_SHIFT & MAX_FLAGS)
            if here > place:
                # Nothing is owed in between, and nobody has to look again.
                settled.add(place, here - 1)
            place = here + 1
            found.places.append(here)
            found.numbers.append(here + number_shift + extra)
            found.times.append(time)
            found.payloads.append(data[at + RECORD_SIZE : at + length])
            left -= length - RECORD_SIZE
            records -= 1
            if left <= 0 or records <= 0:
                self.full = True
                index += 1
                break
        else:
            index = len(frames)
        self.place, self._left, self._records = place, left, records
        return index

    def _take_any(self, window: Window, index: int, mine: set[int]) -> bool:
        """Take records of any frame; False when the slice is full and the frame is to be looked at again."""
        entry = window.entry(index)
        if entry.set not in mine or entry.last < self.place:
            return True
        shape = entry.run, entry.records.options, entry.flags, entry.records.expires
        at = entry.records.start
        for here, length in enumerate(entry.records.lengths, entry.first):
            if here >= self.place and here not in self._places:
                found = self.found
                if found is not None and shape != (found.run, found.options, found.flags, found.expires):
                    self.full = True
                    return False
                self._put(entry, here, window.data[at : at + length])
                if self.full:
                    return here == entry.last
            at += length
        return True

    def _put(self, entry: Entry, here: int, payload: bytes) -> None:
        if self.found is None:
            self.found = Slice(entry.run, entry.records.options, entry.flags, expires=entry.records.expires)
        if here > self.place:
            self._places.add(self.place, here - 1)
        self.place = here + 1
        self.found.places.append(here)
        self.found.numbers.append(entry.number + here - entry.first)
        self.found.times.append(entry.time)
        self.found.payloads.append(payload)
        self._left -= len(payload)
        self._records -= 1
        self.full = self._left <= 0 or self._records <= 0
