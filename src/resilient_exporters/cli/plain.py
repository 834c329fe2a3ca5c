"""What commands print for programs: JSON, one value per line; and short forms of data for people."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from resilient_exporters.exceptions import DataTypeError, SpoolError
from resilient_exporters.exporters.lines import as_json
from resilient_exporters.spool.peek import Kept
from resilient_exporters.spool.repair import Repaired
from resilient_exporters.spool.report import Audit

__all__ = ["audit_fields", "cut", "kept_fields", "line", "plain", "repair_fields", "shown", "status_fields"]


def line(value: Any) -> str:
    """A value as one line of JSON, without a newline."""
    return as_json(value).decode()


def status_fields(found: Audit) -> dict[str, Any]:
    """What is owed and dead, by exporter."""
    return {
        "path": found.path,
        "holder": found.holder,
        "size": found.size,
        "owed": found.owed,
        "dead": found.dead,
        "exporters": [asdict(lane) for lane in found.lanes],
    }


def audit_fields(found: Audit) -> dict[str, Any]:
    """All that an audit tells."""
    files = [{**asdict(file), "gaps": [gap._asdict() for gap in file.gaps]} for file in found.files]
    spool = None if found.spool is None else f"{found.spool:016x}"
    for file in files:
        file["runs"] = [f"{run:016x}" for run in file["runs"]]
    said = {"sound": found.sound, "lost": found.lost, "at": found.at, "spool": spool}
    return {**status_fields(found), **said, "files": files, "findings": [asdict(finding) for finding in found.findings]}


def repair_fields(done: Repaired) -> dict[str, Any]:
    """What a repair did, and what the spool was and is."""
    return {"done": done.done, "before": audit_fields(done.before), "after": audit_fields(done.after)}


def kept_fields(kept: Kept) -> dict[str, Any]:
    """A record; where its data has no form in JSON, `error` stands in the place of `data`."""
    said = {
        "id": str(kept.id),
        "time": kept.time,
        "exporters": kept.lanes,
        "expires": kept.expires,
        "transformed": not kept.raw,
    }
    try:
        whole = {**said, "kwargs": kept.kwargs, "data": kept.data}
        as_json(whole)
    except (DataTypeError, SpoolError) as error:
        return {**said, "error": str(error)}
    return whole


def shown(value: Any, width: int) -> str:
    """A value in a table: JSON without anything that a terminal would obey, cut where it is too long."""
    try:
        text = line(value)
    except DataTypeError as error:
        text = f"({error})"
    return cut(plain(text), width)


def plain(text: str) -> str:
    """Text without anything that a terminal would obey."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def cut(text: str, width: int) -> str:
    """Text of at most so many characters."""
    return text if len(text) <= width else f"{text[: width - 1]}…"
