"""The file double behaves as the real system while nothing fails, and forgets what a power cut may make it forget."""

from __future__ import annotations

import errno
import inspect
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient_exporters.spool.files import Files
from resilient_exporters.testing.tornfiles import TornFiles


def left(files: TornFiles, path: str = "/d/f") -> set[bytes | None]:
    """Every content of a file that a power cut may leave; None where the file is not there."""
    return {state.contents().get(path) for state in files.states()}


def durable(content: bytes, page: int = 4) -> tuple[TornFiles, int]:
    """A file that was there all along, and a handle of it."""
    files = TornFiles({"/d/f": content}, page=page)
    return files, files.open("/d/f")


def test_every_call_is_doubled() -> None:
    """No method of `Files` reaches the real system through the double."""
    public = {name for name, _ in inspect.getmembers(Files, inspect.isfunction) if not name.startswith("_")}
    assert public <= set(vars(TornFiles))


Step = tuple[str, int, int, bytes]
STEPS = st.tuples(
    st.sampled_from(
        ["create", "open", "pwrite", "pread", "truncate", "allocate", "rename", "unlink", "siblings", "size"]
    ),
    st.integers(0, 2),
    st.integers(0, 30),
    st.binary(max_size=12),
)


def do(files: Files, folder: str, handles: dict[int, int], step: Step) -> object:
    """One step; what it answers, or the number of its error."""
    what, which, number, data = step
    path, other = f"{folder}/spool{which or ''}", f"{folder}/spool{number % 3 or ''}"
    handle = handles.get(which, -1)
    calls: dict[str, Callable[[], object]] = {
        "create": lambda: files.open(path, create=True),
        "open": lambda: files.open(path),
        "pwrite": lambda: files.pwrite(handle, data, number),
        "pread": lambda: files.pread(handle, 10, number),
        "truncate": lambda: files.truncate(handle, number),
        "allocate": lambda: files.allocate(handle, number),
        "rename": lambda: files.rename(path, other),
        "unlink": lambda: files.unlink(path),
        "siblings": lambda: files.siblings(f"{folder}/spool"),
        "size": lambda: files.size(handle),
    }
    try:
        answer = calls[what]()
    except OSError as error:
        return error.errno
    if what in ("create", "open"):
        if which in handles:
            files.close(handles[which])
        assert isinstance(answer, int)
        handles[which] = answer
        return None
    return answer


