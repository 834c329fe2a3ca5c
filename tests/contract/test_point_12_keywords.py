"""Point 12: which keyword arguments reach which exporter, at once and late."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryBatchExporter, MemoryExporter

MakePool = Callable[..., rex.ExporterPool]


class Noting(rex.Exporter):
    """Notes the calls it gets; base of exporters with signatures of several kinds."""

    def __init__(self, name: str | None = None, up: bool = True) -> None:
        super().__init__(name=name)
        self.up = up
        self.got: list[Any] = []

    def note(self, *seen: Any) -> rex.ExportResult:
        if self.up:
            self.got.append(seen)
        return rex.ExportResult(None, self.up)


class Plain(Noting):
    def send(self, data: Any) -> rex.ExportResult:
        return self.note(data)


class Table(Noting):
    def send(self, data: Any, table: str = "default") -> rex.ExportResult:
        return self.note(data, table)


class TableOnly(Noting):
    def send(self, record: Any, *, table: str) -> rex.ExportResult:
        return self.note(record, table)


class Everything(Noting):
    def send(self, data: Any, **kwargs: Any) -> rex.ExportResult:
        return self.note(data, kwargs)


class Batches(MemoryBatchExporter):
    def export(self, batch: Any, *, table: str = "default") -> None:  # type: ignore[override]  # narrower on purpose
        super().export(batch, table=table)


def test_each_exporter_gets_what_it_accepts(make_pool: MakePool, tmp_path: Path) -> None:
    """A keyword goes to each exporter that accepts it, and a file exporter beside them is not disturbed."""
    plain, table, only, every, batches = (Plain("p"), Table("t"), TableOnly("o"), Everything("e"), Batches("b"))
    file = rex.FileExporter(tmp_path / "out")
    pool = make_pool([plain, table, only, every, batches, file])
    assert all(result.successful for result in pool.send("x", table="t1", index=5))
    assert [("x",)] == plain.got
    assert [("x", "t1")] == table.got == only.got
    assert [("x", {"table": "t1", "index": 5})] == every.got
    assert [{"table": "t1"}] == batches.kwargs
    assert "x\n" == (tmp_path / "out").read_text()


@pytest.mark.parametrize("use_memory", [True, False])
def test_keywords_are_kept_with_the_record(make_pool: MakePool, tmp_path: Path, use_memory: bool) -> None:
    """A record is delivered late with the keywords of its own `send`."""
    table, every = Table("t", up=False), Everything("e", up=False)
    pool = make_pool([table, every], use_memory=use_memory, tmp_file=tmp_path / "kept")
    pool.send(1, table="a", x=None)
    pool.send(2, table="b", x=[1, (2,)])
    pool.send(3)
    table.up = every.up = True
    pool.send_unsent_data()
    assert [(1, "a"), (2, "b"), (3, "default")] == table.got
    assert [(1, {"table": "a", "x": None}), (2, {"table": "b", "x": [1, (2,)]}), (3, {})] == every.got


def test_a_keyword_nobody_accepts_is_refused(make_pool: MakePool) -> None:
    """A keyword that no exporter accepts raises TypeError naming it, before anything is sent or kept."""
    plain, table = Plain("p"), Table("t", up=False)
    pool = make_pool([plain, table])
    with pytest.raises(TypeError, match="tabel"):
        pool.send("x", tabel="typo")
    assert [] == plain.got
    assert not pool.has_unsent_data()


NAMES = [
    "self",
    "name",
    "exporter_name",
    "timeout",
    "kwargs",
    "exporter",
    "exporters",
    "pool",
    "safety",
    "ttl",
    "transform",
    "args",
    "batch",
    "record",
    "cls",
    "wait",
    "options",
    "records",
]


@pytest.mark.parametrize("use_memory", [True, False])
def test_any_keyword_name_may_be_used(make_pool: MakePool, tmp_path: Path, use_memory: bool) -> None:
    """Any keyword name but `data` may be used: the sending calls have no other keywords of their own."""
    target, late = MemoryExporter("target"), MemoryExporter("late", up=False)
    pool = make_pool([target, late], use_memory=use_memory, tmp_file=tmp_path / "kept")
    for name in NAMES:
        pool.send(1, **{name: name})
    everything = dict.fromkeys(NAMES, 1)
    pool.send(2, **everything)
    late.up = True
    pool.send_unsent_data()
    expected = [*({name: name} for name in NAMES), everything]
    assert expected == target.kwargs == late.kwargs


@pytest.mark.parametrize("name", NAMES)
def test_any_keyword_name_may_be_used_alone(name: str) -> None:
    """An exporter outside any pool takes any keyword name, too."""
    target = MemoryExporter(up=False)
    target.send(1, **{name: 5})
    target.up = True
    target.send(2, **{name: 6})
    assert [{name: 5}, {name: 6}] == target.kwargs


def test_data_may_be_given_by_name(make_pool: MakePool) -> None:
    """`send(data=x)` is `send(x)`, in a pool and alone."""
    target = MemoryExporter()
    make_pool([target]).send(data="x", table="t")  # type: ignore[call-arg,unused-ignore]
    alone = Plain()
    alone.send(data="y")
    assert (["x"], [("y",)]) == (target.got, alone.got)


def test_data_must_be_given_once(make_pool: MakePool) -> None:
    """No data, data twice, or a second positional argument raises TypeError, and nothing is sent."""
    target = MemoryExporter()
    pool: Any = make_pool([target])
    with pytest.raises(TypeError):
        pool.send()
    with pytest.raises(TypeError):
        pool.send(1, 2)
    with pytest.raises(TypeError):
        pool.send(1, data=2)
    assert 0 == target.calls


def test_the_first_parameter_is_the_data_whatever_its_name(make_pool: MakePool) -> None:
    """The name of an exporter's first parameter is no keyword."""
    only = TableOnly("o")
    pool = make_pool([only])
    with pytest.raises(TypeError, match="record"):
        pool.send("x", record="y", table="t")
    assert [] == only.got


