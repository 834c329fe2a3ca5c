"""Fixtures of the contract tests: pools that are closed again, scripts in processes of their own, small disks."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters as rex
from tests.balance import hold_to_accounts

PRELUDE = """
import json, os, signal, sys, threading, time
import resilient_exporters as rex
from resilient_exporters.testing import MemoryBatchExporter, MemoryExporter

def die():
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)

def tell(value):
    print(json.dumps(value), flush=True)
"""


@pytest.fixture(scope="session", autouse=True)
def short_collections() -> None:
    """Keeps what the test tools hold out of garbage collections: a long one in an attempt would pace its target."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def accounts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pool that is closed in a test accounts for each record sent to it, in ways that can be counted."""
    if request.node.get_closest_marker("uncounted") is None:
        hold_to_accounts(monkeypatch)


@pytest.fixture
def make_pool(accounts: None) -> Iterator[Callable[..., rex.ExporterPool]]:
    """Makes pools as `ExporterPool` does, and closes them at the end of the test."""
    with ExitStack() as stack:

        def make(*args: Any, **kwargs: Any) -> rex.ExporterPool:
            pool = rex.ExporterPool(*args, **kwargs)
            stack.callback(pool.close, timeout=0.0)
            return pool

        yield make


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., str]:
    """Runs a script in a new interpreter in `tmp_path` and gives what it printed.

    `killed=True` expects it to end by kill -9 of itself; `stderr=True` gives what it printed there, too.
    """

    def run(source: str, *args: object, killed: bool = False, stderr: bool = False, timeout: float = 120.0) -> str:
        text = PRELUDE + textwrap.dedent(source)
        script = tmp_path / "script.py"
        script.write_text(text, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, str(script), *map(str, args)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        expected = -signal.SIGKILL if killed else 0
        assert expected == done.returncode, done.stdout + done.stderr
        return done.stdout + done.stderr if stderr else done.stdout

    return run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts an empty file system of the size given ("64k") and gives its folder; needs root on Linux."""
    with ExitStack() as stack:

        def mount(size: str) -> Path:
            if not sys.platform.startswith("linux") or os.geteuid() != 0:
                pytest.skip("a small file system needs root on Linux")
            folder = tmp_path / f"disk-{size}"
            folder.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"cannot mount: {done.stderr.strip()}")
            stack.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)
            return folder

        yield mount
