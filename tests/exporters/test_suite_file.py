"""FileExporter passes the suite that every exporter must pass."""

from __future__ import annotations

import json
from typing import Any

from resilient_exporters.exporters.file import FileExporter
from resilient_exporters.testing.suite import ExporterSuite


class TestFileExporter(ExporterSuite):
    """A file in a folder that may be missing, as a share that is not mounted."""

    bad_record = "\ud800"

    def make_exporter(self) -> FileExporter:
        folder = self.folder / "share"
        if not (self.folder / "away").exists():
            folder.mkdir(exist_ok=True)
        return FileExporter(folder / "lines")

    def arrived(self) -> list[Any]:
        file = self.folder / "share" / "lines"
        return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []

    def break_target(self) -> None:
        share = self.folder / "share"
        share.mkdir(exist_ok=True)
        share.rename(self.folder / "away")

    def heal_target(self) -> None:
        if (self.folder / "away").exists():
            (self.folder / "away").rename(self.folder / "share")


class TestRotatingFileExporter(TestFileExporter):
    """The same with few lines in a file."""

    def make_exporter(self) -> FileExporter:
        exporter = super().make_exporter()
        return FileExporter(exporter.target_file, max_lines=7)

    def arrived(self) -> list[Any]:
        share = self.folder / "share"
        siblings = sorted(share.glob("lines.*"), key=lambda path: int(path.suffix[1:]))
        files = [*siblings, *share.glob("lines")]
        return [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
