"""Doubles for tests: exporters that fail on command."""

from __future__ import annotations

from resilient_exporters.testing.fakes import MemoryBatchExporter, MemoryExporter

__all__ = ["MemoryBatchExporter", "MemoryExporter"]
