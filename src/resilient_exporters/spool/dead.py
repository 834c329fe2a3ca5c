"""Dead letters: records refused for good, with the reason, in a file of their own, so that they pin no segment."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from struct import Struct
from typing import Any, Protocol

from resilient_exporters.spool.files import Files, read_all, write_all
from resilient_exporters.spool.frame import (
    FRAME,
    HEADER_SIZE,
    RUN_SIZE,
    Context,
    FileKind,
    Kind,
    pack,
    preamble,
    unpack_json,
)
from resilient_exporters.spool.interface import DeadLetter
from resilient_exporters.spool.recovery import write_aside
from resilient_exporters.spool.scan import Found, Gap, scan

__all__ = [
    "FORGOTTEN",
    "LETTER",
    "DeadKeeper",
    "DeadLetters",
    "pack_forgotten",
    "pack_letter",
    "unpack_forgotten",
    "unpack_letter",
]

logger = logging.getLogger("resilient_exporters")

SIZES = Struct("<II")
KEY = Struct("<Q")
# The lower bits of `meta`: a letter, or keys of letters that were dropped.
LETTER, FORGOTTEN = 0, 1
_SAID = ("key", "lane", "run", "number", "accepted", "died", "attempts", "reason", "flags")


def pack_letter(letter: DeadLetter, seed: int, offset: int) -> bytes:
    """The frame of a letter; its body is | size of said 4 | size of options 4 | said, JSON | options | payload |."""
    said = json.dumps([getattr(letter, name) for name in _SAID], separators=(",", ":")).encode()
    assert isinstance(letter.payload, bytes)
    body = b"".join((SIZES.pack(len(said), len(letter.options)), said, letter.options, letter.payload))
    return pack(Kind.DEAD, body, seed, offset, low=LETTER)


def unpack_letter(body: bytes) -> DeadLetter:
    """The letter in the body of its frame."""
    said, options = SIZES.unpack_from(body)
    at = SIZES.size + said
    fields: dict[str, Any] = dict(zip(_SAID, unpack_json(body[SIZES.size : at]), strict=True))
    return DeadLetter(**fields, options=body[at : at + options], payload=body[at + options :])


def pack_forgotten(keys: Iterable[int], seed: int, offset: int) -> bytes:
    """The frame that says that letters were dropped; its body is | key 8 | ... |."""
    return pack(Kind.DEAD, b"".join(map(KEY.pack, keys)), seed, offset, low=FORGOTTEN)


def unpack_forgotten(body: bytes) -> list[int]:
    """The keys of dropped letters."""
    return [key for (key,) in KEY.iter_unpack(body)]


class DeadKeeper(Protocol):
    """Where dead letters are kept.

    Attributes:
        path: Its name, for messages.
        size: Bytes in use.
    """

    path: str
    size: int

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """Keep letters, all or none, safe against a power cut where the file is; their keys are given here.

        Raises:
            OSError: They could not be written.
        """

    def letters(self) -> Iterator[DeadLetter]:
        """All letters, oldest first."""

    def forget(self, keys: Iterable[int]) -> None:
        """Drop letters by key; unknown keys are ignored.

        Raises:
            OSError: It could not be written; nothing was dropped.
        """

    def sync(self) -> None:
        """Return when what was written is safe against a power cut."""

    def close(self) -> None:
        """Let go of the file."""


class DeadLetters:
    """Dead letters of one spool; the file is read when it is first needed.

    Not safe for use from several threads at once.

    Args:
        path: The file; made with the first letter, removed when none is left.
        spool: The spool's random number.
        room: Called with a number of bytes before they are written; raises SpoolFull when there is no room for them.
    """

    def __init__(self, files: Files, path: str, spool: int, room: Callable[[int], object] = bool) -> None:
        self.files = files
        self.path = path
        self.spool = spool
        self.room = room
        self.size = 0
        self._handle: int | None = None
        self._context: Context | None = None
        self._loaded = False
        self._next = 1
        self._doubted = False
        self._names_unsynced = False
        # Key -> (offset, length) of letters that were not forgotten.
        self._alive: dict[int, tuple[int, int]] = {}

    def _load(self) -> None:
        if self._loaded:
            return
        try:
            handle = self.files.open(self.path)
        except FileNotFoundError:
            self._loaded = True
            return
        size = self.files.size(handle)
        content = read_all(self.files, handle, size)
        found = scan(content)
        self._handle, self.size = handle, found.end
        self._context = found.contexts.get(0)
        for frame in found.frames:
            self._take(content, frame)
        self._loaded = True
        lost = [gap for gap in found.gaps if not gap.torn]
        if lost:
            self._set_aside(content, lost)
        if self._context is None or lost:
            self._rewrite()
        elif size > found.end:
            self.files.truncate(handle, found.end)

    def _set_aside(self, content: bytes, gaps: Sequence[Gap]) -> None:
        """Keep the bytes of letters that cannot be read, in a sibling."""
        places = [{"file": self.path, "offset": gap.start, "length": gap.stop - gap.start} for gap in gaps]
        pieces = [(where, content[gap.start : gap.stop]) for where, gap in zip(places, gaps, strict=True)]
        write_aside(self.files, self.path.removesuffix(".dead"), pieces)
        size = sum(len(lost) for _, lost in pieces)
        logger.warning("dead_letters_damaged path=%r bytes_set_aside=%d", self.path, size)

    def _take(self, content: bytes, frame: Found) -> None:
        if frame.kind != Kind.DEAD:
            return
        body = content[frame.at + FRAME.size : frame.at + frame.length]
        if frame.meta & 0xFF == FORGOTTEN:
            for key in unpack_forgotten(body):
                self._alive.pop(key, None)
                self._next = max(self._next, key + 1)
            return
        letter = unpack_letter(body)
        self._alive[letter.key] = frame.at, frame.length
        self._next = max(self._next, letter.key + 1)

    def add(self, letters: Sequence[DeadLetter]) -> None:
        self._load()
        if self._doubted and self._handle is not None:
            self._rewrite()
        data, start, context = b"", self.size, self._context
        fresh = self._handle is None or context is None
        if context is None or fresh:
            context = Context(0, 0, secrets.randbits(64), self.spool, 0, 0, 0)
            data, start = self._opening(context), 0
        spots = []
        for key, letter in enumerate(letters, self._next):
            frame = pack_letter(letter._replace(key=key), context.seed, start + len(data))
            spots.append((key, (start + len(data), len(frame))))
            data += frame
        self.room(len(data))
        if self._handle is None or fresh:
            self._handle = self._create(self.path)
        try:
            write_all(self.files, self._handle, data, start)
            # The record is settled next, and the state may reach the disk first: so the letter must be there by then.
            self._sync()
            if fresh:
                self._sync_names()
        except BaseException:
            self._take_back(fresh=fresh)
            raise
        self._context = context
        self._alive.update(spots)
        self._next += len(letters)
        self.size = start + len(data)

    @staticmethod
    def _opening(context: Context) -> bytes:
        return preamble(FileKind.DEAD) + context.pack(HEADER_SIZE) + context.pack(HEADER_SIZE + RUN_SIZE)

    def _take_back(self, *, fresh: bool) -> None:
        """Undo a failed `add`."""
        assert self._handle is not None
        try:
            if not fresh:
                self.files.truncate(self._handle, self.size)
                return
            self.files.unlink(self.path)
        except OSError:
            # Something may stand there that must not come back: write the file anew before it is used again.
            self._doubted = True
            if not fresh:
                return
        handle, self._handle = self._handle, None
        with contextlib.suppress(OSError):  # it is gone all the same, and the caller has an error to tell
            self.files.close(handle)

    def _sync(self) -> None:
        assert self._handle is not None
        try:
            self.files.sync(self._handle)
        except OSError:
            # The next sync of this file may succeed without having written anything.
            self._doubted = True
            raise

    def _create(self, path: str) -> int:
        try:
            return self.files.open(path, create=True)
        except FileExistsError:
            self.files.unlink(path)
            return self.files.open(path, create=True)

    def letters(self) -> Iterator[DeadLetter]:
        self._load()
        for key in list(self._alive):
            if (spot := self._alive.get(key)) is not None and self._handle is not None:
                frame = read_all(self.files, self._handle, spot[1], spot[0])
                yield unpack_letter(frame[FRAME.size :])

    def forget(self, keys: Iterable[int]) -> None:
        self._load()
        known = [key for key in dict.fromkeys(keys) if key in self._alive]
        if not known or self._handle is None or self._context is None:
            return
        frame = pack_forgotten(known, self._context.seed, self.size)
        try:
            write_all(self.files, self._handle, frame, self.size)
        except BaseException:
            self._take_back(fresh=False)
            raise
        self.size += len(frame)
        for key in known:
            del self._alive[key]
        if 2 * sum(length for _, length in self._alive.values()) < self.size:
            try:
                self._rewrite()
            except OSError as error:
                # They are forgotten; that the file stays long is a matter for the next time.
                logger.info("spool_dead_not_rewritten path=%r error=%r", self.path, str(error))

    def _rewrite(self) -> None:
        """Write what is left to a new file and put it in the place of the old one; without letters, drop the file."""
        letters = list(self.letters())
        if not letters:
            with contextlib.suppress(FileNotFoundError):
                self.files.unlink(self.path)
            self._replace(None, None, 0, {})
        else:
            context = Context(0, 0, secrets.randbits(64), self.spool, 0, 0, 0)
            data = self._opening(context)
            spots = {}
            for letter in letters:
                frame = pack_letter(letter, context.seed, len(data))
                spots[letter.key] = len(data), len(frame)
                data += frame
            handle = self._create(self.path + ".new")
            try:
                write_all(self.files, handle, data, 0)
                self.files.sync(handle)
                self.files.rename(self.path + ".new", self.path)
            except BaseException:
                self.files.close(handle)
                raise
            self._replace(handle, context, len(data), spots)
        self._doubted = False
        self._sync_names()

    def _replace(
        self, handle: int | None, context: Context | None, size: int, spots: dict[int, tuple[int, int]]
    ) -> None:
        old, self._handle = self._handle, handle
        self._context, self.size, self._alive = context, size, spots
        if old is not None:
            with contextlib.suppress(OSError):  # nobody needs that file any more
                self.files.close(old)

    def _sync_names(self) -> None:
        self._names_unsynced = True
        self.files.sync_dir(os.path.dirname(self.path))
        self._names_unsynced = False

    def sync(self) -> None:
        if self._doubted:
            self._rewrite()
        elif self._handle is not None:
            self._sync()
        if self._names_unsynced:
            self._sync_names()

    def close(self) -> None:
        handle, self._handle = self._handle, None
        self._loaded = False
        self._alive.clear()
        if handle is not None:
            self.files.close(handle)
