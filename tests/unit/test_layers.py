"""The architecture: every file imports downwards only, and no client library before it is needed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
PACKAGE = "resilient_exporters"

LAYERS = [
    {"exceptions", "records", "policies", "status", "connectivity"},
    {"extensions"},
    {"codec"},
    {"spool"},
    {"delivery"},
    {"exporters"},
    {"integrations", "testing"},
    {"cli", "web"},
    {"__main__"},
]
"""Lowest first; a file imports from its own layer and from lower ones. The package itself stands above all."""

CLIENT_LIBRARIES = {
    "urllib3",
    "psycopg",
    "pymongo",
    "elasticsearch",
    "boto3",
    "clickhouse_connect",
    "pyodbc",
    "rich",
    "psutil",
}

FILES = sorted((SOURCE / PACKAGE).rglob("*.py"))


def layer_of(module: str) -> int:
    """The layer of a dotted name inside the package; what the package itself offers is the highest."""
    part = module.split(".")[1] if "." in module else ""
    return next((number for number, names in enumerate(LAYERS) if part in names), len(LAYERS))


def module_of(file: Path) -> str:
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(node: ast.AST, package: str) -> Iterator[str]:
    """The dotted names that an import statement may load, relative ones made absolute."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        module = ".".join([*base, *([node.module] if node.module else [])])
        if module == PACKAGE:
            yield from (f"{PACKAGE}.{alias.name}" for alias in node.names)
        else:
            yield module


def names_only_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: not those in functions, nor those for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not names_only_types(node):
            yield node
            yield from at_import(node)


def upward(file: Path) -> list[str]:
    """The imports of a file that look up, wherever in the file they stand."""
    module = module_of(file)
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    names = {name for node in ast.walk(ast.parse(file.read_text())) for name in imports_of(node, package)}
    inside = {name for name in names if name == PACKAGE or name.startswith(f"{PACKAGE}.")}
    return sorted(name for name in inside if layer_of(name) > layer_of(module))


def test_every_file_has_a_layer() -> None:
    """A new file or folder must be given its place among the layers."""
    modules = {module_of(file) for file in FILES} - {PACKAGE}
    assert [module for module in modules if layer_of(module) == len(LAYERS)] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE / PACKAGE)))
def test_imports_look_down(file: Path) -> None:
    """A file imports nothing from a layer above its own, not even inside a function."""
    assert upward(file) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE / PACKAGE)))
def test_client_libraries_wait(file: Path) -> None:
    """No file loads a target's client library when it is imported."""
    tree = ast.parse(file.read_text())
    names = {name.partition(".")[0] for node in at_import(tree) for name in imports_of(node, PACKAGE)}
    assert names & CLIENT_LIBRARIES == set()


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE / PACKAGE)))
def test_every_file_says_its_job(file: Path) -> None:
    """The first line of every file is a sentence that says what the file is for."""
    docstring = ast.get_docstring(ast.parse(file.read_text())) or ""
    assert docstring.partition("\n\n")[0].endswith((".", ":"))


def test_the_check_sees_an_upward_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of a low layer that imports from a higher one, absolutely or relatively, is found out."""
    monkeypatch.setitem(globals(), "SOURCE", tmp_path)
    folder = tmp_path / PACKAGE / "spool"
    folder.mkdir(parents=True)
    file = folder / "x.py"
    file.write_text("def f():\n    from ..delivery import lane\n    from resilient_exporters import Exporter, codec\n")
    assert upward(file) == ["resilient_exporters.Exporter", "resilient_exporters.delivery"]
