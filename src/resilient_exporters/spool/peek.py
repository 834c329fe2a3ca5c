"""Shows records that a spool holds, without its lock and without changing a byte."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from resilient_exporters import codec
from resilient_exporters.records import RecordId
from resilient_exporters.spool.cursor import Places
from resilient_exporters.spool.interface import Flag
from resilient_exporters.spool.looking import READING, Look, Reading, SegmentFile

__all__ = ["Kept", "peek"]


@dataclass(frozen=True, slots=True)
class Kept:
    """A record that somebody owes.

    Args:
        id: Its identity towards targets.
        time: Seconds since the epoch when it was accepted.
        lanes: Who owes it, by name.
        expires: Seconds since the epoch after which it may be dropped; None = never.
        raw: Whether the exporter's own transform has not run yet.
        payload: Its encoded data.
        options: Its encoded keyword arguments.
    """

    id: RecordId
    time: float
    lanes: tuple[str, ...]
    expires: float | None
    raw: bool
    payload: bytes = field(repr=False)
    options: bytes = field(repr=False)

    @property
    def data(self) -> Any:
        """Its data, made anew at each access.

        Raises:
            SpoolError: It cannot be decoded.
        """
        return codec.decode(self.payload)

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments of its `send`, made anew at each access.

        Raises:
            SpoolError: They cannot be decoded.
        """
        return codec.decode_options(self.options)


def peek(
    path: str | os.PathLike[str], lane: str | None = None, limit: int | None = None, *, files: Reading = READING
) -> Iterator[Kept]:
    """The records that are owed, oldest first, of a live, stopped or copied spool.

    Takes no lock and changes no byte. What a live spool delivers meanwhile may still be shown.

    Args:
        path: What was given as `tmp_file`.
        lane: Only what this one owes; None = what anybody owes.
        limit: At most so many records; None = all.
        files: The operating system, for tests.

    Raises:
        InvalidConfigError: There is no spool, or the file is something else.
        SpoolError: It cannot be read.

    Example:
        >>> [record.data for record in peek("unsent", limit=3)]  # doctest: +SKIP
        ['the oldest', 'the next', 'and the next']
    """
    left = -1 if limit is None else max(limit, 0)
    look = Look(path, files)
    place = 0
    for file in look.segments(deep=True):
        segment = file.segment
        if left == 0:
            return
        if segment is None or segment.context.spool != look.spool or segment.base < place:
            continue  # as opening does: set aside, or a copy
        place = segment.next
        for kept in _owed_in(file, look.states, lane):
            if left == 0:
                return
            left -= 1
            yield kept


def _owed_in(file: SegmentFile, states: dict[str, Places], lane: str | None) -> Iterator[Kept]:
    """What is owed in one segment."""
    nothing = Places()
    assert file.segment is not None
    for entry in file.entries():
        names = [name for name in sorted(file.segment.sets[entry.set]) if lane in (None, name)]
        owing = [(name, states.get(name, nothing)) for name in names]
        for at, payload in enumerate(entry.payloads):
            lanes = tuple(name for name, settled in owing if entry.first + at not in settled)
            if lanes:
                yield Kept(
                    id=RecordId(entry.run, entry.number + at),
                    time=entry.times[at],
                    lanes=lanes,
                    expires=entry.expires or None,
                    raw=bool(entry.flags & Flag.RAW),
                    payload=payload,
                    options=entry.options,
                )
