"""Checks what users choose for an exporter or a pool, and takes it over."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeGuard

from resilient_exporters.exceptions import InvalidConfigError

if TYPE_CHECKING:
    from resilient_exporters.exporters.core import Core

__all__ = ["checked_flag", "checked_name", "configure", "is_number"]


def configure(
    core: Core,
    transform: Callable[[Any], Any] | None,
    use_memory: bool,
    manual_reexport: bool,
    tmp_file: str | Path | BinaryIO | None,
    save_unsent_data: bool,
    name: str | None,
) -> None:
    """Check what exporters and pools have in common, and take it over; a file of the user's own is claimed at once."""
    if transform is not None and not callable(transform):
        raise InvalidConfigError(f"transform is a function or None, not {transform!r}")
    core.given_name = None if name is None else checked_name(name)
    core.function = transform
    core.memory = checked_flag("use_memory", use_memory)
    core.settings.manual = checked_flag("manual_reexport", manual_reexport)
    core.settings.saves = checked_flag("save_unsent_data", save_unsent_data)
    core.tmp_file = _checked_place(tmp_file)
    core.claim()


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is an int or a float."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def checked_flag(what: str, value: object) -> bool:
    """The value when it is True or False."""
    if not isinstance(value, bool):
        raise InvalidConfigError(f"{what} is True or False, not {value!r}")
    return value


def _checked_place(place: Any) -> Path | BinaryIO | None:
    """A path made absolute, so that a later change of folder changes nothing; or a file object."""
    if isinstance(place, str | os.PathLike):
        if not os.fspath(place):
            raise InvalidConfigError("tmp_file is empty: give a path")
        return Path(os.path.abspath(os.fspath(place)))
    if place is None or all(hasattr(place, method) for method in ("read", "write", "seek")):
        return place  # type: ignore[no-any-return]  # an object that reads, writes and seeks
    raise InvalidConfigError(f"tmp_file is a path or an open binary file, not {place!r}")


def checked_name(name: object) -> str:
    """The name when it is one."""
    if not isinstance(name, str) or not name:
        raise InvalidConfigError(f"name is a non-empty str, not {name!r}")
    return name
