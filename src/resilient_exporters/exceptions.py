"""All errors a user of the library can meet, as one tree.

    ResilientExporterException
    ├── InvalidConfigError            an argument or a combination of arguments is wrong
    │   └── SpoolInUse                another live pool holds the file
    ├── MissingConfigError            an argument that is needed was not given
    ├── MissingModuleError            a target's client library is not installed      (ModuleNotFoundError)
    ├── PoolClosed                    a call on a pool that was closed
    │   └── PoolForked                a call on the parent's pool in a forked child      (also a SpoolInUse)
    ├── SpoolError                    what was to be kept could not be kept           (OSError)
    │   └── SpoolFull                 no room: disk, byte budget or memory
    └── ExportError                   an export did not happen
        ├── ConnectionError           the target could not be reached                 (builtins.ConnectionError)
        ├── TimeoutError              the attempt took longer than allowed            (builtins.TimeoutError)
        ├── DataTypeError             data of a kind that cannot be handled           (TypeError)
        ├── Queued                    the record waits behind older ones of its exporter
        ├── TargetDown                raised by exporters: try all of it again later
        ├── TargetMisconfigured       raised by exporters: hold everything and alarm
        └── RecordsRefused            raised by exporters: these records only

The last three are the vocabulary of `Exporter.export`; `send` never raises them, it reports them in results.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import Any

__all__ = [
    "DataTypeError",
    "ExportError",
    "InvalidConfigError",
    "MissingConfigError",
    "MissingModuleError",
    "PoolClosed",
    "PoolForked",
    "Queued",
    "RecordsRefused",
    "ResilientExporterException",
    "SpoolError",
    "SpoolFull",
    "SpoolInUse",
    "TargetDown",
    "TargetMisconfigured",
]


class ResilientExporterException(Exception):
    """Something went wrong in the export of data.

    Args:
        exporter: The exporter that was at work, or directly the message.
        message: What happened; without one the class says it.
    """

    def __init__(self, exporter: Any = None, message: str | None = None) -> None:
        if message is None and isinstance(exporter, str):
            exporter, message = None, exporter
        text = message or (type(self).__doc__ or "").partition("\n")[0]
        name = getattr(exporter, "name", None)
        super().__init__(f"{name}: {text}" if name else text)


class InvalidConfigError(ResilientExporterException):
    """A piece of configuration is wrong."""


class SpoolInUse(InvalidConfigError):
    """The file is held by another live pool."""


class MissingConfigError(ResilientExporterException):
    """A piece of configuration is missing."""


class MissingModuleError(ResilientExporterException, ModuleNotFoundError):
    """A client library is not installed."""


class PoolClosed(ResilientExporterException):
    """The pool was closed."""


class PoolForked(PoolClosed, SpoolInUse):
    """The pool is the parent's: make one pool per worker, after the fork (docs/how-to/prefork.md)."""


class SpoolError(ResilientExporterException, OSError):
    """A record could not be kept."""


class SpoolFull(SpoolError):
    """There is no room to keep a record."""


class ExportError(ResilientExporterException):
    """An export did not happen."""


class ConnectionError(ExportError, builtins.ConnectionError):
    """The target could not be reached."""


class TimeoutError(ExportError, builtins.TimeoutError):
    """An attempt took longer than allowed."""


class DataTypeError(ExportError, TypeError):
    """Data of a kind that cannot be handled."""


class Queued(ExportError):
    """The record waits behind older ones of the same exporter.

    Args:
        before: How many records are before it, at least 0; also an attribute.
        message: What happened, when it is not the plain waiting.
    """

    def __init__(self, before: int, message: str | None = None) -> None:
        self.before = before
        records = "record" if before == 1 else "records"
        super().__init__(message or f"kept, with {before} older {records} of this exporter before it")

    def __reduce__(self) -> tuple[type[Queued], tuple[int, str]]:
        return type(self), (self.before, str(self))


class TargetDown(ExportError):
    """The target cannot take anything now: all records of the batch are tried again later.

    Args:
        message: What happened.
        retry_after: Seconds the target asked to wait, or None.
    """

    def __init__(self, message: str | None = None, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TargetMisconfigured(ExportError):
    """The target will take nothing until somebody changes its or our configuration."""


class RecordsRefused(ExportError):
    """The target refused some records of the batch and has all others.

    Args:
        permanent: Index in the batch -> reason; these become dead letters.
        later: Index in the batch -> reason; these are tried again.
    """

    def __init__(self, permanent: Mapping[int, str] | None = None, later: Mapping[int, str] | None = None) -> None:
        self.permanent = dict(permanent or {})
        self.later = dict(later or {})
        reasons = [*self.permanent.values(), *self.later.values()]
        super().__init__(f"{len(reasons)} records refused, the first with: {reasons[0]}" if reasons else None)

    def __reduce__(self) -> tuple[type[RecordsRefused], tuple[dict[int, str], dict[int, str]]]:
        return type(self), (self.permanent, self.later)
