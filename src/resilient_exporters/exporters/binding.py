"""An exporter as delivery calls it: connected first, told who it is, one bare call of what its author wrote."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from resilient_exporters.delivery.reentry import inside
from resilient_exporters.exporters.signature import Keywords
from resilient_exporters.records import Batch, ExportResult, Record

if TYPE_CHECKING:
    from resilient_exporters.exporters.exporter import Exporter

__all__ = ["Binding", "takes_batches"]

_T = TypeVar("_T")
_W = TypeVar("_W")


class Binding:
    """The `Target` of one exporter.

    Args:
        exporter: The exporter.
        transformer: The exporter or pool whose transform applies to what it gets.
        hold: Whether to keep the exporter alive; one that is alone must not be, by its own engine.
    """

    def __init__(self, exporter: Exporter, transformer: Exporter, *, hold: bool) -> None:
        self._exporter: Callable[[], Any] = (lambda: exporter) if hold else weakref.ref(exporter)
        self._transformer: Callable[[], Any] = (lambda: transformer) if hold else weakref.ref(transformer)
        kind = type(exporter)
        self.batches = takes_batches(kind)
        self.atomic = kind.atomic
        self.stable = exporter.stable_batches
        self.batch_records = exporter.batch_records
        self.batch_bytes = exporter.batch_bytes
        self.batch_age = exporter.batch_age
        self.rate = exporter.rate
        self._send = bare_send(kind)
        own = getattr(exporter, "_keywords", None)  # of an exporter whose keywords are not its class's
        self._keywords = own if isinstance(own, Keywords) else Keywords(kind.export if self.batches else self._send, 2)

    @property
    def timeout(self) -> float:
        exporter = self._exporter()
        return float(exporter.timeout) if exporter is not None else 0.0

    def accepts(self, name: str) -> bool:
        """Whether the exporter takes a keyword of that name."""
        return self._keywords.accepts(name)

    def accepted(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return self._keywords.accepted(kwargs) if kwargs else {}

    def transform(self, data: Any) -> Any:
        return self._transformer().transform(data)

    def send(self, record: Record) -> ExportResult:
        return self._inside(self._send_one, record, record)

    def export(self, batch: Batch, kwargs: Mapping[str, Any]) -> None:
        self._inside(lambda exporter, batch: exporter.export(batch, **kwargs), None, batch)

    def probe(self) -> None:
        self._inside(lambda exporter, _: exporter.probe(), None, None)

    def _send_one(self, exporter: Exporter, record: Record) -> ExportResult:
        override = exporter.__dict__.get("send")
        if override is not None:
            result: ExportResult = override(record.data, **record.kwargs)
            return result
        return self._send(exporter, record.data, **record.kwargs)

    def _inside(self, call: Callable[[Exporter, _W], _T], record: Record | None, what: _W) -> _T:
        """Make a call with the thread marked as being inside the exporter, which is connected first."""
        exporter = self._exporter()
        before, calls = (inside.exporter, inside.record), inside.calls
        try:
            inside.exporter, inside.record, inside.calls = exporter, record, calls + 1
            core = exporter._rex
            if not core.connected:
                core.connect()
            return call(exporter, what)
        finally:
            (inside.exporter, inside.record), inside.calls = before, calls

    def disconnect(self) -> None:
        exporter = self._exporter()
        if exporter is not None and self.batches:
            exporter._rex.disconnect()


def bare_send(kind: type[Exporter]) -> Callable[..., ExportResult]:
    """The `send` that the author wrote, without the library around it."""
    bare: Callable[..., ExportResult] = getattr(kind.send, "bare", kind.send)
    return bare


def takes_batches(kind: type[Exporter]) -> bool:
    """Whether `export`, and not `send`, is what the most derived class wrote.

    Raises:
        TypeError: It wrote neither.
    """
    for written in kind.__mro__:
        if "_rex_core" in written.__dict__:  # the library's own base: nothing was written
            break
        if "export" in written.__dict__:
            return True
        if "send" in written.__dict__:
            return False
    raise TypeError(f"{kind.__name__} is no exporter yet: it must override `send` or `export`")
