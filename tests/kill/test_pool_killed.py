"""Real processes with a pool are killed at any moment: nothing that was sent is lost, nothing is invented."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryExporter
from tests.children import Child
from tests.counts import KILLS
from tests.kill.sender import MODES, data_of, exporters, send_until_killed, small_segments

LIFE = 100_000
"""Numbers that each life has for its records."""
SENT_AT_ONCE = 5

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kill -9 is POSIX")


class Lives:
    """The lives of a program, all on the same files.

    Attributes:
        sent: Numbers that `send` had returned for.
        last: For each life the highest number that it may have sent.
    """

    def __init__(self, folder: Path, mode: str) -> None:
        self.folder = folder
        self.mode = mode
        self.sent: list[int] = []
        self.last: list[int] = []

    def live(self, lines: int) -> None:
        """Run the program and kill it when it has said so many lines, wherever it is by then."""
        first = len(self.last) * LIFE
        self.last.append(first - 1)
        with Child(send_until_killed, self.folder, self.mode, first) as child:
            heard = child.hear(lines) + child.kill()
        for line in heard:
            match line.split():
                case ["sending", number]:
                    self.last[-1] = int(number) + SENT_AT_ONCE - 1
                case ["sent", number, last]:
                    self.sent += range(int(number), int(last) + 1)

    def check(self, where: str, numbers: list[int]) -> None:
        """A target has all that was sent, and nothing that was not."""
        assert not set(self.sent).difference(numbers), f"lost: {where}"
        for number in numbers:
            assert number <= self.last[number // LIFE], f"invented: {where}"


def rows_of(folder: Path) -> list[int]:
    """Numbers of the rows in the database, in the order in which they came."""
    with closing(sqlite3.connect(folder / "target.db")) as connection:
        rows = connection.execute("select n, pad from records order by rowid").fetchall()
    assert all(data_of(number)["pad"] == pad for number, pad in rows)
    return [number for number, _ in rows]


def lines_of(folder: Path) -> list[int]:
    """Numbers of the whole lines in the file; a kill may tear one, which is written again."""
    numbers = []
    for line in (folder / "lines").read_text().splitlines():
        if line.startswith("{") and line.endswith("}"):
            data = json.loads(line)
            assert data_of(data["n"]) == data
            numbers.append(data["n"])
    return numbers


@pytest.mark.parametrize("mode", list(MODES))
def test_killed_again_and_again(tmp_path: Path, mode: str) -> None:
    """Whenever it is killed, everything sent arrives at every target: in the database once and in order, in the file at
    least once, at the target that was down once.
    """
    chance = random.Random(f"{mode} {KILLS}")
    lives = Lives(tmp_path, mode)
    for _ in range(max(KILLS // len(MODES), 1)):
        lives.live(chance.choice([1, 2, chance.randint(3, 60), chance.randint(100, 1500)]))
    targets = exporters(tmp_path, well=True)
    memory = targets[-1]
    assert isinstance(memory, MemoryExporter)
    place = tmp_path / "kept"
    with small_segments(), rex.ExporterPool(targets, use_memory=False, tmp_file=place, name="killed") as pool:
        assert pool.flush(60.0)
        assert not pool.has_unsent_data()
    rows, lines, got = rows_of(tmp_path), lines_of(tmp_path), [data["n"] for data in memory.got]
    for where, numbers in (("database", rows), ("file", lines), ("memory", got)):
        lives.check(where, numbers)
    assert sorted(set(rows)) == rows
    assert sorted(set(got)) == got
    print(f"{mode}: {len(lives.last)} kills, {len(lives.sent)} sent, {len(lines) - len(set(lines))} twice in the file")
