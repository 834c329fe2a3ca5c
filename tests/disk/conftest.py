"""Small file systems that are really full, for the tests of what happens then."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest


def unavailable(reason: str) -> None:
    """Skip where this cannot be tested; where everything is to be tested, fail."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts an empty file system of so many bytes and gives its folder."""
    with ExitStack() as stack:

        def mounted(size: int) -> Path:
            if not sys.platform.startswith("linux") or os.geteuid() != 0:
                unavailable("a small file system needs root on Linux")
            folder = tmp_path / f"disk-{size}"
            folder.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                unavailable(f"cannot mount: {done.stderr.strip()}")
            stack.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)
            return folder

        yield mounted
