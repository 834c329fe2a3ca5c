"""Makes parcels of what users send: the private snapshot, and a transform's outcome, each once per send."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from operator import is_
from typing import TYPE_CHECKING, Any

from resilient_exporters import codec
from resilient_exporters.delivery.engine import Engine
from resilient_exporters.delivery.foreground import Shipment
from resilient_exporters.delivery.parcel import Lot, Parcel, copied
from resilient_exporters.exceptions import DataTypeError
from resilient_exporters.spool.interface import Flag, Opaque, Payload

if TYPE_CHECKING:
    from resilient_exporters.exporters.exporter import Exporter

__all__ = ["Packer", "chunks", "private_copy"]

_LOT = 1000
"""Records of a `send_many` that are kept in one append and handed on together: millions take constant memory."""


class Packer:
    """Packs the data of one send.

    Args:
        engine: Numbers the parcels.
        kwargs: The keyword arguments of the send.
        memory: Whether what no codec can write may travel as it is.

    Raises:
        DataTypeError: A keyword argument cannot be kept.
    """

    def __init__(self, engine: Engine, kwargs: dict[str, Any], memory: bool) -> None:
        self._engine = engine
        self._kwargs = kwargs
        self._memory = memory
        self._options: bytes | None = b""
        if kwargs:
            try:
                self._options = codec.encode_options(kwargs)
            except DataTypeError:
                if not memory:
                    raise
                self._options = None

    def pack(self, data: Any, lanes: list[str]) -> Shipment:
        """Data as it is to be sent, for some lanes."""
        return Shipment(self.parcel(data), lanes)

    def pack_for(self, transformer: Exporter, data: Any, lanes: list[str]) -> Shipment:
        """Run an exporter's own transform; when it raises, the record is kept as it came, to be transformed later."""
        try:
            changed = transformer.transform(private_copy(data))
        except Exception as error:
            return Shipment(self.parcel(data, Flag.RAW), lanes, dict.fromkeys(lanes, error))
        return self.pack(changed, lanes)

    def parcel(self, data: Any, flags: int = 0) -> Parcel:
        """The record, with the next number."""
        payload = self.payload(data)
        if self._options is None:
            data = payload.data if isinstance(payload, Opaque) else codec.decode(payload)
            return self._engine.parcel(Opaque((data, copied(self._kwargs))), b"", flags | Flag.BUNDLED)
        return self._engine.parcel(payload, self._options, flags)

    def lots(
        self, chunk: list[Any], change: Callable[[Any], Any] | None, lanes: list[str], strict: bool
    ) -> Iterator[Lot]:
        """Lots of a chunk's records for some lanes, in order.

        Args:
            chunk: The records, at least one.
            change: The transform, or None.
            lanes: Whom they are for.
            strict: Whether its errors are the caller's; otherwise a record that it cannot change travels raw.
        """
        if change is None and self._options is not None:
            yield Lot([*map(self.payload, chunk)], self._options, 0, frozenset(lanes))
            return
        payloads: list[Payload] = []
        kind = 0
        for data in chunk:
            payload, flags = self._lot_payload(data, change, strict)
            if payloads and flags != kind:
                yield Lot(payloads, self._options or b"", kind, frozenset(lanes))
                payloads = []
            kind = flags
            payloads.append(payload)
        yield Lot(payloads, self._options or b"", kind, frozenset(lanes))

    def _lot_payload(self, data: Any, change: Callable[[Any], Any] | None, strict: bool) -> tuple[Payload, int]:
        flags = 0
        if change is not None:
            try:
                data = change(private_copy(data))
            except Exception:
                if strict:
                    raise
                flags = Flag.RAW
        payload = self.payload(data)
        if self._options is None:
            data = payload.data if isinstance(payload, Opaque) else codec.decode(payload)
            return Opaque((data, copied(self._kwargs))), flags | Flag.BUNDLED
        return payload, flags

    def payload(self, data: Any) -> Payload:
        """The one private snapshot of the data."""
        try:
            return codec.encode(data)
        except DataTypeError:
            if not self._memory:
                raise
            return Opaque(copied(data))


def chunks(many: Iterable[Any]) -> Iterator[list[Any]]:
    """The records of a `send_many`, so many at a time that each chunk makes a good lot."""
    records = iter(many)
    while chunk := list(itertools.islice(records, _LOT)):
        if any(map(is_, chunk, itertools.repeat(None))):
            raise DataTypeError("one of the records is None: there is nothing to send")
        yield chunk


def private_copy(data: Any) -> Any:
    """An equal object that a transform may change as it likes."""
    try:
        return codec.decode(codec.encode(data))
    except DataTypeError:
        return copied(data)
