"""Carries everything that is owed from one spool into another, in order, ids unchanged."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence

from resilient_exporters.exceptions import DataTypeError
from resilient_exporters.spool.interface import DeadLetter, Opaque, Payload, Slice, Spool
from resilient_exporters.spool.memory import MemorySpool

__all__ = ["check_for", "copy_letters", "copy_owed", "letter_slice", "numbered", "of_one_time", "owed_slices"]

_READ = 1000
"""Records read ahead per lane."""
_SIZE = 1 << 20
"""Bytes read ahead per lane."""


def owed_records(spool: Spool, after: int = 0) -> Iterator[tuple[Slice, int, frozenset[str]]]:
    """Each owed record at a place above `after`: slice, index in it, lanes that owe it; in the order of the log."""
    heads = [(place, lane, kept, i) for lane in spool.owing() for place, lane, kept, i in _first(spool, lane, after)]
    streams = {lane: _walk(spool, lane, kept, i) for _, lane, kept, i in heads}
    queue = [(place, lane) for place, lane, _, _ in heads]
    current = {lane: (kept, i) for _, lane, kept, i in heads}
    heapq.heapify(queue)
    while queue:
        place = queue[0][0]
        lanes = []
        while queue and queue[0][0] == place:
            lanes.append(heapq.heappop(queue)[1])
        kept, i = current[lanes[0]]
        yield kept, i, frozenset(lanes)
        for lane in lanes:
            following = next(streams[lane], None)
            if following is not None:
                current[lane] = following
                heapq.heappush(queue, (following[0].places[following[1]], lane))


def _first(spool: Spool, lane: str, after: int) -> Iterator[tuple[int, str, Slice, int]]:
    kept = spool.read(lane, after, _READ, _SIZE)
    if kept is not None:
        yield kept.places[0], lane, kept, 0


def _walk(spool: Spool, lane: str, kept: Slice | None, start: int) -> Iterator[tuple[Slice, int]]:
    """What follows the record at `start` of a slice."""
    index = start + 1
    while kept is not None:
        for i in range(index, len(kept)):
            yield kept, i
        index = 0
        kept = spool.read(lane, kept.places[-1], _READ, _SIZE)


def owed_slices(spool: Spool) -> Iterator[tuple[Slice, frozenset[str]]]:
    """What is owed, in the order of the log, in slices whose records all are owed by the same lanes."""
    part: Slice | None = None
    owing: frozenset[str] = frozenset()
    for kept, i, lanes in owed_records(spool):
        same = part is not None and lanes == owing and _kind(part) == _kind(kept)
        if part is None or not same or len(part) >= _READ:
            if part is not None:
                yield part, owing
            part, owing = Slice(kept.run, kept.options, kept.flags, expires=kept.expires), lanes
        part.places.append(kept.places[i])
        part.numbers.append(kept.numbers[i])
        part.times.append(kept.times[i])
        part.payloads.append(kept.payloads[i])
    if part is not None:
        yield part, owing


def _kind(kept: Slice) -> tuple[int, bytes, int, float]:
    return kept.run, kept.options, kept.flags, kept.expires


def copy_owed(
    source: Spool,
    target: Spool,
    check: Callable[[Payload], None],
    after: int = 0,
) -> list[int]:
    """Append all that `source` owes to `target`; the places it had in the source, in order.

    Args:
        source: Read only; nothing may be appended or settled in it meanwhile.
        target: Gets the records behind what it has.
        check: Looks at each payload before it is written, may raise.
        after: Only what stands at places above.

    Raises:
        SpoolError, SpoolFull: what was written so far stays written; the caller undoes it.
    """
    places: list[int] = []
    target.mark()
    for kept, i, lanes in owed_records(source, after):
        check(kept.payloads[i])
        target.append(
            [kept.payloads[i]],
            lanes,
            time=kept.times[i],
            first=kept.numbers[i],
            run=kept.run,
            options=kept.options,
            flags=kept.flags,
            expires=kept.expires,
        )
        places.append(kept.places[i])
    return places


def numbered(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The ranges of indexes whose numbers follow each other."""
    start = 0
    for i in range(1, len(numbers) + 1):
        if i == len(numbers) or numbers[i] != numbers[i - 1] + 1:
            yield start, i
            start = i


def of_one_time(times: list[float], start: int, end: int) -> Iterator[tuple[int, int]]:
    """The ranges (first, how many) between two indexes whose times are the same."""
    for _, same in itertools.groupby(range(start, end), key=times.__getitem__):
        indexes = list(same)
        yield indexes[0], len(indexes)


def copy_letters(old: Spool, new: Spool) -> None:
    """Take a memory spool's dead letters along; a file's stay where they are, behind a `BackedSpool`."""
    if not isinstance(old, MemorySpool):
        return
    before = {letter.key for letter in new.dead_letters()}
    try:
        for letter in old.own_letters():
            new.bury(letter.lane, letter_slice(letter), {0: letter.reason}, letter.attempts)
    except BaseException:
        new.forget_dead([letter.key for letter in new.dead_letters() if letter.key not in before])
        raise


def letter_slice(letter: DeadLetter) -> Slice:
    """A dead letter's record, without a place."""
    return Slice(letter.run, letter.options, letter.flags, [], [letter.number], [letter.accepted], [letter.payload])


def check_for(spool: Spool) -> Callable[[Payload], None]:
    """What looks at each payload that is to be carried into a spool."""
    return _anything if isinstance(spool, MemorySpool) else _bytes_only


def _anything(payload: Payload) -> None:
    """Memory takes whatever it is."""


def _bytes_only(payload: Payload) -> None:
    if isinstance(payload, Opaque):
        raise DataTypeError(
            f"a kept record of type {type(payload.data).__name__} cannot be written to a file;"
            " convert it in `transform=`, or have it delivered first"
        )
