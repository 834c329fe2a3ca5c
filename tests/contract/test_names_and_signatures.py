"""Names, signatures and members that users may rely on."""

from __future__ import annotations

import collections.abc
import importlib
import inspect
import json
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

import resilient_exporters as rex
import resilient_exporters.exceptions
import resilient_exporters.exporters
import resilient_exporters.exporters.exporter
from resilient_exporters.testing import MemoryExporter

MakePool = Callable[..., rex.ExporterPool]


@pytest.mark.parametrize(
    ("name", "home"),
    [
        ("ExporterPool", "resilient_exporters.exporters"),
        ("Exporter", "resilient_exporters.exporters.exporter"),
        ("Exporter", "resilient_exporters.exporters"),
        ("ExportResult", "resilient_exporters.exporters"),
        ("FileExporter", "resilient_exporters.exporters"),
        ("InvalidConfigError", "resilient_exporters.exceptions"),
    ],
)
def test_a_name_is_the_same_object_in_each_place(name: str, home: str) -> None:
    """Every fixed name is one object, in its home module and at the top level."""
    assert getattr(importlib.import_module(home), name) is getattr(rex, name)


@pytest.mark.parametrize("module", [rex, rex.exporters, rex.exceptions])
def test_all_names_exist(module: types.ModuleType) -> None:
    """Everything in `__all__` is there, once."""
    names = list(module.__all__)
    assert sorted(set(names)) == sorted(names)
    assert [] == [name for name in names if not hasattr(module, name)]


def test_further_exporters_and_exceptions_follow_the_pattern() -> None:
    """What `exporters` and `exceptions` offer is offered at the top level, too."""
    offered = {*rex.exporters.__all__, *rex.exceptions.__all__}
    assert set() == {name for name in offered if name not in rex.__all__}
    assert set() == {name for name in rex.exporters.__all__ if getattr(rex, name) is not getattr(rex.exporters, name)}


def test_importing_does_nothing_but_import(run_script: Callable[..., str], tmp_path: Path) -> None:
    """Importing creates no file, starts no thread, opens no socket and loads no optional package."""
    before = {"script.py"}
    told = run_script(
        """
        for name in [name for name in sys.modules if name.startswith("resilient_exporters")]:
            del sys.modules[name]
        import socket
        class Refusing(socket.socket):
            def __init__(self, *args, **kwargs):
                raise AssertionError("a socket was opened")
        socket.socket = Refusing
        started = time.perf_counter()
        import resilient_exporters
        tell([threading.active_count(),
              sorted({"urllib3", "psycopg", "psycopg2", "pymongo", "requests", "elasticsearch"} & sys.modules.keys())])
        """
    )
    assert [1, []] == json.loads(told)
    assert before == {path.name for path in tmp_path.iterdir()}


def test_importing_is_quick(run_script: Callable[..., str]) -> None:
    """Importing loads nothing of what makes imports slow; the benchmark has the time it takes."""
    told = run_script(
        """
        import subprocess
        code = "import sys, resilient_exporters; print(*sys.modules)"
        loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
        slow = {"asyncio", "concurrent.futures", "email", "http", "json", "multiprocessing", "socket", "sqlite3", "ssl",
                "subprocess", "tempfile", "urllib.request", "xml", "zipfile"}
        tell(sorted(slow & set(loaded)))
        """
    )
    assert [] == json.loads(told)


