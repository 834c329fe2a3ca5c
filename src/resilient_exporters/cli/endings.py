"""How a command ends: the exit codes, and the library's errors as messages with one of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import NoReturn

import click

from resilient_exporters.exceptions import InvalidConfigError, ResilientExporterException, SpoolInUse

__all__ = ["Ending", "told"]


class Ending(IntEnum):
    """The exit codes; documented in docs/how-to/look-into-a-spool.md."""

    OK = 0
    FINDINGS = 1
    USAGE = 2
    NO_SPOOL = 3
    HELD = 4
    TROUBLE = 5


@contextmanager
def told() -> Iterator[None]:
    """Turn the library's errors into a message and an exit code."""
    try:
        yield
    except SpoolInUse as error:
        _end(error, Ending.HELD)
    except InvalidConfigError as error:
        _end(error, Ending.NO_SPOOL)
    except BrokenPipeError:
        raise  # click's own: the reader, `head` say, has seen enough
    except (ResilientExporterException, OSError) as error:
        _end(error, Ending.TROUBLE)


def _end(error: Exception, ending: Ending) -> NoReturn:
    click.echo(f"Error: {error}", err=True)
    sys.exit(ending)
