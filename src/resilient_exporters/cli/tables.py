"""What commands print for people: tables, drawn with rich."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from resilient_exporters.cli.plain import cut, plain, shown
from resilient_exporters.exceptions import SpoolError
from resilient_exporters.exporters.deadletters import DeadLetter
from resilient_exporters.spool.peek import Kept
from resilient_exporters.spool.repair import Repaired
from resilient_exporters.spool.report import Audit

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_audit", "print_kept", "print_letters", "print_repair", "print_status"]

_WIDE = 160
"""Columns when the output goes to a file or a pipe."""
_DATA = 60
"""Characters of a record's data that are shown."""
_REASON = 60
"""Characters of a reason that are shown."""
_STYLES = {"note": "dim", "warning": "yellow", "damage": "bold red"}


def print_status(found: Audit) -> None:
    """What is owed and dead, by exporter."""
    console = _console()
    rows = [
        (plain(lane.name), f"{lane.owed:,}", _size(lane.owed_bytes), _age(found.at, lane.oldest), f"{lane.dead:,}")
        for lane in found.lanes
    ]
    _print(console, ("exporter", "owed", ">size", "oldest", ">dead"), rows)
    holder = f"; held, now or last, by {plain(found.holder)}" if found.holder else ""
    _say(console, f"{plain(found.path)}: {_size(found.size)} in {len(found.files)} files{holder}")


def print_audit(found: Audit) -> None:
    """Files, lanes and findings."""
    console = _console()
    rows = [
        (
            plain(file.name),
            file.kind,
            _size(file.size),
            "" if file.segment is None else str(file.segment),
            f"{file.records:,}" if file.segment is not None else "",
            str(len(file.gaps) or ""),
            {True: "agrees", False: "differs", None: ""}[file.footer],
        )
        for file in found.files
    ]
    _print(console, ("file", "kind", ">size", ">segment", ">records", ">gaps", "footer"), rows)
    lanes = [
        (
            plain(lane.name),
            f"{lane.owed:,}",
            _size(lane.owed_bytes),
            f"{lane.cursor:,}",
            str(lane.ranges),
            f"{lane.dead:,}",
        )
        for lane in found.lanes
    ]
    _print(console, ("exporter", ">owed", ">size", ">cursor", ">ranges", ">dead"), lanes)
    _print_findings(console, found)


def _print_findings(console: Console, found: Audit) -> None:
    for finding in found.findings:
        _say(console, f"{finding.severity}: {plain(finding.file)}: {plain(finding.text)}", _STYLES[finding.severity])
    lost = f"; {found.lost:,} records are lost" if found.lost else ""
    _say(console, "sound" if found.sound else f"not sound{lost}", "green" if found.sound else "bold red")


def print_repair(done: Repaired) -> None:
    """What a repair did, and how the spool is now."""
    console = _console()
    for sentence in done.done or ("nothing was to be done",):
        _say(console, f"- {plain(sentence)}")
    _print_findings(console, done.after)


def print_kept(records: Iterable[Kept]) -> None:
    """Records, a row each."""
    rows = [(str(kept.id), _when(kept.time), plain(", ".join(kept.lanes)), _content(kept)) for kept in records]
    _print(_console(), ("id", "accepted", "owed to", "data"), rows)


def print_letters(letters: Iterable[DeadLetter]) -> None:
    """Dead letters, a row each."""
    rows = [
        (
            plain(letter.exporter),
            str(letter.id),
            _when(letter.time),
            str(letter.attempts),
            cut(plain(letter.reason), _REASON),
            _content(letter),
        )
        for letter in letters
    ]
    _print(_console(), ("exporter", "id", "refused", ">attempts", "reason", "data"), rows)


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDE)


def _print(console: Console, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Draw a table; a column whose name begins with `>` holds numbers."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    for row in rows:
        # As text, not markup: brackets in data mean nothing here.
        table.add_row(*map(Text, row))
    console.print(table)


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(text, style=style, markup=False, soft_wrap=True)


def _content(record: Kept | DeadLetter) -> str:
    try:
        kwargs, data = record.kwargs, record.data
    except SpoolError as error:
        return f"({error})"
    return shown(data, _DATA) + (f"  with {shown(kwargs, _DATA)}" if kwargs else "")


def _when(moment: float) -> str:
    return datetime.fromtimestamp(moment).astimezone().isoformat(" ", "seconds")


def _age(now: float, moment: float | None) -> str:
    if moment is None:
        return ""
    seconds = max(now - moment, 0.0)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
