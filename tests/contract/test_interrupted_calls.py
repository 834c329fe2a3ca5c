"""Ctrl-C at each point of `flush`, `send_unsent_data` and `close`: nothing is lost, nothing hangs, closing goes on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex
from tests.contract.test_interrupted_send import Interrupt
from tests.counts import STRIDE

pytestmark = [
    # Python itself swallows an interrupt that comes while a generator is finalized.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.uncounted("an interrupt may come between settling a record and counting it"),
]

PATIENCE = 60.0

Call = Callable[[rex.ExporterPool], Any]

GO_ON: dict[str, Call] = {
    "flush": lambda pool: pool.flush(PATIENCE),
    "send_unsent_data": lambda pool: pool.send_unsent_data(),
}
MODES: list[dict[str, Any]] = [{"num_threads": 1}, {"num_threads": 2, "wait_for_result": False}]


class Target(rex.Exporter):
    """Takes all; holds no lock of its own, for an interrupt would leave one of `threading` locked."""

    def __init__(self) -> None:
        super().__init__(name="t")
        self.got: list[Any] = []

    def send(self, data: Any) -> rex.ExportResult:
        self.got.append(data)
        return rex.ExportResult(None, True)


@pytest.fixture(autouse=True)
def no_profile() -> Iterator[None]:
    """Leave the interpreter as it was."""
    before = sys.getprofile()
    yield
    sys.setprofile(before)


class Rig:
    """A pool that owes two records to a target that is up again."""

    def __init__(self, folder: Path, point: int, memory: bool, mode: dict[str, Any]) -> None:
        self.target = Target()
        self._options = {"name": f"p{point}", "use_memory": memory, "tmp_file": folder / f"kept{point}", **mode}
        self.pool = self.made(self.target)
        for data in ("first", "second"):
            self.pool.save_unsent_data(data, {}, "t")

    def made(self, target: Target) -> rex.ExporterPool:
        return rex.ExporterPool([target], manual_reexport=True, **self._options)

    def interrupted(self, call: Call, point: int) -> Interrupt:
        """Make a call that is interrupted, if it has so many points; nothing but the interrupt may come out of it."""
        interrupt = Interrupt(point, ("resilient_exporters",))
        sys.setprofile(interrupt)
        try:
            call(self.pool)
        except KeyboardInterrupt:
            assert interrupt.thrown
        finally:
            sys.setprofile(None)
        return interrupt


@pytest.mark.parametrize("mode", MODES, ids=["foreground", "background"])
@pytest.mark.parametrize("memory", [True, False], ids=["memory", "file"])
@pytest.mark.parametrize("name", list(GO_ON))
def test_an_interrupted_pass_leaves_the_pool_usable(
    tmp_path: Path, name: str, memory: bool, mode: dict[str, Any]
) -> None:
    """Wherever it is interrupted, the next flush delivers what was owed, and the pool takes records as before."""
    for point in range(1, 10_000, STRIDE):
        rig = Rig(tmp_path, point, memory, mode)
        thrown = rig.interrupted(GO_ON[name], point).thrown
        rig.pool.send("last")
        assert rig.pool.flush(PATIENCE), point
        rig.pool.close(PATIENCE)
        assert {"first", "second", "last"} == set(rig.target.got), point
        assert not rig.pool.has_unsent_data()
        if not thrown:
            return
    pytest.fail("the points do not end")


@pytest.mark.parametrize("mode", MODES, ids=["foreground", "background"])
@pytest.mark.parametrize("memory", [True, False], ids=["memory", "file"])
def test_an_interrupted_close_goes_on(tmp_path: Path, memory: bool, mode: dict[str, Any]) -> None:
    """Wherever it is interrupted, closing again lets go of the file, and a pool made anew has what was owed."""
    for point in range(1, 10_000, STRIDE):
        rig = Rig(tmp_path, point, memory, mode)
        interrupt = rig.interrupted(lambda pool: pool.close(PATIENCE), point)
        rig.pool.close(PATIENCE)
        lane = rig.pool.status().exporters[0]
        assert (2, 2) == (lane.owed, lane.accepted), point
        with pytest.raises(rex.exceptions.PoolClosed):
            rig.pool.send("too late")
        if interrupt.where == "Files.close":  # nobody can tell whether it is closed: the end of the process sees to it
            continue
        late = Target()
        again = rig.made(late)
        assert again.has_unsent_data() is not memory, point
        again.send_unsent_data()
        again.close(PATIENCE)
        assert ([] if memory else ["first", "second"]) == late.got, point
        if not interrupt.thrown:
            return
    pytest.fail("the points do not end")
