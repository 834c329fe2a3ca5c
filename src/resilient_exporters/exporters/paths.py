"""Turns a path argument into one that keeps its meaning when the working folder changes."""

from __future__ import annotations

import os
from pathlib import Path

from resilient_exporters.exceptions import InvalidConfigError

__all__ = ["fixed_path"]


def fixed_path(path: str | os.PathLike[str], argument: str) -> Path:
    """Make a path absolute without looking at the file system.

    Args:
        path: As the user gave it.
        argument: Name of the argument, for the message.

    Raises:
        InvalidConfigError: It is not a path, is empty, or holds a NUL character.
    """
    if not isinstance(path, str | os.PathLike):
        raise InvalidConfigError(f"{argument} must be a path, not {type(path).__name__}")
    text = os.fsdecode(path)
    if not text:
        raise InvalidConfigError(f"{argument} is empty; give a path")
    if "\0" in text:
        raise InvalidConfigError(f"{argument} holds a NUL character; give a path without")
    return Path(os.path.abspath(text))
