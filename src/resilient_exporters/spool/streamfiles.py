"""A binary file object of the user's in the place of the operating system: one file, one segment."""

from __future__ import annotations

import contextlib
import io
from typing import Any, BinaryIO

from resilient_exporters.spool.files import Files, read_all, write_all
from resilient_exporters.spool.frame import HEADER_SIZE, FileKind, preamble
from resilient_exporters.spool.placing import Placing
from resilient_exporters.spool.segment import Segment

__all__ = ["HANDLE", "StreamFiles", "StreamPlacing", "empty"]

HANDLE = 0


class StreamFiles(Files):
    """The operating system, reduced to one file object.

    Args:
        file: The file object; sought before each use and flushed after each write, since its owner may use it, too.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def _checked(self, offset: int) -> BinaryIO:
        try:
            self.file.seek(offset)
        except ValueError as error:
            raise OSError(f"the file object cannot be used: {error}") from error
        return self.file

    def open(self, path: str, *, create: bool = False) -> int:
        """Refuse: there is no other file."""
        raise OSError(f"{path} is no file that could be opened")

    def close(self, handle: int) -> None:
        """It is the user's: it stays open."""

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        return self._checked(offset).read(size)

    def pwrite(self, handle: int, data: Any, offset: int) -> int:
        file = self._checked(offset)
        wrote = file.write(data)
        file.flush()
        return wrote

    def size(self, handle: int) -> int:
        return self._checked(0).seek(0, io.SEEK_END)

    def truncate(self, handle: int, size: int) -> None:
        self._checked(size).truncate(size)
        self.file.flush()

    def sync(self, handle: int) -> None:
        """Sync, if there is a real file behind it."""
        try:
            number = self._checked(0).fileno()
        except (OSError, AttributeError):
            return  # in memory: there is nothing to sync
        super().sync(number)


class StreamPlacing(Placing):
    """The one place of the one segment."""

    def create(self, *, alone: bool) -> int:
        empty(self.files)
        # As for files: nothing else proves that this is ours.
        write_all(self.files, HANDLE, preamble(FileKind.SEGMENT), 0)
        self.files.sync(HANDLE)
        return HANDLE

    def discard(self, handle: int) -> None:
        with contextlib.suppress(OSError):  # opening adopts what is left of it
            self.files.truncate(handle, 0)

    def write_again(self, segment: Segment, handle: int) -> int:
        """Write the same bytes in the same place: until that is synced, each page is what it was."""
        write_all(self.files, handle, read_all(self.files, handle, segment.end), 0)
        self.files.sync(handle)
        return handle

    def sync_names(self) -> None:
        """A file object has no name to sync."""


def empty(files: Files) -> None:
    """Truncate, in two steps: else a power cut might leave the old length with zeros where the preamble was."""
    if files.size(HANDLE) > HEADER_SIZE:
        files.truncate(HANDLE, HEADER_SIZE)
        files.sync(HANDLE)
    files.truncate(HANDLE, 0)
