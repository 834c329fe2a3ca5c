"""A program that lives many short lives, each a pool with one exporter that is killed in a phase of the delivery.

Each life is a fork of this process, which has loaded everything and has no thread, so that it begins at once.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import resilient_exporters as rex

__all__ = ["BATCH", "Life", "Mortal", "Phase"]

BATCH = 7
"""Records of a batch, where the exporter takes more than one."""
_LONGEST = 60
"""Seconds after which a life that does not end is ended."""
_ROOT = Path(__file__).parents[2]


class Phase(StrEnum):
    """When a life is killed."""

    BEFORE = "before the call"
    DURING = "in the call"
    AFTER = "before it is settled"
    SETTLED = "after it is settled"
    NEVER = "never"


@dataclass(frozen=True)
class Life:
    """What one life does.

    Args:
        exporter: Name of the exporter's class, and the arguments of its constructor.
        folder: Where the pool keeps what is owed, the same in each life.
        first: Number of the first record that it sends.
        count: How many it sends.
        phase: When it is killed.
        call: The export, counted from 1, in which it is killed.
        delay: Seconds from the beginning of that export to the kill, where it is killed in the middle.
    """

    exporter: tuple[str, list[Any], dict[str, Any]]
    folder: str
    first: int
    count: int
    phase: Phase
    call: int = 1
    delay: float = 0.0


class Mortal:
    """Drives the program from a test; to be used in a `with` statement."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.exporters.mortal"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
        return self

    def __exit__(self, *raised: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(_LONGEST)

    def live(self, life: Life) -> None:
        """Have a life lived to the end that is meant for it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(asdict(life)), file=self._process.stdin, flush=True)
        ended = int(self._process.stdout.readline())
        assert (0 if life.phase is Phase.NEVER else signal.SIGKILL) == ended, f"{life} ended with {ended}"


def main() -> None:
    """Live the lives that are ordered, one line of JSON each, and tell by which signal each ended."""
    for library in ("psycopg", "urllib3"):
        with suppress(ImportError):
            import_module(library)
    for line in sys.stdin:
        order = json.loads(line)
        life = Life(**{**order, "phase": Phase(order["phase"])})
        told, tell = os.pipe()
        child = os.fork()
        if not child:
            os._exit(_lived(life, tell))
        os.close(tell)
        if os.read(told, 1):
            time.sleep(life.delay)
            os.kill(child, signal.SIGKILL)
        os.close(told)
        _, status = os.waitpid(child, 0)
        print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status), flush=True)


def _lived(life: Life, tell: int) -> int:
    """Send what is to be sent, and deliver until killed; 0 when all was delivered."""
    signal.alarm(_LONGEST)
    try:
        name, arguments, options = life.exporter
        exporter: rex.Exporter = getattr(rex, name)(*arguments, name="target", **options)
        exporter.batch_records = min(exporter.batch_records, BATCH)
        all_sent = threading.Event()
        exporter.__dict__["export"] = _mortal(exporter.export, life, all_sent, lambda: os.write(tell, b"!"))
        place = Path(life.folder) / "owed"
        pool = rex.ExporterPool(
            [exporter], num_threads=2, wait_for_result=False, use_memory=False, tmp_file=place, name="mortal"
        )
        for number in range(life.first, life.first + life.count):
            pool.send({"n": number})
        all_sent.set()
        delivered = pool.flush(_LONGEST)
        if life.phase is not Phase.NEVER:
            _die()
        pool.close(_LONGEST)
        return 0 if delivered else 1
    except BaseException:
        traceback.print_exc()
        return 2


def _mortal(
    export: Callable[..., None], life: Life, all_sent: threading.Event, told: Callable[[], object]
) -> Callable[..., None]:
    """An exporter's `export` that is the death of its process."""
    calls = 0

    def mortal(batch: rex.Batch, **options: Any) -> None:
        nonlocal calls
        all_sent.wait()
        calls += 1
        if calls == life.call and life.phase is Phase.BEFORE:
            _die()
        if calls == life.call and life.phase is Phase.DURING:
            told()
        export(batch, **options)
        if calls == life.call and life.phase is Phase.AFTER:
            _die()

    return mortal


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
