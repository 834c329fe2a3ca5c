"""Dead letters of a spool in files, by its path: to look at whoever holds it, to change when nobody does."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from resilient_exporters.exceptions import InvalidConfigError
from resilient_exporters.exporters.deadletters import DeadLetter, DeadLetters, Shelf
from resilient_exporters.spool.filespool import FileSpool
from resilient_exporters.spool.interface import Spool
from resilient_exporters.spool.looking import Look

__all__ = ["SpoolLetters"]


class SpoolLetters(DeadLetters):
    """The dead letters of a spool in files, by its path.

    `list` and `export` look at a live, stopped or copied spool and change nothing. `replay` and `drop` need one that no
    pool holds; what is replayed is owed again, and goes out when a pool with that exporter opens the spool.

    Args:
        path: What was given as `tmp_file`.

    Raises:
        InvalidConfigError: When used: there is no spool, or, to change it, it is the content of a file object.
        SpoolInUse: When changed: a live pool holds it; use its `dead_letters`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)

    def _opened(self, change: bool) -> Shelf:
        return _FileShelf(self._path, change)


class _FileShelf:
    """Dead letters in files.

    Args:
        path: Of the spool.
        change: Whether to take the lock; otherwise letters can only be read.
    """

    def __init__(self, path: str, change: bool) -> None:
        look = Look(path)
        self._letters = look.letters()
        self._spool: FileSpool | None = None
        if change:
            if look.is_stream:
                raise InvalidConfigError(f"{path} is the content of a file object; use the `dead_letters` of its pool")
            self._spool = FileSpool(path, owner="dead letters")
            try:
                # Raises when it could not be opened, and so is not held.
                self._spool.sync()
                self._letters = list(self._spool.dead_letters())
            except BaseException:
                self._spool.close()
                raise

    def letters(self) -> Iterator[DeadLetter]:
        return (DeadLetter.of(kept, kept.lane, self._spool) for kept in self._letters)

    def _held(self) -> Spool:
        assert self._spool is not None
        return self._spool

    def replay(self, letters: Sequence[DeadLetter]) -> int:
        spool = self._held()
        kept: list[DeadLetter] = []
        try:
            for letter in letters:
                was = letter.kept
                lanes = frozenset({was.lane})
                spool.append([was.payload], lanes, time=was.accepted, options=was.options, flags=was.flags)
                kept.append(letter)
        finally:
            if kept:
                spool.sync()
                self.drop(kept)
        return len(kept)

    def drop(self, letters: Sequence[DeadLetter]) -> int:
        self._held().forget_dead([letter.kept.key for letter in letters])
        return len(letters)

    def close(self) -> None:
        """Let go of the files."""
        if self._spool is not None:
            self._spool.close()
