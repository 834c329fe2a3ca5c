"""Batches made by hand, and places that behave badly."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resilient_exporters.records import Batch
from tests.balance import hold_to_accounts
from tests.exporters.handmade import made


@pytest.fixture(autouse=True)
def accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pool that is closed in a test accounts for each record sent to it."""
    hold_to_accounts(monkeypatch)


@pytest.fixture
def batch() -> Callable[..., Batch]:
    """Makes batches by hand."""
    return made


@pytest.fixture
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 64 KiB, or as many as the test asks for."""
    folder = tmp_path / "small"
    folder.mkdir()
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    command = ["mount", "-t", "tmpfs", "-o", f"size={getattr(request, 'param', 64)}k", "tmpfs", str(folder)]
    mount = subprocess.run(command, capture_output=True, check=False)
    if mount.returncode:
        pytest.skip(f"mounting is not allowed here: {mount.stderr.decode()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
