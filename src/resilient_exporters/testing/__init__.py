"""Doubles for tests: exporters that fail on command, files that tear."""

from __future__ import annotations

from resilient_exporters.testing.fakes import MemoryBatchExporter, MemoryExporter
from resilient_exporters.testing.tornfiles import TornFiles

__all__ = ["MemoryBatchExporter", "MemoryExporter", "TornFiles"]
