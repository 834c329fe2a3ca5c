"""Opening what an earlier run left behind; the numbered states are those of docs/design/crash-safety.md."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, field
from typing import Any

from resilient_exporters.exceptions import InvalidConfigError
from resilient_exporters.spool.cursor import Places
from resilient_exporters.spool.files import Files, read_all, write_all
from resilient_exporters.spool.frame import HEADER_SIZE, VERSION, FileKind, preamble, read_preamble
from resilient_exporters.spool.placing import LEFTOVER
from resilient_exporters.spool.scan import scan
from resilient_exporters.spool.segment import Segment
from resilient_exporters.spool.state import State

__all__ = ["SEALED", "Recovered", "Recovery", "judge", "set_aside", "write_aside"]

logger = logging.getLogger("resilient_exporters")

SEALED = re.compile(r"\.(\d{8,})")
_DAMAGED = re.compile(r"\.damaged\.(\d+)")


@dataclass(slots=True)
class Recovered:
    """What was found.

    Attributes:
        segments: Usable segments, oldest first; the live one last.
        states: Lane -> what it has settled.
        spool: The spool's number, None when there is no spool yet.
        live: The segment at the path itself, if it is usable.
        reuse: There is a file at the path that holds nothing; it is to be used, not made.
        damaged: Segments whose gaps were not known before.
        records: How many records are known to be lost.
        bytes: How many bytes are of no use.
    """

    segments: list[Segment] = field(default_factory=list)
    states: dict[str, Places] = field(default_factory=dict)
    spool: int | None = None
    live: Segment | None = None
    reuse: bool = False
    damaged: list[Segment] = field(default_factory=list)
    records: int = 0
    bytes: int = 0


def check_version(content: bytes, path: str) -> None:
    """Refuse a file of a later version of the format: it is no damage.

    Raises:
        InvalidConfigError: It is one.
    """
    known = read_preamble(content)
    if known is not None and known[0] > VERSION:
        raise InvalidConfigError(f"{path} was written by a newer version of this library; it is left untouched")


def judge(content: bytes, path: str, *, ours: bool) -> bool:
    """Whether a file holds anything; refuses one that is not ours.

    Args:
        content: The beginning of the file, or all of it.
        path: For messages.
        ours: Siblings prove that it is ours, whatever it looks like.

    Raises:
        InvalidConfigError: It is something else.
    """
    known = read_preamble(content)
    if known is not None:
        check_version(content, path)
        if known[1] != FileKind.SEGMENT:
            raise InvalidConfigError(f"{path} is a sibling of another spool's file; it is left untouched")
        return True
    # state 2
    if not content.strip(b"\0") and (not content or len(content) >= HEADER_SIZE):
        return False
    if len(content) < HEADER_SIZE and preamble(FileKind.SEGMENT).startswith(content):
        return False
    if not ours and not scan(content).frames:
        raise InvalidConfigError(f"{path} is not a file of this library; it is left untouched")
    return True


def next_damaged(files: Files, path: str) -> str:
    """A name that no file has, for what is set aside."""
    numbers = [int(match[1]) for suffix in files.siblings(path) if (match := _DAMAGED.fullmatch(suffix))]
    return f"{path}.damaged.{max(numbers, default=0) + 1}"


def set_aside(files: Files, path: str, segments: list[Segment]) -> None:
    """Copy the gaps of segments to a sibling."""
    pieces = []
    for segment in segments:
        for gap in segment.gaps:
            length = gap.stop - gap.start
            if not length:
                continue
            where = {"file": segment.path, "segment": segment.number, "offset": gap.start, "length": length}
            pieces.append((where, _bytes_of(files, segment, length, gap.start)))
    if pieces:
        write_aside(files, path, pieces)


def _bytes_of(files: Files, segment: Segment, length: int, offset: int) -> bytes:
    """What stands in a segment's file, which is opened for that if it is not open."""
    if segment.handle is not None:
        return read_all(files, segment.handle, length, offset)
    try:
        handle = files.open(segment.path)
    except OSError as error:  # the line that tells where they stood is kept all the same
        logger.warning("spool_damage_unreadable path=%r error=%r", segment.path, str(error))
        return b""
    try:
        return read_all(files, handle, length, offset)
    finally:
        files.close(handle)


def write_aside(files: Files, path: str, pieces: list[tuple[dict[str, Any], bytes]]) -> None:
    """Write damage to a new sibling: for each piece a line of JSON that says where it was, the bytes, a newline."""
    target = next_damaged(files, path)
    content = b"".join(json.dumps(where).encode() + b"\n" + lost + b"\n" for where, lost in pieces)
    try:
        handle = files.open(target, create=True)
        try:
            write_all(files, handle, content, 0)
        finally:
            files.close(handle)
    except OSError as error:
        # The bytes stay in their segments as long as those do; what is readable must not wait for this.
        logger.warning("spool_damage_not_set_aside path=%r error=%r", target, str(error))


