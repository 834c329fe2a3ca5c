"""A record in transit between sender, spool and exporter: encoded data with what belongs to it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from resilient_exporters import codec
from resilient_exporters.delivery.sharing import Shared, shareable
from resilient_exporters.delivery.target import Target
from resilient_exporters.records import Batch, Record, RecordId
from resilient_exporters.spool.interface import Flag, Opaque, Payload, Slice

__all__ = ["Lot", "Parcel", "batch_of", "copied", "options_of", "slice_of"]


class Parcel:
    """One record that a caller is sending: not yet kept, under way to some lanes.

    Attributes:
        number: Its number in the spool's run.
        time: Seconds since the epoch when it was accepted.
        payload: The encoded data, or the object itself where no codec can write it.
        options: The encoded keyword arguments.
        flags: `Flag` bits.
    """

    __slots__ = ("flags", "number", "options", "payload", "run", "time")

    def __init__(self, run: int, number: int, time: float, payload: Payload, options: bytes, flags: int) -> None:
        self.run = run
        self.number = number
        self.time = time
        self.payload = payload
        self.options = options
        self.flags = flags

    def goes_with(self, other: Parcel) -> bool:
        """Whether both may be in one batch."""
        mine, others = (self.run, self.options, self.flags), (other.run, other.options, other.flags)
        return mine == others and not self.flags & Flag.BUNDLED


@dataclass(frozen=True, slots=True)
class Lot:
    """Records that are sent together: of one set of keyword arguments, for the same lanes.

    Args:
        payloads: Their encoded data, at least one.
        options: The encoded keyword arguments.
        flags: `Flag` bits.
        lanes: Whom they are for.
    """

    payloads: list[Payload]
    options: bytes
    flags: int
    lanes: frozenset[str]


def slice_of(parcels: Sequence[Parcel]) -> Slice:
    """Parcels that go together, in the form in which a spool hands records out, but without places."""
    first = parcels[0]
    return Slice(
        first.run,
        first.options,
        first.flags,
        [],
        [parcel.number for parcel in parcels],
        [parcel.time for parcel in parcels],
        [parcel.payload for parcel in parcels],
    )


class _Records(Sequence[Record]):
    """The records of a slice, each made when it is first asked for."""

    __slots__ = ("_kwargs", "_load", "_made", "_slice")

    def __init__(self, slice: Slice, kwargs: dict[str, Any], load: Callable[[Payload], Any]) -> None:
        self._slice = slice
        self._kwargs = kwargs
        self._load = load
        self._made: list[Record | None] = [None] * len(slice.payloads)

    def __len__(self) -> int:
        return len(self._made)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        record = self._made[index]
        if record is None:
            record = self._made[index] = self._make(index)
        return record

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))

    def _make(self, index: int) -> Record:
        kept, load, payload = self._slice, self._load, self._slice.payloads[index]
        return Record(RecordId(kept.run, kept.numbers[index]), kept.times[index], self._kwargs, lambda: load(payload))


def batch_of(
    target: Target, lane: str, slice: Slice, shared: Shared, *, deadline: float, doubt: bool
) -> tuple[Batch, dict[str, Any]]:
    """The batch that an exporter gets for a slice, and the keyword arguments that it takes."""
    kwargs = target.accepted(options_of(slice))
    records = _Records(slice, kwargs, _loader(target, slice.flags))
    rendered = partial(shared.rendered, slice) if shareable(slice) else None
    numbers = slice.numbers
    batch = Batch(records, lane=lane, run=slice.run, numbers=numbers, deadline=deadline, doubt=doubt, rendered=rendered)
    return batch, kwargs


def options_of(slice: Slice) -> dict[str, Any]:
    """The keyword arguments that all records of a slice were sent with."""
    if slice.flags & Flag.BUNDLED:
        bundle = slice.payloads[0]
        assert isinstance(bundle, Opaque)
        kwargs: dict[str, Any] = copied(bundle.data[1])
        return kwargs
    return codec.decode_options(slice.options) if slice.options else {}


def _loader(target: Target, flags: int) -> Callable[[Payload], Any]:
    """How the data of a payload is made: anew for each exporter, so that none can spoil it for another."""
    load: Callable[[Payload], Any] = _unbundled if flags & Flag.BUNDLED else _plain
    if flags & Flag.RAW:
        return lambda payload: target.transform(load(payload))
    return load


def _plain(payload: Payload) -> Any:
    return codec.decode(payload) if isinstance(payload, bytes) else copied(payload.data)


def _unbundled(payload: Payload) -> Any:
    assert isinstance(payload, Opaque)
    return copied(payload.data[0])


def copied(data: Any) -> Any:
    """A deep copy where the object allows one, else the object itself."""
    try:
        return copy.deepcopy(data)
    except Exception:  # whatever a foreign object's copying raises: it then travels as it is, as documented
        return data
