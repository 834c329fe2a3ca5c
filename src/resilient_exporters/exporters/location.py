"""Where a pool keeps its records on disk: at the place that the user named, or at one of its own."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import BinaryIO

from resilient_exporters.exceptions import SpoolInUse
from resilient_exporters.policies import Limits
from resilient_exporters.spool.interface import Spool

__all__ = ["default_location", "opened"]


def opened(place: Path | BinaryIO | None, name: str, limits: Limits) -> Spool:
    """The spool at a place, a path or a file object; None = the default place of the pool `name`.

    Raises:
        SpoolInUse: Another live pool holds it.
        InvalidConfigError: There is something else.
    """
    from resilient_exporters.spool import FileSpool, StreamSpool  # most programs never need them: import in time

    if place is not None and not isinstance(place, Path):
        return StreamSpool(place, owner=name, limit_bytes=limits.bytes)
    try:
        return FileSpool(
            place or default_location(name),
            owner=name,
            limit_bytes=limits.bytes,
            free_floor=limits.free_floor,
            make_parents=place is None,
        )
    except SpoolInUse as error:
        if place is not None:
            raise
        raise SpoolInUse(f"{error}; give this one a name of its own (`name=`) or a file (`tmp_file=`)") from error


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
    return f"{_plain(os.path.basename(path))}-{_trace(path)}"


def _plain(name: str) -> str:
    """A name as a file name; what had to be replaced leaves a trace, so that two names stay two."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:80].lstrip(".") or "_"
    return plain if plain == name else f"{plain}-{_trace(name)}"


def _trace(text: str) -> str:
    from hashlib import sha256  # slow to import, and needed only where the user named no place

    return sha256(text.encode()).hexdigest()[:8]
