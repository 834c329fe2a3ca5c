"""The predecessor, release 0.1.6, which runs in an environment of its own because it has our import name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from bench.subject import MEMORY, RATE, Figures, Scale, measurement, stream, timed_within

__all__: list[str] = []


@measurement("predecessor.put", "Keeping, target down", f"{MEMORY} (its file is never read again)")
def put(scale: Scale, folder: Path) -> Figures:
    """Keep records in its file while the target is down."""
    rex: Any = import_module("resilient_exporters")

    class Down(rex.Exporter):  # type: ignore[misc]  # a class of an untyped library
        def send(self, data: Any, **kwargs: Any) -> Any:
            return rex.ExportResult(None, False)

    pool = rex.ExporterPool([Down()], use_memory=False, manual_reexport=True, tmp_file=str(folder / "spool"))
    return timed_within(scale.seconds, stream(scale.records), pool.send)[1]


def _end_to_end(scale: Scale, folder: Path, sinks: int) -> Figures:
    """Into local files, re-export by hand: otherwise each send asks google.com first."""
    rex: Any = import_module("resilient_exporters")
    exporters = [rex.FileExporter(str(folder / f"sink-{number}")) for number in range(sinks)]
    pool = rex.ExporterPool(exporters, use_memory=False, manual_reexport=True, tmp_file=str(folder / "spool"))
    return {RATE: timed_within(scale.seconds, stream(scale.records), pool.send)[1][RATE]}


for _sinks in (1, 4):

    @measurement(f"predecessor.files {_sinks}", "End to end, records into local files", MEMORY)
    def end_to_end(scale: Scale, folder: Path, sinks: int = _sinks) -> Figures:
        """Send to file exporters in the caller's thread."""
        return _end_to_end(scale, folder, sinks)
