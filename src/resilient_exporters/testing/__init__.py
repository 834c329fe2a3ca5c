"""Doubles for tests: exporters that fail on command, files that tear, a clock that is turned by hand."""

from __future__ import annotations

from resilient_exporters.testing.clock import ManualClock
from resilient_exporters.testing.fakes import MemoryBatchExporter, MemoryExporter
from resilient_exporters.testing.tornfiles import TornFiles

__all__ = ["ManualClock", "MemoryBatchExporter", "MemoryExporter", "TornFiles"]
