"""Batches that are pinned: every spool remembers the bounds until one of the records is settled."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from resilient_exporters.spool.backed import BackedSpool
from resilient_exporters.spool.filespool import FileSpool
from resilient_exporters.spool.interface import Fate, Spool
from resilient_exporters.spool.memory import MemorySpool
from resilient_exporters.spool.stream import StreamSpool
from tests.spool.spooling import keep

LASTING = ["file", "object"]


@pytest.fixture
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Spool]:
    """Opens a spool of a kind, the same one each time."""
    file = io.BytesIO()
    kinds: dict[str, Callable[[], Spool]] = {
        "memory": MemorySpool,
        "file": lambda: FileSpool(tmp_path / "kept"),
        "object": lambda: StreamSpool(file),
    }
    return kinds[request.param]


@pytest.mark.parametrize("opener", ["memory", *LASTING], indirect=True)
def test_pinned_until_one_is_settled(opener: Callable[[], Spool]) -> None:
    """A batch is pinned for its lane alone, until one of its records is settled."""
    spool = opener()
    keep(spool, b"0", b"1", b"2", b"3", lanes=frozenset({"a", "b"}))
    assert spool.pinned("a") is None
    spool.pin("a", [1, 2, 3])
    assert [1, 2, 3] == spool.pinned("a")
    assert spool.pinned("b") is None
    spool.settle("a", [4], Fate.DELIVERED)
    spool.settle("b", [1], Fate.DELIVERED)
    assert [1, 2, 3] == spool.pinned("a")
    spool.settle("a", [2], Fate.DROPPED)
    assert spool.pinned("a") is None
    spool.close()


@pytest.mark.parametrize("opener", LASTING, indirect=True)
def test_opened_again_it_is_pinned(opener: Callable[[], Spool]) -> None:
    """Closed and opened again the batch is pinned, holes included; after its settlement it is not."""
    spool = opener()
    keep(spool, b"0", b"1", b"2", b"3")
    spool.settle("a", [2], Fate.DELIVERED)
    spool.pin("a", [1])
    spool.pin("a", [1, 3])
    spool.close()
    spool = opener()
    assert [1, 3] == spool.pinned("a")
    spool.settle("a", [1, 3], Fate.DELIVERED)
    assert spool.pinned("a") is None
    spool.close()
    spool = opener()
    assert spool.pinned("a") is None
    spool.close()


def test_a_state_written_anew_says_so_too(tmp_path: Path) -> None:
    """The pinned batch outlives the state file being written anew, again and again."""
    spool = FileSpool(tmp_path / "kept")
    keep(spool, b"0", b"1")
    spool.pin("a", [1, 2])
    spool.close()
    for _ in range(3):
        spool = FileSpool(tmp_path / "kept")
        spool.settle("b", [1], Fate.DELIVERED)
        assert [1, 2] == spool.pinned("a")
        spool.close()


def test_in_memory_the_file_behind_it_is_told(tmp_path: Path) -> None:
    """What a memory spool holds along with a file is pinned in the file, at the places that it has there."""
    file = FileSpool(tmp_path / "kept")
    keep(file, b"0", b"1", b"2")
    file.settle("a", [1], Fate.DELIVERED)
    spool = BackedSpool(file)
    keep(spool, b"1", b"2")
    spool.loaded([2, 3])
    spool.pin("a", [1, 2])
    assert [2, 3] == file.pinned("a")
    spool.close()
