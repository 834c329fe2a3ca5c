"""Tells what a spool holds and whether it is whole, without its lock and without changing a byte."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from resilient_exporters.spool.cursor import Places
from resilient_exporters.spool.frame import VERSION, read_preamble
from resilient_exporters.spool.looking import READING, Look, Reading, SegmentFile, SideFile
from resilient_exporters.spool.placing import LEFTOVER
from resilient_exporters.spool.report import Audit, FileKind, FileReport, Finding, LaneReport, Severity, Stretch
from resilient_exporters.spool.scan import Gap
from resilient_exporters.spool.segment import Segment
from resilient_exporters.spool.window import Entry

__all__ = [
    "Audit",
    "Auditor",
    "FileReport",
    "Finding",
    "LaneReport",
    "Severity",
    "Stretch",
    "agrees",
    "audit",
    "counted",
]

LOOKS = 20
"""Looks at a spool that is at work: what is seen in one and not in another was between two writes, no damage."""


def audit(path: str | os.PathLike[str], *, deep: bool = True, files: Reading = READING) -> Audit:
    """Look at a live, stopped or copied spool. Takes no lock, changes no byte, keeps no file open.

    Args:
        path: What was given as `tmp_file`.
        deep: Read every byte. Otherwise sealed segments are taken as their footers describe them, where that is
            enough to count what is owed.
        files: The operating system, for tests.

    Raises:
        InvalidConfigError: There is no spool, or the file is something else.
        SpoolError: It cannot be read.

    Example:
        >>> audit("unsent").sound  # doctest: +SKIP
        True
    """
    for _ in range(LOOKS - 1):
        look = Look(path, files)
        seen = Auditor(look, deep).run()
        if seen.sound or look.still_holds():
            return seen
    return Auditor(Look(path, files), deep).run()


@dataclass(slots=True)
class _Count:
    """Counts up what a lane owes."""

    records: int = 0
    bytes: int = 0
    oldest: float | None = None
    dead: int = 0

    def add(self, records: int, size: int, time: float | None) -> None:
        self.records += records
        self.bytes += size
        if records and time is not None:
            self.oldest = time if self.oldest is None else min(self.oldest, time)


@dataclass(slots=True)
class Auditor:
    """Makes one audit of one look.

    Attributes:
        missing: Ranges of places that are nowhere and that no lane has settled, known ones included.
    """

    look: Look
    deep: bool
    files: list[FileReport] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, _Count] = field(default_factory=dict)
    holes: list[tuple[int, int, str, bool]] = field(default_factory=list)
    missing: list[tuple[int, int]] = field(default_factory=list)
    place: int = 0
    numbers: set[int] = field(default_factory=set)

    def run(self) -> Audit:
        look = self.look
        for file in look.segments(deep=self.deep):
            self._segment(file)
        self._empty_live()
        self._state()
        self._dead()
        self._missing()
        self._others()
        return Audit(
            path=look.path,
            at=time.time(),
            spool=look.spool,
            holder=look.holder(),
            files=tuple(self.files),
            lanes=tuple(self._lane(name) for name in sorted({*self.counts, *look.states})),
            findings=tuple(self.findings),
        )

    def _find(self, severity: Severity, kind: str, suffix: str, text: str, records: int = 0) -> None:
        self.findings.append(Finding(severity, kind, self._name(suffix), text, records))

    def _name(self, suffix: str) -> str:
        return os.path.basename(self.look.path) + suffix

    def _lane(self, name: str) -> LaneReport:
        count = self.counts.get(name, _Count())
        places = self.look.states.get(name, Places())
        return LaneReport(
            name, count.records, count.bytes, count.oldest, places.floor, len(places.ranges()), count.dead
        )

    # ---------------------------------------------------------------- segments

    def _segment(self, file: SegmentFile) -> None:
        segment = file.described
        if file.version is None:
            self._find("warning", "preamble", file.suffix, "the preamble is damaged; the frames behind it are used")
        elif file.version > VERSION:
            self._find("damage", "newer", file.suffix, f"written in format {file.version}, newer than {VERSION}")
        if segment is None:
            self._unusable(file)
            return
        self.files.append(self._report(file, segment))
        if not self._belongs(file, segment):
            return
        self._gaps(file, segment)
        self._footer(file)
        self._places(file, segment)
        if not (self._count_whole(file, segment) or self._count(file)):
            again = self.look.read_again(file)
            if again is not None:
                self._count(again)

    def _unusable(self, file: SegmentFile) -> None:
        self.files.append(FileReport(self._name(file.suffix), "segment", file.size, file.version))
        if file.suffix == "" and all(gap.torn for gap in file.gaps):
            self._find("note", "empty", file.suffix, "nothing was ever finished in it; it will be used again")
        else:
            self._find("damage", "unusable", file.suffix, f"nothing in its {file.size} bytes can be used")

    def _report(self, file: SegmentFile, segment: Segment) -> FileReport:
        runs = dict.fromkeys(entry.run for entry in file.entries())
        return FileReport(
            name=self._name(file.suffix),
            kind="stream" if file.is_stream else "segment",
            size=file.size,
            version=file.version,
            segment=segment.number,
            runs=tuple(runs) or (segment.context.run,),
            frames=len(file.found.frames) if file.found is not None else 0,
            records=sum(tally.records for tally in segment.counts.values()),
            payload_bytes=sum(tally.bytes for tally in segment.counts.values()),
            places=(segment.base, segment.next) if segment.next > segment.base else None,
            gaps=_stretches(file.gaps if file.found is not None else segment.gaps),
            footer=agrees(file.footer, file.segment) if file.footer and file.segment else None,
        )

    def _belongs(self, file: SegmentFile, segment: Segment) -> bool:
        """Whether opening would use it; others are set aside whole."""
        if segment.context.spool != self.look.spool:
            self._find("damage", "foreign", file.suffix, "it belongs to another spool; its records will not be sent")
            return False
        if segment.base < self.place or segment.number in self.numbers:
            self._find("damage", "copy", file.suffix, "it is a copy of another segment; its records are not sent twice")
            return False
        self.numbers.add(segment.number)
        return True

    def _gaps(self, file: SegmentFile, segment: Segment) -> None:
        known = {(gap.start, gap.stop) for gap in file.footer.gaps} if file.footer else set()
        for gap in file.gaps if file.found is not None else segment.gaps:
            length = gap.stop - gap.start
            where = f"{length} bytes at {gap.start}"
            if not length:
                self._find("warning", "cut", file.suffix, f"a piece of it is missing at {gap.start}")
            elif (gap.start, gap.stop) in known:
                self._find("note", "known", file.suffix, f"{where} are no frame; they were set aside before")
            elif gap.torn and file.suffix == "":
                self._find("note", "torn", file.suffix, f"{where} are an append that was cut short, or is being made")
            else:
                self._find("damage", "gap", file.suffix, f"{where} are no valid frame; opening sets them aside")

    def _places(self, file: SegmentFile, segment: Segment) -> None:
        """Note which places are neither in this segment nor in one before it."""
        stop = max(segment.next, file.footer.next if file.footer else 0)
        holes = [*segment.holes, *([(segment.next, stop - 1)] if stop > segment.next else [])]
        known = file.footer is not None and {*file.gaps} <= {*file.footer.gaps}
        self.holes += [(first, last, file.suffix, known) for first, last in holes]
        if segment.base > self.place > 0:
            self.holes.append((self.place, segment.base - 1, file.suffix, False))
        self.place = stop

    def _footer(self, file: SegmentFile) -> None:
        if file.suffix == "" and file.footer is not None:
            self._find("note", "sealed", file.suffix, "it is sealed and was not moved yet")
        elif file.suffix and file.footer is None:
            self._find("warning", "footer", file.suffix, "it has no valid footer, so each opening reads all of it")
        elif file.footer and file.segment and not file.gaps and not agrees(file.footer, file.segment):
            self._find("warning", "footer", file.suffix, "its footer does not say what it holds")

    # ---------------------------------------------------------------- what is owed

    def _count_whole(self, file: SegmentFile, segment: Segment) -> bool:
        """Count what is owed by the footer alone, where every lane owes all or nothing of it; False where not."""
        if file.found is not None:
            return False
        owed, last = segment.owed(), segment.next - 1
        states = {name: self.look.states.get(name, Places()) for name in owed}
        if any(p.touches(segment.base, last) and not p.covers(segment.base, last) for p in states.values()):
            return False
        # The time of the oldest record stands in its frame only.
        first = self.look.first_time(file) if any(not p.covers(segment.base, last) for p in states.values()) else None
        for name, tally in owed.items():
            if not states[name].covers(segment.base, last):
                self._of(name).add(tally.records, tally.bytes, first)
        return True

    def _count(self, file: SegmentFile) -> bool:
        """Count what is owed record by record; False when it was not read."""
        if file.segment is None:
            return False
        for entry in file.entries():
            for name in file.segment.sets[entry.set]:
                self._of(name).add(*_owed(entry, self.look.states.get(name)), entry.times[0])
        return True

    def _of(self, name: str) -> _Count:
        return self.counts.setdefault(name, _Count())

    def _missing(self) -> None:
        """Places that are nowhere, and that no lane has settled by now."""
        if not self.holes:
            return
        settled = Places()
        for places in self.look.states_now().values():
            for first, last in [(1, places.floor), *places.ranges()]:
                if first <= last:
                    settled.add(first, last)
        for first, last, suffix, known in self.holes:
            for low, high in settled.missing(first, last):
                self.missing.append((low, high))
                count = high - low + 1
                text = f"missing before or in it: {counted(count, 'record')}, places {low} to {high}"
                if known:
                    self._find("note", "known", suffix, f"{text}; it was counted before")
                else:
                    self._find("damage", "missing", suffix, text, records=count)

    # ---------------------------------------------------------------- beside the segments

    def _empty_live(self) -> None:
        if self.look.live is None and "" in self.look.sizes:
            self.files.append(FileReport(self._name(""), "segment", self.look.sizes[""]))
            self._find("note", "empty", "", "it holds nothing; it will be used")

    def _state(self) -> None:
        look, side = self.look, self.look.state
        if side is None:
            first = next((file.places[0] for file in self.files if file.places), 1)
            # A file object needs none, and has no other file beside it.
            if first > 1 and [*look.sizes] != [""]:
                self._find("warning", "state", ".state", "it is gone: what was settled will be sent again")
            return
        self._side(side, ".state", "state", "warning")
        context = side.context
        if context is None or (look.spool is not None and context.spool != look.spool):
            self._find("warning", "state", ".state", "it is not of this spool: what was settled will be sent again")

    def _dead(self) -> None:
        side = self.look.side_file(".dead")
        if side is not None:
            self._side(side, ".dead", "dead letters", "damage")
        for letter in self.look.letters():
            self._of(letter.lane).dead += 1

    def _side(self, side: SideFile, suffix: str, kind: FileKind, severity: Severity) -> None:
        found = side.found
        gaps = _stretches(found.gaps)
        known = read_preamble(side.content)
        version = known[0] if known is not None else None
        self.files.append(
            FileReport(self._name(suffix), kind, len(side.content), version, frames=len(found.frames), gaps=gaps)
        )
        for gap in gaps:
            where = f"{gap.length} bytes at {gap.offset}"
            if gap.torn:
                self._find("note", "torn", suffix, f"{where} are a write that was cut short, or is being made")
            else:
                self._find(severity, "gap", suffix, f"{where} are no valid frame; what they said is not known any more")

    def _others(self) -> None:
        for suffix, size in sorted(self.look.sizes.items()):
            if suffix.startswith(".damaged."):
                self.files.append(FileReport(self._name(suffix), "set aside", size))
                self._find("note", "set aside", suffix, f"{size} bytes that could not be used were set aside here")
            elif suffix == ".lock":
                self.files.append(FileReport(self._name(suffix), "lock", size))
            elif suffix == ".state.new":
                self.files.append(FileReport(self._name(suffix), "reserve", size))
            elif LEFTOVER.fullmatch(suffix):
                self.files.append(FileReport(self._name(suffix), "leftover", size))
                self._find("note", "leftover", suffix, "it was to take another file's place; opening deletes it")


def _stretches(gaps: list[Gap]) -> tuple[Stretch, ...]:
    return tuple(Stretch(gap.start, gap.stop - gap.start, gap.torn) for gap in gaps)


def _owed(entry: Entry, places: Places | None) -> tuple[int, int]:
    """Records, and bytes, of a frame that a lane owes."""
    places = places or Places()
    records = size = 0
    for first, last in places.missing(entry.first, entry.last):
        records += last - first + 1
        size += sum(map(len, entry.payloads[first - entry.first : last - entry.first + 1]))
    return records, size


def agrees(footer: Segment, found: Segment) -> bool:
    """Whether a footer says what the frames say; it may know of places at the end that were lost."""
    return footer.next >= found.next and _tallies(footer) == _tallies(found)


def _tallies(segment: Segment) -> dict[frozenset[str], tuple[int, int]]:
    return {lanes: (tally.records, tally.bytes) for lanes, tally in segment.counts.items()}


def counted(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
