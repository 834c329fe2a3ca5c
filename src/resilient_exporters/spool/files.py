"""The operating system as the spool sees it: the only place where files are touched, so that tests can swap it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import threading
from typing import TYPE_CHECKING, Any

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["OS", "Files", "Unlockable", "read_all", "write_all"]

_BINARY = getattr(os, "O_BINARY", 0)
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
# The byte that Windows locks: beyond the holder's name, so that others can read that.
_LOCK_BYTE = 1 << 20
# Where reading and writing move a position that all users of a handle share.
_seeking = threading.RLock()


class Unlockable(OSError):
    """The file system cannot lock files, as some network shares."""


class Files:
    """Every call that the spool makes to the operating system; all of them may raise OSError.

    A handle is an int (a file descriptor) to be given back as it came. Data written with `pwrite` is visible to
    `pread` at once and survives the death of the process; a power cut only leaves what `sync` was called for, and
    of names (created, renamed, unlinked) only what `sync_dir` was called for.
    """

    def open(self, path: str, *, create: bool = False) -> int:
        """Open for reading and writing; `create` makes a new, empty file and fails when there is one."""
        flags = os.O_RDWR | _BINARY | _CLOEXEC
        return os.open(path, flags | os.O_CREAT | os.O_EXCL if create else flags, 0o600)

    def open_lock(self, path: str) -> int:
        """Open a lock file, made when there is none."""
        return os.open(path, os.O_RDWR | os.O_CREAT | _BINARY | _CLOEXEC, 0o600)

    def close(self, handle: int) -> None:
        os.close(handle)

    if TYPE_CHECKING:

        def pread(self, handle: int, size: int, offset: int) -> bytes:
            """Up to `size` bytes at `offset`; fewer at the end of the file."""

        def pwrite(self, handle: int, data: Any, offset: int) -> int:
            """Write at `offset`; how many bytes were taken, which may be fewer than given."""

    elif sys.platform == "win32":

        def pread(self, handle, size, offset):
            with _seeking:
                os.lseek(handle, offset, os.SEEK_SET)
                return os.read(handle, size)

        def pwrite(self, handle, data, offset):
            with _seeking:
                os.lseek(handle, offset, os.SEEK_SET)
                return os.write(handle, data)
    else:
        # Bare, since a Python call around each would be a tenth of an append.
        pread = staticmethod(os.pread)
        pwrite = staticmethod(os.pwrite)

    def size(self, handle: int) -> int:
        """Length of an open file."""
        return os.fstat(handle).st_size

    def truncate(self, handle: int, size: int) -> None:
        os.ftruncate(handle, size)

    def allocate(self, handle: int, size: int) -> None:
        """Reserve room up to `size` bytes; lengthens the file. Where that is unknown: writes zeros."""
        now = os.fstat(handle).st_size
        if size <= now:
            return
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle, now, size - now)
            return
        while now < size:
            now += self.pwrite(handle, bytes(min(size - now, 1 << 16)), now)

    def sync(self, handle: int) -> None:
        """Return when the data of the file is safe against a power cut."""
        if sys.platform == "darwin":
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)  # fsync alone stops at the drive's cache
        elif hasattr(os, "fdatasync"):
            os.fdatasync(handle)
        else:
            os.fsync(handle)

    def sync_dir(self, path: str) -> None:
        """Return when the names in this directory are safe against a power cut."""
        if sys.platform == "win32":
            return  # NTFS journals names; directories cannot be opened there
        handle = os.open(path, os.O_RDONLY | _CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def rename(self, old: str, new: str) -> None:
        """Rename, replacing what has the new name."""
        os.replace(old, new)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def make_dirs(self, path: str) -> None:
        """Make a directory and those above it, for this user only; no error when it is there."""
        os.makedirs(path, mode=0o700, exist_ok=True)

    def siblings(self, path: str) -> dict[str, int]:
        """The regular files of the directory of `path` whose names start with its name: what follows it -> size.

        Raises:
            IsADirectoryError: There is a directory of this very name.
        """
        directory, name = os.path.split(path)
        found = {}
        for other in os.listdir(directory or "."):
            if other.startswith(name):
                with contextlib.suppress(FileNotFoundError):  # deleted between listing and asking
                    status = os.stat(os.path.join(directory, other))
                    if other == name and stat.S_ISDIR(status.st_mode):
                        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
                    if stat.S_ISREG(status.st_mode):
                        found[other[len(name) :]] = status.st_size
        return found

    def free(self, path: str) -> tuple[int, int]:
        """Bytes free for this user, and bytes in all, of the file system that holds this directory."""
        if not hasattr(os, "statvfs"):
            import shutil

            usage = shutil.disk_usage(path)
            return usage.free, usage.total
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize

    def lock(self, handle: int) -> bool:
        """Take the lock of an open lock file for this handle, without waiting; False when another handle has it.

        It ends when all copies of the handle are closed, also by the death of the process.

        Raises:
            Unlockable: This file system has no locks.
        """
        try:
            if sys.platform == "win32":
                os.lseek(handle, _LOCK_BYTE, os.SEEK_SET)
                msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise Unlockable(error.errno, error.strerror) from error
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
                return False
            raise
        return True


OS = Files()


def write_all(files: Files, handle: int, data: bytes | bytearray, offset: int) -> None:
    """Write all of `data`, however often the system takes only a part."""
    wrote = files.pwrite(handle, data, offset)
    while wrote < len(data):
        rest = files.pwrite(handle, data[wrote:], offset + wrote)
        if rest <= 0:
            raise OSError(f"the system took {wrote} of {len(data)} bytes")
        wrote += rest


def read_all(files: Files, handle: int, size: int, offset: int = 0) -> bytes:
    """Read `size` bytes, fewer only at the end of the file."""
    data = files.pread(handle, size, offset)
    if 0 < len(data) < size:
        pieces = [data]
        have = len(data)
        while have < size and (more := files.pread(handle, size - have, offset + have)):
            pieces.append(more)
            have += len(more)
        data = b"".join(pieces)
    return data
