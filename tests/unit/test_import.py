"""Importing the library: quick, quiet, and without a trace."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

WATCHED_IMPORT = """
import json, sys, threading
events = []
def watch(event, arguments):
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        events.append(f"open {arguments[0]} {arguments[1]}")
    elif event == "open" and arguments[1] is None and arguments[2] & 0o1103:  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC
        events.append(f"open {arguments[0]} flags {arguments[2]:o}")
    elif event.split(".")[0] in ("socket", "subprocess") or event in ("os.mkdir", "os.rename", "os.remove", "os.fork"):
        events.append(event)
sys.dont_write_bytecode = True
sys.addaudithook(watch)
before = set(sys.modules)
import resilient_exporters
print(json.dumps({
    "events": events,
    "threads": threading.active_count(),
    "modules": sorted({name.partition(".")[0] for name in set(sys.modules) - before}),
}))
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What a fresh interpreter did while it imported the library."""
    folder = tmp_path_factory.mktemp("import")
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", WATCHED_IMPORT], cwd=folder, capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
    assert list(folder.iterdir()) == []
    loaded: dict[str, object] = json.loads(child.stdout)
    return loaded


def test_import_touches_nothing(report: dict[str, object]) -> None:
    """The import opens no file for writing, no socket, and starts no process."""
    assert report["events"] == []


def test_import_starts_no_thread(report: dict[str, object]) -> None:
    """After the import the main thread is the only one."""
    assert report["threads"] == 1


def test_import_loads_no_optional_package(report: dict[str, object]) -> None:
    """The import loads the standard library, the two packages that every installation has, and nothing else."""
    modules = report["modules"]
    assert isinstance(modules, list)
    known = {*sys.stdlib_module_names, "resilient_exporters", "ormsgpack", "orjson"}
    assert [name for name in modules if name not in known] == []


def test_import_needs_no_optional_package(tmp_path: Path) -> None:
    """The library, all its names but those of targets included, can be used where no client library is installed."""
    program = (
        "import sys\n"
        "for name in ('urllib3', 'psycopg', 'rich', 'psutil'): sys.modules[name] = None\n"
        "import resilient_exporters as rex\n"
        "pool = rex.ExporterPool([rex.FileExporter('out')])\n"
        "print(pool.send('line')[0].successful)\n"
    )
    child = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (child.stdout, child.returncode) == ("True\n", 0), child.stderr


def test_watching_notices(tmp_path: Path) -> None:
    """The watch itself works: a module that writes a file is reported."""
    (tmp_path / "resilient_exporters.py").write_text(
        "open('litter', 'w').close()\nimport socket; socket.socket().close()"
    )
    child = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{WATCHED_IMPORT}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(child.stdout)["events"] == ["open litter w", "socket.__new__"]


def test_the_typed_marker_is_there() -> None:
    """Type checkers find the marker that says the package has annotations."""
    import resilient_exporters

    assert (Path(str(resilient_exporters.__file__)).parent / "py.typed").exists()