@settings(max_examples=100, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_it_answers_as_the_real_system(tmp_path_factory: pytest.TempPathFactory, steps: list[Step]) -> None:
    """The same calls, on the double and on a real folder, give the same answers and the same files."""
    folder = str(tmp_path_factory.mktemp("real"))
    real, torn = Files(), TornFiles()
    real_handles: dict[int, int] = {}
    torn_handles: dict[int, int] = {}
    try:
        for step in steps:
            assert do(real, folder, real_handles, step) == do(torn, "/d", torn_handles, step)
    finally:
        for handle in real_handles.values():
            real.close(handle)
    found = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    assert {os.path.basename(path): content for path, content in torn.contents().items()} == found


def test_pages_are_lost_one_by_one() -> None:
    """A write across pages may be kept, lost, or torn in any way at page borders."""
    files, handle = durable(b"aaaabbbb")
    files.pwrite(handle, b"AABB", 2)
    assert left(files) == {b"aaaabbbb", b"aaAABBbb", b"aaaaBBbb", b"aaAAbbbb"}


def test_the_length_is_kept_or_lost_on_its_own() -> None:
    """A file may be longer on the disk while its new pages are still zeros, or shorter although they are written."""
    files, handle = durable(b"aaaa")
    files.pwrite(handle, b"bbbb", 4)
    assert left(files) == {b"aaaa", b"aaaabbbb", b"aaaa\0\0\0\0"}


def test_later_writes_may_be_kept_without_earlier_ones() -> None:
    """The system writes pages back in any order."""
    files, handle = durable(b"aaaabbbb")
    files.pwrite(handle, b"1", 0)
    files.pwrite(handle, b"2", 4)
    assert b"aaaa2bbb" in left(files)
    files.pwrite(handle, b"3", 1)
    assert b"1aaabbbb" in left(files)
    assert b"a3aabbbb" not in left(files)


def test_a_truncated_file_may_be_long_again() -> None:
    """Cutting a file is as little durable as lengthening it."""
    files, handle = durable(b"aaaabbbb")
    files.truncate(handle, 2)
    assert {b"aaaabbbb", b"aa"} <= left(files)
    files.sync(handle)
    assert left(files) == {b"aa"}


def test_what_was_synced_is_kept() -> None:
    """After a sync there is one state; what is written later may be lost again, back to that."""
    files, handle = durable(b"aaaa")
    files.pwrite(handle, b"bbbb", 0)
    files.sync(handle)
    assert left(files) == {b"bbbb"}
    files.pwrite(handle, b"cccc", 0)
    assert left(files) == {b"bbbb", b"cccc"}


def test_a_failed_sync_spoils_later_ones() -> None:
    """What was dirty at a failed sync is never saved by a later sync, unless it is written again."""
    files, handle = durable(b"aaaabbbb")
    files.pwrite(handle, b"AAAABBBB", 0)
    files.fail_at(len(files.calls), errno.EIO)
    with pytest.raises(OSError, match="error"):
        files.sync(handle)
    files.sync(handle)
    assert left(files) == {b"aaaabbbb", b"AAAABBBB", b"aaaaBBBB", b"AAAAbbbb"}
    files.pwrite(handle, b"A", 0)
    files.sync(handle)
    assert left(files) == {b"AAAABBBB", b"AAAAbbbb"}


def test_names_last_from_the_sync_of_their_folder() -> None:
    """A new name, a rename and an unlink may be forgotten, later ones before earlier ones."""
    files, handle = durable(b"old")
    files.rename("/d/f", "/d/g")
    new = files.open("/d/f", create=True)
    files.pwrite(new, b"new", 0)
    files.sync(new)
    files.sync(handle)
    states = [dict(sorted(state.contents().items())) for state in files.states()]
    assert states == [{"/d/f": b"old"}, {"/d/g": b"old"}, {"/d/f": b"new", "/d/g": b"old"}]
    files.sync_dir("/d")
    files.unlink("/d/g")
    assert [sorted(state.contents()) for state in files.states()] == [["/d/f", "/d/g"], ["/d/f"]]


def test_random_states_are_legal_and_all_of_them_come() -> None:
    """Chance draws only states that `states` has, and sooner or later each of them."""
    files, handle = durable(b"aaaabbbb")
    files.pwrite(handle, b"1" * 10, 1)
    files.unlink("/d/f")
    files.pwrite(files.open("/d/f", create=True), b"new", 0)
    rng = random.Random(1)
    drawn = {files.random_state(rng).contents().get("/d/f") for _ in range(1000)}
    assert drawn == left(files)


def test_an_earlier_cut_knows_nothing_of_later_operations() -> None:
    """States after n operations are those there were at that time; a kill at that time keeps all that was written."""
    files, handle = durable(b"aaaa")
    files.pwrite(handle, b"b", 0)
    then, at = left(files), files.operations
    files.sync(handle)
    files.pwrite(handle, b"c", 0)
    assert {state.contents()["/d/f"] for state in files.states(at)} == then
    assert files.killed(at).contents() == {"/d/f": b"baaa"}
    assert files.cuts() == [at, at + 2]


def test_a_cut_between_syncs_brings_nothing_new() -> None:
    """Every state of a cut at any moment is one of a cut at a moment that `cuts` names."""
    files, handle = durable(b"aaaa")
    for number in range(3):
        files.pwrite(handle, b"%d" % number * 3, number)
    files.sync(handle)
    files.pwrite(handle, b"x", 6)
    files.rename("/d/f", "/d/g")
    files.sync_dir("/d")

    def after(cut: int) -> set[tuple[tuple[str, bytes], ...]]:
        return {tuple(state.contents().items()) for state in files.states(cut)}

    worth = set().union(*map(after, files.cuts()))
    assert all(after(cut) <= worth for cut in range(files.operations + 1))


def test_any_call_can_fail() -> None:
    """A failing call has no effect; a short write has a part of it, with or without an error."""
    files, handle = durable(b"aaaa")
    files.fail_at(len(files.calls), errno.ENOSPC)
    with pytest.raises(OSError, match="space"):
        files.pwrite(handle, b"bbbb", 0)
    assert files.contents()["/d/f"] == b"aaaa"
    files.fail_at(len(files.calls), 0, taken=1)
    assert files.pwrite(handle, b"bbbb", 0) == 1
    files.fail_at(len(files.calls), errno.ENOSPC, taken=2)
    with pytest.raises(OSError, match="space"):
        files.pwrite(handle, b"cccc", 0)
    assert files.contents()["/d/f"] == b"ccaa"
    files.fail_at(len(files.calls), errno.EIO)
    with pytest.raises(OSError, match="error"):
        files.rename("/d/f", "/d/g")
    assert list(files.contents()) == ["/d/f"]


def test_locks_belong_to_handles() -> None:
    """A second handle gets no lock before the first is closed; a copy after a crash is not locked."""
    files = TornFiles()
    first, second = files.open_lock("/d/lock"), files.open_lock("/d/lock")
    assert files.lock(first)
    assert not files.lock(second)
    copy = files.killed()
    assert copy.lock(copy.open_lock("/d/lock"))
    files.close(first)
    assert files.lock(second)
