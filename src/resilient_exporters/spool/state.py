"""The state file: what the lanes have settled, appended to, and written anew when it has grown."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Mapping
from struct import Struct
from typing import Protocol

from resilient_exporters.spool.cursor import Places
from resilient_exporters.spool.files import Files, read_all, write_all
from resilient_exporters.spool.frame import (
    FRAME,
    HEADER_SIZE,
    RUN_SIZE,
    Context,
    FileKind,
    Kind,
    pack,
    pack_json,
    preamble,
    unpack_json,
)
from resilient_exporters.spool.interface import Fate
from resilient_exporters.spool.scan import Scan, scan

__all__ = ["State", "StateFrames", "StateKeeper", "load_states"]

# Room that is kept for the next state file, bytes: some hundred settlements when nothing else can be written.
RESERVE = 1 << 12
# Rewritten when longer than this and than four times what it would be when written anew, bytes.
GROWN = 1 << 16
RANGE = Struct("<QQ")
# The lower bits of `meta` in a state frame: a lane as a whole, or with SETTLED + fate, ranges that it settled, or the
# ranges of the batch that it is about to attempt.
LANE, SETTLED, PINNED = 0, 0x10, 0x20


class StateKeeper(Protocol):
    """Where what lanes settled is written down.

    Attributes:
        path: Its name, for messages.
        size: Bytes in use.
    """

    path: str
    size: int

    def write(self, name: str, fate: Fate | None, ranges: list[tuple[int, int]], lanes: Mapping[str, Places]) -> None:
        """Note that a lane settled ranges, or pinned them.

        Args:
            name: The lane; "" for none, to write what could not be written before.
            fate: How; None when it did not settle but pin them.
            ranges: What it settled, or pinned.
            lanes: All lanes with all they have settled and pinned, these ranges included.

        Raises:
            OSError: It could not be written; the next call writes all lanes.
        """

    def compact(self, lanes: Mapping[str, Places]) -> bool:
        """Write all lanes anew if that gives back half of the bytes in use; whether it did. Never raises for room."""

    def sync(self) -> None:
        """Return when what was written is safe against a power cut."""

    def close(self) -> None:
        """Let go of the file."""


class StateFrames:
    """Packs and unpacks what lanes have settled.

        lane frame      `extra` = index of the lane    JSON: name, floor, ranges, [pinned]
        settled frame   `extra` = index of the lane    | first 8 | last 8 | ...
        pinned frame    `extra` = index of the lane    | first 8 | last 8 | ...

    The index is short for the name; a lane frame comes before the first settled frame that uses it.
    """

    def __init__(self) -> None:
        self.indexes: dict[str, int] = {}

    def lane(self, name: str, places: Places, seed: int, offset: int) -> bytes:
        """A lane with all that it has settled."""
        index = self.indexes.setdefault(name, len(self.indexes))
        said = {"name": name, "floor": places.floor, "ranges": places.ranges()}
        if places.pinned and places.pinned[0][0] not in places:
            said["pinned"] = places.pinned
        return pack_json(Kind.STATE, said, seed, offset, low=LANE, extra=index)

    def settled(self, name: str, fate: Fate | None, ranges: Iterable[tuple[int, int]], seed: int, offset: int) -> bytes:
        """Ranges that a known lane has settled, or with no fate, pinned."""
        body = b"".join(RANGE.pack(first, last) for first, last in ranges)
        low = PINNED if fate is None else SETTLED | fate
        return pack(Kind.STATE, body, seed, offset, low=low, extra=self.indexes[name])


def load_states(content: bytes, found: Scan) -> tuple[dict[str, Places], dict[str, int]]:
    """Lane -> what it has settled, and lane -> index, from the valid frames of a file."""
    names: dict[int, str] = {}
    lanes: dict[str, Places] = {}
    for frame in found.frames:
        if frame.kind != Kind.STATE:
            continue
        body = content[frame.at + FRAME.size : frame.at + frame.length]
        if frame.meta & 0xFF == LANE:
            said = unpack_json(body)
            names[frame.extra] = said["name"]
            places = lanes.setdefault(said["name"], Places())
            ranges = [(1, said["floor"])] if said["floor"] else []
            for first, last in [*ranges, *said["ranges"]]:
                places.add(first, last)
            places.pinned = [(first, last) for first, last in said.get("pinned", ())]
        elif frame.extra in names and frame.meta & 0xFF == PINNED:
            lanes[names[frame.extra]].pinned = list(RANGE.iter_unpack(body))
        elif frame.extra in names:
            places = lanes[names[frame.extra]]
            for first, last in RANGE.iter_unpack(body):
                places.add(first, last)
    return lanes, {name: index for index, name in names.items()}


class State:
    """The state in a file of its own.

    Not safe for use from several threads at once.

    Args:
        path: The state file; made when something is first written.
        spool: The spool's random number.
    """

    def __init__(self, files: Files, path: str, spool: int) -> None:
        self.files = files
        self.path = path
        self.spool = spool
        self.size = 0
        self._handle: int | None = None
        self._frames = StateFrames()
        self._seed = 0
        self._small = 0
        self._stale = False

    def load(self) -> tuple[dict[str, Places], int | None]:
        """What is in the file, and the spool it belongs to; empty when there is no file."""
        try:
            handle = self.files.open(self.path)
        except FileNotFoundError:
            return {}, None
        try:
            size = self.files.size(handle)
            content = read_all(self.files, handle, size)
        finally:
            self.files.close(handle)
        found = scan(content)
        self.size = size
        # Written anew with the first settlement: so its rest is never appended to.
        lanes, _ = load_states(content, found)
        context = next(iter(found.contexts.values()), None)
        return lanes, context.spool if context else None

    def write(self, name: str, fate: Fate | None, ranges: list[tuple[int, int]], lanes: Mapping[str, Places]) -> None:
        handle = self._handle
        if handle is None or self._stale or name not in self._frames.indexes or self.size > max(GROWN, 4 * self._small):
            self._rewrite(lanes)
            return
        data = self._frames.settled(name, fate, ranges, self._seed, self.size)
        self._stale = True
        write_all(self.files, handle, data, self.size)
        self._stale = False
        self.size += len(data)

    def compact(self, lanes: Mapping[str, Places]) -> bool:
        before = self.size
        if before <= 2 * self._small:
            return False
        with contextlib.suppress(OSError):  # the old file stays, and whoever wants the room is told that there is none
            self._rewrite(lanes)
        return self.size < before

    def _rewrite(self, lanes: Mapping[str, Places]) -> None:
        """Write all lanes to a new file and put it in the place of the old one."""
        self._stale = True
        frames = StateFrames()
        context = Context(0, 0, secrets.randbits(64), self.spool, 0, 0, 0)
        data = preamble(FileKind.STATE) + context.pack(HEADER_SIZE) + context.pack(HEADER_SIZE + RUN_SIZE)
        for name, places in lanes.items():
            data += frames.lane(name, places, context.seed, len(data))
        new = self.path + ".new"
        size = len(data)
        # Zeros over all of the reserve, which keep the room and cover what may stand there.
        data = data.ljust(RESERVE, b"\0")
        handle = self._next(new)
        try:
            write_all(self.files, handle, data, 0)
            self.files.truncate(handle, len(data))
            # Before the rename: else a power cut may leave the name with an empty file behind it.
            self.files.sync(handle)
            self.files.rename(new, self.path)
        except BaseException:
            self.files.close(handle)
            raise
        if self._handle is not None:
            with contextlib.suppress(OSError):  # nobody needs that file any more
                self.files.close(self._handle)
        self._handle, self._frames, self._seed = handle, frames, context.seed
        self.size = self._small = size
        self._stale = False
        # The old file has given its room back by now.
        self.reserve()
        self.files.sync_dir(os.path.dirname(self.path))

    def _next(self, path: str) -> int:
        """The file that becomes the state: the reserve, if there is one."""
        try:
            return self.files.open(path)
        except FileNotFoundError:
            return self.files.open(path, create=True)

    def reserve(self) -> None:
        """Set room aside for the next state file, so that settling works on a full disk; without room it waits."""
        with contextlib.suppress(OSError):
            handle = self._next(self.path + ".new")
            try:
                self.files.allocate(handle, RESERVE)
            finally:
                self.files.close(handle)

    def sync(self) -> None:
        if self._handle is not None:
            self.files.sync(self._handle)

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            self.files.close(handle)
