"""Point 31: what authors do with their classes: names of their own, static methods, patches in tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryExporter

MakePool = Callable[..., rex.ExporterPool]


@pytest.mark.parametrize("wrap", [staticmethod, classmethod])
def test_send_may_be_a_static_or_class_method(make_pool: MakePool, wrap: Any) -> None:
    """A `send` that does not use the object is called with the data and the keywords that it takes."""
    got: list[tuple[Any, ...]] = []

    def of_class(kind: type, data: Any, table: str = "") -> rex.ExportResult:
        got.append((data, table))
        return rex.ExportResult(kind.__name__, True)

    def static(data: Any, table: str = "") -> rex.ExportResult:
        return of_class(rex.Exporter, data, table)

    kind: Any = type("Mine", (rex.Exporter,), {"send": wrap(static if wrap is staticmethod else of_class)})
    pool = make_pool([kind()])
    assert [True] == [result.successful for result in pool.send(1, table="x")]
    assert kind().send(2).successful
    assert kind().send(3, "y").successful
    assert [(1, "x"), (2, ""), (3, "y")] == got
    with pytest.raises(TypeError):
        pool.send(1, unknown="x")


def test_export_may_be_a_static_method(make_pool: MakePool) -> None:
    """A static `export` gets the batch and the keywords that it names."""
    got: list[tuple[Any, ...]] = []

    class Mine(rex.Exporter):
        @staticmethod
        def export(batch: rex.Batch, table: str = "") -> None:
            got.append((batch.records[0].data, table))

    assert make_pool([Mine()]).send(1, table="x")[0].successful
    assert [(1, "x")] == got


def test_a_class_patched_after_joining(make_pool: MakePool) -> None:
    """What a test puts in place of `send`, on the class or on the object, is what runs, until it is taken away."""

    class Mine(rex.Exporter):
        def send(self, data: Any) -> rex.ExportResult:
            return rex.ExportResult("written", True)

    def other(self: Mine, data: Any) -> rex.ExportResult:
        return rex.ExportResult("a function", True)

    exporter = Mine()
    pool = make_pool([exporter])
    answers = [pool.send(1)[0].returned]
    with mock.patch.object(Mine, "send", return_value=rex.ExportResult("patched class", True)):
        answers.append(pool.send(1)[0].returned)
    with mock.patch.object(Mine, "send", other):
        answers.append(pool.send(1)[0].returned)
    with mock.patch.object(exporter, "send", return_value=rex.ExportResult("patched object", True)):
        answers.append(pool.send(1)[0].returned)
    answers.append(pool.send(1)[0].returned)
    assert ["written", "patched class", "a function", "patched object", "written"] == answers


def test_a_name_written_into_the_class(make_pool: MakePool) -> None:
    """A class attribute or property `name` is the name under which the exporter is known everywhere."""

    class Attribute(MemoryExporter):
        name = "classy"

    class Property(MemoryExporter):
        @property  # type: ignore[misc]  # what mypy would tell its author
        def name(self) -> str:
            return "property"

    pool = make_pool([Attribute(), Property()])
    assert ["classy", "property"] == [result.exporter for result in pool.send(1)]
    assert ["classy", "property"] == [exporter.name for exporter in pool]
    pool.save_unsent_data(2, {}, "classy")
    alone = Attribute(up=False)
    assert "classy" == alone.send(1).exporter
    alone.save_unsent_data(2, {}, alone.name)
    alone.close()
    with pytest.raises(rex.InvalidConfigError, match="taken"):
        make_pool([Attribute(), Attribute()])


@pytest.mark.parametrize("age", [-1.0, float("nan"), float("inf"), "1", True])
def test_a_batch_age_that_is_none_is_refused(age: Any) -> None:
    """A `batch_age` that is no number of seconds is refused when the exporter joins a pool."""
    exporter = MemoryExporter()
    exporter.batch_age = age
    with pytest.raises(rex.InvalidConfigError, match="batch_age"):
        rex.ExporterPool([exporter])
