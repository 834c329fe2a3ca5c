"""Where segments live: files that are made, moved and written again, and what their errors mean."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable

from resilient_exporters.exceptions import SpoolError, SpoolFull
from resilient_exporters.spool.files import Files, read_all, write_all
from resilient_exporters.spool.frame import FileKind, preamble
from resilient_exporters.spool.segment import Segment

__all__ = ["LEFTOVER", "REWRITING", "Placing", "translated"]

# Ending of a file that is to take a segment's place: not a name that somebody would give to a backup.
REWRITING = ".rewriting"
LEFTOVER = re.compile(r"(?:\.\d{8,})?\.rewriting|\.dead\.new")

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
    """Where new segments come from and go to: a directory of files here, a single file object elsewhere.

    Args:
        files: The operating system.
        path: The live segment's path.
        reuse: There is a file at the path already, and it holds nothing.
        prepare: Called before a live segment is made.
    """

    def __init__(
        self, files: Files, path: str, *, reuse: bool = False, prepare: Callable[[], object] = lambda: None
    ) -> None:
        self.files = files
        self.path = path
        self.reuse = reuse
        self.prepare = prepare

    def create(self, *, alone: bool) -> int:
        """A file for the live segment, empty or with a preamble.

        Args:
            alone: No other file proves yet that the one at this path is ours.
        """
        self.prepare()
        handle = self.files.open(self.path, create=not self.reuse)
        try:
            if self.reuse:
                self.files.truncate(handle, 0)
            if alone:
                # Synced before anything follows: else a power cut may leave zeros here and data behind them, which
                # nobody can tell from a file that is something else.
                write_all(self.files, handle, preamble(FileKind.SEGMENT), 0)
                self.files.sync(handle)
        except BaseException:
            self.discard(handle)
            raise
        return handle

    def discard(self, handle: int) -> None:
        """Undo `create`."""
        with contextlib.suppress(OSError):  # opening adopts what is left of it
            if self.reuse:
                self.files.truncate(handle, 0)
            else:
                self.files.unlink(self.path)
        with contextlib.suppress(OSError):  # it is gone all the same, and the caller has an error to tell
            self.files.close(handle)

    def seal(self, segment: Segment, taken: set[str]) -> None:
        """Move a full segment out of the way of the next one, to a name that is not taken."""
        number = segment.number
        while (path := f"{self.path}.{number:08d}") in taken:
            number += 1
        self.files.rename(segment.path, path)
        segment.path = path
        self.reuse = False

    def write_again(self, segment: Segment, handle: int) -> int:
        """Write a segment to a new file that takes its place, because a sync failed; that file, safe."""
        path = f"{segment.path}{REWRITING}"
        with contextlib.suppress(FileNotFoundError):
            self.files.unlink(path)
        new = self.files.open(path, create=True)
        try:
            write_all(self.files, new, read_all(self.files, handle, segment.end), 0)
            if segment.sealed:
                write_all(self.files, new, segment.footer(), segment.end)
            self.files.sync(new)
            self.files.rename(path, segment.path)
        except BaseException:
            self.files.close(new)
            raise
        return new

    def sync_names(self) -> None:
        """Make the names of new and moved files safe."""
        self.files.sync_dir(os.path.dirname(self.path))
