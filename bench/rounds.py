"""Runs measurements, each in a process of its own, round after round."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.rows import Outcome
from bench.subject import Measurement

__all__ = ["run_rounds"]

_ROOT = Path(__file__).resolve().parent.parent
_PREDECESSOR = _ROOT / ".venv-bench-predecessor" / "bin" / "python"
_TIMEOUT = {"quick": 120.0, "full": 900.0}
"""Seconds after which a measurement has failed."""


def run_rounds(
    measurements: Sequence[Measurement], rounds: int, scale: str, folder: Path, tell: Callable[[str], None]
) -> list[dict[str, Outcome]]:
    """Measure everything `rounds` times; what repeats by itself only once.

    Each round begins with another measurement, so that no subject always runs at the same moment of it.
    Ctrl-C ends it with the rounds that are complete, if there is one.

    Args:
        measurements: What to measure.
        rounds: At least 1.
        scale: A name in `SCALES`.
        folder: Where the subjects keep their files; on a real disk.
        tell: Called with a line about each measurement made.
    """
    found: list[dict[str, Outcome]] = []
    for number in range(rounds):
        turn = number * len(measurements) // rounds
        wanted = [each for each in [*measurements[turn:], *measurements[:turn]] if not (number and each.once)]
        try:
            found.append(_round(wanted, f"round {number + 1} of {rounds}", scale, folder, tell))
        except KeyboardInterrupt:
            if not found:
                raise
            break
    return found


def _round(
    measurements: Sequence[Measurement], name: str, scale: str, folder: Path, tell: Callable[[str], None]
) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    for each in measurements:
        outcome = outcomes[each.name] = _run(each, scale, folder)
        tell(f"{name}: {each.name}: {_brief(outcome)}")
    return outcomes


def _run(each: Measurement, scale: str, folder: Path) -> Outcome:
    """One measurement in a new process, in an empty folder."""
    place = folder.resolve() / "measurement"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    python = _PREDECESSOR if each.name.startswith("predecessor.") else Path(sys.executable)
    if not python.exists():
        return f"{python} is missing: scripts/bench makes it"
    try:
        return _outcome([str(python), "-m", "bench.measure", each.name, scale, str(place)], place, _TIMEOUT[scale])
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _outcome(command: list[str], place: Path, timeout: float) -> Outcome:
    """The figures that a process prints on its last line, or the last line of its complaint."""
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    process = subprocess.Popen(
        command,
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        return f"took longer than {timeout:.0f} s"
    finally:
        _end(process)
    if process.returncode:
        return err.strip().rpartition("\n")[2] or f"ended with {process.returncode}"
    figures: dict[str, float] = json.loads(out.strip().rpartition("\n")[2])
    return figures


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and those that it started; they are a session of their own."""
    with contextlib.suppress(ProcessLookupError):  # it ended by itself, and so did its children
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _brief(outcome: Outcome) -> str:
    if isinstance(outcome, str):
        return f"failed: {outcome}"
    return ", ".join(f"{value:,.3g} {figure}" for figure, value in outcome.items())
