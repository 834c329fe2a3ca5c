"""Ctrl-C at each point of a `send` in background mode: what is kept goes out with the next record, without a flush."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryExporter

MakePool = Callable[..., rex.ExporterPool]

PATIENCE = 60.0


class Interrupt:
    """Raises KeyboardInterrupt at one of the points at which the interpreter may: a call begins, C code returns.

    Args:
        point: Which, from 1.
        names: Parts of the paths of the files that it may come in.

    Attributes:
        where: The function in which it came, if it did.
    """

    def __init__(self, point: int, names: tuple[str, ...] = ("resilient_exporters", "threading")) -> None:
        self._left = point
        self._names = names
        self.thrown = False
        self.where = ""

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event not in ("call", "c_return") or not any(name in frame.f_code.co_filename for name in self._names):
            return
        self._left -= 1
        if not self._left:
            self.thrown, self.where = True, frame.f_code.co_qualname
            sys.setprofile(None)
            raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def no_profile() -> Iterator[None]:
    """Leave the interpreter as it was."""
    before = sys.getprofile()
    yield
    sys.setprofile(before)


@pytest.mark.parametrize("memory", [True, False])
def test_what_an_interrupted_send_has_kept_goes_out(make_pool: MakePool, tmp_path: Path, memory: bool) -> None:
    """Wherever it is interrupted, the interrupt reaches the caller and the next record and this one are delivered."""
    for point in range(1, 10_000):
        target = MemoryExporter("t")
        place = {"use_memory": memory, "tmp_file": tmp_path / f"kept{point}"}
        pool = make_pool([target], name=f"p{point}", num_threads=2, wait_for_result=False, **place)
        for data in ("first", "second"):
            pool.send(data)
        target.wait_for(2)
        _rest(pool)
        interrupt = Interrupt(point)
        sys.setprofile(interrupt)
        try:
            pool.send("interrupted")
        except KeyboardInterrupt:
            assert interrupt.thrown
        else:
            assert not interrupt.thrown
        finally:
            sys.setprofile(None)
        pool.send("last")
        target.wait_for(3)
        while "last" not in target.got:
            target.wait_for(len(target.got) + 1)
        pool.close(PATIENCE)
        assert len(target.got) == len(set(target.got))
        assert target.got[-1] == "last"
        if not interrupt.thrown:
            return
    pytest.fail("the points do not end")


def _rest(pool: rex.ExporterPool) -> None:
    """Wait until the lane must be woken: only then a send does all that it may have to."""
    background = pool._rex.engine().background()
    waits = threading.Event()
    for _ in range(int(PATIENCE / 0.001)):
        if background.asleep:
            return
        waits.wait(0.001)
    pytest.fail("the lane does not come to rest")
