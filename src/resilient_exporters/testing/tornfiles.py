"""Files in memory that tear, fill, fail and forget as real ones may: the spool's view of the system, for tests."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from resilient_exporters.spool.files import Files
from resilient_exporters.testing.torndisk import Disk, Op

__all__ = ["TornFiles"]


class TornFiles(Files):
    """A file system in memory that remembers every operation and knows what a power cut could leave of it.

    Pages not synced are kept, lost or mixed, lengths and names likewise: `states` has all that is legal, for short
    traces, and `random_state` one of it. Any single call can be made to fail with `fail_at`. All directories exist.

    Args:
        contents: Path -> content of the files that are there, durably.
        page: Bytes that reach the disk together; small pages tear small files.

    Attributes:
        calls: Names of the methods called, in order.
    """

    def __init__(self, contents: Mapping[str, bytes] | None = None, *, page: int = 4096) -> None:
        self.page = page
        self.calls: list[str] = []
        self._origin = dict(contents or {})
        self._disk = Disk(page, self._origin)
        self._past = 0, Disk(page, self._origin)  # the disk as it was after so many operations
        self._trace: list[Op] = []
        self._handles: dict[int, int] = {}  # handle -> file
        self._locks: dict[int, int] = {}  # file -> handle
        self._next = 1000  # far from real descriptors, so that a mix-up shows
        self._failures: dict[int, tuple[int, int]] = {}  # call -> errno, bytes taken before

    # ---------------------------------------------------------------- power cuts

    @property
    def operations(self) -> int:
        """How many operations changed anything so far."""
        return len(self._trace)

    @property
    def spoiled(self) -> bool:
        """Whether a failed sync left pages behind that no later sync saves."""
        files = (self._disk.files[file] for file in self._disk.names.values())
        return any(file.versions.keys() - file.dirty for file in files)

    def cuts(self) -> list[int]:
        """The moments at which a power cut is worth trying, as numbers of operations done before it.

        Between two syncs every state of an earlier cut is also one of a later cut, so these are the moments before
        each sync, and the end.
        """
        return [*(at for at, op in enumerate(self._trace) if op.name.startswith("sync")), len(self._trace)]

    def states(self, after: int | None = None) -> Iterator[TornFiles]:
        """Every state that a power cut may leave; their number grows exponentially with what was not synced.

        Args:
            after: The cut comes after so many operations; None: now.
        """
        disk = self._at(after)
        seen = set()
        for naming in disk.namings():
            for contents in product(*(disk.files[file].states() for file in naming.values())):
                state = tuple(zip(naming, contents, strict=True))
                if state not in seen:
                    seen.add(state)
                    yield TornFiles(dict(state), page=self.page)

    def random_state(self, rng: random.Random, after: int | None = None) -> TornFiles:
        """One of the states that a power cut may leave.

        Args:
            rng: Where chance comes from.
            after: The cut comes after so many operations; None: now.
        """
        disk = self._at(after)
        naming = disk.random_naming(rng)
        contents = {path: disk.files[file].random_state(rng) for path, file in naming.items()}
        return TornFiles(contents, page=self.page)

    def killed(self, after: int | None = None) -> TornFiles:
        """The state after the process was killed: everything written is there, locks are free."""
        disk = self._at(after)
        return TornFiles({path: bytes(disk.files[file].content) for path, file in disk.names.items()}, page=self.page)

    def contents(self) -> dict[str, bytes]:
        """What a reader finds now: path -> content."""
        return {path: bytes(self._disk.files[file].content) for path, file in self._disk.names.items()}

    def _at(self, after: int | None) -> Disk:
        """The disk as it was, to look at only: a later cut goes on from the one before, as most cuts come in order."""
        if after is None:
            return self._disk
        done, disk = self._past
        if done > after:
            done, disk = 0, Disk(self.page, self._origin)
        missing = self._trace[done:after]
        for op in missing:
            disk.apply(op)
        self._past = done + len(missing), disk
        return disk

    # ---------------------------------------------------------------- failing calls

    def fail_at(self, call: int, error: int, *, taken: int | None = None) -> None:
        """Make one call fail.

        Args:
            call: Its number in `calls`, from 0; `len(files.calls)` is the next one.
            error: The `errno` it fails with; 0 for a write that only comes out short.
            taken: Bytes that a failing write takes before; with 0 as `error` it returns this number. Ignored elsewhere.
        """
        self._failures[call] = error, taken or 0

    def heal(self) -> None:
        """Let no call fail that has not failed yet."""
        self._failures.clear()

    def _call(self, name: str) -> int:
        """Note a call, fail it if it is to fail; how many bytes a write may take, or -1 for all."""
        number = len(self.calls)
        self.calls.append(name)
        error, taken = self._failures.pop(number, (0, -1))
        if error and not (name == "pwrite" and taken > 0):
            raise OSError(error, os.strerror(error))
        return taken if name == "pwrite" else -1

    def _do(self, name: str, *args: Any) -> None:
        op = Op(name, args)
        self._disk.apply(op)
        self._trace.append(op)

    # ---------------------------------------------------------------- the calls

    def _file(self, handle: int) -> int:
        if handle not in self._handles:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._handles[handle]

    def _handle(self, file: int) -> int:
        self._next += 1
        self._handles[self._next] = file
        return self._next

    def _existing(self, path: str) -> int:
        if path not in self._disk.names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self._disk.names[path]

    def _create(self, path: str) -> int:
        file = len(self._disk.files)
        self._do("create", path, file)
        return self._handle(file)

    def open(self, path: str, *, create: bool = False) -> int:
        self._call("open")
        if not create:
            return self._handle(self._existing(path))
        if path in self._disk.names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        return self._create(path)

    def open_lock(self, path: str) -> int:
        self._call("open_lock")
        return self._handle(self._disk.names[path]) if path in self._disk.names else self._create(path)

    def close(self, handle: int) -> None:
        file = self._file(handle)
        del self._handles[handle]  # also when it fails, as on Linux
        if self._locks.get(file) == handle:
            del self._locks[file]
        self._call("close")

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        self._call("pread")
        return bytes(self._disk.files[self._file(handle)].content[offset : offset + size])

    def pwrite(self, handle: int, data: Any, offset: int) -> int:
        failing = len(self.calls) in self._failures and self._failures[len(self.calls)][0]
        taken = self._call("pwrite")
        file = self._file(handle)
        data = bytes(data) if taken < 0 else bytes(data)[:taken]
        if data:
            self._do("write", file, data, offset)
        if failing:
            raise OSError(failing, os.strerror(failing))
        return len(data)

    def size(self, handle: int) -> int:
        self._call("size")
        return len(self._disk.files[self._file(handle)].content)

    def truncate(self, handle: int, size: int) -> None:
        self._call("truncate")
        self._do("resize", self._file(handle), size)

    def allocate(self, handle: int, size: int) -> None:
        self._call("allocate")
        file = self._file(handle)
        if size > len(self._disk.files[file].content):
            self._do("resize", file, size)

    def sync(self, handle: int) -> None:
        file = self._file(handle)
        try:
            self._call("sync")
        except OSError:
            self._do("sync", file, False)
            raise
        self._do("sync", file, True)

    def sync_dir(self, path: str) -> None:
        self._call("sync_dir")
        self._do("sync_names", path)

    def rename(self, old: str, new: str) -> None:
        self._call("rename")
        self._existing(old)
        self._do("rename", old, new)

    def unlink(self, path: str) -> None:
        self._call("unlink")
        self._existing(path)
        self._do("unlink", path)

    def make_dirs(self, path: str) -> None:
        self._call("make_dirs")

    def siblings(self, path: str) -> dict[str, int]:
        self._call("siblings")
        found = {}
        for name, file in self._disk.names.items():
            if name.startswith(path) and "/" not in name[len(path) :]:
                found[name[len(path) :]] = len(self._disk.files[file].content)
        return found

    def free(self, path: str) -> tuple[int, int]:
        self._call("free")
        return 1 << 40, 1 << 41

    def lock(self, handle: int) -> bool:
        self._call("lock")
        return self._locks.setdefault(self._file(handle), handle) == handle
