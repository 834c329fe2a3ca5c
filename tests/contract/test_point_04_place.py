"""Point 4: where what is kept is kept, and what may be there already."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex
from resilient_exporters.testing import MemoryExporter

MakePool = Callable[..., rex.ExporterPool]


def kept_file(folder: Path, records: int = 1) -> Path:
    """A file of ours that holds records for the exporter "t"."""
    path = folder / "kept"
    pool = rex.ExporterPool([MemoryExporter("t", up=False)], use_memory=False, tmp_file=path)
    for number in range(records):
        pool.send(number)
    pool.close()
    return path


def test_the_file_is_there_once_something_was_kept(make_pool: MakePool, tmp_path: Path) -> None:
    """The file does not exist before something was kept, and exists from then on."""
    path = tmp_path / "kept"
    target = MemoryExporter()
    pool = make_pool([target], use_memory=False, tmp_file=path)
    pool.send("taken")
    assert not path.exists()
    target.up = False
    pool.send("kept")
    assert path.exists()


def test_nothing_is_written_anywhere_else(
    make_pool: MakePool, tmp_path: Path, state_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a `tmp_file`, nothing is written but that path and siblings whose names start with it."""
    work, temp = tmp_path / "work", tmp_path / "temp"
    for folder in (work, temp, tmp_path / "kept"):
        folder.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(tempfile, "tempdir", str(temp))
    target = MemoryExporter(up=False)
    pool = make_pool([target], use_memory=False, tmp_file=tmp_path / "kept" / "file")
    for number in range(100):
        pool.send(number)
    pool.use_memory = True
    pool.use_memory = False
    target.up = True
    pool.send_unsent_data()
    pool.close()
    assert [] == [*work.iterdir(), *temp.iterdir(), *state_home.iterdir()]
    assert [] == [p.name for p in (tmp_path / "kept").iterdir() if not p.name.startswith("file")]
    assert {"kept", "temp", "work"} == {p.name for p in tmp_path.iterdir()}


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_may_be_a_string_or_a_path(make_pool: MakePool, tmp_path: Path, kind: Callable[[Path], Any]) -> None:
    """A `pathlib.Path` and a string both work."""
    make_pool([MemoryExporter(up=False)], use_memory=False, tmp_file=kind(tmp_path / "kept")).send(1)
    assert (tmp_path / "kept").stat().st_size > 0


@pytest.mark.parametrize("make_file", [io.BytesIO, tempfile.TemporaryFile])
def test_a_binary_file_object_holds_what_is_kept(make_pool: MakePool, make_file: Callable[[], Any]) -> None:
    """`io.BytesIO` and `tempfile.TemporaryFile()` hold records, which go out when the target is back."""
    with make_file() as file:
        target = MemoryExporter(up=False)
        pool = make_pool([target], use_memory=False, tmp_file=file)
        for number in range(50):
            pool.send({"i": number}, table=f"t{number % 2}")
        assert file.seek(0, io.SEEK_END) > 0
        target.up = True
        pool.send_unsent_data()
        pool.send({"i": 50}, table="t0")
        assert [{"i": number} for number in range(51)] == target.got
        assert not pool.has_unsent_data()
        pool.close()
        assert not file.closed


@pytest.mark.parametrize("make_file", [io.BytesIO, tempfile.TemporaryFile])
def test_a_binary_file_object_with_frames_is_adopted(make_pool: MakePool, make_file: Callable[[], Any]) -> None:
    """A file object that holds frames is adopted like a path, and is never closed."""
    with make_file() as file:
        first = make_pool([MemoryExporter("t", up=False)], use_memory=False, tmp_file=file)
        for number in range(5):
            first.send(number)
        first.close()
        target = MemoryExporter("t")
        second = make_pool([target], use_memory=False, tmp_file=file)
        assert second.has_unsent_data()
        second.send_unsent_data()
        assert [0, 1, 2, 3, 4] == target.got
        second.close()
        assert not file.closed


def test_the_bytes_of_a_file_object_are_enough(make_pool: MakePool) -> None:
    """What is kept in a file object is in its bytes: a copy of them delivers the same."""
    file = io.BytesIO()
    make_pool([MemoryExporter("t", up=False)], use_memory=False, tmp_file=file).send("once")
    target = MemoryExporter("t")
    make_pool([target], use_memory=False, tmp_file=io.BytesIO(file.getvalue())).send_unsent_data()
    assert ["once"] == target.got


