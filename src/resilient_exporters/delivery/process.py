"""Tells a forked child from the process in which a thing was made."""

from __future__ import annotations

import os
from typing import NoReturn

from resilient_exporters.exceptions import PoolForked

__all__ = ["Birth", "refuse_fork"]


class Birth:
    """The life of this process: another object after each fork, so that one comparison tells whose a thing is."""

    now: object = object()


def _another_life() -> None:
    Birth.now = object()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_another_life)


def refuse_fork(name: str) -> NoReturn:
    """Say that a pool is the parent's."""
    raise PoolForked(
        f"{name} was made before this process was forked and belongs to the parent: make one pool per worker,"
        " after the fork, each with its own tmp_file or name (docs/how-to/prefork.md)"
    )
