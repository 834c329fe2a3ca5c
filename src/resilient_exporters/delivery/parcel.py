"""A record in transit between sender, spool and exporter: encoded data with what belongs to it."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from resilient_exporters import codec
from resilient_exporters.delivery.sharing import Shared, shareable
from resilient_exporters.delivery.target import Target
from resilient_exporters.exceptions import SpoolError
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


_UNMADE: Final = object()


class _Content:
    """What the records of a slice hold, for those who look.

    Args:
        slice: The records.
        kwargs: Their keyword arguments, as the exporter takes them.
        load: Makes the data of one payload.
        plain: Whether the codec alone makes the data; then it makes that of all records when the first is looked at.

    Attributes:
        made: The data of each record, `_UNMADE` where it is still to be made; None before anybody has looked.
    """

    __slots__ = ("_load", "_lock", "_plain", "kwargs", "made", "slice")

    def __init__(self, slice: Slice, kwargs: dict[str, Any], load: Callable[[Payload], Any], plain: bool) -> None:
        self.slice = slice
        self.kwargs = kwargs
        self.made: list[Any] | None = None
        self._load = load
        self._plain = plain
        self._lock = threading.Lock()

    def begin(self) -> list[Any]:
        """What `made` is from now on."""
        with self._lock:  # threads of the exporter's own may look at records side by side
            if self.made is None:
                self.made = self._decoded() or [_UNMADE] * len(self.slice.payloads)
            return self.made

    def make(self, index: int) -> Any:
        """The data of one record."""
        made = self.made or self.begin()
        data = made[index] = self._load(self.slice.payloads[index])
        return data

    def all(self) -> list[Any]:
        """The data of all records."""
        made = self.made or self.begin()
        return [self.make(index) if data is _UNMADE else data for index, data in enumerate(made)]

    def _decoded(self) -> list[Any] | None:
        """The data of all records; None when they have to be made one by one."""
        if not self._plain or len(self.slice.payloads) == 1:
            return None
        try:
            return codec.decode_all(self.slice.payloads)  # type: ignore[arg-type]  # bytes, see `shareable`
        except SpoolError:  # so that only the record that has no data shows it
            return None


class _Kept(Record):
    """A record out of a slice."""

    __slots__ = ("_content", "_index")

    def __init__(self, content: _Content, index: int) -> None:
        self._content = content
        self._index = index

    @property
    def id(self) -> RecordId:
        kept = self._content.slice
        return RecordId(kept.run, kept.numbers[self._index])

    @property
    def time(self) -> float:
        return self._content.slice.times[self._index]

    @property
    def kwargs(self) -> Mapping[str, Any]:
        return self._content.kwargs

    @property
    def data(self) -> Any:
        content, index = self._content, self._index
        data = (content.made or content.begin())[index]
        return content.make(index) if data is _UNMADE else data


class _Records(Sequence[Record]):
    """The records of a slice, made when one is first asked for."""

    __slots__ = ("_content", "_made")

    def __init__(self, content: _Content) -> None:
        self._content = content
        self._made: list[Record] = []

    def __len__(self) -> int:
        return len(self._content.slice.payloads)

    def __getitem__(self, index: Any) -> Any:
        return self._all()[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self._all())

    def _all(self) -> list[Record]:
        if not self._made:
            content = self._content
            self._made = [_Kept(content, index) for index in range(len(self))]
        return self._made


def batch_of(
    target: Target, lane: str, slice: Slice, shared: Shared, *, deadline: float, doubt: bool
) -> tuple[Batch, dict[str, Any]]:
    """The batch that an exporter gets for a slice, and the keyword arguments that it takes."""
    kwargs = target.accepted(options_of(slice))
    plain = shareable(slice)
    content = _Content(slice, kwargs, _loader(target, slice.flags), plain)
    batch = Batch(
        _Records(content),
        lane=lane,
        run=slice.run,
        numbers=slice.numbers,
        deadline=deadline,
        doubt=doubt,
        data=content.all,
        rendered=partial(shared.rendered, slice) if plain else None,
    )
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
