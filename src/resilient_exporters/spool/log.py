"""The log: segments in a row, the live one appended to, full ones sealed; it knows what lanes were promised."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Sequence
from zlib import crc32

from resilient_exporters.exceptions import SpoolError
from resilient_exporters.spool.files import write_all
from resilient_exporters.spool.frame import (
    CRC,
    FLAG_SHIFT,
    HEAD,
    KIND_SHIFT,
    MASK,
    MAX_FLAGS,
    MAX_FRAME,
    MAX_SETS,
    RECORD_SIZE,
    SHIFT_SPAN,
    Context,
    Kind,
    pack_json,
    pack_many,
)
from resilient_exporters.spool.numbers import Numbers
from resilient_exporters.spool.placing import Placing, translated
from resilient_exporters.spool.segment import FAR, NEAR, Segment, Tally

__all__ = ["Log"]

_FAR_ORDINAL = 1 << 16
_pack_head, _pack_crc = HEAD.pack, CRC.pack

# Lanes, flags, `meta`, tallies of segment and log, the segment, its file, seed, base, shift, and where to stop.
_Hot = tuple[frozenset[str], int, int, Tally, Tally, Segment, int, int, int, int, int]


class Log:
    """Appends records and hands out segments to read from.

    Everything but `segments` belongs to whoever holds the gate, a lock of the spool that owns this log.

    Args:
        placing: Where segments live.
        spool: The spool's random number.
        run: The run of numbers drawn here.
        segment_size: Seal a segment before it gets longer, bytes.
        room: Called with a number of bytes before they are written; returns how many may be written until it wants
            to be asked again, or raises SpoolFull.
        numbers: Draws numbers of that run.
    """

    def __init__(
        self,
        placing: Placing,
        *,
        spool: int,
        run: int,
        segment_size: int,
        room: Callable[[int], int],
        numbers: Numbers,
    ) -> None:
        self.placing = placing
        self.files = placing.files
        self.spool = spool
        self.run = run
        self.segment_size = segment_size
        self.room = room
        self.numbers = numbers
        self._draw = numbers.next
        self._pwrite = placing.files.pwrite
        # Number -> segment, oldest first. Appending adds, settling removes; single dictionary operations both.
        self.segments: dict[int, Segment] = {}
        # Sealed segments whose files are open, in the order of opening.
        self.open: dict[int, Segment] = {}
        self.live: Segment | None = None
        self.next_place = 1
        self.next_number = 1
        self.counts: dict[frozenset[str], Tally] = {}
        # Nor does anyone know what the run before has synced.
        self.names_unsynced = True
        self._mark = 0
        # All that the fast path needs to know, for one set of lanes in the live segment.
        self._hot: _Hot | None = None

    # ---------------------------------------------------------------- appending

    def append_one(
        self, payload: bytes, lanes: frozenset[str], time: float, number: int | None = None, flags: int = 0
    ) -> bool:
        """Write one plain record behind all others, the hot path; False when there is more to do: nothing was done."""
        hot = self._hot
        if hot is None or lanes is not hot[0] or flags != hot[1]:
            hot = self._heated(lanes, flags)
            if hot is None:
                return False
        _, _, meta, here, ever, live, handle, seed, base, shift, soft_end = hot
        # log: place and number
        at = live.end
        size = len(payload)
        length = RECORD_SIZE + size
        end = at + length
        if end > soft_end:
            return False
        place = self.next_place
        if number is None:
            number = self._draw()
        extra = number - place - shift
        if not 0 <= extra < SHIFT_SPAN:
            return False
        # frame: header and checksum, begun with the lower 32 bits of seed and offset
        rest = _pack_head(length, meta, extra, place - base, time) + payload
        data = _pack_crc(crc32(rest, seed + at)) + rest
        # files: one write
        try:
            wrote = self._pwrite(handle, data, at)
            if wrote != length:
                write_all(self.files, handle, data[wrote:], at + wrote)
        except BaseException as error:
            self._take_back(live)
            if isinstance(error, OSError):
                return False
            raise
        # No call below: an exception thrown in from outside (Ctrl-C) finds all of it done or nothing.
        live.end = end
        live.next = self.next_place = place + 1
        here.records += 1
        here.bytes += size
        ever.records += 1
        ever.bytes += size
        return True

    def _heated(self, lanes: frozenset[str], flags: int) -> _Hot | None:
        """The hot path made one for these lanes and flags, where the live segment allows it."""
        if self._hot is not None:
            self._heat(self._hot[5], lanes, flags, self._hot[10])
        hot = self._hot
        return hot if hot is not None and hot[0] is lanes and hot[1] == flags else None

    def append(
        self,
        payloads: Sequence[bytes],
        lanes: frozenset[str],
        time: float,
        number: int | None,
        run: int | None,
        options: bytes,
        flags: int,
        expires: float,
    ) -> None:
        """Write records behind all others."""
        plain = len(payloads) == 1 and run is None and not options and not expires
        if not (plain and self.append_one(payloads[0], lanes, time, number, flags)):
            self._append(payloads, lanes, time, number, run, options, flags, expires)

    def _heat(self, live: Segment, lanes: frozenset[str], flags: int, soft_end: int) -> None:
        """Make the fast path one for these lanes and flags, if the live segment knows the lanes already."""
        number = next((known for known, names in live.sets.items() if names == lanes), None)
        here, ever = live.counts.get(lanes), self.counts.get(lanes)
        if number is None or here is None or ever is None or live.handle is None or not 0 <= flags <= MAX_FLAGS:
            return
        meta = Kind.ONE << KIND_SHIFT | flags << FLAG_SHIFT | number
        context = live.context
        shift = context.shift - live.base  # for places that are not relative
        self._hot = lanes, flags, meta, here, ever, live, live.handle, context.seed, live.base, shift, soft_end

    def _append(
        self,
        payloads: Sequence[bytes],
        lanes: frozenset[str],
        time: float,
        number: int | None,
        run: int | None,
        options: bytes,
        flags: int,
        expires: float,
    ) -> None:
        if not 0 <= flags <= MAX_FLAGS:
            raise ValueError(f"flags {flags} are more than a frame can hold")
        kind, front, size = pack_many(payloads, options, expires)
        length = RECORD_SIZE + len(front) + size
        if length >= MAX_FRAME:
            raise SpoolError(f"{length} bytes at once; at most {MAX_FRAME} fit, so keep fewer records at a time")
        if number is None:
            number = self.numbers.draw(len(payloads))
        run = self.run if run is None else run
        live = self._live_for(length, lanes)
        fresh = live is None
        if live is None:
            live = self._begin(run, number)
        before = live.opening() if fresh else b""
        start = live.end if not fresh else 0
        mark = NEAR if fresh else self._mark
        context = live.context
        place = self.next_place - live.base
        # frame: which run, whose records
        if context.run != run or not 0 <= number - place - context.shift < SHIFT_SPAN:
            context = self._turn(context, run, number, place)
            before += self._twice(context.pack, start + len(before))
            mark = start + NEAR
        elif start >= mark:
            before += context.pack(start + len(before))
            mark = start + FAR
        seed = context.seed
        set_number = next((known for known, names in live.sets.items() if names == lanes), None)
        if set_number is None:
            set_number = live.next_set
            names = sorted(lanes)
            low = set_number
            before += self._twice(lambda at: pack_json(Kind.LANES, names, seed, at, low=low), start + len(before))
        meta = kind | flags << FLAG_SHIFT | set_number
        at = start + len(before)
        head = HEAD.pack(length, meta, number - place - context.shift, place, time)
        data = bytearray().join((before, bytes(CRC.size), head, front, *payloads))
        with memoryview(data)[len(before) + CRC.size :] as rest:
            CRC.pack_into(data, len(before), crc32(rest, (seed + at) & MASK))
        granted = self._write(live, data, start, fresh=fresh)
        ever = self.counts.get(lanes) or self.counts.setdefault(lanes, Tally())
        # log: from here on it is kept
        if fresh:
            self.live = self.segments[live.number] = live
            self.next_number = live.number + 1
        self._mark = mark
        live.context = context
        live.sets[set_number] = lanes
        live.next_set = max(live.next_set, set_number + 1)
        live.end = at + length
        self.next_place += len(payloads)
        live.next = self.next_place
        live.note(lanes, len(payloads), size, expires)
        ever.records += len(payloads)
        ever.bytes += size
        # The fast path writes numbers of our own run only.
        self._hot = None
        if run == self.run:
            self._heat(live, lanes, flags, min(self.segment_size, mark, live.end + granted))

    @staticmethod
    def _twice(pack: Callable[[int], bytes], at: int) -> bytes:
        """A frame that others depend on, two times, so that no single damage takes them along."""
        first = pack(at)
        return first + pack(at + len(first))

    def _turn(self, context: Context, run: int, number: int, place: int) -> Context:
        # Half of the span is left below: callers that drew first may come later.
        back = SHIFT_SPAN // 2
        return context._replace(ordinal=context.ordinal + 1, run=run, shift=number - place - back, moved=0)

    def _live_for(self, length: int, lanes: frozenset[str]) -> Segment | None:
        """The live segment if there is room in it; else it is sealed."""
        live = self.live
        if live is None:
            return None
        full_sets = live.next_set >= MAX_SETS and lanes not in live.sets.values()
        if full_sets or (live.next > live.base and live.end + length > self.segment_size):
            self.seal()
            return None
        return live

    def _begin(self, run: int, number: int) -> Segment:
        context = Context(
            ordinal=0, segment=self.next_number, salt=secrets.randbits(64), spool=self.spool, base=self.next_place,
            run=run, shift=number - SHIFT_SPAN // 2,
        )  # fmt: skip
        try:
            handle = self.placing.create(alone=not self.segments)
        except OSError as error:
            raise translated(error, "creating", self.placing.path) from error
        self.names_unsynced = True
        live = Segment(self.files, self.placing.path, handle, context)
        live.counted = True
        return live

    def _write(self, live: Segment, data: bytes | bytearray, start: int, *, fresh: bool) -> int:
        """Write a slow append; how many bytes may follow without asking for room."""
        assert live.handle is not None
        try:
            granted = self.room(len(data))
            write_all(self.files, live.handle, data, start)
        except BaseException as error:
            if fresh:
                self.placing.discard(live.handle)
            else:
                self._take_back(live)
            if isinstance(error, OSError):
                raise translated(error, "writing", live.path) from error
            raise
        return granted - len(data)

    def _take_back(self, live: Segment) -> None:
        """Cut off what a failed write left behind the end."""
        assert live.handle is not None
        with contextlib.suppress(OSError):  # then the next write covers it, and opening knows a torn tail
            self.files.truncate(live.handle, live.end)

    def append_frames(self, pack: Callable[[int, int], bytes]) -> int:
        """Append frames that hold no records, as a stream does; where they begin.

        Args:
            pack: Makes them from seed and offset.
        """
        live = self.live
        fresh = live is None
        if live is None:
            live = self._begin(self.run, 1)
        before = live.opening() if fresh else b""
        start = 0 if fresh else live.end
        at = start + len(before)
        data = before + pack(live.context.seed, at)
        self._write(live, data, start, fresh=fresh)
        if fresh:
            self.live = self.segments[live.number] = live
            self.next_number = live.number + 1
            self._mark = NEAR
        live.end = start + len(data)
        return at

    def room_for_others(self, need: int) -> None:
        """Take room that the log has not used yet for something beside it.

        Raises:
            SpoolFull: There is not that much.
        """
        # What was granted to the fast path includes it: so that has to ask again.
        self._hot = None
        self.room(need)

    def forget_all(self) -> None:
        """Drop the live segment, whose file was emptied."""
        self._hot = None
        if self.live is not None:
            del self.segments[self.live.number]
            self.live = None

    # ---------------------------------------------------------------- sealing, syncing

    def seal(self) -> None:
        """Finish the live segment and move it away; the next append begins another."""
        live = self.live
        if live is None:
            return
        assert live.handle is not None
        self._hot = None
        footer = live.footer()
        try:
            write_all(self.files, live.handle, footer, live.end)
        except OSError:
            # Opening will scan it instead.
            self._take_back(live)
        try:
            self.placing.seal(live, {segment.path for segment in list(self.segments.values())})
        except OSError as error:
            self._take_back(live)
            raise translated(error, "moving", live.path) from error
        live.sealed = True
        self.open[live.number] = live
        self.names_unsynced = True
        self.live = None

    def resume(self, live: Segment) -> None:
        """Go on with a live segment of an earlier run."""
        self.live = live
        self._mark = live.end

    def lanes(self) -> set[str]:
        """Names of all lanes that were promised anything since opening."""
        return {name for lanes in list(self.counts) for name in lanes}

    def promised(self, lane: str) -> tuple[int, int]:
        """Records and bytes that a lane was promised since opening."""
        records = size = 0
        for lanes, tally in list(self.counts.items()):
            if lane in lanes:
                records += tally.records
                size += tally.bytes
        return records, size

    def leave_behind(self, live: Segment) -> None:
        """Begin a new run behind damage in a segment that cannot be sealed.

        Its ordinal is far from all that may have been lost: else a frame of a lost run would come to life in this one.
        """
        far = live.context._replace(ordinal=live.context.ordinal + _FAR_ORDINAL)
        context = self._turn(far, self.run, 1, live.next - live.base)
        data = self._twice(context.pack, live.end)
        self._write(live, data, live.end, fresh=False)
        live.context = context
        live.end += len(data)

    def adopt(self, segment: Segment, handle: int) -> None:
        """Go on with another file that has the same content."""
        segment.handle = handle
        if segment is self.live:
            self._hot = None
