"""Files in memory that tear, fill, fail and forget as real ones may: the spool's view of the system, for tests."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

from resilient_exporters.spool.files import Files

__all__ = ["TornFiles"]


class _Op(NamedTuple):
    """An operation that changes the disk: the name of a method of `_Disk`, and its arguments."""

    name: str
    args: tuple[Any, ...]


class _File:
    """What one file holds now, and every older version that a power cut may bring back.

    The system writes pages back in any order and whenever it likes. So each page is on the disk as it was after any
    one of the writes to it since the last sync, whatever the other pages are, and so is the length of the file.
    """

    def __init__(self, page: int, content: bytes = b"") -> None:
        self.page = page
        self.content = bytearray(content)
        self.versions: dict[int, list[bytes]] = {}  # page -> what the disk may hold, the last one is what is now
        self.sizes = [len(content)]
        self.dirty: set[int] = set()

    def _pages(self, start: int, stop: int) -> range:
        return range(start // self.page, -(-stop // self.page))

    def _change(self, pages: Iterable[int], change: Callable[[], None]) -> None:
        """Note how pages look before and after a change."""
        pages = list(pages)
        for page in pages:
            self.versions.setdefault(page, [self._now(page)])
        change()
        for page in pages:
            self.versions[page].append(self._now(page))
        self.dirty.update(pages)
        if self.sizes[-1] != len(self.content):
            self.sizes.append(len(self.content))

    def _now(self, page: int) -> bytes:
        return bytes(self.content[page * self.page : (page + 1) * self.page]).ljust(self.page, b"\0")

    def write(self, data: bytes, offset: int) -> None:
        def change() -> None:
            if offset > len(self.content):
                self.content.extend(bytes(offset - len(self.content)))
            self.content[offset : offset + len(data)] = data

        self._change(self._pages(offset, offset + len(data)), change)

    def resize(self, size: int) -> None:
        def change() -> None:
            del self.content[size:]
            self.content.extend(bytes(size - len(self.content)))

        self._change(self._pages(min(size, len(self.content)), len(self.content)), change)

    def sync(self, succeeds: bool) -> None:
        """After a failed sync the system takes the pages for clean: no later sync saves them, until written again."""
        if succeeds:
            for page in self.dirty:
                del self.versions[page]
            self.sizes = self.sizes[-1:]
        self.dirty.clear()

    def state(self, size: int, pages: Mapping[int, bytes]) -> bytes:
        content = self.content[:size].ljust(size, b"\0")
        for page, data in pages.items():
            content[page * self.page : (page + 1) * self.page] = data
        return bytes(content[:size])

    def states(self) -> Iterator[bytes]:
        """Every content that a power cut may leave, each once."""
        seen = set()
        for size in dict.fromkeys(self.sizes):
            within = [page for page in self.versions if page * self.page < size]
            for choice in product(*(dict.fromkeys(self.versions[page]) for page in within)):
                content = self.state(size, dict(zip(within, choice, strict=True)))
                if content not in seen:
                    seen.add(content)
                    yield content

    def random_state(self, rng: random.Random) -> bytes:
        chance = rng.choice([0.0, 0.5, 0.5, 1.0])  # of the newest, so that all and nothing come up often
        size = self.sizes[-1] if rng.random() < chance else rng.choice(self.sizes)
        pages = {
            page: versions[-1] if rng.random() < chance else rng.choice(versions)
            for page, versions in self.versions.items()
        }
        return self.state(size, pages)


class _Disk:
    """Files and names. Names become durable in the order of the operations, as on file systems with a journal."""

    def __init__(self, page: int, contents: Mapping[str, bytes]) -> None:
        self.page = page
        self.files = {number: _File(page, content) for number, content in enumerate(contents.values())}
        self.names = dict(zip(contents, self.files, strict=True))
        self.durable = dict(self.names)
        self.pending: dict[str, list[_Op]] = {}  # directory -> changes of names since it was synced

    def apply(self, op: _Op) -> None:
        getattr(self, op.name)(*op.args)

    def write(self, file: int, data: bytes, offset: int) -> None:
        self.files[file].write(data, offset)

    def resize(self, file: int, size: int) -> None:
        self.files[file].resize(size)

    def sync(self, file: int, succeeds: bool) -> None:
        self.files[file].sync(succeeds)

    def create(self, path: str, file: int) -> None:
        self.files[file] = _File(self.page)
        self._rename(path, _Op("link", (path, file)))

    def rename(self, old: str, new: str) -> None:
        self._rename(new, _Op("move", (old, new)))

    def unlink(self, path: str) -> None:
        self._rename(path, _Op("drop", (path,)))

    def _rename(self, path: str, op: _Op) -> None:
        _change_names(self.names, op)
        self.pending.setdefault(os.path.dirname(path), []).append(op)

    def sync_names(self, directory: str) -> None:
        for op in self.pending.pop(directory, ()):
            _change_names(self.durable, op)

    def namings(self) -> Iterator[dict[str, int]]:
        """Every set of names that a power cut may leave."""
        for kept in product(*(range(len(ops) + 1) for ops in self.pending.values())):
            yield self._naming(kept)

    def random_naming(self, rng: random.Random) -> dict[str, int]:
        return self._naming([rng.randint(0, len(ops)) for ops in self.pending.values()])

    def _naming(self, kept: Iterable[int]) -> dict[str, int]:
        names = dict(self.durable)
        for ops, number in zip(self.pending.values(), kept, strict=True):
            for op in ops[:number]:
                _change_names(names, op)
        return names


def _change_names(names: dict[str, int], op: _Op) -> None:
    if op.name == "link":
        names[op.args[0]] = op.args[1]
    elif op.name == "move":
        names[op.args[1]] = names.pop(op.args[0])
    else:
        del names[op.args[0]]


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
        self._disk = _Disk(page, self._origin)
        self._past = 0, _Disk(page, self._origin)  # the disk as it was after so many operations
        self._trace: list[_Op] = []
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

    def _at(self, after: int | None) -> _Disk:
        """The disk as it was, to look at only: a later cut goes on from the one before, as most cuts come in order."""
        if after is None:
            return self._disk
        done, disk = self._past
        if done > after:
            done, disk = 0, _Disk(self.page, self._origin)
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
        op = _Op(name, args)
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
