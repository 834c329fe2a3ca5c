"""The page of guarantees: it says what the classes say, and each line names tests that exist."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import resilient_exporters as rex

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
STATED = dict(re.findall(r"^\| `(\w+Exporter)` \| (.+) \|$", PAGE, re.MULTILINE))
BUILT_IN = [rex.CallableExporter, rex.FileExporter, rex.HTTPExporter, rex.PostgreSQLExporter, rex.SQLiteExporter]


@pytest.mark.parametrize("kind", BUILT_IN)
def test_the_words_are_those_of_the_class(kind: type[rex.Exporter]) -> None:
    """The page states each guarantee as the class does, which declares the same for programs."""
    found = re.search(r"^guarantee +(.+(?:\n +.+)*?)$", inspect.getdoc(kind) or "", re.MULTILINE)
    assert found is not None
    assert found[1] == STATED[kind.__name__]
    assert found[1].startswith(kind.guarantee)


def test_every_exporter_has_its_line() -> None:
    """No exporter of the library is missing on the page."""
    exporters = {name for name in rex.__all__ if name.endswith("Exporter")} - {"Exporter"}
    assert exporters == STATED.keys()


def test_each_named_test_exists() -> None:
    """Every test that the page names is one that pytest finds."""
    named = set(re.findall(r"`(tests/[^`]+)`", PAGE))
    files = sorted({name.partition("::")[0] for name in named})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *files]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()
    found = {*listed, *(line.partition("[")[0] for line in listed)}
    assert named
    assert not named - found
