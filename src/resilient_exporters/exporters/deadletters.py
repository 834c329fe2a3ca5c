"""Dead letters for users: list, replay, export and drop the records that targets refused for good."""

from __future__ import annotations

import builtins
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from resilient_exporters import codec
from resilient_exporters.delivery.engine import Engine
from resilient_exporters.delivery.keeper import Keep
from resilient_exporters.delivery.lane import Lane
from resilient_exporters.delivery.parcel import Parcel, copied
from resilient_exporters.delivery.reentry import at_work, inside
from resilient_exporters.exceptions import DataTypeError, InvalidConfigError, SpoolError, SpoolFull
from resilient_exporters.exporters.lines import as_json
from resilient_exporters.records import RecordId
from resilient_exporters.spool.interface import DeadLetter as KeptLetter
from resilient_exporters.spool.interface import Flag, Spool

if TYPE_CHECKING:
    from resilient_exporters.exporters.core import Core

__all__ = ["DeadLetter", "DeadLetters", "PoolLetters", "SpoolLetters", "letter_line"]

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
        return [letter for letter in self._opened(change=False).letters() if matches(letter)]

    def replay(
        self,
        exporter: str | None = None,
        reason: str | None = None,
        since: float | datetime | None = None,
        until: float | datetime | None = None,
    ) -> int:
        """Have the letters that match sent again, each to the exporter that it was for, as a new record.

        The new record has a new id, since the target may remember the old one as dealt with, the old time of acceptance,
        and no time to live. It is owed from now on, and goes out as anything kept does. It is kept first, safe against a
        power cut where it is kept in a file, and the letter is forgotten then: a crash in between may send a letter twice,
        never lose it.

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

        What the file holds already stays, too: exporting twice writes twice. When it returns, the lines are safe against
        a power cut, so the letters may be dropped. Data is rendered as for `FileExporter`, bytes as base64; where it has
        no form in JSON, `error` stands in the place of `data`.

        Returns:
            How many lines were written.

        Raises:
            OSError: The file cannot be written.
        """
        letters = self.list(exporter, reason, since, until)
        with Path(path).open("ab") as file:
            file.writelines(letter_line(letter) for letter in letters)
            file.flush()
            os.fsync(file.fileno())
        return len(letters)

    def _change(
        self, matches: Callable[[DeadLetter], bool], change: Callable[[Shelf, Sequence[DeadLetter]], int]
    ) -> int:
        with _at_it:
            shelf = self._opened(change=True)
            with closing(shelf) if isinstance(shelf, _FileShelf) else _at_it:
                wanted = [letter for letter in shelf.letters() if matches(letter)]
                return sum(change(shelf, wanted[at : at + _CHUNK]) for at in range(0, len(wanted), _CHUNK))


def letter_line(letter: DeadLetter) -> bytes:
    """A dead letter as a line of JSON that ends in a newline."""
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
            (exporter is None or _is_at(letter.exporter, exporter))
            and (reason is None or reason in letter.reason)
            and first <= letter.time < end
        )

    return matches


def _seconds(moment: float | datetime | None, default: float) -> float:
    if moment is None:
        return default
    return moment.timestamp() if isinstance(moment, datetime) else float(moment)


def _is_at(lane: str, path: str) -> bool:
    return not path or lane == path or lane.startswith(f"{path}/")


def _letter(kept: KeptLetter, exporter: str) -> DeadLetter:
    id = RecordId(kept.run, kept.number)
    return DeadLetter(exporter, id, kept.accepted, kept.died, kept.attempts, kept.reason, kept)


# ------------------------------------------------------------------ of a pool