class ReadOnly(io.BytesIO):
    """A file object that cannot be written."""

    def writable(self) -> bool:
        return False


class Unseekable(io.BytesIO):
    """A file object that cannot seek."""

    def seekable(self) -> bool:
        return False


@pytest.mark.parametrize("thing", [5, io.StringIO(), ReadOnly(), Unseekable(), object(), ["x"]])
def test_a_place_of_another_kind_is_refused(thing: Any) -> None:
    """What is neither a path nor a readable, writable, seekable binary file raises InvalidConfigError."""
    with pytest.raises(rex.InvalidConfigError):
        rex.ExporterPool([MemoryExporter()], use_memory=False, tmp_file=thing)


def test_a_file_object_in_append_mode_is_refused(tmp_path: Path) -> None:
    """A file opened for appending cannot be written in place, so it raises InvalidConfigError."""
    with (tmp_path / "appended").open("a+b") as file, pytest.raises(rex.InvalidConfigError):
        rex.ExporterPool([MemoryExporter()], use_memory=False, tmp_file=file)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    """A `tmp_file` that is a folder raises InvalidConfigError and leaves it empty."""
    with pytest.raises(rex.InvalidConfigError):
        rex.ExporterPool([MemoryExporter()], use_memory=False, tmp_file=tmp_path)
    assert [] == list(tmp_path.iterdir())


def works_at(make_pool: MakePool, path: Path) -> None:
    """Keep and deliver a record there."""
    target = MemoryExporter("t", up=False)
    pool = make_pool([target], use_memory=False, tmp_file=path)
    assert not pool.has_unsent_data()
    assert pool.send("new")[0].kept
    target.up = True
    pool.send_unsent_data()
    assert ["new"] == target.got


def test_an_empty_file_is_adopted(make_pool: MakePool, tmp_path: Path) -> None:
    """An existing empty file, as `tempfile.mkstemp` leaves it, is adopted."""
    path = tmp_path / "kept"
    path.touch()
    works_at(make_pool, path)


@pytest.mark.parametrize("size", [256, 4096, 100_000])
def test_a_file_of_zeros_is_adopted(make_pool: MakePool, tmp_path: Path, size: int) -> None:
    """A file of zeros at least a header long is an interrupted creation and is adopted."""
    path = tmp_path / "kept"
    path.write_bytes(bytes(size))
    works_at(make_pool, path)


@pytest.mark.parametrize("size", [1, 4, 8, 12])
def test_the_beginning_of_a_header_is_adopted(make_pool: MakePool, tmp_path: Path, size: int) -> None:
    """A shorter file that begins as ours do is an interrupted creation and is adopted."""
    beginning = kept_file(tmp_path).read_bytes()[:size]
    for path in tmp_path.iterdir():
        path.unlink()
    path = tmp_path / "kept"
    path.write_bytes(beginning)
    works_at(make_pool, path)


@pytest.mark.parametrize(
    "content",
    [
        b"name,amount\nann,5\n",
        b"{}",
        b"\x80\x04K\x01.",
        b"x",
        b"SQLite format 3\x00" + bytes(4096),
        b"text of another program\n" * 10_000,
        bytes(4096) + b"x",
    ],
)
def test_something_else_is_refused_and_left_untouched(tmp_path: Path, content: bytes) -> None:
    """A file that is not ours raises InvalidConfigError, and not a byte of it changes."""
    path = tmp_path / "precious"
    path.write_bytes(content)
    with pytest.raises(rex.InvalidConfigError, match="precious"):
        rex.ExporterPool([MemoryExporter()], use_memory=False, tmp_file=path)
    assert content == path.read_bytes()


def test_a_file_object_with_something_else_is_refused_and_left_untouched() -> None:
    """A file object that holds something else is treated as a path is."""
    file = io.BytesIO(b"somebody's bytes" * 100)
    with pytest.raises(rex.InvalidConfigError):
        rex.ExporterPool([MemoryExporter()], use_memory=False, tmp_file=file)
    assert b"somebody's bytes" * 100 == file.getvalue()


