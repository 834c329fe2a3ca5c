"""A file object as a spool: it is sought, written, flushed and emptied, never closed."""

from __future__ import annotations

import errno
import io
import os
import tempfile
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from resilient_exporters.exceptions import InvalidConfigError, PoolClosed, SpoolError, SpoolFull, SpoolInUse
from resilient_exporters.spool import StreamSpool
from resilient_exporters.spool.files import Files
from tests.spool.spooling import AB, A, held, keep, settle


def test_it_is_emptied_when_nothing_is_owed() -> None:
    """After the last settlement the file is empty, and is used again."""
    file = io.BytesIO()
    spool = StreamSpool(file)
    assert file.getvalue() == b""
    for _ in range(3):
        keep(spool, b"one", b"two", lanes=AB)
        settle(spool, "a", [b"one", b"two"])
        assert file.getvalue() != b""
        settle(spool, "b", [b"one", b"two"])
        assert file.getvalue() == b""
    spool.close()
    assert not file.closed


def test_it_is_adopted_by_the_next() -> None:
    """Records and what lanes settled are in the one file."""
    file = io.BytesIO()
    spool = StreamSpool(file)
    keep(spool, b"one", b"two", b"three", lanes=AB)
    settle(spool, "a", [b"one"])
    part = spool.read("b", 0, 1, 100)
    assert part is not None
    spool.bury("b", part, {0: "no"}, 2)
    spool.close()
    spool = StreamSpool(file)
    assert (held(spool), held(spool, "b")) == ([b"two", b"three"], [b"two", b"three"])
    assert [(letter.payload, letter.reason) for letter in spool.dead_letters()] == [(b"one", "no")]
    settle(spool, "a", [b"two", b"three"])
    settle(spool, "b", [b"two", b"three"])
    assert file.getvalue() != b""
    spool.forget_dead([letter.key for letter in spool.dead_letters()])
    assert file.getvalue() == b""
    spool.close()


def test_a_real_file_is_flushed_and_never_closed(tmp_path: Path) -> None:
    """Each append is in the file when it returns; others may move its position."""
    with open(tmp_path / "f", "w+b") as file:
        spool = StreamSpool(file)
        keep(spool, b"one")
        size = (tmp_path / "f").stat().st_size
        assert size > 24
        file.seek(3)
        keep(spool, b"two")
        assert (tmp_path / "f").stat().st_size == size + 27
        spool.sync()
        assert held(spool) == [b"one", b"two"]
        spool.close()
        assert not file.closed
    assert os.listdir(tmp_path) == ["f"]


def test_an_unbuffered_temporary_file() -> None:
    """A raw file may take part of a write only, and works as well."""
    with tempfile.TemporaryFile(buffering=0) as file:
        spool = StreamSpool(cast("BinaryIO", file))
        keep(spool, b"x" * 100_000, b"y")
        assert held(spool) == [b"x" * 100_000, b"y"]
        spool.close()


def test_file_objects_that_cannot_serve(tmp_path: Path) -> None:
    """Text, read-only, write-only, append mode, pipes and closed ones are refused, and nothing is written."""
    (tmp_path / "f").write_bytes(b"")
    for mode in ("rb", "wb", "ab", "a+b", "w+"):
        with open(tmp_path / "f", mode) as file, pytest.raises(InvalidConfigError):
            StreamSpool(cast("BinaryIO", file))
    closed = io.BytesIO()
    closed.close()
    with pytest.raises(InvalidConfigError):
        StreamSpool(closed)
    with pytest.raises(InvalidConfigError):
        StreamSpool(cast("BinaryIO", object()))
    assert (tmp_path / "f").read_bytes() == b""


@pytest.mark.parametrize("content", [b"text of the user's", bytes(100) + b"text", b"\0"])
def test_something_else_is_refused_and_untouched(content: bytes) -> None:
    """As with paths."""
    file = io.BytesIO(content)
    with pytest.raises(InvalidConfigError, match="untouched"):
        StreamSpool(file)
    assert file.getvalue() == content


def test_one_holder() -> None:
    """The same object serves one spool at a time."""
    file = io.BytesIO()
    spool = StreamSpool(file, owner="pool orders")
    with pytest.raises(SpoolInUse, match="pool orders"):
        StreamSpool(file)
    spool.close()
    with pytest.raises(PoolClosed):
        keep(spool, b"x")
    spool = StreamSpool(file)
    del spool
    StreamSpool(file).close()


def test_an_object_that_was_closed_under_it() -> None:
    """Appending raises the library's error."""
    file = io.BytesIO()
    spool = StreamSpool(file)
    keep(spool, b"x")
    file.close()
    with pytest.raises(SpoolError):
        keep(spool, b"y")
    spool.close()


def test_a_torn_append_is_cut_off() -> None:
    """What a killed process left half-written is not damage."""
    file = io.BytesIO()
    spool = StreamSpool(file)
    keep(spool, b"one", b"two")
    spool.close()
    file.truncate(len(file.getvalue()) - 2)
    spool = StreamSpool(file)
    assert (held(spool), spool.damage) == ([b"one"], (0, 0))
    keep(spool, b"three")
    assert held(spool) == [b"one", b"three"]
    spool.close()


def test_the_budget() -> None:
    """What is owed counts, and dropping the oldest makes room."""
    spool = StreamSpool(io.BytesIO(), limit_bytes=2000)
    with pytest.raises(SpoolFull):
        for number in range(100):
            spool.append([b"%03d" % number * 30], A, time=1.5)
    before = held(spool)
    assert spool.drop_oldest(200) == {"a": 2}
    assert held(spool) == before[2:]
    keep(spool, b"new")
    spool.close()


def test_a_failing_sync_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a sync left in doubt is written again in the same file object: nothing appears where the process works."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    sync, failures = Files.sync, [True, True, False]

    def failing(self: Files, handle: int) -> None:
        if failures and failures.pop():
            raise OSError(errno.EIO, "Input/output error")
        sync(self, handle)

    with open(tmp_path / "f", "w+b") as file:
        spool = StreamSpool(file)
        keep(spool, b"one")
        monkeypatch.setattr(Files, "sync", failing)
        failures.reverse()
        with pytest.raises(SpoolError):
            spool.append([b"two"], A, time=1.0, sync=True)
        spool.append([b"three"], A, time=1.0, sync=True)
        assert held(spool) == [b"one", b"three"]
        spool.close()
    assert os.listdir(here) == []
    assert sorted(os.listdir(tmp_path)) == ["f", "here"]
