"""One file of the log: made, appended to, sealed with a footer, loaded again, and given back piece by piece."""

from __future__ import annotations

from bisect import bisect_right
from struct import Struct
from typing import Any
from zlib import crc32

from resilient_exporters.spool.files import Files, read_all, write_all
from resilient_exporters.spool.frame import (
    COUNT,
    FRAME,
    HEADER_SIZE,
    JOINED,
    KIND_SHIFT,
    MASK,
    PLAIN,
    RECORD_SIZE,
    SELF_SEED,
    Context,
    FileKind,
    Kind,
    pack,
    pack_json,
    preamble,
    unpack_json,
    unpack_records,
)
from resilient_exporters.spool.scan import Found, Gap, Scan, scan
from resilient_exporters.spool.window import CHUNK, Window, read_window

__all__ = ["FAR", "NEAR", "TRAILER", "Segment", "Tally"]

# A run frame is repeated this many bytes after it first stands, and then every so many.
NEAR, FAR = 1 << 13, 1 << 20

# `meta` of frames that are no record frames is at least this.
_NOT_RECORDS = Kind.RUN << KIND_SHIFT

# The last bytes of a sealed segment, part of its footer frame: where that frame begins, checksum, mark.
TRAILER = Struct("<QI4s")
TRAILER_MARK = b"rexf"


class Tally:
    """Records and payload bytes, counted up only."""

    __slots__ = ("bytes", "records")

    def __init__(self, records: int = 0, bytes: int = 0) -> None:
        self.records = records
        self.bytes = bytes


