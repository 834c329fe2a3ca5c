"""FileExporter on real files: lines, rotation, torn ends, moved files, full disks, kills."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_exporters.exceptions import InvalidConfigError, RecordsRefused, TargetDown, TargetMisconfigured
from resilient_exporters.exporters.file import FileExporter
from resilient_exporters.records import Batch
from tests.exporters.handmade import made

MakeBatch = Callable[..., Batch]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "x"


def content(path: Path) -> str:
    """The text of a file, its newlines untouched."""
    return path.read_bytes().decode() if path.exists() else ""


def siblings(target: Path) -> list[str]:
    """What the numbered siblings hold, in the order of their numbers."""
    found = sorted(target.parent.glob(target.name + ".*"), key=lambda path: int(path.suffix[1:]))
    return [content(path) for path in found]


# Lines


def test_one_line_per_record(target: Path, batch: MakeBatch) -> None:
    """Text, bytes and data follow each other, a line each."""
    FileExporter(target).export(batch("a", "b\n", b"\xff", {"c": 1}, "\u00e9"))
    assert b'a\nb\n\xff\n{"c": 1}\n' + "\u00e9\n".encode() == target.read_bytes()


def test_appends(target: Path, batch: MakeBatch) -> None:
    """What is in the file stays, and so does what an earlier exporter wrote."""
    target.write_text("old\n")
    FileExporter(target).export(batch("a"))
    exporter = FileExporter(target)
    exporter.export(batch("b"))
    exporter.export(batch("c"))
    assert "old\na\nb\nc\n" == target.read_text()


def test_afresh_once(target: Path, batch: MakeBatch) -> None:
    """append=False empties the file at the first export, not when made, nor after a close."""
    target.write_text("old\n")
    exporter = FileExporter(target, append=False)
    assert "old\n" == target.read_text()
    exporter.export(batch("a"))
    exporter.close()
    exporter.close()
    exporter.export(batch("b"))
    assert "a\nb\n" == target.read_text()


def test_refused_alone(target: Path, batch: MakeBatch) -> None:
    """A record without a form is refused, the others are in the file."""
    with pytest.raises(RecordsRefused) as caught:
        FileExporter(target).export(batch("a", {"k": object()}, "c", "\ud800"))
    assert {1, 3} == caught.value.permanent.keys()
    assert not caught.value.later
    assert "data['k']: object" in caught.value.permanent[1]
    assert "a\nc\n" == target.read_text()


def test_one_write_per_batch(target: Path, batch: MakeBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is one write, so that lines of two processes never mix."""
    writes: list[int] = []
    real = os.write

    def counted(fd: int, data: Any) -> int:
        writes.append(len(data))
        return real(fd, data)

    monkeypatch.setattr(os, "write", counted)
    FileExporter(target).export(batch(*["x" * 99] * 500))
    assert [50_000] == writes


def test_torn_line_is_ended(target: Path, batch: MakeBatch) -> None:
    """What a crash left without a newline gets one before the next line."""
    target.write_bytes(b"whole\nhal")
    FileExporter(target).export(batch("next"))
    assert b"whole\nhal\nnext\n" == target.read_bytes()


def test_torn_by_another(target: Path, batch: MakeBatch) -> None:
    """A half line that another process left meanwhile is ended as well."""
    exporter = FileExporter(target)
    exporter.export(batch("a"))
    with target.open("ab") as other:
        other.write(b"hal")
    exporter.export(batch("b"))
    assert b"a\nhal\nb\n" == target.read_bytes()


def test_torn_line_ended_by_another(target: Path, batch: MakeBatch) -> None:
    """A half line that its writer completes meanwhile is one line, not two."""
    target.write_text("hal")
    exporter = FileExporter(target, max_lines=3)
    with pytest.raises(RecordsRefused):
        exporter.export(batch(object()))
    with target.open("ab") as other:
        other.write(b"f\nb\n")
    exporter.export(batch("c", first=2))
    assert "half\nb\nc\n" == target.read_text()


@pytest.mark.parametrize("gone", [os.unlink, lambda path: os.rename(path, f"{path}.moved")])
def test_made_anew(target: Path, batch: MakeBatch, gone: Callable[[Path], None]) -> None:
    """A file that was deleted or moved is made anew, and the old one gets nothing more."""
    exporter = FileExporter(target)
    exporter.export(batch("a"))
    gone(target)
    exporter.export(batch("b"))
    assert "b\n" == target.read_text()
    moved = target.with_name("x.moved")
    assert not moved.exists() or "a\n" == moved.read_text()


