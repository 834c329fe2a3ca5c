"""The exceptions: their tree, their names, and how the predecessor's users build them."""

from __future__ import annotations

import builtins
import pickle
import sys

import pytest

import resilient_exporters as rex
from resilient_exporters import exceptions

KNOWN = [
    "ResilientExporterException",
    "MissingModuleError",
    "MissingConfigError",
    "InvalidConfigError",
    "ExportError",
    "ConnectionError",
    "DataTypeError",
    "TimeoutError",
]
SPECIAL = ["Queued", "TargetDown", "RecordsRefused"]
"""Exceptions with arguments of their own."""
TREE = {
    "InvalidConfigError": ["ResilientExporterException"],
    "SpoolInUse": ["InvalidConfigError"],
    "MissingConfigError": ["ResilientExporterException"],
    "MissingModuleError": ["ResilientExporterException", "ModuleNotFoundError"],
    "PoolClosed": ["ResilientExporterException"],
    "SpoolError": ["ResilientExporterException", "OSError"],
    "SpoolFull": ["SpoolError"],
    "ExportError": ["ResilientExporterException"],
    "ConnectionError": ["ExportError", "builtins.ConnectionError"],
    "TimeoutError": ["ExportError", "builtins.TimeoutError"],
    "DataTypeError": ["ExportError", "TypeError"],
    "Queued": ["ExportError"],
    "TargetDown": ["ExportError"],
    "TargetMisconfigured": ["ExportError"],
    "RecordsRefused": ["ExportError"],
}


class Named:
    name = "north"


@pytest.mark.parametrize(("name", "parents"), TREE.items())
def test_the_tree_is_as_published(name: str, parents: list[str]) -> None:
    """Every exception derives from what the tree says, so that old `except` clauses go on working."""
    error = getattr(exceptions, name)
    for parent in parents:
        home, _, short = parent.rpartition(".")
        assert issubclass(error, getattr(builtins if home else exceptions, short, None) or getattr(builtins, short))


@pytest.mark.parametrize("name", KNOWN)
def test_names_of_the_predecessor_are_there(name: str) -> None:
    """All exceptions of the predecessor are in `resilient_exporters.exceptions`."""
    assert issubclass(getattr(exceptions, name), exceptions.ResilientExporterException)


def test_what_hides_a_builtin_is_in_no_all() -> None:
    """`ConnectionError` and `TimeoutError` are in no `__all__`: a star import hides no builtin."""
    for module in (rex, rex.exporters, rex.exceptions):
        assert set() == set(module.__all__) & set(dir(builtins))


@pytest.mark.parametrize("name", KNOWN)
def test_they_are_built_as_in_the_predecessor(name: str) -> None:
    """An exception takes an exporter and a message, the exporter alone, the message alone, or nothing."""
    error = getattr(exceptions, name)
    assert "north" in str(error(Named(), "broken pipe"))
    assert "broken pipe" in str(error(Named(), "broken pipe"))
    assert "broken pipe" in str(error(message="broken pipe"))
    assert "broken pipe" in str(error("broken pipe"))
    assert "north" in str(error(Named()))
    assert "" != str(error())


def test_the_builtins_catch_them() -> None:
    """`except ConnectionError` and `except TimeoutError` without an import catch the library's own."""
    with pytest.raises(builtins.ConnectionError):
        raise exceptions.ConnectionError
    with pytest.raises(builtins.TimeoutError):
        raise exceptions.TimeoutError
    with pytest.raises(OSError, match="no room"):
        raise exceptions.SpoolFull("no room")


def test_a_missing_client_library_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing client library raises MissingModuleError, with the install command, in the constructor."""
    monkeypatch.setitem(sys.modules, "urllib3", None)
    with pytest.raises(rex.MissingModuleError, match=r"pip install .*resilient-exporters\[http\]"):
        rex.HTTPExporter("http://localhost:9/")  # type: ignore[attr-defined,unused-ignore]


PICKLED = [
    *(getattr(exceptions, name)(Named(), "broken pipe") for name in exceptions.__all__ if name not in SPECIAL),
    *(getattr(exceptions, name)() for name in exceptions.__all__ if name not in SPECIAL),
    exceptions.Queued(0),
    exceptions.Queued(3, "kept, because it came late"),
    exceptions.TargetDown("busy", retry_after=2.5),
    exceptions.TargetDown(),
    exceptions.RecordsRefused(permanent={0: "too long"}, later={2: "locked"}),
    exceptions.RecordsRefused(),
]


@pytest.mark.parametrize("error", PICKLED, ids=repr)
def test_each_can_be_pickled(error: Exception) -> None:
    """Whatever crosses a process boundary, results included, says there what it said here."""
    came = pickle.loads(pickle.dumps(error))
    assert (type(error), str(error), error.args, vars(error)) == (type(came), str(came), came.args, vars(came))


def test_every_exception_is_pickled_here() -> None:
    """No exception is missing among those that are pickled above."""
    assert set(exceptions.__all__) == {type(error).__name__ for error in PICKLED}
