"""Dead letters for users: list, replay, export and drop the records that targets refused for good."""

from __future__ import annotations

import builtins
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from resilient_exporters import codec
from resilient_exporters.delivery.parcel import copied
from resilient_exporters.exceptions import DataTypeError, SpoolError
from resilient_exporters.records import RecordId
from resilient_exporters.spool.interface import DeadLetter as KeptLetter
from resilient_exporters.spool.interface import Flag, Spool

__all__ = ["DeadLetter", "DeadLetters", "Shelf", "below", "is_at", "letter_line"]

_CHUNK = 1000
"""Letters that are replayed or dropped together: with one sync, in constant memory."""
_at_it = threading.RLock()
"""Held while letters are replayed or dropped: two at once would send the same ones twice."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that its target refused for good.

    Args:
        exporter: Name of the exporter, as in `status()`.
        id: The record's identity towards the target.
        accepted: Seconds since the epoch when the record was accepted.
        time: Seconds since the epoch when it was refused.
        attempts: How often it was tried, at least 1.
        reason: What the target said.
    """

    exporter: str
    id: RecordId
    accepted: float
    time: float
    attempts: int
    reason: str
    kept: KeptLetter = field(repr=False, compare=False)
    """As it is kept."""
    home: Spool | None = field(repr=False, compare=False)
    """Where."""

    @classmethod
    def of(cls, kept: KeptLetter, exporter: str, home: Spool | None) -> DeadLetter:
        """A letter as it lies in a spool."""
        id = RecordId(kept.run, kept.number)
        return cls(exporter, id, kept.accepted, kept.died, kept.attempts, kept.reason, kept, home)

    @property
    def data(self) -> Any:
        """What was sent; made anew at each access.

        Raises:
            SpoolError: It cannot be decoded.
        """
        payload = self.kept.payload
        if isinstance(payload, bytes):
            return codec.decode(payload)
        return copied(payload.data[0] if self.kept.flags & Flag.BUNDLED else payload.data)

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments that it was sent with; made anew at each access.

        Raises:
            SpoolError: They cannot be decoded.
        """
        payload = self.kept.payload
        if not isinstance(payload, bytes) and self.kept.flags & Flag.BUNDLED:
            kwargs: dict[str, Any] = copied(payload.data[1])
            return kwargs
        return codec.decode_options(self.kept.options)


class Shelf(Protocol):
    """Where dead letters lie, open for one operation."""

    def letters(self) -> Iterable[DeadLetter]:
        """All of them, oldest first."""

    def replay(self, letters: Sequence[DeadLetter]) -> int:
        """Have letters sent again, and forget them; how many."""

    def drop(self, letters: Sequence[DeadLetter]) -> int:
        """Forget letters; how many."""

    def close(self) -> None:
        """Let go of it."""


class DeadLetters:
    """Records that targets refused for good: kept, with the reason, until they are replayed or dropped.

    All methods take the same filter; without one they mean all dead letters:

        exporter: Name of the exporter as in `status()`; that of an inner pool means all exporters in it.
        reason: Text that the reason contains.
        since, until: Seconds since the epoch, or a datetime: refused then or later, and before then.

    Example:
        >>> pool.dead_letters.replay(exporter="orders", reason="no such column")  # doctest: +SKIP
        12
    """

    def _opened(self, change: bool) -> Shelf:
        """Where they lie; `change` says whether it must be possible to replay or drop."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[DeadLetter]:
        return iter(self.list())

    def __len__(self) -> int:
        return len(self.list())

    def list(
        self,
        exporter: str | None = None,
        reason: str | None = None,
        since: float | datetime | None = None,
        until: float | datetime | None = None,
    ) -> builtins.list[DeadLetter]:
        """The dead letters that match, oldest first.

        Raises:
            SpoolError: They cannot be read.
        """
        matches = _filter(exporter, reason, since, until)
        with closing(self._opened(change=False)) as shelf:
            return [letter for letter in shelf.letters() if matches(letter)]

    def replay(
        self,
        exporter: str | None = None,
        reason: str | None = None,
        since: float | datetime | None = None,
        until: float | datetime | None = None,
    ) -> int:
        """Have the letters that match sent again, each to the exporter that it was for, as a new record.

        The new record has a new id, since the target may remember the old one as dealt with, the old time of
        acceptance, and no time to live. It is owed from now on, and goes out as anything kept does. It is kept first,
        in a file safe against a power cut, and the letter is forgotten then: a crash in between may send a letter
        twice, never lose it.

        Returns:
            How many were replayed.

        Raises:
            SpoolError: The rest could not be kept; those stay dead letters.
        """
        return self._change(_filter(exporter, reason, since, until), lambda shelf, part: shelf.replay(part))

    def drop(
        self,
        exporter: str | None = None,
        reason: str | None = None,
        since: float | datetime | None = None,
        until: float | datetime | None = None,
    ) -> int:
        """Throw away the letters that match; in `status()` they count as dropped.

        Returns:
            How many were dropped.

        Raises:
            SpoolError: The file cannot be written; the rest stays.
        """
        return self._change(_filter(exporter, reason, since, until), lambda shelf, part: shelf.drop(part))

    def export(
        self,
        path: str | Path,
        exporter: str | None = None,
        reason: str | None = None,
        since: float | datetime | None = None,
        until: float | datetime | None = None,
    ) -> int:
        """Write the letters that match to a file, one line of JSON each; they stay dead letters.

        What the file holds already stays, too: exporting twice writes twice. When it returns, the lines are safe
        against a power cut if the file is a regular one, so the letters may be dropped. Data is rendered as for
        `FileExporter`, bytes as base64; where it has no form in JSON, `error` stands in the place of `data`.

        Returns:
            How many lines were written.

        Raises:
            OSError: The file cannot be written.
        """
        letters = self.list(exporter, reason, since, until)
        with Path(path).open("ab") as file:
            file.writelines(letter_line(letter) for letter in letters)
            file.flush()
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # a pipe has nothing to sync
                os.fsync(file.fileno())
        return len(letters)

    def _change(
        self, matches: Callable[[DeadLetter], bool], change: Callable[[Shelf, Sequence[DeadLetter]], int]
    ) -> int:
        with _at_it, closing(self._opened(change=True)) as shelf:
            wanted = [letter for letter in shelf.letters() if matches(letter)]
            return sum(change(shelf, wanted[at : at + _CHUNK]) for at in range(0, len(wanted), _CHUNK))


