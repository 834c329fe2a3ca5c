"""Closing a spool after a sync that failed tries it once more: opening cannot know that anything is in doubt."""

from __future__ import annotations

import errno
import logging

import pytest

from resilient_exporters.exceptions import SpoolError
from resilient_exporters.spool.filespool import FileSpool
from resilient_exporters.testing.tornfiles import TornFiles
from tests.spool.histories import held

PATH = "/disk/spool"


@pytest.fixture
def files() -> TornFiles:
    return TornFiles(page=64)


@pytest.fixture
def doubtful(files: TornFiles) -> FileSpool:
    """A spool with one record that neither a sync nor a new copy could make safe."""
    spool = FileSpool(PATH, files=files)
    spool.append([b"in doubt"], frozenset("a"), time=1.0)
    fail_all(files)
    with pytest.raises(SpoolError):
        spool.sync()
    files.heal()
    return spool


def fail_all(files: TornFiles) -> None:
    """Make all calls fail that come soon."""
    for call in range(len(files.calls), len(files.calls) + 50):
        files.fail_at(call, errno.EIO)


def left(files: TornFiles) -> set[int]:
    """How many records there may be after a power cut now."""
    found = set()
    for state in files.states():
        spool = FileSpool(PATH, files=state)
        found.add(len(held(spool, "a")))
        spool.close()
    return found


def test_closing_tries_again(files: TornFiles, doubtful: FileSpool) -> None:
    """What a failed sync has left in doubt is safe when the spool was closed and the disk works again."""
    assert {0, 1} == left(files)
    doubtful.close()
    assert {1} == left(files)


def test_closing_in_vain_is_told(files: TornFiles, doubtful: FileSpool, caplog: pytest.LogCaptureFixture) -> None:
    """When the disk still fails, closing does not, and the log says what a power cut may take."""
    fail_all(files)
    with caplog.at_level(logging.WARNING, logger="resilient_exporters"):
        doubtful.close()
    files.heal()
    assert "spool_closed_unsynced" in caplog.text
    assert {0, 1} == left(files)
