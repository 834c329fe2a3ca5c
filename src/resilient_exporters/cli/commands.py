"""The commands: arguments in, the library's calls, tables or JSON out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

import click

from resilient_exporters.cli.endings import Ending, told
from resilient_exporters.cli.plain import audit_fields, kept_fields, line, repair_fields, status_fields
from resilient_exporters.exporters.deadletters import letter_line
from resilient_exporters.exporters.spoolletters import SpoolLetters
from resilient_exporters.spool.audit import audit
from resilient_exporters.spool.peek import peek
from resilient_exporters.spool.repair import repair

__all__ = ["commands"]

_F = TypeVar("_F", bound=Callable[..., Any])
_path = click.argument("path", metavar="SPOOL", type=click.Path())
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def _moment(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """Seconds since the epoch, or ISO 8601; without a time zone it is local."""
    if value is None:
        return None
    with suppress(ValueError):
        return float(value)
    with suppress(ValueError):
        return datetime.fromisoformat(value).timestamp()
    raise click.BadParameter(f"{value!r} is neither seconds since the epoch nor a moment as 2026-01-31T12:00")


def _filters(command: _F) -> _F:
    """The options that choose dead letters."""
    for option in (
        click.option(
            "--until",
            metavar="MOMENT",
            callback=_moment,
            help="Refused before then: seconds since the epoch, or ISO 8601.",
        ),
        click.option(
            "--since",
            metavar="MOMENT",
            callback=_moment,
            help="Refused then or later: seconds since the epoch, or ISO 8601.",
        ),
        click.option("--reason", help="The reason contains this text."),
        click.option("--exporter", metavar="NAME", help="Of this exporter, or of those in the pool of this name."),
    ):
        command = option(command)
    return command


@click.group(epilog="Exit codes: 0 ok, 1 findings, 2 usage, 3 not a spool, 4 held by a live pool, 5 other trouble.")
@click.version_option(package_name="resilient-exporters")
def commands() -> None:
    """Look into a spool: the file given as tmp_file, or a copy of it with its siblings.

    status, peek, verify, dead list and dead export work on live spools, too; they take no lock and change nothing.
    repair, dead replay and dead drop need a spool that no program holds.
    """


@commands.command(epilog="Example: resilient-exporters status unsent.spool")
@_path
@_json
def status(path: str, as_json: bool) -> None:
    """Tell what each exporter is owed, and how many dead letters there are."""
    with told():
        found = audit(path, deep=False)
    if as_json:
        click.echo(line(status_fields(found)))
    else:
        from resilient_exporters.cli.tables import print_status

        print_status(found)


@commands.command("peek", epilog="Example: resilient-exporters peek unsent.spool --exporter orders --limit 3")
@_path
@click.option("--exporter", metavar="NAME", help="Only what this exporter is owed.")
@click.option("--limit", type=click.IntRange(min=1), default=10, show_default=True, help="At most so many records.")
@_json
def peek_command(path: str, exporter: str | None, limit: int, as_json: bool) -> None:
    """Show the oldest records that are owed; with --json one line each."""
    with told():
        records = list(peek(path, exporter, limit))
    if as_json:
        for kept in records:
            click.echo(line(kept_fields(kept)))
    else:
        from resilient_exporters.cli.tables import print_kept

        print_kept(records)


@commands.command(epilog="Example: resilient-exporters verify unsent.spool && echo all is well")
@_path
@_json
def verify(path: str, as_json: bool) -> None:
    """Read every byte, and tell what is wrong; exit code 1 when something is."""
    with told():
        found = audit(path)
    if as_json:
        click.echo(line(audit_fields(found)))
    else:
        from resilient_exporters.cli.tables import print_audit

        print_audit(found)
    sys.exit(Ending.OK if found.sound else Ending.FINDINGS)


@commands.command("repair", epilog="Example: resilient-exporters repair unsent.spool")
@_path
@_json
def repair_command(path: str, as_json: bool) -> None:
    """Make a stopped spool whole: what can be read stays, what cannot is set aside in SPOOL.damaged.N.

    Exit code 1 when something is wrong still.
    """
    with told():
        done = repair(path)
    if as_json:
        click.echo(line(repair_fields(done)))
    else:
        from resilient_exporters.cli.tables import print_repair

        print_repair(done)
    sys.exit(Ending.OK if done.after.sound else Ending.FINDINGS)


@commands.group()
def dead() -> None:
    """Dead letters: records that their targets refused for good."""


@dead.command("list", epilog="Example: resilient-exporters dead list unsent.spool --reason 'no such column'")
@_path
@_filters
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
@_json
def list_command(path: str, limit: int | None, as_json: bool, **filters: Any) -> None:
    """List dead letters, oldest first; with --json one line each."""
    with told():
        letters = list(islice(SpoolLetters(path).list(**filters), limit))
    if as_json:
        click.echo(b"".join(map(letter_line, letters)), nl=False)
    else:
        from resilient_exporters.cli.tables import print_letters

        print_letters(letters)


@dead.command(epilog="Example: resilient-exporters dead replay unsent.spool --exporter orders")
@_path
@_filters
@_json
def replay(path: str, as_json: bool, **filters: Any) -> None:
    """Have dead letters of a stopped spool sent again, to the same exporter, when a pool opens the spool.

    Without a filter all of them.
    """
    with told():
        _tell("replayed", SpoolLetters(path).replay(**filters), as_json)


@dead.command(epilog="Example: resilient-exporters dead export unsent.spool refused.ndjson --since 2026-01-31")
@_path
@click.argument("target", type=click.Path(dir_okay=False))
@_filters
@_json
def export(path: str, target: str, as_json: bool, **filters: Any) -> None:
    """Add dead letters to the file TARGET, one line of JSON each; they stay dead letters."""
    with told():
        _tell("exported", SpoolLetters(path).export(target, **filters), as_json)


@dead.command(epilog="Example: resilient-exporters dead drop unsent.spool --until 2026-01-31")
@_path
@_filters
@click.option("--all", "everything", is_flag=True, help="Drop all of them; needed when no filter is given.")
@_json
def drop(path: str, everything: bool, as_json: bool, **filters: Any) -> None:
    """Throw dead letters of a stopped spool away."""
    if everything == _any(filters.values()):
        raise click.UsageError("give a filter, or --all to drop all dead letters")
    with told():
        _tell("dropped", SpoolLetters(path).drop(**filters), as_json)


def _any(values: Iterable[Any]) -> bool:
    return any(value is not None for value in values)


def _tell(what: str, number: int, as_json: bool) -> None:
    click.echo(line({what: number}) if as_json else f"{what} {number} dead letter{'' if number == 1 else 's'}")