def test_the_pool_s_parameters_have_fixed_order_and_defaults() -> None:
    """The positional parameters of the constructor and all defaults are as published."""
    parameters = list(inspect.signature(rex.ExporterPool).parameters.values())
    positional = [(p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    expected = [
        ("exporters", inspect.Parameter.empty),
        ("transform", None),
        ("num_threads", 1),
        ("wait_for_result", True),
        ("use_memory", True),
        ("manual_reexport", False),
    ]
    assert expected == positional
    keywords = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert {"tmp_file": None, "save_unsent_data": True, "name": None}.items() <= keywords.items()
    assert inspect.Parameter.empty not in keywords.values()
    assert len(keywords) <= 3 + 6
    assert [] == [p for p in parameters if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL, p.POSITIONAL_ONLY)]


def test_the_pool_s_annotations_resolve() -> None:
    """The annotations of the constructor are the published ones and resolve."""
    hints = typing.get_type_hints(rex.ExporterPool.__init__)
    assert Iterable[rex.Exporter] | None == hints["exporters"]
    assert int is hints["num_threads"]
    assert bool is hints["wait_for_result"] is hints["use_memory"] is hints["manual_reexport"]
    assert {str, Path, BinaryIO, type(None)} == set(typing.get_args(hints["tmp_file"]))
    assert bool is hints["save_unsent_data"]
    assert {str, type(None)} == set(typing.get_args(hints["name"]))
    kinds = {typing.get_origin(hint) or hint for hint in typing.get_args(hints["transform"])}
    assert {collections.abc.Callable, type(None)} == kinds


@pytest.mark.parametrize(
    ("method", "returns"),
    [
        ("add_exporter", type(None)),
        ("send", list[rex.ExportResult]),
        ("send_unsent_data", list[rex.ExportResult]),
        ("has_unsent_data", bool),
        ("save_unsent_data", type(None)),
        ("transform", Any),
    ],
)
def test_the_methods_say_what_they_return(method: str, returns: Any) -> None:
    """The annotations of every method resolve and name what it returns."""
    assert returns == typing.get_type_hints(getattr(rex.ExporterPool, method))["return"]


def test_properties_say_what_they_return() -> None:
    """`use_memory` is a property with a setter."""
    prop = inspect.getattr_static(rex.ExporterPool, "use_memory")
    assert isinstance(prop, property)
    assert prop.fset is not None
    assert bool is typing.get_type_hints(prop.fget)["return"]


def test_save_unsent_data_takes_the_published_parameters() -> None:
    """`save_unsent_data(data, kwargs, exporter_name)` can be called by position and by name."""
    parameters = list(inspect.signature(rex.ExporterPool(None).save_unsent_data).parameters)
    assert ["data", "kwargs", "exporter_name"] == parameters[:3]


def test_the_kinds_of_things() -> None:
    """A pool is an exporter and a file exporter is one, too."""
    assert issubclass(rex.ExporterPool, rex.Exporter)
    assert issubclass(rex.FileExporter, rex.Exporter)


def test_attributes_are_as_given(make_pool: MakePool) -> None:
    """`num_threads`, `wait_for_result`, `manual_reexport` and `name` are attributes, as given."""
    pool = make_pool([], None, 3, False, True, True, name="north")
    assert (3, False, True, "north", True) == (
        pool.num_threads,
        pool.wait_for_result,
        pool.manual_reexport,
        pool.name,
        pool.use_memory,
    )


def test_all_parameters_can_be_named(make_pool: MakePool, tmp_path: Path) -> None:
    """Every parameter can be given by name."""
    pool = make_pool(
        exporters=[MemoryExporter()],
        transform=str,
        num_threads=2,
        wait_for_result=True,
        use_memory=False,
        manual_reexport=True,
        tmp_file=tmp_path / "kept",
        save_unsent_data=False,
        name="named",
    )
    assert [(None, True)] == pool.send(5)


def test_assigned_attributes_are_in_force_from_the_next_send(make_pool: MakePool) -> None:
    """`manual_reexport` may be assigned and rules from the next `send`."""
    target = MemoryExporter(up=False)
    pool = make_pool([target], manual_reexport=True)
    pool.send(1)
    target.up = True
    pool.send(2)
    assert [2] == target.got
    pool.manual_reexport = False
    pool.send(3)
    assert [2, 1, 3] == target.got


@pytest.mark.parametrize("number", [0, -3, 1.5, "2", None])
def test_an_assigned_number_of_threads_is_checked(make_pool: MakePool, number: Any) -> None:
    """Assigning a `num_threads` that the constructor would refuse raises and changes nothing."""
    pool = make_pool([MemoryExporter()], num_threads=2)
    with pytest.raises(rex.InvalidConfigError):
        pool.num_threads = number
    assert 2 == pool.num_threads
    assert [(None, True)] == pool.send("works")


def test_exporters_is_a_fresh_dict_in_order(make_pool: MakePool) -> None:
    """`exporters` is a plain dict, name to exporter in the order of adding; changing it does not change the pool."""
    b, a = MemoryExporter("b"), MemoryExporter("a")
    pool = make_pool([b, a])
    exporters = pool.exporters
    assert dict is type(exporters)
    assert [("b", b), ("a", a)] == list(exporters.items())
    exporters.clear()
    assert ["b", "a"] == list(pool.exporters)
    assert [(None, True)] * 2 == pool.send(1)


def test_length_and_iteration_give_the_exporters(make_pool: MakePool) -> None:
    """`len(pool)` and iterating over a pool give its exporters."""
    a, b = MemoryExporter("a"), MemoryExporter("b")
    pool = make_pool([a, b])
    assert 2 == len(pool)
    assert [a, b] == list(pool)


def test_a_pool_without_exporters_is_true_enough_to_be_used(make_pool: MakePool) -> None:
    """A pool without exporters has length 0, sends to nobody and owes nothing."""
    pool = make_pool(None)
    assert 0 == len(pool)
    assert {} == pool.exporters
    assert [] == pool.send("into the void")
    assert [] == pool.send_unsent_data()
    assert not pool.has_unsent_data()


def test_an_exporter_added_later_gets_what_comes_later(make_pool: MakePool) -> None:
    """`add_exporter` returns None, and the new exporter is the last in order."""
    first, later = MemoryExporter("first"), MemoryExporter("later")
    pool = make_pool([first])
    pool.send(1)
    assert None is pool.add_exporter(later)  # type: ignore[func-returns-value]  # the contract promises None
    results = pool.send(2)
    assert ["first", "later"] == [result.exporter for result in results] == list(pool.exporters)
    assert ([1, 2], [2]) == (first.got, later.got)


def test_from_joining_on_the_pool_keeps(make_pool: MakePool) -> None:
    """What fails for an exporter that was added later is kept by the pool."""
    target = MemoryExporter(up=False)
    pool = make_pool([])
    pool.add_exporter(target)
    assert pool.send(1)[0].kept
    assert pool.has_unsent_data()
    target.up = True
    pool.send_unsent_data()
    assert [1] == target.got


def test_the_same_object_twice_is_refused(make_pool: MakePool) -> None:
    """The same object twice in a pool raises InvalidConfigError, in the constructor and later."""
    target = MemoryExporter()
    with pytest.raises(rex.InvalidConfigError):
        make_pool([target, target])
    pool = make_pool([target])
    with pytest.raises(rex.InvalidConfigError):
        pool.add_exporter(target)
    assert 1 == len(pool)


def test_an_exporter_in_a_second_live_pool_is_refused(make_pool: MakePool) -> None:
    """An exporter belongs to one live pool; after that one was closed it is free again."""
    target = MemoryExporter()
    first = make_pool([target])
    with pytest.raises(rex.InvalidConfigError):
        make_pool([target], name="second")
    first.close()
    assert [(None, True)] == make_pool([target], name="third").send(1)


@pytest.mark.parametrize("use_memory", [True, False])
def test_save_unsent_data_keeps_for_one_exporter(make_pool: MakePool, tmp_path: Path, use_memory: bool) -> None:
    """`save_unsent_data` keeps a record for the exporter named, with its keyword arguments."""
    a, b = MemoryExporter("a"), MemoryExporter("b")
    pool = make_pool([a, b], use_memory=use_memory, tmp_file=tmp_path / "kept")
    pool.save_unsent_data({"x": 1}, {"table": "t"}, "b")
    assert pool.has_unsent_data()
    assert (tmp_path / "kept").exists() is not use_memory
    assert [(None, True)] == pool.send_unsent_data()
    assert ([], [{"x": 1}], [{"table": "t"}]) == (a.got, b.got, b.kwargs)


def test_save_unsent_data_under_the_pool_s_name_keeps_for_all(make_pool: MakePool) -> None:
    """The pool's own name stands for all of its exporters."""
    a, b = MemoryExporter("a"), MemoryExporter("b")
    pool = make_pool([a, b], name="both")
    pool.save_unsent_data("x", {}, "both")
    assert 2 == len(pool.send_unsent_data())
    assert (["x"], ["x"]) == (a.got, b.got)


def test_save_unsent_data_does_not_transform(make_pool: MakePool) -> None:
    """The data given to `save_unsent_data` counts as already transformed."""
    target = MemoryExporter("t")
    pool = make_pool([target], transform=lambda data: data / 2)
    pool.save_unsent_data(8, {}, "t")
    pool.send_unsent_data()
    assert [8] == target.got


def test_save_unsent_data_keeps_whatever_the_flag(make_pool: MakePool) -> None:
    """The constructor's `save_unsent_data=False` does not govern the method of that name."""
    target = MemoryExporter("t")
    pool = make_pool([target], save_unsent_data=False)
    pool.save_unsent_data(8, {}, "t")
    assert pool.has_unsent_data()
    pool.send_unsent_data()
    assert [8] == target.got


def test_save_unsent_data_under_an_unknown_name_is_refused(make_pool: MakePool) -> None:
    """An unknown name raises InvalidConfigError and nothing is kept."""
    pool = make_pool([MemoryExporter("t")])
    with pytest.raises(rex.InvalidConfigError, match="nobody"):
        pool.save_unsent_data(8, {}, "nobody")
    assert not pool.has_unsent_data()


def test_transform_applies_the_one_given(make_pool: MakePool) -> None:
    """`transform` applies what was given, gives its argument back when nothing was, and refuses None as outcome."""
    assert 6 == make_pool([], transform=lambda data: data * 2).transform(3)
    assert "as it is" == make_pool([]).transform("as it is")
    with pytest.raises(Exception, match=r".+"):
        make_pool([], transform=lambda data: None).transform(3)


@pytest.mark.parametrize("transform", [5, "str", [str]])
def test_a_transform_that_cannot_be_called_is_refused(transform: Any) -> None:
    """A `transform` that is not callable raises InvalidConfigError."""
    with pytest.raises(rex.InvalidConfigError):
        rex.ExporterPool([], transform)


def test_results_come_in_the_order_of_the_exporters(make_pool: MakePool) -> None:
    """`send` gives one result per exporter, in order, also when threads finish in another order."""
    exporters = [MemoryExporter(f"t{i}", returned=i, seconds=0.02 * (4 - i)) for i in range(4)]
    assert [(i, True) for i in range(4)] == make_pool(exporters, num_threads=4).send("x")


@pytest.mark.parametrize("kind", [rex.Exporter, rex.ExporterPool])
def test_all_annotations_resolve(kind: type) -> None:
    """The annotations of every public method and property resolve at run time."""
    for name, member in inspect.getmembers(kind):
        function = member.fget if isinstance(member, property) else member
        if not name.startswith("_") and inspect.isfunction(function):
            typing.get_type_hints(function)
