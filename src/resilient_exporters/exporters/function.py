"""Hands each record to a function of the user's."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ClassVar

from resilient_exporters.exceptions import ExportError, InvalidConfigError
from resilient_exporters.exporters.exporter import Exporter
from resilient_exporters.exporters.signature import Keywords
from resilient_exporters.records import ExportResult

__all__ = ["CallableExporter"]


class CallableExporter(Exporter):
    """Calls a function with each record's data.

    ================== ==========================================================================================
    guarantee          at least once: a record whose call was interrupted by a crash is handed over again
    batching           none: one call per record
    per-send keywords  those that the function accepts after its first parameter; all of them if it takes `**kwargs`
                       or its signature cannot be read
    down               an exception, or an `ExportResult` that says so: this record is tried again later
    misconfigured      the function raises `TargetMisconfigured`
    refused            the function raises `RecordsRefused(permanent={0: reason})`
    ================== ==========================================================================================

    What the function returns is the `returned` of the result; a returned `ExportResult` is the result. False and None
    are values like any other: only an exception or an `ExportResult` says that the record was not taken.

    Args:
        function: Any plain callable; its first parameter gets the data.
        **options: As for every exporter, see `Exporter`.

    Raises:
        InvalidConfigError: It is not callable, or its calls would only make a coroutine or generator and do nothing.

    Example:
        >>> CallableExporter(print).name
        'print'
    """

    guarantee: ClassVar[str] = "at least once"

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        if not callable(function):
            raise InvalidConfigError(f"function must be callable, not {type(function).__name__}")
        if _lazy(function):
            raise InvalidConfigError(
                f"{_name(function)} is a coroutine or generator function, so that calling it does nothing; "
                "give a plain function, for instance one that hands the data to the event loop"
            )
        self.function = function
        self._keywords = Keywords(function, bound=1)
        super().__init__(**options)

    def target_name(self) -> str:
        """The function's qualified name."""
        return _name(self.function)

    def send(self, data: Any, /, **kwargs: Any) -> ExportResult:
        """Call the function with one record and those keywords that it accepts."""
        returned = self.function(data, **self._keywords.accepted(kwargs))
        if inspect.iscoroutine(returned):
            returned.close()
            raise ExportError(f"{self.name} returned a coroutine that nobody awaits; give a plain function")
        return returned if isinstance(returned, ExportResult) else ExportResult(returned, True)


def _innermost(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function inside `functools.partial` objects."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _name(function: Callable[..., Any]) -> str:
    inner = _innermost(function)
    return getattr(inner, "__qualname__", None) or type(inner).__qualname__


def _lazy(function: Callable[..., Any]) -> bool:
    inner = _innermost(function)
    candidates = (inner, getattr(inner, "__call__", None))  # noqa: B004  # the method, not whether there is one
    lazy = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    return any(test(candidate) for test in lazy for candidate in candidates)
