"""Exporters: the base, the pool, and one file for each target; those with a client library load when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from resilient_exporters.exporters.exporter import Exporter
from resilient_exporters.exporters.pool import ExporterPool
from resilient_exporters.records import ExportResult

if TYPE_CHECKING:
    from resilient_exporters.exporters.file import FileExporter
    from resilient_exporters.exporters.function import CallableExporter
    from resilient_exporters.exporters.http import HTTPExporter
    from resilient_exporters.exporters.postgresql import PostgreSQLExporter
    from resilient_exporters.exporters.sqlite import SQLiteExporter

__all__ = [
    "CallableExporter",
    "ExportResult",
    "Exporter",
    "ExporterPool",
    "FileExporter",
    "HTTPExporter",
    "PostgreSQLExporter",
    "SQLiteExporter",
]

_HOMES = {
    "CallableExporter": "function",
    "FileExporter": "file",
    "HTTPExporter": "http",
    "PostgreSQLExporter": "postgresql",
    "SQLiteExporter": "sqlite",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