class Recovery:
    """Finds out what the files of a spool hold, changing nothing but names and leftovers.

    Args:
        files: The operating system.
        path: The live segment's path.
    """

    def __init__(self, files: Files, path: str) -> None:
        self.files = files
        self.path = path
        self.result = Recovered()

    def run(self) -> Recovered:
        """Read state, footers and the live segment.

        Raises:
            InvalidConfigError: The file is not a spool; nothing was touched.
            OSError: It cannot be read.
        """
        try:
            found = self.files.siblings(self.path)
        except IsADirectoryError as error:
            raise InvalidConfigError(f"{self.path} is a folder; give the path of a file in it") from error
        sealed = sorted(suffix for suffix in found if SEALED.fullmatch(suffix))
        result = self.result
        result.states, result.spool = State(self.files, f"{self.path}.state", 0).load()
        ours = bool(sealed) or result.spool is not None
        live = self._load("", found[""], ours=ours) if "" in found else None
        segments = [segment for suffix in sealed if (segment := self._load(suffix, found[suffix], ours=True))]
        # state 12, state 14: written to take another file's place, and never did (`.state.new` is used again)
        for suffix in found:
            if LEFTOVER.fullmatch(suffix):
                self.files.unlink(self.path + suffix)
        self._sort_out(segments, live)
        self._count_losses()
        return result

    # ---------------------------------------------------------------- one segment

    def _load(self, suffix: str, size: int, *, ours: bool) -> Segment | None:
        path = self.path + suffix
        handle = self.files.open(path)
        try:
            segment = self._take_apart(path, handle, size, live=suffix == "", ours=ours)
        except BaseException:
            self.files.close(handle)
            raise
        if segment is None:
            self.files.close(handle)
        elif segment.sealed and suffix and segment not in self.result.damaged:
            # There may be more of them than a process may have open.
            self.files.close(handle)
            segment.handle = None
        return segment

    def _take_apart(self, path: str, handle: int, size: int, *, live: bool, ours: bool) -> Segment | None:
        # state 7, when live: sealed, not yet moved
        segment = Segment.from_footer(self.files, path, handle, size)
        if segment is not None:
            return segment
        content = read_all(self.files, handle, size)
        check_version(content, path)
        if live and not judge(content, path, ours=ours):
            self.result.reuse = True
            return None
        # state 3, state 4, state 5, state 6, state 8: frames up to the end, past whatever is damaged
        found = scan(content)
        segment = Segment.from_scan(self.files, path, handle, content, found)
        if segment is None:
            # state 3: nothing behind the preamble was ever finished
            if live and all(gap.torn for gap in found.gaps):
                self.result.reuse = True
            else:
                self._lose_whole(path, size)
            return None
        # state 4: the last frame was never finished; nobody was told that it is kept
        segment.gaps = [gap for gap in segment.gaps if not gap.torn]
        if not live:
            segment.sealed = True
            segment.gaps += [gap for gap in found.gaps if gap.torn]
        if segment.gaps:
            segment.end = max(segment.end, segment.gaps[-1].stop)
            self.result.damaged.append(segment)
        return segment

    def _lose_whole(self, path: str, size: int) -> None:
        """Set a file aside of which nothing can be used."""
        target = next_damaged(self.files, self.path)
        self.files.rename(path, target)
        self.result.bytes += size
        logger.warning("spool_segment_unusable path=%r set_aside=%r bytes=%d", path, target, size)

    # ---------------------------------------------------------------- all segments

    def _sort_out(self, segments: list[Segment], live: Segment | None) -> None:
        """Keep the segments of this spool, once each, in the order of their places."""
        result = self.result
        candidates = sorted(segments, key=lambda one: (one.base, one.number))
        if live is not None:
            candidates.append(live)
        if not candidates:
            return
        if result.spool not in [segment.context.spool for segment in candidates]:
            # state 13: no state, or that of another spool
            if result.spool is not None:
                result.states = {}
            result.spool = candidates[-1].context.spool
        place = 0
        numbers: set[int] = set()
        for segment in candidates:
            if segment.context.spool != result.spool or segment.base < place or segment.number in numbers:
                self._reject(segment)
                continue
            numbers.add(segment.number)
            place = segment.next
            result.segments.append(segment)
            if segment is live:
                result.live = live

    def _reject(self, segment: Segment) -> None:
        """Set a segment aside that is a copy, or belongs to another spool: its records are not ours to send."""
        if segment.handle is not None:
            self.files.close(segment.handle)
            segment.handle = None
        if segment in self.result.damaged:
            self.result.damaged.remove(segment)
        self._lose_whole(segment.path, segment.end)

    def _count_losses(self) -> None:
        """Count records that no lane has settled and that are nowhere."""
        result = self.result
        result.bytes += sum(gap.stop - gap.start for segment in result.damaged for gap in segment.gaps)
        # state 11: segments missing before the first were settled
        place = result.segments[0].base if result.segments else 0
        for segment in result.segments:
            # state 17
            result.records += self._unsettled(place, segment.base - 1)
            if segment in result.damaged:
                for first, last in segment.holes:
                    result.records += self._unsettled(first, last)
            place = segment.next

    def _unsettled(self, first: int, last: int) -> int:
        anyone = Places()
        for places in self.result.states.values():
            for low, high in [(1, places.floor), *places.ranges()]:
                if low <= high:
                    anyone.add(low, high)
        return sum(high - low + 1 for low, high in anyone.missing(first, last))
