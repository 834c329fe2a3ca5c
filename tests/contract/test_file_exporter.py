"""The file exporter: what is written, when, and how a file is bounded."""

from __future__ import annotations

import inspect
import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex

MakePool = Callable[..., rex.ExporterPool]


def test_its_parameters_are_fixed() -> None:
    """`FileExporter(target_file, max_lines=None, append=True, **exporter_options)`."""
    parameters = list(inspect.signature(rex.FileExporter).parameters.values())[:3]
    assert [("target_file", inspect.Parameter.empty), ("max_lines", None), ("append", True)] == [
        (parameter.name, parameter.default) for parameter in parameters
    ]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ("text", b"text\n"),
        ("", b"\n"),
        ("ends\n", b"ends\n"),
        ("ünï \U0001f600", "ünï \U0001f600\n".encode()),
        (b"\xff\x00raw", b"\xff\x00raw\n"),
        (b"raw\n", b"raw\n\n"),
        ({"a": [1, 2.5, None, True]}, b'{"a": [1, 2.5, null, true]}\n'),
        ([1, "zwei"], b'[1,"zwei"]\n'),
        (5, b"5\n"),
        (True, b"true\n"),
        ((1, 2), b"[1,2]\n"),
        (2**100, b"1267650600228229401496703205376\n"),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_what_is_written(make_pool: MakePool, tmp_path: Path, data: Any, line: bytes, alone: bool) -> None:
    """Str is a line, bytes are as they are plus a newline, anything else is one line of JSON in UTF-8."""
    target = rex.FileExporter(tmp_path / "out")
    sender: Any = target if alone else make_pool([target])
    sender.send(data)
    written = (tmp_path / "out").read_bytes()
    if isinstance(data, (dict, list, tuple)):
        assert 1 == written.count(b"\n")
        assert json.loads(line) == json.loads(written)
    else:
        assert line == written


def test_json_is_written_as_utf_8(tmp_path: Path) -> None:
    """Text inside JSON comes back as it was."""
    rex.FileExporter(tmp_path / "out").send({"name": "Zoë\n"})
    assert {"name": "Zoë\n"} == json.loads((tmp_path / "out").read_text(encoding="utf-8"))


def test_the_line_is_there_when_send_returns(tmp_path: Path) -> None:
    """When `send` says it succeeded the line is in the file."""
    target = rex.FileExporter(tmp_path / "out")
    for number in range(20):
        assert (None, True) == target.send(str(number))
        assert number + 1 == len((tmp_path / "out").read_text().splitlines())


def test_an_existing_file_is_continued(tmp_path: Path) -> None:
    """By default lines are added to what is there."""
    (tmp_path / "out").write_text("old\n")
    rex.FileExporter(tmp_path / "out").send("new")
    assert "old\nnew\n" == (tmp_path / "out").read_text()


@pytest.mark.parametrize("alone", [True, False])
def test_append_false_starts_afresh_once(make_pool: MakePool, tmp_path: Path, alone: bool) -> None:
    """`append=False` starts the file afresh, once for each exporter object."""
    (tmp_path / "out").write_text("old\n")
    target = rex.FileExporter(tmp_path / "out", append=False)
    sender: Any = target if alone else make_pool([target])
    sender.send("a")
    sender.send("b")
    assert "a\nb\n" == (tmp_path / "out").read_text()
    rex.FileExporter(tmp_path / "out", None, False).send("c")
    assert "c\n" == (tmp_path / "out").read_text()


def test_a_relative_path_is_fixed_when_the_object_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changing the working folder later does not move the file."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    target = rex.FileExporter("out")
    monkeypatch.chdir(tmp_path / "elsewhere")
    target.send("x")
    assert "x\n" == (tmp_path / "out").read_text()


