"""Appends records to a file, one line each."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import Any, ClassVar

from resilient_exporters.exceptions import (
    ExportError,
    InvalidConfigError,
    RecordsRefused,
    TargetDown,
    TargetMisconfigured,
)
from resilient_exporters.exporters.exporter import Exporter
from resilient_exporters.exporters.lines import Lines, as_lines
from resilient_exporters.exporters.paths import fixed_path
from resilient_exporters.records import Batch

__all__ = ["FileExporter"]

_OPEN = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOCTTY", 0)
_RESERVE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_CLOSED = -1
_CHUNK = 1 << 20
"""Bytes read at a time when lines are counted: large enough that the calls do not show."""
_HOLD = {errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
_FORBIDDEN = {errno.EACCES, errno.EPERM}


class FileExporter(Exporter):
    """Writes each record as a line at the end of a file.

    str is written as a line (no second newline when it ends in one), bytes as they are plus a newline, anything else
    as one line of JSON (`lines.as_json` says how each type looks). Text is UTF-8.

    ================== ==========================================================================================
    guarantee          at least once: what was under way at a crash may be there twice
    batching           one write per batch; it is in the file, and survives `kill -9`, when `send` returns
    per-send keywords  none
    down               the folder or the share is not there, no space, read-only or I/O error; nothing of the batch
                       is left in the file, and it heals by itself
    misconfigured      a folder or a device in place of the file, permission denied on an existing file, path too long
    refused            data without a form in JSON or with a lone surrogate; the others are written
    ================== ==========================================================================================

    Several processes may append to one file as long as none uses `max_lines`. A file that was moved or deleted is
    made anew; a line torn by a crash is ended before the next one is written. The file is not synced to the disk: a
    power cut may take the last seconds.

    Args:
        target_file: Path; a relative one is fixed now, and nothing is opened before the first record.
        max_lines: Most lines in the file, at least 1, or None for no bound. Before it is exceeded the file is renamed
            to a sibling with the next number: `x.1` is the oldest, `x.2` the next, and so on, none is ever overwritten
            or deleted. A record of several lines is not split; one of more than `max_lines` has a file of its own.
        append: False empties an existing file, once, when this exporter first writes; siblings stay.
        **options: As for every exporter, see `Exporter`.

    Raises:
        InvalidConfigError: An argument is of the wrong type or out of range.
    """

    guarantee: ClassVar[str] = "at least once"

    def __init__(
        self, target_file: str | os.PathLike[str], max_lines: int | None = None, append: bool = True, **options: Any
    ) -> None:
        if max_lines is not None and not _counts(max_lines):
            raise InvalidConfigError(f"max_lines must be None or an int of at least 1, not {max_lines!r}")
        if not isinstance(append, bool):
            raise InvalidConfigError(f"append must be True or False, not {append!r}")
        self.target_file: Path = fixed_path(target_file, "target_file")
        self.max_lines = max_lines
        self._file = _LineFile(str(self.target_file), fresh=not append, counting=max_lines is not None)
        self._in_file: set[tuple[int, int]] = set()
        """Run and number of records written by an attempt that failed behind them, so that they come again."""
        super().__init__(**options)

    def target_name(self) -> str:
        """`file:` and the absolute path."""
        return f"file:{self.target_file}"

    def export(self, batch: Batch) -> None:
        """Append the lines of a batch; see the class."""
        lines = batch.rendered(as_lines)
        try:
            self._file.look()
            self._write(batch, lines)
        except OSError as error:
            self._file.close()
            raise self._verdict(error) from error
        if self._in_file:
            self._in_file.difference_update((batch.run, number) for number in batch.numbers)
        if lines.refused:
            raise RecordsRefused(permanent=lines.refused)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def stop(self) -> None:
        """Let go of the file until the next record: another program may move or take it."""
        self._rex.disconnect()

    def _write(self, batch: Batch, lines: Lines) -> None:
        """Write all at once if the file has room for all."""
        if self._in_file or not self._has_room(lines.whole):
            self._write_parts(batch, lines.parts())
        elif lines.whole:
            self._file.append(lines.whole)

    def _write_parts(self, batch: Batch, parts: list[bytes]) -> None:
        """Write as many whole records at a time as the file has room for, and move it aside in between."""
        ids = [(batch.run, number) for number in batch.numbers]
        left = [index for index, id in enumerate(ids) if parts[index] and id not in self._in_file]
        while left:
            count = self._fitting([parts[index] for index in left])
            if not count:
                self._file.move_aside()
                continue
            self._file.append(b"".join([parts[index] for index in left[:count]]))
            if count < len(left):
                self._in_file.update(ids[index] for index in left[:count])
            left = left[count:]

    def _has_room(self, lines: bytes) -> bool:
        return self.max_lines is None or self._file.lines + lines.count(b"\n") <= self.max_lines

    def _fitting(self, parts: list[bytes]) -> int:
        """How many of these records may follow in the file as it is."""
        if self.max_lines is None:
            return len(parts)
        room = self.max_lines - self._file.lines
        for count, part in enumerate(parts):
            room -= part.count(b"\n")
            if room < 0:
                alone = count == 0 and self._file.lines == 0
                return count + alone
        return len(parts)

    def _verdict(self, error: OSError) -> ExportError:
        """What an error of the operating system means for delivery."""
        text = f"cannot write to {self.target_file}: {error.strerror or error}"
        if error.errno in _HOLD:
            return TargetMisconfigured(text)
        if error.errno in _FORBIDDEN and os.path.lexists(self.target_file):
            return TargetMisconfigured(f"{text}; this process needs to read and write it, and its folder")
        # A folder that may not be written, or is not there, is what a share looks like before it is mounted.
        return TargetDown(text)


def _counts(lines: Any) -> bool:
    return isinstance(lines, int) and not isinstance(lines, bool) and lines >= 1


class _LineFile:
    """A file that only grows by whole lines; raises OSError, and is then in order again at the next `look`.

    Attributes:
        lines: Lines in the file, one without an end included; kept only when `counting`.
    """

    def __init__(self, path: str, *, fresh: bool, counting: bool) -> None:
        self.lines = 0
        self._path = path
        self._fresh = fresh
        self._counting = counting
        self._fd = _CLOSED
        self._identity = (0, 0)
        self._end = 0
        self._torn = False
        self._siblings: int | None = None

    def look(self) -> None:
        """Open the file if it is not open or was moved; take note of what others did to it."""
        found = self._find()
        if found is None or self._fd == _CLOSED or (found.st_dev, found.st_ino) != self._identity:
            self.close()
            found = self._open()
        if found.st_size != self._end:
            self._catch_up(found.st_size)

    def append(self, data: bytes) -> None:
        """Write whole lines, all or nothing."""
        view = memoryview(b"\n" + data if self._torn else data)
        written = 0
        try:
            while written < len(view):
                written += os.write(self._fd, view[written:])
        except OSError:
            self._take_back(written)
            raise
        self._end += written
        self.lines += data.count(b"\n") if self._counting else 0
        self._torn = False

    def move_aside(self) -> None:
        """Rename the file to the next sibling and start a new one.

        The number is reserved by exclusive creation, so nothing is overwritten whoever else is at work, and the rename
        is one step: a kill leaves either the file or the sibling, at worst with an empty sibling in between.
        """
        if self._torn:
            self.append(b"")
        self.close()
        sibling = self._reserve()
        try:
            os.replace(self._path, sibling)
        except OSError:
            os.unlink(sibling)
            raise
        self.look()

    def close(self) -> None:
        """Let go of the file; `look` opens it again."""
        if self._fd != _CLOSED:
            fd, self._fd = self._fd, _CLOSED
            os.close(fd)

    def _find(self) -> os.stat_result | None:
        try:
            return os.stat(self._path)
        except FileNotFoundError:
            return None

    def _open(self) -> os.stat_result:
        fd = os.open(self._path, _OPEN | (os.O_TRUNC if self._fresh else 0), 0o666)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            raise OSError(errno.EISDIR, "not a regular file")
        self._fd, self._fresh = fd, False
        self._identity = (found.st_dev, found.st_ino)
        self._end = self.lines = 0
        self._torn = False
        return found

    def _catch_up(self, size: int) -> None:
        """Learn how a file ends, and how many lines it has, that was there before or that others wrote to."""
        if size < self._end:
            self._end = self.lines = 0
            self._torn = False
        if self._counting:
            self.lines += self._count(self._end, size) - self._torn
        os.lseek(self._fd, max(size - 1, 0), os.SEEK_SET)
        self._torn = size > 0 and os.read(self._fd, 1) != b"\n"
        self.lines += self._torn
        self._end = size

    def _count(self, start: int, stop: int) -> int:
        """Newlines between two offsets."""
        os.lseek(self._fd, start, os.SEEK_SET)
        count = 0
        while start < stop and (chunk := os.read(self._fd, min(_CHUNK, stop - start))):
            count += chunk.count(b"\n")
            start += len(chunk)
        return count

    def _take_back(self, written: int) -> None:
        """After a failed write, cut off what got there, unless another process has written behind it."""
        try:
            if written and os.fstat(self._fd).st_size == self._end + written:
                os.ftruncate(self._fd, self._end)
        finally:
            self.close()

    def _reserve(self) -> str:
        """Create the sibling with the next free number."""
        if self._siblings is None:
            self._siblings = self._highest()
        while True:
            self._siblings += 1
            sibling = f"{self._path}.{self._siblings}"
            try:
                os.close(os.open(sibling, _RESERVE, 0o666))
            except FileExistsError:
                continue
            return sibling

    def _highest(self) -> int:
        folder, name = os.path.split(self._path)
        numbered = re.compile(re.escape(name) + r"\.([1-9][0-9]*)")
        matches = (numbered.fullmatch(entry) for entry in os.listdir(folder))
        return max((int(match[1]) for match in matches if match), default=0)
