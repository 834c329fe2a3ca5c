"""The crash states of the document and those in the code are the same."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NO_CODE = {"1", "9", "15", "16"}
"""States in which nothing has to be done."""


def test_every_state_is_handled_where_the_code_says_so() -> None:
    """Each number of the table stands in a comment, and the other way round."""
    document = (ROOT / "docs/design/crash-safety.md").read_text()
    listed = re.findall(r"^\| (\d+) \|", document, re.MULTILINE)
    assert listed == [str(number) for number in range(1, len(listed) + 1)]
    handled: set[str] = set()
    for file in (ROOT / "src/resilient_exporters/spool").glob("*.py"):
        for comment in re.findall(r"# (state \d+.*)", file.read_text()):
            handled.update(re.findall(r"state (\d+)", comment))
    assert set(listed) == handled | NO_CODE