def test_a_file_that_was_moved_is_made_anew(tmp_path: Path) -> None:
    """A file that was moved meanwhile, as log rotation does, is made anew."""
    target = rex.FileExporter(tmp_path / "out")
    target.send("first")
    (tmp_path / "out").rename(tmp_path / "moved")
    target.send("second")
    assert ("first\n", "second\n") == ((tmp_path / "moved").read_text(), (tmp_path / "out").read_text())


def test_a_file_that_was_deleted_is_made_anew(tmp_path: Path) -> None:
    """A file that was deleted meanwhile is made anew."""
    target = rex.FileExporter(tmp_path / "out")
    target.send("first")
    (tmp_path / "out").unlink()
    target.send("second")
    assert "second\n" == (tmp_path / "out").read_text()


def test_a_file_that_was_replaced_is_followed(tmp_path: Path) -> None:
    """When another file was put in its place, lines go to the one at the path."""
    target = rex.FileExporter(tmp_path / "out")
    target.send("first")
    (tmp_path / "new").write_text("theirs\n")
    (tmp_path / "new").replace(tmp_path / "out")
    target.send("second")
    assert "theirs\nsecond\n" == (tmp_path / "out").read_text()


def test_a_torn_line_is_ended_first(tmp_path: Path) -> None:
    """A line torn by a crash is ended before the next is written."""
    (tmp_path / "out").write_text("whole\ntor")
    rex.FileExporter(tmp_path / "out").send("next")
    assert "whole\ntor\nnext\n" == (tmp_path / "out").read_text()


def all_lines(folder: Path, name: str = "out") -> list[str]:
    """The lines of the file and its numbered siblings, in whichever numeric order is the order of writing."""
    siblings = sorted(folder.glob(f"{name}.[0-9]*"), key=lambda path: int(path.suffix[1:]))
    parts = [path.read_text().splitlines() for path in siblings]
    last = (folder / name).read_text().splitlines()
    upwards = [line for part in [*parts, last] for line in part]
    downwards = [line for part in [*reversed(parts), last] for line in part]
    return upwards if upwards[:1] <= downwards[:1] else downwards


@pytest.mark.parametrize("max_lines", [1, 2, 7, 100])
def test_max_lines_bounds_the_file_and_loses_nothing(make_pool: MakePool, tmp_path: Path, max_lines: int) -> None:
    """`max_lines` bounds the lines in the file at every moment; the oldest go to numbered siblings, none are lost."""
    pool = make_pool([rex.FileExporter(tmp_path / "out", max_lines)])
    for number in range(50):
        pool.send(f"{number:04d}")
        assert len((tmp_path / "out").read_text().splitlines()) <= max_lines
    assert [f"{number:04d}" for number in range(50)] == all_lines(tmp_path)
    assert f"{49:04d}" == (tmp_path / "out").read_text().splitlines()[-1]
    assert (tmp_path / "out.1").exists() is (max_lines < 50)


def test_max_lines_holds_for_batches(make_pool: MakePool, tmp_path: Path) -> None:
    """A backlog that goes out in large batches respects the bound as well."""
    pool = make_pool([rex.FileExporter(tmp_path / "later" / "out", 10, name="file")])
    for number in range(95):
        pool.save_unsent_data(f"{number:04d}", {}, "file")
    (tmp_path / "later").mkdir()
    pool.send_unsent_data()
    assert [f"{number:04d}" for number in range(95)] == all_lines(tmp_path / "later")
    for path in (tmp_path / "later").glob("out*"):
        assert len(path.read_text().splitlines()) <= 10


def test_max_lines_counts_what_is_there(make_pool: MakePool, tmp_path: Path) -> None:
    """Lines that are in the file when the exporter starts count, in each run, and earlier siblings stay."""
    for run in range(6):
        pool = make_pool([rex.FileExporter(tmp_path / "out", 5)])
        for number in range(4):
            pool.send(f"{run * 4 + number:04d}")
        pool.close()
        assert len((tmp_path / "out").read_text().splitlines()) <= 5
    assert [f"{number:04d}" for number in range(24)] == all_lines(tmp_path)


