"""A disk in memory that knows what a power cut could leave of it: pages, lengths and names that were not synced."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

__all__ = ["Disk", "Op"]


class Op(NamedTuple):
    """An operation that changes the disk: the name of a method of `Disk`, and its arguments."""

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


class Disk:
    """Files and names. Names become durable in the order of the operations, as on file systems with a journal."""

    def __init__(self, page: int, contents: Mapping[str, bytes]) -> None:
        self.page = page
        self.files = {number: _File(page, content) for number, content in enumerate(contents.values())}
        self.names = dict(zip(contents, self.files, strict=True))
        self.durable = dict(self.names)
        self.pending: dict[str, list[Op]] = {}  # directory -> changes of names since it was synced

    def apply(self, op: Op) -> None:
        getattr(self, op.name)(*op.args)

    def write(self, file: int, data: bytes, offset: int) -> None:
        self.files[file].write(data, offset)

    def resize(self, file: int, size: int) -> None:
        self.files[file].resize(size)

    def sync(self, file: int, succeeds: bool) -> None:
        self.files[file].sync(succeeds)

    def create(self, path: str, file: int) -> None:
        self.files[file] = _File(self.page)
        self._rename(path, Op("link", (path, file)))

    def rename(self, old: str, new: str) -> None:
        self._rename(new, Op("move", (old, new)))

    def unlink(self, path: str) -> None:
        self._rename(path, Op("drop", (path,)))

    def _rename(self, path: str, op: Op) -> None:
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


def _change_names(names: dict[str, int], op: Op) -> None:
    if op.name == "link":
        names[op.args[0]] = op.args[1]
    elif op.name == "move":
        names[op.args[1]] = names.pop(op.args[0])
    else:
        del names[op.args[0]]
