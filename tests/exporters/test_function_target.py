"""CallableExporter: what is called, with which keywords, and what its result means."""

from __future__ import annotations

import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from resilient_exporters.exceptions import InvalidConfigError
from resilient_exporters.exporters.function import CallableExporter
from resilient_exporters.records import ExportResult


def plain(data: Any) -> Any:
    return data


def with_table(data: Any, table: str, *, upsert: bool = False) -> Any:
    return (data, table, upsert)


def with_all(data: Any, **kwargs: Any) -> Any:
    return (data, kwargs)


async def coroutine(data: Any) -> None: ...


def generator(data: Any) -> Iterator[Any]:
    yield data


async def asynchronous_generator(data: Any) -> AsyncIterator[Any]:
    yield data


class Awaitable:
    async def __call__(self, data: Any) -> None: ...


class Plain:
    def __call__(self, data: Any) -> Any:
        return data

    def method(self, data: Any) -> Any:
        return data


@functools.wraps(with_table)
def wrapped(*args: Any, **kwargs: Any) -> Any:
    return with_table(*args, **kwargs)


@pytest.fixture
def call() -> Iterator[Callable[..., ExportResult]]:
    """Sends one record through an exporter made for a function."""
    with ExitStack() as stack:

        def call(function: Callable[..., Any], data: Any = 1, /, **kwargs: Any) -> ExportResult:
            return stack.enter_context(CallableExporter(function)).send(data, **kwargs)

        yield call


@pytest.mark.parametrize(
    ("function", "sent", "returned"),
    [
        (plain, {}, 1),
        (with_table, {"table": "t"}, (1, "t", False)),
        (with_table, {"table": "t", "upsert": True}, (1, "t", True)),
        (with_all, {"table": "t", "other": 2}, (1, {"table": "t", "other": 2})),
        (wrapped, {"table": "t"}, (1, "t", False)),
        (functools.partial(with_table, upsert=True), {"table": "t"}, (1, "t", True)),
        (Plain(), {}, 1),
        (Plain().method, {}, 1),
        (lambda data, /, self=0: (data, self), {"self": 5}, (1, 5)),
        (lambda table: table, {}, 1),
    ],
)
def test_keywords(
    call: Callable[..., ExportResult], function: Callable[..., Any], sent: dict[str, Any], returned: Any
) -> None:
    """A function gets the data and those keywords that it accepts, and what it returns is handed back."""
    assert (returned, True) == call(function, **sent)


@pytest.mark.parametrize(
    ("function", "sent"),
    [(plain, "table"), (with_table, "other"), (wrapped, "other"), (Plain(), "table"), (lambda table: table, "table")],
)
def test_keywords_that_the_function_does_not_take(
    call: Callable[..., ExportResult], function: Callable[..., Any], sent: str
) -> None:
    """A keyword that the function does not take raises TypeError, and the function is not called."""
    with pytest.raises(TypeError, match=sent):
        call(function, **{sent: 1})


def test_signature_that_cannot_be_read(call: Callable[..., ExportResult]) -> None:
    """A function that does not tell what it accepts gets all."""

    class Opaque:
        __signature__ = "nonsense"

        def __call__(self, data: Any, **kwargs: Any) -> Any:
            return kwargs

    assert ({"a": 1}, True) == call(Opaque(), a=1)


@pytest.mark.parametrize("returned", [None, False, 0, ""])
def test_values_are_no_verdicts(call: Callable[..., ExportResult], returned: Any) -> None:
    """Whatever a function returns, it has taken the record."""
    assert (returned, True) == call(lambda data: returned)


def test_result_is_respected() -> None:
    """A function that returns a result decides by itself, and a record that it did not take comes again."""
    verdicts = [ExportResult("busy", False, error=ValueError("busy")), ExportResult("done", True)]
    got: list[Any] = []

    def function(data: Any) -> ExportResult:
        got.append(data)
        return verdicts[len(got) - 1]

    with CallableExporter(function) as exporter:
        result = exporter.send("a")
        assert "busy" == str(result.error)
        assert result.kept
        assert ("busy", False) == result
        assert [("done", True)] == exporter.send_unsent_data()
    assert ["a", "a"] == got


def test_exception_fails_the_record() -> None:
    """An exception is in the result, and the record is kept."""
    with CallableExporter(lambda data: 1 // 0, save_unsent_data=False) as exporter:
        result = exporter.send("a")
    assert isinstance(result.error, ZeroDivisionError)
    assert (None, False) == result


@pytest.mark.parametrize(
    "function", [coroutine, generator, asynchronous_generator, Awaitable(), functools.partial(coroutine)]
)
def test_lazy_functions(function: Callable[..., Any]) -> None:
    """A function whose call does nothing yet would lose every record, and is refused."""
    with pytest.raises(InvalidConfigError, match="does nothing"):
        CallableExporter(function)


def test_hidden_coroutine() -> None:
    """A coroutine that comes out of a plain function fails the record, and is closed without a warning."""
    with CallableExporter(lambda data: coroutine(data), save_unsent_data=False) as exporter:
        assert "nobody awaits" in str(exporter.send("a").error)


@pytest.mark.parametrize("wrong", [None, 3, "print"])
def test_not_callable(wrong: Any) -> None:
    """What cannot be called is refused when the exporter is made."""
    with pytest.raises(InvalidConfigError, match="must be callable"):
        CallableExporter(wrong)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (plain, "plain"),
        (print, "print"),
        (functools.partial(functools.partial(plain)), "plain"),
        (Plain(), "Plain"),
        (Plain().method, "Plain.method"),
        (threading.Event().set, "Event.set"),
    ],
)
def test_name(function: Callable[..., Any], name: str) -> None:
    """The name is the function's, so that it is the same in the next run."""
    assert name == CallableExporter(function).target_name()