def test_truncated_by_another(target: Path, batch: MakeBatch) -> None:
    """After somebody emptied the file (copytruncate) lines start at its beginning, without a hole."""
    exporter = FileExporter(target, max_lines=2)
    exporter.export(batch("a", "b"))
    os.truncate(target, 0)
    exporter.export(batch("c", "d"))
    assert "c\nd\n" == target.read_text()
    assert [] == siblings(target)


def test_relative_path_is_fixed(tmp_path: Path, batch: MakeBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changing the working folder does not change the target."""
    monkeypatch.chdir(tmp_path)
    exporter = FileExporter("x")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    exporter.export(batch("a"))
    assert "a\n" == (tmp_path / "x").read_text()
    assert f"file:{tmp_path / 'x'}" == exporter.target_name()


# Arguments


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"target_file": ""}, "target_file is empty"),
        ({"target_file": "a\0b"}, "NUL"),
        ({"target_file": 3}, "target_file must be a path, not int"),
        ({"target_file": None}, "not NoneType"),
        ({"target_file": "x", "max_lines": 0}, "max_lines"),
        ({"target_file": "x", "max_lines": True}, "max_lines"),
        ({"target_file": "x", "max_lines": 1.5}, "max_lines"),
        ({"target_file": "x", "append": "no"}, "append"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], named: str) -> None:
    """A wrong argument is named when the exporter is made."""
    with pytest.raises(InvalidConfigError, match=named):
        FileExporter(**arguments)


def test_made_without_touching_the_target(tmp_path: Path) -> None:
    """Making an exporter looks at nothing, whether or not the folder is there."""
    FileExporter(tmp_path / "absent" / "x", append=False)
    FileExporter(tmp_path / "x")
    assert [] == list(tmp_path.iterdir())


# Rotation


def test_oldest_go_to_numbered_siblings(target: Path, batch: MakeBatch) -> None:
    """The file never has more lines than allowed; x.1 is the oldest sibling, and nothing is lost."""
    exporter = FileExporter(target, max_lines=3)
    for first in range(0, 10, 2):
        exporter.export(batch(str(first), str(first + 1)))
        assert len(target.read_text().splitlines()) <= 3
    assert ["0\n1\n2\n", "3\n4\n5\n", "6\n7\n8\n"] == siblings(target)
    assert "9\n" == target.read_text()


def test_exactly_full_stays(target: Path, batch: MakeBatch) -> None:
    """A file with as many lines as allowed stays until one more comes."""
    exporter = FileExporter(target, max_lines=2)
    exporter.export(batch("a", "b"))
    assert [] == siblings(target)
    exporter.export(batch("c"))
    assert ["a\nb\n"] == siblings(target)


def test_longer_file_from_before(target: Path, batch: MakeBatch) -> None:
    """A file that has too many lines already goes aside as a whole, a torn last line ended."""
    target.write_text("1\n2\n3\n4\nhal")
    FileExporter(target, max_lines=2).export(batch("a"))
    assert ["1\n2\n3\n4\nhal\n"] == siblings(target)
    assert "a\n" == target.read_text()


def test_torn_line_counts(target: Path, batch: MakeBatch) -> None:
    """A line without an end is a line."""
    target.write_text("1\nhal")
    exporter = FileExporter(target, max_lines=3)
    exporter.export(batch("a"))
    assert "1\nhal\na\n" == target.read_text()
    exporter.export(batch("b"))
    assert ["1\nhal\na\n"] == siblings(target)


def test_numbers_go_on_after_a_restart(target: Path, batch: MakeBatch) -> None:
    """Existing siblings are never overwritten, not even those that are in the way by accident."""
    target.with_name("x.9").write_text("nine\n")
    target.with_name("x.gz").write_text("other\n")
    FileExporter(target, max_lines=1).export(batch("a", "b"))
    exporter = FileExporter(target, max_lines=1)
    exporter.export(batch("c"))
    target.with_name("x.12").write_text("twelve\n")
    exporter.export(batch("d"))
    texts = {path.name: path.read_text() for path in target.parent.iterdir()}
    expected = {"x.9": "nine\n", "x.10": "a\n", "x.11": "b\n", "x.12": "twelve\n", "x.13": "c\n"}
    assert {**expected, "x": "d\n", "x.gz": "other\n"} == texts


def test_record_of_many_lines(target: Path, batch: MakeBatch) -> None:
    """A record with more lines than allowed is not split but has a file of its own."""
    FileExporter(target, max_lines=2).export(batch("a", "1\n2\n3", "b"))
    assert ["a\n", "1\n2\n3\n"] == siblings(target)
    assert "b\n" == target.read_text()


@given(
    st.lists(st.lists(st.text(st.characters(codec="ascii"), max_size=4), max_size=6), max_size=6),
    st.integers(1, 5),
    st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_none_lost(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[str]], max_lines: int, reopen: list[bool]
) -> None:
    """Siblings and file together are what an unbounded file would hold, in order, and the bound holds."""
    target = tmp_path_factory.mktemp("rotation") / "x"
    exporter = FileExporter(target, max_lines=max_lines)
    for texts, again in zip(batches, reopen, strict=False):
        if again:
            exporter = FileExporter(target, max_lines=max_lines)
        exporter.export(made(*texts))
    parts = [*siblings(target), content(target)]
    sent = [text if text.endswith("\n") else text + "\n" for texts in batches for text in texts]
    assert "".join(sent) == "".join(parts)
    assert all(part.count("\n") <= max_lines or part in sent for part in parts)
    assert all(parts[:-1])


@pytest.mark.parametrize("step", ["replace", "open"])
def test_kill_while_moving_aside(target: Path, batch: MakeBatch, step: str) -> None:
    """A kill before the rename, or between it and the new file, loses nothing and the next run goes on."""
    script = (
        "import os, sys\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from tests.exporters.handmade import made\n"
        "from resilient_exporters.exporters.file import FileExporter\n"
        "exporter = FileExporter(sys.argv[1], max_lines=2)\n"
        "exporter.export(made('a', 'b'))\n"
        "def die(*args): os.kill(os.getpid(), 9)\n"
        "if sys.argv[3] == 'replace': os.replace = die\n"
        "else:\n"
        "    real = os.replace\n"
        "    def replace(*args): real(*args); die()\n"
        "    os.replace = replace\n"
        "exporter.export(made('c'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(target), str(Path(__file__).parents[2]), step], check=False
    )
    assert -signal.SIGKILL == done.returncode
    FileExporter(target, max_lines=2).export(batch("c"))
    assert "a\nb\n" == "".join(siblings(target))
    assert "c\n" == target.read_text()


def test_rename_fails(target: Path, batch: MakeBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the file cannot be moved aside, what was written before comes not again and no empty sibling stays."""
    exporter = FileExporter(target, max_lines=2)
    work = batch("a", "b", "c", "d", "e")
    real = os.replace

    def refuse(source: str, sibling: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", refuse)
    for _ in range(2):
        with pytest.raises(TargetDown, match="Input/output error"):
            exporter.export(work)
    assert "a\nb\n" == target.read_text()
    assert [] == siblings(target)
    monkeypatch.setattr(os, "replace", real)
    exporter.export(batch("a"))
    exporter.export(batch("b", "c", "d", "e", first=2))
    assert ["a\nb\n", "c\nd\n"] == siblings(target)
    assert "e\n" == target.read_text()


def test_what_was_skipped_is_forgotten(target: Path, batch: MakeBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """An id that came again is skipped once only: the memory of a failed batch does not grow for ever."""
    exporter = FileExporter(target, max_lines=1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *args: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
        with pytest.raises(TargetDown):
            exporter.export(batch("a", "b"))
    exporter.export(batch("a", "b"))
    assert ["a\n"] == siblings(target)
    exporter.export(batch("a"))
    assert ["a\n", "b\n"] == siblings(target)


# What goes wrong


def test_absent_folder_heals(tmp_path: Path, batch: MakeBatch) -> None:
    """A share that is not mounted is down, and the same exporter writes as soon as it is there."""
    exporter = FileExporter(tmp_path / "share" / "x")
    with pytest.raises(TargetDown, match="No such file or directory"):
        exporter.export(batch("a"))
    (tmp_path / "share").mkdir()
    exporter.export(batch("a"))
    assert "a\n" == (tmp_path / "share" / "x").read_text()


@pytest.mark.parametrize("kind", ["mkdir", "mkfifo"])
def test_not_a_file(target: Path, batch: MakeBatch, kind: str) -> None:
    """A folder or a pipe in place of the file is a matter of configuration."""
    if not hasattr(os, kind):
        pytest.skip(f"no {kind} here")
    getattr(os, kind)(target)
    with pytest.raises(TargetMisconfigured, match="cannot write to"):
        FileExporter(target).export(batch("a"))


def test_file_in_place_of_the_folder(target: Path, batch: MakeBatch) -> None:
    """A parent that is a file is a matter of configuration."""
    target.touch()
    with pytest.raises(TargetMisconfigured):
        FileExporter(target / "y").export(batch("a"))


def test_name_too_long(tmp_path: Path, batch: MakeBatch) -> None:
    """A name that no file can have is a matter of configuration."""
    with pytest.raises(TargetMisconfigured):
        FileExporter(tmp_path / ("x" * 300)).export(batch("a"))


@pytest.mark.parametrize(("exists", "verdict"), [(True, TargetMisconfigured), (False, TargetDown)])
def test_permission(
    target: Path, batch: MakeBatch, monkeypatch: pytest.MonkeyPatch, exists: bool, verdict: type[Exception]
) -> None:
    """Denied on an existing file is a matter of configuration; an empty mount point that only root may write is not."""

    def deny(*args: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    if exists:
        target.touch()
    monkeypatch.setattr(os, "open", deny)
    with pytest.raises(verdict, match="Permission denied"):
        FileExporter(target).export(batch("a"))


def test_short_write_is_taken_back(target: Path, batch: MakeBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """When only a part of a batch found room, that part is cut off again."""
    exporter = FileExporter(target)
    exporter.export(batch("first"))
    real = os.write
    calls: list[int] = []

    def short(fd: int, data: Any) -> int:
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, bytes(data)[:7])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", short)
        with pytest.raises(TargetDown, match="No space left"):
            exporter.export(batch("second", "third"))
    assert "first\n" == target.read_text()
    exporter.export(batch("second", "third"))
    assert "first\nsecond\nthird\n" == target.read_text()


def test_short_write_and_another_writer(target: Path, batch: MakeBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another process wrote behind a half batch is not cut off with it."""
    exporter = FileExporter(target)
    real = os.write
    calls: list[int] = []

    def short(fd: int, data: Any) -> int:
        calls.append(len(data))
        if len(calls) > 1:
            with target.open("ab") as other:
                other.write(b"other\n")
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, bytes(data)[:3])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", short)
        with pytest.raises(TargetDown):
            exporter.export(batch("second"))
    exporter.export(batch("second"))
    assert "secother\nsecond\n" == target.read_text()


def test_full_disk(small_disk: Path, batch: MakeBatch) -> None:
    """On a full disk nothing of a batch stays behind, and it goes on when there is room."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 40_000)
    target = small_disk / "x"
    exporter = FileExporter(target)
    exporter.export(batch("first"))
    with pytest.raises(TargetDown, match="No space left"):
        exporter.export(batch(*["y" * 999] * 60))
    assert "first\n" == target.read_text()
    ballast.unlink()
    exporter.export(batch(*["y" * 999] * 30))
    assert "first\n" + ("y" * 999 + "\n") * 30 == target.read_text()


def test_full_disk_while_rotating(small_disk: Path, batch: MakeBatch) -> None:
    """A disk that fills up in the middle of a rotated batch doubles nothing and loses nothing."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 30_000)
    target = small_disk / "x"
    exporter = FileExporter(target, max_lines=4)
    lines = [str(i).rjust(1999) for i in range(20)]
    with pytest.raises(TargetDown, match="No space left"):
        exporter.export(batch(*lines))
    assert 0 < len(siblings(target))
    ballast.unlink()
    exporter.export(batch(*lines))
    assert lines == ("".join(siblings(target)) + target.read_text()).splitlines()


def test_survives_kill(target: Path) -> None:
    """Every batch whose export returned is in the file after kill -9."""
    script = (
        "import os, sys\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from tests.exporters.handmade import made\n"
        "from resilient_exporters.exporters.file import FileExporter\n"
        "exporter = FileExporter(sys.argv[1])\n"
        "for i in range(200): exporter.export(made(i, i))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(target), str(Path(__file__).parents[2])], check=False)
    assert -signal.SIGKILL == done.returncode
    assert [str(i // 2) for i in range(400)] == target.read_text().split()
