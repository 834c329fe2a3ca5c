"""The command line: looks into spools, and repairs them; all it does, the library's own calls do."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from resilient_exporters.exceptions import MissingModuleError

__all__ = ["main"]


def main() -> None:
    """Run the command line with the arguments of this process."""
    try:
        _check_installed()
    except MissingModuleError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(5)
    from resilient_exporters.cli.commands import commands

    commands(prog_name="resilient-exporters")


def _check_installed() -> None:
    missing = [name for name in ("click", "rich") if find_spec(name) is None]
    if missing:
        raise MissingModuleError(
            f'the command line needs {" and ".join(missing)}: pip install "resilient-exporters[cli]"'
        )