class PoolLetters(DeadLetters):
    """The dead letters of a pool, of an exporter in it, or of an exporter alone.

    Args:
        core: Of that pool or exporter.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    def _opened(self, change: bool) -> Shelf:
        core, path = self._core, ""
        while (pool := core.pool) is not None:
            core, path = pool._rex, f"{core.name}/{path}" if path else core.name
        engine = core.engine()
        engine.check_open()
        return _EngineShelf(engine, path)


class _EngineShelf:
    """Dead letters in the spools of an engine: its own, and those that exporters brought along.

    Args:
        engine: The engine of the outermost pool.
        path: Only those of lanes at or below it.
    """

    def __init__(self, engine: Engine, path: str) -> None:
        self._engine = engine
        self._path = path
        self._homes: dict[int, Spool] = {}
        # From inside an exporter, or a logging handler, this very thread may have a lane.
        self._patient = not inside.calls

    def letters(self) -> Iterator[DeadLetter]:
        for spool, named in self._spools():
            for kept in spool.dead_letters():
                name = named.get(kept.lane, kept.lane)
                if _is_at(name, self._path):
                    letter = _letter(kept, name)
                    self._homes[id(letter)] = spool
                    yield letter

    def _spools(self) -> Iterator[tuple[Spool, dict[str, str]]]:
        """Each spool once, with names of lanes here for those there."""
        engine = self._engine
        yield engine.spool, {}
        spools: dict[int, Spool] = {}
        named: dict[int, dict[str, str]] = {}
        for lane in engine.lanes.values():
            for source in lane.sources:
                if source.spool is not engine.spool:
                    spools[id(source.spool)] = source.spool
                    named.setdefault(id(source.spool), {})[source.lane] = lane.name
        yield from ((spool, named[key]) for key, spool in spools.items())

    def replay(self, letters: Sequence[DeadLetter]) -> int:
        kept: builtins.list[DeadLetter] = []
        try:
            at_work(lambda: self._keep(letters, kept))
        finally:
            if kept:
                self._engine.spool.sync()
                self._forget(kept)
                self._wake()
        return len(kept)

    def _keep(self, letters: Sequence[DeadLetter], kept: builtins.list[DeadLetter]) -> None:
        engine = self._engine
        for letter in letters:
            spool, was = engine.spool, letter.kept
            parcel = Parcel(spool.run, spool.draw(), was.accepted, was.payload, was.options, was.flags)
            if not engine.keeper.keep(parcel, frozenset({letter.exporter}), Keep()):
                # The user's policy for a full spool drops what comes last; but a dead letter is not to be lost.
                if (lane := engine.lanes.get(letter.exporter)) is not None:
                    self._count(lane, dropped=-1)
                raise SpoolFull(f"no room to replay more dead letters; {len(kept)} were replayed")
            kept.append(letter)

    def drop(self, letters: Sequence[DeadLetter]) -> int:
        self._forget(letters, dropped=True)
        return len(letters)

    def _forget(self, letters: Sequence[DeadLetter], *, dropped: bool = False) -> None:
        """Forget letters where they lie, and take them off their lanes' accounts."""
        keys: dict[int, builtins.list[int]] = {}
        homes = {id(home): home for home in self._homes.values()}
        for letter in letters:
            keys.setdefault(id(self._homes[id(letter)]), []).append(letter.kept.key)
        for key, spool in homes.items():
            if key in keys:
                spool.forget_dead(keys[key])
        for letter in letters:
            if (lane := self._engine.lanes.get(letter.exporter)) is not None:
                self._count(lane, dead=-1, dropped=int(dropped))

    def _count(self, lane: Lane, *, dead: int = 0, dropped: int = 0) -> None:
        held = lane.mutex.acquire(blocking=self._patient)
        try:
            lane.dead += dead
            lane.dropped += dropped
        finally:
            if held:
                lane.mutex.release()

    def _wake(self) -> None:
        if self._engine.settings.background:
            self._engine.background().wake()


# ------------------------------------------------------------------ of a spool that no pool holds


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
        from resilient_exporters.spool.filespool import FileSpool  # seldom needed, and this module is always imported
        from resilient_exporters.spool.looking import Look

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
        return (_letter(kept, kept.lane) for kept in self._letters)

    def _held(self) -> Spool:
        assert self._spool is not None
        return self._spool

    def replay(self, letters: Sequence[DeadLetter]) -> int:
        spool = self._held()
        kept: builtins.list[DeadLetter] = []
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


def _after_fork_in_child() -> None:
    """Another thread of the parent may have been at it; it never lets go here."""
    global _at_it
    _at_it = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
