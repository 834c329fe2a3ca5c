"""Running something at each single moment of a call, as a signal handler may."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any

from resilient_exporters import spool

_FOLDER = str(Path(spool.__path__[0]))


def _ours(frame: Any) -> bool:
    return str(frame.f_code.co_filename).startswith(_FOLDER)


def at_line(number: int, code: CodeType, act: Callable[[], object], work: Callable[[], object]) -> bool:
    """Do `work`, and `act` before line `number` of a function or of what it calls.

    Args:
        number: Counts the lines of the spool's code that are run, from 0.
        code: The function.
        act: What a signal handler would do there.
        work: Calls the function.

    Returns:
        Whether so many lines were run.
    """
    seen, reached = -1, False

    def local(frame: Any, event: str, arg: Any) -> Any:
        nonlocal seen, reached
        if event in ("line", "return"):
            seen += 1
            if seen == number:
                reached = True
                sys.settrace(None)
                act()
        return local

    def outer(frame: Any, event: str, arg: Any) -> Any:
        inside = frame
        while inside is not None and inside.f_code is not code:
            inside = inside.f_back
        return local if inside is not None and _ours(frame) and not reached else None

    before = sys.gettrace()
    sys.settrace(outer)
    try:
        work()
    finally:
        sys.settrace(before)
    return reached


def interrupted_at(number: int, work: Callable[[], object]) -> bool:
    """Do `work` with KeyboardInterrupt at its call or return `number`: there Python looks for signals."""
    seen, reached = -1, False

    def check(frame: Any, event: str, arg: Any) -> None:
        nonlocal seen, reached
        if _ours(frame) and event != "return":
            seen += 1
            if seen == number:
                reached = True
                sys.setprofile(None)
                raise KeyboardInterrupt

    sys.setprofile(check)
    try:
        work()
    except KeyboardInterrupt:
        assert reached
    finally:
        sys.setprofile(None)
    return reached