def test_an_exporter_that_takes_all_but_names_its_data(make_pool: MakePool) -> None:
    """A keyword named as the first parameter of an exporter with `**kwargs` does not break the call to it."""

    class Named(Noting):
        def send(self, record: Any, **kwargs: Any) -> rex.ExportResult:
            return self.note(record, kwargs)

    named, every = Named("n"), MemoryExporter("e")
    pool = make_pool([named, every])
    assert [(None, True)] * 2 == pool.send("x", record="y", table="t")
    assert ([("x", {"table": "t"})], [{"record": "y", "table": "t"}]) == (named.got, every.kwargs)


def shout(function: Any) -> Any:
    """A decorator as users write them."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def test_signatures_are_read_through_wrapped(make_pool: MakePool) -> None:
    """A decorated `send` accepts what the function below the decorator accepts."""

    class Decorated(Noting):
        @shout
        def send(self, data: Any, *, table: str = "default") -> rex.ExportResult:
            return self.note(data, table)

    target, every = Decorated("d"), Everything("e")
    pool = make_pool([target, every])
    assert [(None, True)] * 2 == pool.send("x", table="t", index=1)
    assert [("x", "t")] == target.got


def test_unreadable_signatures_accept_all(make_pool: MakePool) -> None:
    """A `send` whose signature cannot be read gets all keywords."""

    class Unreadable(Noting):
        def send(self, data: Any, **kwargs: Any) -> rex.ExportResult:
            return self.note(data, kwargs)

        send.__signature__ = "no signature at all"  # type: ignore[attr-defined]

    target = Unreadable()
    make_pool([target]).send("x", table="t")
    assert [("x", {"table": "t"})] == target.got


def test_a_late_delivery_filters_again(make_pool: MakePool, tmp_path: Path) -> None:
    """A record kept by an exporter that took a keyword goes to its successor that does not."""
    pool = make_pool([Everything("t", up=False)], use_memory=False, tmp_file=tmp_path / "kept")
    pool.send("x", table="a", gone="away")
    pool.close()
    successor = Table("t")
    assert [(None, True)] == make_pool([successor], use_memory=False, tmp_file=tmp_path / "kept").send_unsent_data()
    assert [("x", "a")] == successor.got


def test_a_keyword_that_is_required_but_missing_is_the_exporter_s_failure(make_pool: MakePool) -> None:
    """An exporter that lacks a keyword it needs fails, alone."""
    only, other = TableOnly("o"), MemoryExporter("other")
    result, fine = make_pool([only, other]).send("x")
    assert ((None, False), (None, True)) == (result, fine)
    assert isinstance(result.error, TypeError)
    assert result.kept


def test_a_pool_without_exporters_accepts_any(make_pool: MakePool) -> None:
    """A pool without exporters accepts any keyword."""
    assert [] == make_pool([]).send("x", whatever=1)


def test_an_exporter_alone_refuses_what_it_does_not_accept() -> None:
    """Outside a pool a keyword that the exporter's `send` does not accept raises TypeError."""
    plain: Any = Plain()
    with pytest.raises(TypeError):
        plain.send("x", table="t")
    assert not plain.has_unsent_data()


def test_save_unsent_data_takes_keywords_in_a_dict(make_pool: MakePool) -> None:
    """The keywords of a record that is kept by hand are filtered at delivery like all others."""
    plain, table = Plain("p"), Table("t")
    pool = make_pool([plain, table], name="all")
    pool.save_unsent_data("x", {"table": "a"}, "all")
    pool.send_unsent_data()
    assert ([("x",)], [("x", "a")]) == (plain.got, table.got)


def test_an_inner_pool_accepts_what_its_exporters_accept(make_pool: MakePool) -> None:
    """Keywords reach the leaves of an inner pool, filtered for each; one that no leaf accepts is refused."""
    plain, table = Plain("p"), Table("t")
    pool = make_pool([rex.ExporterPool([plain, rex.ExporterPool([table], name="core")], name="inner")], name="outer")
    pool.send("x", table="a")
    assert ([("x",)], [("x", "a")]) == (plain.got, table.got)
    with pytest.raises(TypeError, match="tabel"):
        pool.send("x", tabel="a")
