"""Reads the files of a spool without its lock and without changing a byte: live, stopped or copied."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from resilient_exporters.exceptions import InvalidConfigError
from resilient_exporters.spool.cursor import Places
from resilient_exporters.spool.dead import FORGOTTEN, LETTER, unpack_forgotten, unpack_letter
from resilient_exporters.spool.files import Files, read_all
from resilient_exporters.spool.frame import (
    FRAME,
    HEADER_SIZE,
    JOINED,
    KIND_SHIFT,
    RECORD,
    RECORD_SIZE,
    Context,
    Kind,
    read_preamble,
)
from resilient_exporters.spool.interface import DeadLetter
from resilient_exporters.spool.placing import translated
from resilient_exporters.spool.recovery import judge
from resilient_exporters.spool.scan import Gap, Scan, scan
from resilient_exporters.spool.segment import Segment
from resilient_exporters.spool.state import load_states
from resilient_exporters.spool.window import Entry, entry_of

__all__ = ["READING", "Look", "Reading", "SegmentFile", "SideFile"]

_OURS = re.compile(r"|\.\d{8,}|\.state|\.dead|\.lock|\.damaged\.\d+|\.state\.new|\.dead\.new|(?:\.\d{8,})?\.rewriting")
_SEALED = re.compile(r"\.(\d{8,})")
# Bytes at the beginning of a segment that tell where it belongs: its first run frame stands there, twice.
_HEAD = 4096
# Bytes in which the first record of a segment begins, behind runs and lane sets.
_FIRST = 1 << 16
_PLACE_AND_TIME = Struct("<Id")


class Reading(Files):
    """The operating system for those who only look: files are opened for reading."""

    def open(self, path: str, *, create: bool = False) -> int:
        if create:
            raise PermissionError(f"{path} would be made, but this only looks")
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        return os.open(path, flags)

    def identity(self, file: str | int) -> tuple[int, int]:
        """What stays the same when the file, given by path or handle, is renamed."""
        status = os.stat(file)
        return status.st_dev, status.st_ino


READING = Reading()


@dataclass(slots=True)
class SegmentFile:
    """A file of the log, read from end to end.

    Attributes:
        suffix: What stands behind the spool's path in its name; "" for the live one.
        size: Bytes.
        version: Of its format; None when its preamble is damaged.
        content: All of it; b"" when the footer was enough.
        found: The frames; None when the footer was enough.
        segment: As its frames describe it, None when no frame can be used.
        footer: As its footer describes it, None when there is no valid one.
    """

    suffix: str
    size: int
    version: int | None
    content: bytes
    found: Scan | None
    segment: Segment | None
    footer: Segment | None

    @property
    def gaps(self) -> list[Gap]:
        """Stretches that are no valid frame, or one whose lanes nobody knows any more."""
        if self.segment is not None and self.found is not None:
            return self.segment.gaps
        return self.found.gaps if self.found is not None else []

    @property
    def described(self) -> Segment | None:
        """As its frames describe it, else as its footer does."""
        return self.segment or self.footer

    def entries(self) -> Iterator[Entry]:
        """Its record frames, oldest first."""
        segment, found = self.segment, self.found
        if segment is None or found is None:
            return
        for at, length, meta, extra, context in found.frames:
            if meta >> KIND_SHIFT not in JOINED or meta & 0xFF not in segment.sets:
                continue
            place, time = _PLACE_AND_TIME.unpack_from(self.content, at + FRAME.size)
            entry = entry_of(self.content, (at, length, meta, extra, place, time), context)
            if entry is not None:
                yield entry

    @property
    def is_stream(self) -> bool:
        """Whether settlements or dead letters stand among its records, as in a file object."""
        return self.found is not None and any(frame.kind in (Kind.STATE, Kind.DEAD) for frame in self.found.frames)


@dataclass(slots=True)
class SideFile:
    """The state file or the dead-letter file.

    Attributes:
        content: All of it.
        found: Its frames.
    """

    content: bytes
    found: Scan

    @property
    def context(self) -> Context | None:
        """Its run frame: which spool it belongs to."""
        return next(iter(self.found.contexts.values()), None)


class Look:
    """One look at a spool, which may be at work meanwhile.

    The order of reading makes a live spool look like one that was stopped at some moment, or shows records as owed
    that are not any more: the live segment first (it may be sealed next), then the state, then the names.

    Args:
        path: The live segment.
        files: The operating system, for tests.

    Raises:
        InvalidConfigError: There is no spool.
        SpoolError: It cannot be read.

    Attributes:
        sizes: Suffix -> size of the files that belong to it.
        live: The live segment; None when there is none, or nothing in it.
        states: Lane -> places at which it owes nothing.
    """

    def __init__(self, path: str | os.PathLike[str], files: Reading = READING) -> None:
        self.path = str(Path(os.path.realpath(path)))
        self.files = files
        self.live: SegmentFile | None = None
        self.state: SideFile | None = None
        self.states: dict[str, Places] = {}
        self.spool: int | None = None
        self._live_identity: tuple[int, int] | None = None
        self._live_size = 0
        try:
            self._read()
        except FileNotFoundError as error:
            raise InvalidConfigError(f"there is no spool at {self.path}") from error
        except IsADirectoryError as error:
            raise InvalidConfigError(f"{self.path} is a directory: give the file") from error
        except OSError as error:
            raise translated(error, "reading", self.path) from error

    # ---------------------------------------------------------------- opening

    def _read(self) -> None:
        live = self._content("")
        self._read_state()
        self.sizes = self.listed()
        if not self.sizes and live is None:
            raise InvalidConfigError(f"there is no spool at {self.path}")
        ours = self.state is not None or any(_SEALED.fullmatch(suffix) for suffix in self.sizes)
        if live is not None and judge(live, f"{self.path}", ours=ours):
            self.live = self._taken_apart("", live)
            if self.live.is_stream:
                assert self.live.found is not None
                self.states |= load_states(live, self.live.found)[0]
        self.spool = self._whose()

    def listed(self) -> dict[str, int]:
        """Suffix -> size of the files that belong to this spool, as of now."""
        found = self.files.siblings(self.path)
        return {suffix: size for suffix, size in found.items() if _OURS.fullmatch(suffix)}

    def still_holds(self) -> bool:
        """Whether the files are as they were when the look began: the same ones, of the same sizes."""
        if self.listed() != self.sizes:
            return False
        if "" not in self.sizes:
            return self._live_identity is None
        try:
            return self.files.identity(self.path) == self._live_identity and self._live_size == self.sizes[""]
        except FileNotFoundError:
            return False

    def _content(self, suffix: str, limit: int | None = None) -> bytes | None:
        """A file's content, or its beginning; None when it is not there (any more)."""
        path = self.path + suffix
        try:
            handle = self.files.open(path)
        except FileNotFoundError:
            return None
        try:
            if suffix == "":
                self._live_identity = self.files.identity(handle)
            size = self.files.size(handle)
            if suffix == "":
                self._live_size = size
            return read_all(self.files, handle, size if limit is None else min(size, limit))
        finally:
            # At once: on Windows an open file cannot be renamed, and its holder may want to.
            self.files.close(handle)

    def _read_state(self) -> None:
        self.state = self.side_file(".state")
        if self.state is not None:
            self.states = load_states(self.state.content, self.state.found)[0]

    def side_file(self, suffix: str) -> SideFile | None:
        """The state file or the dead-letter file as of now."""
        content = self._content(suffix)
        return SideFile(content, scan(content)) if content is not None else None

    def _whose(self) -> int | None:
        """The number of the spool that most likely is the right one: that of the state, if any segment has it."""
        contexts = [context for suffix in self.sealed() if (context := self._head(suffix)) is not None]
        if self.live is not None and self.live.segment is not None:
            contexts.append(self.live.segment.context)
        said = self.state.context if self.state is not None else None
        if said is not None and (not contexts or said.spool in [context.spool for context in contexts]):
            return said.spool
        if said is not None:
            self.states = {}
        return contexts[-1].spool if contexts else None

    # ---------------------------------------------------------------- segments

    def sealed(self) -> list[str]:
        """Suffixes of the sealed segments, by number."""
        found = [suffix for suffix in self.sizes if _SEALED.fullmatch(suffix)]
        return sorted(found, key=lambda suffix: int(suffix[1:]))

    def _head(self, suffix: str) -> Context | None:
        """The first run frame of a segment."""
        content = self._content(suffix, _HEAD)
        contexts = scan(content).contexts if content else {}
        return contexts[min(contexts)] if contexts else None

    def segments(self, *, deep: bool) -> Iterator[SegmentFile]:
        """All segments, oldest first; one at a time, since each may be large.

        Args:
            deep: Read all of them; otherwise those with a footer only so far.

        Raises:
            SpoolError: One cannot be read.
        """
        heads = {suffix: self._head(suffix) for suffix in self.sealed()}
        order = sorted(heads, key=lambda suffix: (head.base if (head := heads[suffix]) else 0, suffix))
        for suffix in order:
            try:
                if self.files.identity(self.path + suffix) == self._live_identity:
                    continue  # it was the live one when this look began
                if not deep and (file := self._by_footer(suffix)) is not None:
                    yield file
                    continue
                content = self._content(suffix)
            except FileNotFoundError:
                continue  # settled and deleted meanwhile
            except OSError as error:
                raise translated(error, "reading", self.path + suffix) from error
            if content is not None:
                yield self._taken_apart(suffix, content)
        if self.live is not None:
            yield self.live

    def read_again(self, file: SegmentFile) -> SegmentFile | None:
        """All of a segment of which only the footer was read; None when it is gone."""
        content = self._content(file.suffix)
        return self._taken_apart(file.suffix, content) if content is not None else None

    def _by_footer(self, suffix: str) -> SegmentFile | None:
        path = self.path + suffix
        handle = self.files.open(path)
        try:
            size = self.files.size(handle)
            footer = Segment.from_footer(self.files, path, handle, size)
            known = read_preamble(read_all(self.files, handle, 16))
        finally:
            self.files.close(handle)
        if footer is None:
            return None
        footer.handle = None
        return SegmentFile(suffix, size, known[0] if known else None, b"", None, None, footer)

    def _taken_apart(self, suffix: str, content: bytes) -> SegmentFile:
        path = self.path + suffix
        known = read_preamble(content)
        found = scan(content)
        segment = Segment.from_scan(self.files, path, -1, content, found)
        if segment is not None:
            segment.handle = None
        footer = Segment.from_footer(_Content(content), path, 0, len(content))
        return SegmentFile(suffix, len(content), known[0] if known else None, content, found, segment, footer)

    def first_time(self, file: SegmentFile) -> float | None:
        """When the first record of a segment was accepted, with one small read; None where that does not tell."""
        content = self._content(file.suffix, _FIRST) or b""
        at = HEADER_SIZE
        while at + RECORD_SIZE <= len(content):
            _, length, meta, _, _, time = RECORD.unpack_from(content, at)
            if meta >> KIND_SHIFT in JOINED:
                return float(time)
            at += max(length, FRAME.size)
        return None

    # ---------------------------------------------------------------- beside the segments

    @property
    def is_stream(self) -> bool:
        """Whether it is, or was, a file object: all in one file."""
        return self.live is not None and self.live.is_stream

    def states_now(self) -> dict[str, Places]:
        """Lane -> places at which it owes nothing, read anew: what was deleted meanwhile was settled before."""
        side = None if self.is_stream else self.side_file(".state")
        return self.states if side is None else load_states(side.content, side.found)[0]

    def holder(self) -> str:
        """What the lock file says of who holds the spool, or held it last; "" when there is none."""
        try:
            return (self._content(".lock") or b"").decode(errors="replace").strip()
        except OSError:
            return ""  # it is there, but not for us to read; nothing else depends on it

    def letters(self) -> list[DeadLetter]:
        """The dead letters, oldest first, as of now."""
        alive: dict[int, DeadLetter] = {}
        side = self.side_file(".dead")
        sources = [(side.content, side.found)] if side is not None else []
        if self.live is not None and self.live.found is not None:
            sources.append((self.live.content, self.live.found))
        for content, found in sources:
            for frame in found.frames:
                if frame.kind == Kind.DEAD:
                    _note_letter(alive, frame.meta & 0xFF, content[frame.at + FRAME.size : frame.at + frame.length])
        return list(alive.values())


class _Content(Files):
    """A file that was read already."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        return self._content[offset : offset + size]


def _note_letter(alive: dict[int, DeadLetter], what: int, body: bytes) -> None:
    if what == LETTER:
        letter = unpack_letter(body)
        alive[letter.key] = letter
    elif what == FORGOTTEN:
        for key in unpack_forgotten(body):
            alive.pop(key, None)
