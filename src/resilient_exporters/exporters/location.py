"""Where a pool keeps its records when the user named no place."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path

__all__ = ["default_location"]


def default_location(name: str) -> Path:
    """The file of the pool `name` of this program: the same at each run of it.

    It lies in the user's state folder: `$XDG_STATE_HOME` or `~/.local/state`, on macOS `~/Library/Application Support`,
    on Windows `%LOCALAPPDATA%`.
    """
    return _state_folder() / "resilient_exporters" / _program() / f"{_plain(name)}.spool"


def _state_folder() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")


def _program() -> str:
    """The program's name, with a trace of where it lies, so that two of one name do not meet."""
    script = sys.argv[0] if sys.argv and sys.argv[0] not in ("", "-c") else ""
    if not script:
        return "python"
    path = os.path.realpath(script)
    return f"{_plain(os.path.basename(path))}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"


def _plain(name: str) -> str:
    """A name as a file name; what had to be replaced leaves a trace, so that two names stay two."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:80].lstrip(".") or "_"
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