def letter_line(letter: DeadLetter) -> bytes:
    """A dead letter as a line of JSON that ends in a newline."""
    from resilient_exporters.exporters.lines import as_json  # loads two JSON libraries

    said = {
        "exporter": letter.exporter,
        "id": str(letter.id),
        "time": letter.time,
        "accepted": letter.accepted,
        "attempts": letter.attempts,
        "reason": letter.reason,
    }
    try:
        return as_json({**said, "kwargs": letter.kwargs, "data": letter.data}) + b"\n"
    except (DataTypeError, SpoolError) as error:
        return as_json({**said, "error": str(error)}) + b"\n"


def _filter(
    exporter: str | None, reason: str | None, since: float | datetime | None, until: float | datetime | None
) -> Callable[[DeadLetter], bool]:
    """Whether a letter is meant."""
    first, end = _seconds(since, float("-inf")), _seconds(until, float("inf"))

    def matches(letter: DeadLetter) -> bool:
        return (
            (exporter is None or is_at(letter.exporter, exporter))
            and (reason is None or reason in letter.reason)
            and first <= letter.time < end
        )

    return matches


def _seconds(moment: float | datetime | None, default: float) -> float:
    if moment is None:
        return default
    return moment.timestamp() if isinstance(moment, datetime) else float(moment)


def is_at(lane: str, path: str) -> bool:
    """Whether a lane is that of an exporter, or of one in the pool of that name; "" means any."""
    return not path or lane == path or lane.startswith(f"{path}/")


def below(name: str, path: str) -> str:
    """The path, seen from outside the pool of that name."""
    return f"{name}/{path}" if path else name


def _after_fork_in_child() -> None:
    """Another thread of the parent may have been at it; it never lets go here."""
    global _at_it
    _at_it = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