def test_a_file_with_a_broken_header_but_good_frames_is_ours(make_pool: MakePool, tmp_path: Path) -> None:
    """A file whose header is destroyed is still ours when it holds a valid frame."""
    path = kept_file(tmp_path, records=5)
    content = bytearray(path.read_bytes())
    content[:8] = b"\xff" * 8
    path.write_bytes(bytes(content))
    make_pool([MemoryExporter("t")], use_memory=False, tmp_file=path)


DEFAULT = """
    target = MemoryExporter("t", up=sys.argv[1] == "up")
    pool = rex.ExporterPool([target], use_memory=False, name=sys.argv[2])
    before = pool.has_unsent_data()
    pool.send(sys.argv[1])
    tell([before, target.got])
    pool.close()
"""


def test_the_default_place_is_found_by_the_next_run(
    run_script: Callable[..., str], tmp_path: Path, state_home: Path
) -> None:
    """Without `tmp_file` the place is under the state folder, made of program and pool name."""
    assert [False, []] == json.loads(run_script(DEFAULT, "down", "north"))
    assert {"script.py"} == {path.name for path in tmp_path.iterdir()}
    assert [] != [path for path in state_home.rglob("*") if path.is_file()]
    assert [False, ["up"]] == json.loads(run_script(DEFAULT, "up", "south"))
    assert [True, ["down", "up"]] == json.loads(run_script(DEFAULT, "up", "north"))


def test_the_default_place_belongs_to_the_program(run_script: Callable[..., str], tmp_path: Path) -> None:
    """Another program with a pool of the same name has a place of its own."""
    run_script(DEFAULT, "down", "north")
    (tmp_path / "other.py").write_text((tmp_path / "script.py").read_text())
    told = subprocess.check_output([sys.executable, "other.py", "up", "north"], cwd=tmp_path)
    assert [False, ["up"]] == json.loads(told)


@pytest.mark.parametrize("name", ["../up", "a/b", "a b", "ünï", "x" * 300, "..", "con", "a:b", "a\nb"])
def test_any_pool_name_makes_a_place(make_pool: MakePool, state_home: Path, name: str) -> None:
    """The default place stays under the state folder whatever the pool's name is."""
    before = set(state_home.parent.iterdir())
    target = MemoryExporter("t", up=False)
    pool = make_pool([target], use_memory=False, name=name)
    assert pool.send(1)[0].kept
    pool.close()
    assert before == set(state_home.parent.iterdir())
    assert make_pool([target], use_memory=False, name=name).has_unsent_data()


def test_a_relative_path_is_fixed_when_the_pool_is_made(
    make_pool: MakePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changing the working folder later does not move the file."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    pool = make_pool([MemoryExporter(up=False)], use_memory=False, tmp_file="kept")
    monkeypatch.chdir(elsewhere)
    pool.send(1)
    assert (tmp_path / "kept").exists()
    assert [] == list(elsewhere.iterdir())


def test_a_missing_folder_does_not_stop_the_constructor(make_pool: MakePool, tmp_path: Path) -> None:
    """A place that is not there yet fails the keeping, not the building, and heals when it is there."""
    path = tmp_path / "later" / "kept"
    target, other = MemoryExporter("t", up=False), MemoryExporter("u")
    pool = make_pool([target, other], use_memory=False, tmp_file=path)
    result, fine = pool.send(1)
    assert ((None, False), (None, True)) == (result, fine)
    assert (False, True) == (result.kept, isinstance(result.error, rex.ResilientExporterException))
    path.parent.mkdir()
    assert pool.send(2)[0].kept
    target.up = True
    pool.send_unsent_data()
    assert [2] == target.got


def test_a_backup_beside_the_file_is_left_alone(make_pool: MakePool, tmp_path: Path) -> None:
    """Files that a user put beside `tmp_file` stay, whatever their names end in."""
    mine = [tmp_path / f"kept{ending}" for ending in (".copy", "-notes.copy", ".bak", ".old", ".1", ".tmp", ".new")]
    for path in mine:
        path.write_text("mine", encoding="utf-8")
    for _ in range(2):
        pool = make_pool([MemoryExporter("t", up=False)], use_memory=False, tmp_file=tmp_path / "kept")
        pool.send(1)
        pool.close()
    assert ["mine"] * len(mine) == [path.read_text(encoding="utf-8") for path in mine]
