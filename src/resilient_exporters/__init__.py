"""Gets records out of a program and into their targets, whatever happens in between."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from resilient_exporters import exceptions, exporters
from resilient_exporters.exceptions import (
    DataTypeError,
    ExportError,
    InvalidConfigError,
    MissingConfigError,
    MissingModuleError,
    PoolClosed,
    PoolForked,
    Queued,
    RecordsRefused,
    ResilientExporterException,
    SpoolError,
    SpoolFull,
    SpoolInUse,
    TargetDown,
    TargetMisconfigured,
)
from resilient_exporters.exporters import Exporter, ExporterPool
from resilient_exporters.policies import Limits, Rate, Retry
from resilient_exporters.records import Batch, ExportResult, Record, RecordId
from resilient_exporters.status import Event

if TYPE_CHECKING:
    from resilient_exporters.connectivity import has_internet_connection
    from resilient_exporters.exporters import (
        CallableExporter,
        FileExporter,
        HTTPExporter,
        PostgreSQLExporter,
        SQLiteExporter,
    )

__all__ = [
    "Batch",
    "CallableExporter",
    "DataTypeError",
    "Event",
    "ExportError",
    "ExportResult",
    "Exporter",
    "ExporterPool",
    "FileExporter",
    "HTTPExporter",
    "InvalidConfigError",
    "Limits",
    "MissingConfigError",
    "MissingModuleError",
    "PoolClosed",
    "PoolForked",
    "PostgreSQLExporter",
    "Queued",
    "Rate",
    "Record",
    "RecordId",
    "RecordsRefused",
    "ResilientExporterException",
    "Retry",
    "SQLiteExporter",
    "SpoolError",
    "SpoolFull",
    "SpoolInUse",
    "TargetDown",
    "TargetMisconfigured",
    "exceptions",
    "exporters",
    "has_internet_connection",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name == "has_internet_connection":
        from resilient_exporters.connectivity import has_internet_connection

        return has_internet_connection
    if name in exporters.__all__:
        return getattr(exporters, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
