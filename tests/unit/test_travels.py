"""Holds the map of the code true: the files and names that it gives exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "resilient_exporters"


def test_the_map_names_real_files() -> None:
    """Each file and each name that `how-a-record-travels.md` gives is in the source."""
    text = (ROOT / "docs" / "design" / "how-a-record-travels.md").read_text(encoding="utf-8")
    lines = re.findall(r"^((?:\w+/)?\w+\.py)(?: +([\w.]+) {2,})?", text, flags=re.MULTILINE)
    assert len(lines) > 15
    for file, name in lines:
        path = SOURCE / file
        assert path.is_file(), file
        last = name.split(".")[-1]
        assert not name or re.search(rf"(class|def) {last}\b", path.read_text(encoding="utf-8")), (file, name)
