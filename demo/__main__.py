"""Directs the demonstration: starts sender and receiver, makes trouble, and audits the targets in the end."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from demo.audit import TARGETS, audit, keys_sent

__all__ = ["main"]

_END = 40.0
"""Seconds after the start of the last act at which the sender must have ended; far above what it needs."""


class _Stage:
    """The processes, and the things that can be done to them.

    Args:
        folder: Where everything is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._sessions = 0
        self.receiver = self._start_receiver()
        self.sender = self._start_sender()

    def _python(self, *arguments: str) -> subprocess.Popen[bytes]:
        root = Path(__file__).parents[1]
        with open(self.folder / "log.txt", "ab") as log:
            return subprocess.Popen([sys.executable, "-m", *arguments], cwd=root, stdout=log, stderr=log)

    def _start_receiver(self) -> subprocess.Popen[bytes]:
        return self._python("demo.receiver", str(self._port), str(self.folder / "received.ndjson"))

    def _start_sender(self) -> subprocess.Popen[bytes]:
        self._sessions += 1
        url = f"http://127.0.0.1:{self._port}/readings"
        return self._python("demo.sender", str(self.folder), str(self._sessions), url)

    def kill_sender(self) -> None:
        """As `kill -9`, in the midst of whatever it does."""
        self.sender.kill()
        self.sender.wait()

    def restart_sender(self) -> None:
        self.sender = self._start_sender()

    def kill_receiver(self) -> None:
        self.receiver.kill()
        self.receiver.wait()

    def restart_receiver(self) -> None:
        self.receiver = self._start_receiver()

    def freeze_receiver(self) -> None:
        """It accepts connections and never answers."""
        os.kill(self.receiver.pid, signal.SIGSTOP)

    def thaw_receiver(self) -> None:
        os.kill(self.receiver.pid, signal.SIGCONT)

    def hang_function(self) -> None:
        (self.folder / "hang").touch()

    def free_function(self) -> None:
        (self.folder / "hang").unlink()

    def ask_to_stop(self) -> None:
        (self.folder / "stop").touch()

    def clear(self) -> None:
        """End what still runs."""
        for process in (self.sender, self.receiver):
            process.kill()
            process.wait()


def _acts(stage: _Stage) -> list[tuple[float, str, Callable[[], None]]]:
    """What happens when: seconds after the start, what to tell, what to do."""
    return [
        (4.0, "the HTTP receiver is taken away", stage.kill_receiver),
        (7.0, "the sender is killed with kill -9 (owing records to http)", stage.kill_sender),
        (8.0, "the sender starts again", stage.restart_sender),
        (11.0, "the HTTP receiver is back", stage.restart_receiver),
        (14.0, "the function hangs", stage.hang_function),
        (17.0, "the sender is killed with kill -9 (in the midst of a hung call)", stage.kill_sender),
        (18.0, "the sender starts again; the function still hangs", stage.restart_sender),
        (21.0, "the function goes on", stage.free_function),
        (22.0, "the HTTP receiver freezes: it accepts requests and does not answer", stage.freeze_receiver),
        (27.0, "the HTTP receiver goes on", stage.thaw_receiver),
        (30.0, "the sender is asked to finish", stage.ask_to_stop),
    ]


class _Watch:
    """Shows how things stand, where there is a terminal to show it on."""

    def __init__(self, console: Console, folder: Path) -> None:
        self._folder = folder
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> _Watch:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def tell(self, seconds: float, text: str) -> None:
        self._console.print(f"[dim]{seconds:5.1f} s[/dim]  {text}")

    def look(self) -> None:
        if self._live:
            self._live.update(self._table(), refresh=True)

    def _table(self) -> Table:
        table = Table(title=f"{len(keys_sent(self._folder)):,} records sent")
        for column in ("target", "state", "owed", "delivered by this process", "last error"):
            table.add_column(column)
        for lane in self._status():
            values = (lane["state"], f"{lane['owed']:,}", f"{lane['delivered']:,}", (lane["last_error"] or "")[:60])
            table.add_row(lane["name"], *values)
        return table

    def _status(self) -> list[dict[str, Any]]:
        file = self._folder / "status.json"
        lanes: list[dict[str, Any]] = json.loads(file.read_text())["exporters"] if file.exists() else []
        return lanes


def _perform(stage: _Stage, watch: _Watch) -> None:
    """Play all acts at their times, then wait for the sender to end."""
    started = time.monotonic()
    for at, text, act in _acts(stage):
        while (now := time.monotonic() - started) < at:
            watch.look()
            time.sleep(min(0.2, at - now))
        watch.tell(at, text)
        act()
    deadline = time.monotonic() + _END
    while stage.sender.poll() is None and time.monotonic() < deadline:
        watch.look()
        time.sleep(0.1)
    watch.tell(time.monotonic() - started, f"the sender ended with exit code {stage.sender.poll()}")


def _show(console: Console, folder: Path) -> bool:
    """Print what the audit found; whether every promise was kept."""
    findings = audit(folder)
    table = Table(title="Read back from the targets", box=box.SIMPLE, pad_edge=False, collapse_padding=True)
    for column in ("target", "promise"):
        table.add_column(column, no_wrap=True)
    for column in ("sent", "arrived", "missing", "doubled", "out of order"):
        table.add_column(column, justify="right", no_wrap=True)
    for finding in findings:
        counts = (finding.sent, finding.arrived, finding.missing, finding.doubled, finding.disordered)
        style = "" if finding.kept_promise else "bold red"
        table.add_row(finding.target, finding.promise, *(f"{count:,}" for count in counts), style=style)
    console.print(table)
    console.print("Sent: send() had returned. A kill before that may leave one record more there.\n")
    console.print(f"The targets are in {folder}:", soft_wrap=True)
    for name, (_, file, _) in TARGETS.items():
        console.print(f"  {name:8}  {file}")
    return all(finding.kept_promise and finding.sent > 0 for finding in findings)


def main() -> int:
    """Run the demonstration; 0 when every promise was kept."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to write; by default a new temporary folder")
    folder = parser.parse_args().folder or Path(tempfile.mkdtemp(prefix="resilient-exporters-demo-"))
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        parser.error(f"{folder} is not empty")
    console = Console()
    console.print("Live readings of this machine, one pool, four targets, and trouble:")
    stage = _Stage(folder)
    try:
        with _Watch(console, folder) as watch:
            _perform(stage, watch)
        ended = stage.sender.poll() == 0
    finally:
        stage.clear()
    kept = _show(console, folder)
    if not ended:
        console.print(f"The sender did not end well:\n{(folder / 'log.txt').read_text()[-2000:]}", markup=False)
    good = kept and ended
    console.print("\n[bold green]Every promise was kept.[/]" if good else "\n[bold red]A promise was broken.[/]")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
