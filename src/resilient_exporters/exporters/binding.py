"""An exporter as delivery calls it: connected first, told who it is, one bare call of what its author wrote."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from resilient_exporters.delivery.reentry import inside
from resilient_exporters.exceptions import InvalidConfigError
from resilient_exporters.exporters.checks import is_number
from resilient_exporters.exporters.signature import Keywords, method_of
from resilient_exporters.records import Batch, ExportResult, Record

if TYPE_CHECKING:
    from resilient_exporters.exporters.exporter import Exporter

__all__ = ["Binding", "takes_batches"]


class Binding:
    """The `Target` of one exporter.

    Args:
        exporter: The exporter.
        transformer: The exporter or pool whose transform applies to what it gets.
        hold: Whether to keep the exporter alive; one that is alone must not be, by its own engine.
    """

    def __init__(self, exporter: Exporter, transformer: Exporter, *, hold: bool) -> None:
        self._exporter: Callable[[], Any] = weakref.ref(exporter)
        self._transformer: Callable[[], Any] = weakref.ref(transformer)
        self._held = (exporter, transformer) if hold else ()
        self._kind = kind = type(exporter)
        self._wrapped = kind.send
        self.batches = takes_batches(kind)
        self.atomic = kind.atomic
        self.stable = exporter.stable_batches
        self.batch_records = exporter.batch_records
        self.batch_bytes = exporter.batch_bytes
        self.batch_age = _checked_age(exporter)
        self.rate = exporter.rate
        self._send = bare_send(kind)
        own = getattr(exporter, "_keywords", None)  # of an exporter whose keywords are not its class's
        written = method_of(kind, "export") if self.batches else self._send
        self._keywords = own if isinstance(own, Keywords) else Keywords(written, bound=2)

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
        exporter = self._exporter()
        here = inside.here
        before = here.exporter, here.record, here.calls
        try:
            here.exporter, here.record, here.calls = exporter, record, here.calls + 1
            core = exporter._rex
            if not core.connected:
                core.connect()
            kwargs = record.kwargs
            if self._kind.send is not self._wrapped or "send" in exporter.__dict__:
                patched: Callable[..., ExportResult] = exporter.send  # on the object or its class, since it was bound
                return patched(record.data, **kwargs)
            return self._send(exporter, record.data, **kwargs) if kwargs else self._send(exporter, record.data)
        finally:
            here.exporter, here.record, here.calls = before

    def export(self, batch: Batch, kwargs: Mapping[str, Any]) -> None:
        self._inside(lambda exporter: exporter.export(batch, **kwargs))

    def probe(self) -> None:
        self._inside(lambda exporter: exporter.probe())

    def _inside(self, call: Callable[[Exporter], None]) -> None:
        """Make a call with the thread marked as being inside the exporter, which is connected first."""
        exporter = self._exporter()
        here = inside.here
        before = here.exporter, here.record, here.calls
        try:
            here.exporter, here.record, here.calls = exporter, None, here.calls + 1
            if not exporter._rex.connected:
                exporter._rex.connect()
            call(exporter)
        finally:
            here.exporter, here.record, here.calls = before

    def disconnect(self) -> None:
        exporter = self._exporter()
        if exporter is not None and self.batches:
            exporter._rex.disconnect()


def _checked_age(exporter: Exporter) -> float:
    age: object = exporter.batch_age
    if not is_number(age) or not 0 <= age < float("inf"):
        raise InvalidConfigError(f"batch_age of {exporter.name} is a number of seconds of at least 0, not {age!r}")
    return float(age)


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
