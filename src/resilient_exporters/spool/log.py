"""The log: segments in a row, the live one appended to, full ones sealed; knows what lanes were promised, not what they settled."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Sequence
from zlib import crc32

from ..exceptions import SpoolError, SpoolFull
from .files import Files
from .frame import (
    CRC,
    FLAG_SHIFT,
    HEAD,
    KIND_SHIFT,
    MASK,
    MAX_FRAME,
    MAX_SETS,
    RECORD_SIZE,
    SHIFT_SPAN,
    Context,
    Kind,
    pack_json,
    pack_many,
)
from .segment import FAR, NEAR, Segment, Tally, write_all

__all__ = ["Log", "Placing", "translated"]

_NO_ROOM = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG}


def translated(error: OSError, doing: str, path: str) -> SpoolError:
    """The library's error for one of the operating system."""
    kind = SpoolFull if error.errno in _NO_ROOM else SpoolError
    if isinstance(error, SpoolError):
        return error
    made = kind(f"{doing} {path}: {error.strerror or error}")
    made.errno = error.errno
    return made


class Placing:
    """Where new segments come from and go to: a directory of files here, a single file object elsewhere."""

    def __init__(self, files: Files, path: str) -> None:
        self.files = files
        self.path = path

    def create(self) -> int:
        """A new, empty file for the live segment."""
        return self.files.open(self.path, create=True)

    def discard(self, handle: int) -> None:
        """Undo `create`."""
        self.files.close(handle)
        self.files.unlink(self.path)

    def sealed_path(self, number: int) -> str:
        return f"{self.path}.{number:08d}"

    def seal(self, segment: Segment) -> None:
        """Move a full segment out of the way of the next one."""
        new = self.sealed_path(segment.number)
        self.files.rename(segment.path, new)
        segment.path = new

    def sync_names(self) -> None:
        self.files.sync_dir(os.path.dirname(self.path))


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
        draw: Takes `n` numbers and returns the first.
    """

    def __init__(
        self,
        placing: Placing,
        *,
        spool: int,
        run: int,
        segment_size: int,
        room: Callable[[int], int],
        draw: Callable[[int], int],
    ) -> None:
        self.placing = placing
        self.files = placing.files
        self.spool = spool
        self.run = run
        self.segment_size = segment_size
        self.room = room
        self.draw = draw
        # Number -> segment, oldest first. Appending adds, settling removes; single dictionary operations both.
        self.segments: dict[int, Segment] = {}
        self.live: Segment | None = None
        self.next_place = 1
        self.next_number = 1
        self.counts: dict[frozenset[str], Tally] = {}
        self.names_unsynced = False
        # What the fast path needs of the live segment.
        self._metas: dict[tuple[frozenset[str], int], tuple[int, Tally, Tally]] = {}
        self._handle = -1
        self._seed = 0
        self._soft_end = 0
        self._mark = 0
        self._shift = 0

    # ---------------------------------------------------------------- appending

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
        """Write records behind all others: the hot path for one plain record, else `_append`."""
        known = self._metas.get((lanes, flags))
        live = self.live
        if known is None or live is None or len(payloads) != 1 or options or expires or run is not None:
            self._append(payloads, lanes, time, number, run, options, flags, expires)
            return
        payload = payloads[0]
        meta, here, ever = known
        # log: place and number
        end = live.end
        place = self.next_place - live.base
        if number is None:
            number = self.draw(1)
        delta = number - place - self._shift
        size = len(payload)
        length = RECORD_SIZE + size
        if not 0 <= delta < SHIFT_SPAN or end + length > self._soft_end:
            self._append(payloads, lanes, time, number, run, options, flags, expires)
            return
        # frame: header and checksum
        head = HEAD.pack(length, meta, delta, place, time)
        data = b"".join((CRC.pack(crc32(payload, crc32(head, (self._seed + end) & MASK))), head, payload))
        # files: one write
        try:
            wrote = self.files.pwrite(self._handle, data, end)
            if wrote != length:
                write_all(self.files, self._handle, data[wrote:], end + wrote)
        except OSError as error:
            self._take_back(live)
            raise translated(error, "writing", live.path) from error
        # No call below: an exception thrown in from outside (Ctrl-C) finds all of it done or nothing.
        live.end = end + length
        self.next_place += 1
        live.next = self.next_place
        here.records += 1
        here.bytes += size
        ever.records += 1
        ever.bytes += size
        self._last_time = time

    _last_time: float | None = None

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
        kind, pieces = pack_many(payloads, options, expires)
        length = RECORD_SIZE + sum(map(len, pieces))
        if length >= MAX_FRAME:
            raise SpoolError(f"{length} bytes at once; at most {MAX_FRAME} fit, so keep fewer records at a time")
        if number is None:
            number = self.draw(len(payloads))
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
            set_number = len(live.sets)
            names = sorted(lanes)
            before += self._twice(lambda at: pack_json(Kind.LANES, names, seed, at, low=set_number or 0), start + len(before))
        meta = kind | flags << FLAG_SHIFT | set_number
        at = start + len(before)
        head = HEAD.pack(length, meta, number - place - context.shift, place, time)
        crc = crc32(head, (seed + at) & MASK)
        for piece in pieces:
            crc = crc32(piece, crc)
        granted = self._write(live, b"".join((before, CRC.pack(crc), head, *pieces)), start, fresh=fresh)
        size = sum(map(len, payloads))
        ever = self.counts.get(lanes) or self.counts.setdefault(lanes, Tally())
        # log: from here on it is kept
        if fresh:
            self.live = self.segments[live.number] = live
            self.next_number = live.number + 1
        self._mark = mark
        live.context = context
        live.sets[set_number] = lanes
        live.end = at + length
        self.next_place += len(payloads)
        live.next = self.next_place
        live.note(lanes, len(payloads), size, time, expires)
        ever.records += len(payloads)
        ever.bytes += size
        self._prepare(live, granted)
        self._metas[lanes, flags] = (
            Kind.ONE << KIND_SHIFT | flags << FLAG_SHIFT | set_number,
            live.counts[lanes],
            ever,
        )

    @staticmethod
    def _twice(pack: Callable[[int], bytes], at: int) -> bytes:
        """A frame that others depend on, two times, so that no single damage takes them along."""
        first = pack(at)
        return first + pack(at + len(first))

    def _turn(self, context: Context, run: int, number: int, place: int) -> Context:
        # Half of the span is left below: callers that drew first may come later.
        back = SHIFT_SPAN // 2
        return context._replace(ordinal=context.ordinal + 1, run=run, shift=number - place - back)

    def _live_for(self, length: int, lanes: frozenset[str]) -> Segment | None:
        """The live segment if there is room in it; else it is sealed."""
        live = self.live
        if live is None:
            return None
        full_sets = len(live.sets) >= MAX_SETS and lanes not in live.sets.values()
        if full_sets or (live.next > live.base and live.end + length > self.segment_size):
            self.seal()
            return None
        return live

    def _begin(self, run: int, number: int) -> Segment:
        context = Context(
            ordinal=0,
            segment=self.next_number,
            salt=secrets.randbits(64),
            spool=self.spool,
            base=self.next_place,
            run=run,
            shift=number - SHIFT_SPAN // 2,
        )
        try:
            handle = self.placing.create()
        except OSError as error:
            raise translated(error, "creating", self.placing.path) from error
        self.names_unsynced = True
        return Segment(self.files, self.placing.path, handle, context)

    def _write(self, live: Segment, data: bytes, start: int, *, fresh: bool) -> int:
        """Write a slow append; how many bytes may follow without asking for room."""
        assert live.handle is not None
        try:
            granted = self.room(len(data))
            write_all(self.files, live.handle, data, start)
        except OSError as error:
            if fresh:
                with contextlib.suppress(OSError):  # the error to report is the one above; opening adopts an empty file
                    self.placing.discard(live.handle)
            else:
                self._take_back(live)
            raise translated(error, "writing", live.path) from error
        return granted - len(data)

    def _take_back(self, live: Segment) -> None:
        """Cut off what a failed write left behind the end."""
        assert live.handle is not None
        with contextlib.suppress(OSError):  # then the next write covers it, and opening knows a torn tail
            self.files.truncate(live.handle, live.end)

    def _prepare(self, live: Segment, granted: int) -> None:
        """Note for the fast path what it needs of the live segment."""
        assert live.handle is not None
        self._handle = live.handle
        self._seed = live.context.seed
        self._shift = live.context.shift
        self._soft_end = min(self.segment_size, self._mark, live.end + granted)

    # ---------------------------------------------------------------- sealing, syncing

    def seal(self) -> None:
        """Finish the live segment and move it away; the next append begins another."""
        live = self.live
        if live is None:
            return
        assert live.handle is not None
        self._metas.clear()
        if self._last_time is not None and live.times:
            live.times = (live.times[0], max(live.times[1], self._last_time))
        footer = live.footer()
        try:
            write_all(self.files, live.handle, footer, live.end)
        except OSError:
            # Opening will scan it instead.
            self._take_back(live)
        try:
            self.placing.seal(live)
        except OSError as error:
            self._take_back(live)
            raise translated(error, "moving", live.path) from error
        live.sealed = True
        self.names_unsynced = True
        self.live = None

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