def test_a_file_with_more_lines_than_allowed(tmp_path: Path) -> None:
    """A file that starts with more lines than allowed is bounded with the first line written, and none are lost."""
    (tmp_path / "out").write_text("".join(f"{number:04d}\n" for number in range(20)))
    rex.FileExporter(tmp_path / "out", 5).send("0020")
    assert len((tmp_path / "out").read_text().splitlines()) <= 5
    assert [f"{number:04d}" for number in range(21)] == all_lines(tmp_path)


@pytest.mark.parametrize("max_lines", [0, -1, 1.5, "10"])
def test_max_lines_is_checked(tmp_path: Path, max_lines: Any) -> None:
    """A `max_lines` below 1, or not an integer, raises InvalidConfigError and touches nothing."""
    with pytest.raises(rex.InvalidConfigError):
        rex.FileExporter(tmp_path / "out", max_lines)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("target", [None, 5, b"bytes", ["x"]])
def test_the_target_is_checked(target: Any) -> None:
    """A target that is no path raises InvalidConfigError."""
    with pytest.raises(rex.InvalidConfigError):
        rex.FileExporter(target)


def test_the_constructor_touches_nothing(tmp_path: Path) -> None:
    """Building a file exporter neither creates nor truncates the file."""
    (tmp_path / "there").write_text("old\n")
    rex.FileExporter(tmp_path / "there", append=False)
    rex.FileExporter(tmp_path / "not there")
    assert "old\n" == (tmp_path / "there").read_text()
    assert {"there"} == {path.name for path in tmp_path.iterdir()}


def test_a_folder_as_target_fails_the_record_and_no_other_exporter(make_pool: MakePool, tmp_path: Path) -> None:
    """A target that is a folder is that exporter's failure, and its record is kept."""
    (tmp_path / "folder").mkdir()
    pool = make_pool([rex.FileExporter(tmp_path / "folder"), rex.FileExporter(tmp_path / "out")])
    bad, fine = pool.send("x")
    assert ((None, False), True, (None, True)) == (bad, bad.kept, fine)
    assert "folder" in str(bad.error)


def test_text_that_utf_8_cannot_hold_hides_nothing(make_pool: MakePool, tmp_path: Path) -> None:
    """A lone surrogate fails its own record at most, not the lines behind it."""
    pool = make_pool([rex.FileExporter(tmp_path / "out")])
    pool.send("before")
    pool.send("lone \ud800 surrogate")
    pool.send("behind")
    pool.send_unsent_data()
    lines = (tmp_path / "out").read_bytes().split(b"\n")
    assert b"before" == lines[0]
    assert b"behind" in lines


ROTATING = """
import itertools, sys
import resilient_exporters as rex
run = sys.argv[1]
pool = rex.ExporterPool([rex.FileExporter("out", 3)])
print("ready", flush=True)
for number in itertools.count():
    assert pool.send(f"{run}:{number}")[0].successful
    sys.stdout.write(f"{run}:{number}\\n")
    sys.stdout.flush()
"""


def test_kill_9_between_rotations_loses_no_line(tmp_path: Path) -> None:
    """A process killed while it rotates all the time loses no line that was reported as written."""
    rng = random.Random(9)
    reported: list[str] = []
    for run in range(5):
        command = [sys.executable, "-c", ROTATING, str(run)]
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as victim:
            assert victim.stdout is not None
            assert "ready\n" == victim.stdout.readline()
            lines = [victim.stdout.readline() for _ in range(rng.randrange(1, 120))]
            victim.send_signal(signal.SIGKILL)
            lines += victim.stdout.readlines()
        reported += [line.strip() for line in lines if line.endswith("\n")]
    files = [path for path in tmp_path.iterdir() if path.name.startswith("out")]
    written = [line for path in files for line in path.read_text().splitlines()]
    assert set() == set(reported) - set(written)
    assert len(set(written)) == len(written)
    assert all(len(path.read_text().splitlines()) <= 3 for path in files)
