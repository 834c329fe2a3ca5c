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

    class Named:
        name = "north"

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


def test_a_refusal_can_be_pickled() -> None:
    """A refusal that crosses a process boundary still says which records, and why."""
    refused = rex.RecordsRefused(permanent={0: "too long"}, later={2: "locked"})
    came = pickle.loads(pickle.dumps(refused))
    assert (refused.permanent, refused.later, str(refused)) == (came.permanent, came.later, str(came))
