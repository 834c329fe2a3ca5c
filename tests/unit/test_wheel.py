"""What users install: the wheel holds the package and nothing else, and works without the source tree."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import os, resilient_exporters as rex
assert rex.__file__.startswith(os.environ["PYTHONPATH"]), rex.__file__
with rex.ExporterPool([rex.FileExporter("out")], use_memory=False, tmp_file="unsent") as pool:
    assert pool.send("line")[0].successful
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    child = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    (file,) = folder.glob("*.whl")
    return file


def test_the_wheel_holds_the_package(wheel: Path) -> None:
    """The wheel has every file of the package, the marker for type checkers and the licence, and no tests."""
    names = zipfile.ZipFile(wheel).namelist()
    source = ROOT / "src"
    package = {str(file.relative_to(source)) for file in source.rglob("*.py")} | {"resilient_exporters/py.typed"}
    assert {name for name in names if ".dist-info/" not in name} == package
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_the_wheel_works_without_the_source(wheel: Path, tmp_path: Path) -> None:
    """Unpacked into an empty folder, the wheel delivers a record."""
    unpacked = tmp_path / "unpacked"
    zipfile.ZipFile(wheel).extractall(unpacked)
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert (tmp_path / "out").read_text() == "line\n"