class Segment:
    """A file of the log, live or sealed.

    Fields by who may change them: `end`, `next`, `context`, `counts`, `sets`, `expires` by whoever appends
    (the gate of the log), as long as the segment is live; `marks`, `done`, `gaps` by whoever reads and settles.

    Attributes:
        end: One past the last byte that counts.
        base: Place of the first record.
        next: Place behind the last record.
        counts: Lane set -> records and bytes.
        sets: Number -> lane set.
        expires: Earliest expiry, 0.0 when no record has one.
        done: Lane -> records and bytes that it owes no longer.
    """

    def __init__(self, files: Files, path: str, handle: int | None, context: Context) -> None:
        self.files = files
        self.path = path
        self.handle = handle
        self.context = context
        self.number = context.segment
        self.base = context.base
        self.next = context.base
        self.end = HEADER_SIZE
        self.sealed = False
        self.synced = 0
        self.counts: dict[frozenset[str], Tally] = {}
        self.sets: dict[int, frozenset[str]] = {}
        # Lowest number that no lane set has here, nor one whose definition was lost.
        self.next_set = 0
        self.expires = 0.0
        self.done: dict[str, Tally] = {}
        self.gaps: list[Gap] = []
        # Places of which no frame was left at the last scan.
        self.holes: list[tuple[int, int]] = []
        self.after_gap: dict[int, Context] = {}
        self.scanned = True
        # Whether the lanes' accounts contain it.
        self.counted = False
        # Places and offsets where windows begin, ascending, with the run frame in force there.
        self.marks: list[tuple[int, int, Context]] = [(context.base, HEADER_SIZE, context)]

    # ---------------------------------------------------------------- making

    @classmethod
    def begin(cls, files: Files, path: str, handle: int, context: Context) -> Segment:
        """A new, empty segment; what `opening` gives is to be written first."""
        return cls(files, path, handle, context)

    def opening(self) -> bytes:
        """The first bytes of the file."""
        again = HEADER_SIZE
        return preamble(FileKind.SEGMENT) + self.context.pack(again) + self.context.pack(again + 64)

    # ---------------------------------------------------------------- loading

    @classmethod
    def from_footer(cls, files: Files, path: str, handle: int, size: int) -> Segment | None:
        """A sealed segment as its footer describes it, with one small read; None when it has no valid footer."""
        begin = max(0, size - 4096)
        tail = read_all(files, handle, size - begin, begin)
        if len(tail) < TRAILER.size:
            return None
        at, crc, mark = TRAILER.unpack_from(tail, len(tail) - TRAILER.size)
        if mark != TRAILER_MARK or crc != crc32(TRAILER.pack(at, 0, mark)) or not HEADER_SIZE <= at < size:
            return None
        frame = tail[at - begin :] if at >= begin else read_all(files, handle, size - at, at)
        if len(frame) < FRAME.size:
            return None
        crc, length, meta, _ = FRAME.unpack_from(frame)
        if length != len(frame) or meta >> KIND_SHIFT != Kind.FOOTER:
            return None
        if crc != crc32(frame[4:], (SELF_SEED + at) & MASK):
            return None
        return cls._described(files, path, handle, at, unpack_json(frame[FRAME.size : -TRAILER.size]))

    @classmethod
    def _described(cls, files: Files, path: str, handle: int, end: int, said: dict[str, Any]) -> Segment:
        self = cls(files, path, handle, Context(*said["context"]))
        self.next = said["next"]
        self.end = end
        self.sealed = True
        self.expires = said["expires"]
        self.sets = {number: frozenset(names) for number, names in said["sets"]}
        for names, records, size in said["counts"]:
            self.counts[frozenset(names)] = Tally(records, size)
        self.gaps = [Gap(*gap) for gap in said["gaps"]]
        self.scanned = False
        return self

    @classmethod
    def from_scan(cls, files: Files, path: str, handle: int | None, content: bytes, found: Scan) -> Segment | None:
        """A segment as its frames describe it; None when no run frame is left."""
        if not found.contexts:
            return None
        first = found.contexts[min(found.contexts)]
        self = cls(files, path, handle, first)
        self.end = found.end
        self.learn(content, found)
        return self

    def learn(self, content: bytes, found: Scan) -> None:
        """Take over sets, counts and gaps from a scan of the whole file."""
        self.gaps, self.after_gap = list(found.gaps), {}
        self.counts, self.expires, self.holes = {}, 0.0, []
        last, self.next = self.next - 1, self.base
        self.marks = [(self.base, HEADER_SIZE, found.frames[0].context if found.frames else self.context)]
        self.scanned = True
        for at, length, meta, _, _ in [frame for frame in found.frames if frame[2] >= _NOT_RECORDS]:
            if meta >> KIND_SHIFT == Kind.LANES:
                self.sets[meta & 0xFF] = frozenset(unpack_json(content[at + FRAME.size : at + length]))
                self.next_set = max(self.next_set, (meta & 0xFF) + 1)
        self._count_all(content, found.frames)
        self.gaps.sort()
        stops = {gap.stop for gap in self.gaps}
        self.after_gap = {frame.at: frame.context for frame in found.frames if frame.at in stops} if stops else {}
        if last >= self.next:
            self.holes.append((self.next, last))
            self.next = last + 1
        if found.frames:
            self.context = found.frames[-1].context

    def _count_all(self, content: bytes, frames: list[Found]) -> None:
        """Count all record frames; those whose lane set is not known become gaps."""
        # Of the sets that plain records were found for, by number.
        tallies: dict[int, Tally] = {}
        unpack, base, head = COUNT.unpack_from, self.base, FRAME.size
        following = self.next - base
        for frame in frames:
            at, length, meta, _, _ = frame
            if meta < PLAIN:
                # The common frame, in a tight loop: a backlog has hundreds of thousands of them.
                tally = tallies.get(meta & 0xFF)
                if tally is not None and unpack(content, at + head)[0] == following:
                    following += 1
                    tally.records += 1
                    tally.bytes += length - RECORD_SIZE
                    continue
            if frame.kind not in JOINED:
                continue
            self.next = base + following
            if self._count(content, frame):
                tallies[meta & 0xFF] = self.counts[self.sets[meta & 0xFF]]
            else:
                # Nobody can say any more who owes it.
                self.gaps.append(Gap(at, at + length))
            following = self.next - base
        self.next = base + following

    def _count(self, content: bytes, frame: Found) -> bool:
        """Count a record frame; False when its lane set is not known."""
        records = unpack_records(content, frame.at, frame.length, frame.meta)
        self.next_set = max(self.next_set, (frame.meta & 0xFF) + 1)
        lanes = self.sets.get(frame.meta & 0xFF)
        if records is None:
            return False
        (place,) = COUNT.unpack_from(content, frame.at + FRAME.size)
        first, stop = self.base + place, self.base + place + len(records.lengths)
        lost_from = self.next
        self.next = max(self.next, stop)
        if lanes is None:
            first = stop
        if first > lost_from:
            self.holes.append((lost_from, first - 1))
        if lanes is not None:
            self.note(lanes, len(records.lengths), sum(records.lengths), records.expires)
        return lanes is not None

    def note(self, lanes: frozenset[str], records: int, size: int, expires: float) -> None:
        """Count records that were found."""
        tally = self.counts.setdefault(lanes, Tally())
        tally.records += records
        tally.bytes += size
        if expires:
            self.expires = min(self.expires or expires, expires)

    # ---------------------------------------------------------------- sealing

    def footer(self) -> bytes:
        """The footer frame for the present end."""
        said = {
            "context": list(self.context.written),
            "next": self.next,
            "sets": [[number, sorted(lanes)] for number, lanes in self.sets.items()],
            "counts": [[sorted(lanes), tally.records, tally.bytes] for lanes, tally in self.counts.items()],
            "expires": self.expires,
            "gaps": [list(gap) for gap in self.gaps],
        }
        mark = TRAILER.pack(self.end, crc32(TRAILER.pack(self.end, 0, TRAILER_MARK)), TRAILER_MARK)
        body = pack_json(Kind.FOOTER, said, 0, 0)[FRAME.size :] + mark
        return pack(Kind.FOOTER, body, SELF_SEED, self.end)

    def seal_again(self) -> None:
        """Write down what a scan found out about a sealed segment, in the place of its old footer.

        Raises:
            OSError: It cannot be written; the next opening has to scan again.
        """
        assert self.handle is not None
        self.files.truncate(self.handle, self.end)
        write_all(self.files, self.handle, self.footer(), self.end)

    # ---------------------------------------------------------------- reading

    def owed(self) -> dict[str, Tally]:
        """Lane -> records and bytes that it was ever owed here."""
        lanes: dict[str, Tally] = {}
        for names, tally in list(self.counts.items()):
            for name in names:
                sum_ = lanes.setdefault(name, Tally())
                sum_.records += tally.records
                sum_.bytes += tally.bytes
        return lanes

    def is_settled(self, *, half: bool = False) -> bool:
        """Whether no lane owes anything here any more, or with `half`, at most half of what was owed here."""
        pairs = sum(len(lanes) * tally.records for lanes, tally in list(self.counts.items()))
        return pairs <= sum(tally.records for tally in self.done.values()) * (2 if half else 1)

    def note_done(self, lane: str, records: int, size: int) -> None:
        """Count records that a lane owes no longer."""
        tally = self.done.setdefault(lane, Tally())
        tally.records += records
        tally.bytes += size

    def mark_before(self, place: int) -> tuple[int, int, Context]:
        """The last known window beginning at or before `place`."""
        at = bisect_right(self.marks, place, key=lambda mark: mark[0])
        return self.marks[max(at - 1, 0)]

    def window(self, offset: int, context: Context) -> Window | None:
        """Read on from `offset`; None at the end.

        Raises:
            Damaged: The frame there is not valid.
        """
        end = self.end
        for gap in self.gaps:
            if offset == gap.start:
                offset = gap.stop
                context = self.after_gap.get(offset, context)
            elif offset < gap.start:
                end = min(end, gap.start)
                break
        if offset >= end:
            return None
        assert self.handle is not None
        window = read_window(self.files, self.handle, offset, end, context)
        for number, names in window.sets.items():
            self.sets.setdefault(number, names)
        if window.entries and window.stop - self.marks[-1][1] >= CHUNK // 2:
            self.marks.append((window.last() + 1, window.stop, window.context))
        return window

    def content(self) -> bytes:
        """All of the file up to the end that counts, for a scan."""
        assert self.handle is not None
        return read_all(self.files, self.handle, self.end)

    def rescan(self) -> Scan:
        content = self.content()
        found = scan(content)
        covered = max(found.end, found.gaps[-1].stop if found.gaps else 0)
        if covered < self.end:
            # Zeros at the end are no gap in a file that was just opened, but here frames stood.
            found.gaps.append(Gap(covered, self.end))
        self.learn(content, found)
        return found
