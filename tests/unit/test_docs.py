"""The documents: every Python block runs, every link leads somewhere, every command exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^(?P<before>[^\n]*)\n```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: Path, language: str) -> list[tuple[int, str, bool]]:
    """The code blocks of a language: line, text, and whether it is to be run.

    A comment before the block, `<!-- not run: reason -->`, keeps it from running.
    """
    text = document.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, match.start("text")) + 1, match["text"], "<!-- not run: " not in match["before"])
        for match in BLOCK.finditer(text)
        if match["language"] == language
    ]


PYTHON = [
    pytest.param(document, line, text, runs, id=f"{document.relative_to(ROOT)}:{line}")
    for document in DOCUMENTS
    for line, text, runs in blocks(document, "python")
]


@pytest.mark.parametrize(("document", "line", "text", "runs"), PYTHON)
def test_python_block(document: Path, line: int, text: str, runs: bool, tmp_path: Path) -> None:
    """A Python block runs as a program of its own, in an empty folder; one that cannot run here still compiles."""
    program = "\n" * (line - 1) + text
    compile(program, str(document), "exec")
    if not runs:
        return
    script = tmp_path / "block.py"
    script.write_text(program, encoding="utf-8")
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    child = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert child.returncode == 0, child.stderr


def test_blocks_are_found() -> None:
    """The blocks of the README are seen, so that none is passed over in silence."""
    assert len(blocks(ROOT / "README.md", "python")) == (ROOT / "README.md").read_text().count("```python")
    assert len(PYTHON) >= 4


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Every link to a file of the repository leads to a file that is there."""
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8"))
    assert [target for target in targets if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_commands_exist(document: Path) -> None:
    """Every script that a document tells to run is there and can be run."""
    named = set(re.findall(r"(?:^|[ `])((?:scripts|\.ci)/[a-z.]+)", document.read_text(encoding="utf-8"), re.MULTILINE))
    assert sorted(name for name in named if not os.access(ROOT / name, os.X_OK)) == []
