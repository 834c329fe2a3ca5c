"""What the library puts around the `send` and `close` of an author: only the outermost call goes through it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from resilient_exporters.delivery.reentry import inside
from resilient_exporters.delivery.shortways import LongWay
from resilient_exporters.exporters.signature import Keywords
from resilient_exporters.records import Batch, ExportResult, Record

if TYPE_CHECKING:
    from resilient_exporters.exporters.exporter import Exporter

__all__ = ["data_from", "export_one", "outermost_close", "outermost_send", "send_alone", "send_directly"]


def send_alone(exporter: Exporter, data: Any, kwargs: dict[str, Any]) -> ExportResult:
    """A send of an exporter that is in no pool."""
    core = exporter._rex
    if not kwargs:
        try:
            return core.quick(data)[0]  # type: ignore[no-any-return]  # one exporter alone has no background
        except LongWay:
            pass  # nothing has happened
    results = core.send(data, kwargs)
    assert results is not None  # one exporter alone has no background
    return results[exporter.name]


def send_directly(exporter: Exporter, data: Any, kwargs: dict[str, Any]) -> ExportResult:
    """The bare call on an exporter in a pool: neither transformed nor kept."""
    try:
        exporter._rex.connect()
        return export_one(exporter, data, kwargs)
    except Exception as error:  # an exporter's failure is its result, here as everywhere
        return ExportResult(None, False, error=error, exporter=exporter.name)


def export_one(exporter: Exporter, data: Any, kwargs: dict[str, Any]) -> ExportResult:
    """`export` for one record: what `super().send()` means inside an exporter that takes batches."""
    core, current = exporter._rex, inside.here.record
    id = current.id if current is not None else core.next_id()
    accepted = current.time if current is not None else time.time()
    record = Record(id, accepted, kwargs, lambda: data)
    deadline = core.clock.now() + exporter.timeout
    exporter.export(Batch([record], lane=core.lane(), run=id.run, numbers=[id.number], deadline=deadline), **kwargs)
    return ExportResult(None, True)


def outermost_send(function: Callable[..., Any]) -> Callable[..., Any]:
    """An author's `send` as users call it."""
    keywords = Keywords(function, bound=2)

    @functools.wraps(function)
    def send(self: Exporter, /, *args: Any, **kwargs: Any) -> Any:
        if inside.here.exporter is self:
            return function(self, *args, **kwargs)
        if self._rex.pool is not None:
            self._rex.connect()
            return function(self, *args, **kwargs)
        if not args:
            data = data_from(kwargs, keywords.data)
        else:
            data, *more = args
            if len(more) > len(keywords.order):
                raise TypeError(f"send() takes {1 + len(keywords.order)} positional arguments, {len(args)} were given")
            kwargs.update(zip(keywords.order, more, strict=False))
        return send_alone(self, data, kwargs)

    send.bare = function  # type: ignore[attr-defined]  # how `bare_send` finds the author's function
    return send


def outermost_close(function: Callable[..., Any]) -> Callable[..., Any]:
    """An author's `close` as users call it."""

    @functools.wraps(function)
    def close(self: Exporter, timeout: float = 5.0) -> None:
        if self._rex.closing:
            function(self)
        else:
            self._rex.close(timeout)

    close.bare = function  # type: ignore[attr-defined]  # marks it as wrapped
    return close


def data_from(kwargs: dict[str, Any], name: str = "data") -> Any:
    """The data when it was given by name."""
    for key in (name, "data"):
        if key in kwargs:
            return kwargs.pop(key)
    raise TypeError("send() missing 1 required positional argument: 'data'")
