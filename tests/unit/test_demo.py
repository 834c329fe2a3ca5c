"""The audit of the demonstration: it finds what is missing, doubled or out of order, and reads every kind of target."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from demo.audit import TARGETS, audit, keys_sent
from demo.readings import readings

SENT = ["1:0", "1:1", "2:0", "2:1"]


def write(folder: Path, target: str, keys: list[str]) -> None:
    """Put records into a target as the demonstration does."""
    file = folder / TARGETS[target][1]
    if target == "sqlite":
        database = sqlite3.connect(file)
        database.execute("create table readings (key)")
        database.executemany("insert into readings values (?)", [(key,) for key in keys])
        database.commit()
        database.close()
    elif target == "function":
        file.write_text("".join(f"{key}\n" for key in keys))
    else:
        file.write_text("".join(json.dumps({"key": key}) + "\n" for key in keys))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a journal and targets that have everything."""
    (tmp_path / "journal.txt").write_text("".join(f"{key}\n" for key in SENT))
    for target in TARGETS:
        write(tmp_path, target, SENT)
    return tmp_path


def test_all_is_well(folder: Path) -> None:
    """Where every target has every record once and in order, every promise is kept."""
    assert keys_sent(folder) == SENT
    for finding in audit(folder):
        counts = (finding.sent, finding.arrived, finding.missing, finding.doubled, finding.disordered)
        assert (*counts, finding.kept_promise) == (4, 4, 0, 0, 0, True)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("keys", "counts"),
    [
        (["1:0", "1:1", "2:0"], (3, 1, 0, 0)),
        ([*SENT, "2:2"], (5, 0, 0, 0)),
        (["1:0", "1:1", "1:0", "2:0", "2:1", "2:1", "2:1"], (4, 0, 3, 0)),
        (["1:0", "2:0", "1:1", "2:1"], (4, 0, 0, 1)),
        ([], (0, 4, 0, 0)),
    ],
    ids=["missing", "not noted", "doubled", "out of order", "nothing there"],
)
def test_trouble_is_found(folder: Path, target: str, keys: list[str], counts: tuple[int, int, int, int]) -> None:
    """What a target lacks, has twice or has in the wrong order is counted, and breaks the promise that it breaks."""
    (folder / TARGETS[target][1]).unlink()
    if keys:
        write(folder, target, keys)
    (finding,) = (finding for finding in audit(folder) if finding.target == target)
    assert (finding.arrived, finding.missing, finding.doubled, finding.disordered) == counts
    broken = finding.missing > 0 or (finding.doubled > 0 and target == "sqlite")
    assert finding.kept_promise is not broken


def test_a_torn_line_is_no_record(folder: Path) -> None:
    """Half a line, left by a kill, is neither a record nor an error."""
    with (folder / "readings.ndjson").open("a") as file:
        file.write('{"key": "2:')
    assert audit(folder)[0].arrived == 4


def test_readings_are_real_and_do_not_end() -> None:
    """There are more readings than one round has, of several kinds, each with its moment."""
    source = readings()
    kinds = {next(source)["kind"] for _ in range(300)}
    assert {"memory", "processor", "process", "log"} <= kinds
