"""Makes the tables: medians with minimum and maximum over the rounds, and whether each aim was reached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from bench.profile import PROFILES, WHOLE
from bench.rows import Failed, NotRun, Outcome, Round, Row, needs
from bench.subject import Measurement

__all__ = ["Rounds", "details", "judged", "profile", "shown", "spread", "table"]

Rounds = Sequence[Mapping[str, Outcome]]

_WIDEST = 4
"""Figures that a line of a table holds; a section with more kinds of them has a line for each."""


def shown(value: float) -> str:
    """A number with three significant digits, or all digits before the point."""
    if value != 0 and abs(value) < 0.01:
        return f"{value:.2g}"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def spread(values: Sequence[float]) -> str:
    """Median, and minimum to maximum when they differ."""
    low, high = shown(min(values)), shown(max(values))
    middle = shown(median(values))
    return middle if low == high else f"{middle} ({low} to {high})"


def judged(topics: Mapping[str, Iterable[Row]], rounds: Rounds, guarantees: Mapping[str, str]) -> str:
    """The tables of aims, one for each topic; rows of which nothing was measured are left out.

    Args:
        topics: The rows.
        rounds: For each round the outcome of each measurement made in it.
        guarantees: What a returned call guarantees, by measurement.
    """
    heads = ["measured", "median (min to max)", "aim", "", "a returned call guarantees"]
    tables = {
        topic: [line for row in rows if (line := _judged(row, rounds, guarantees))] for topic, rows in topics.items()
    }
    return "\n\n".join(f"### {topic}\n\n{table(heads, lines)}" for topic, lines in tables.items() if lines)


def _judged(row: Row, rounds: Rounds, guarantees: Mapping[str, str]) -> list[str]:
    values, reasons = _values(row, rounds)
    if not values and not reasons:
        return []
    found = f"{spread(values)} {row.unit}".rstrip() if values else f"failed: {reasons[0]}"
    return [row.text, found, _aim(row), _verdict(row, values, reasons), guarantees.get(needs(row, ())[0], "")]


def profile(rounds: Rounds) -> str:
    """The tables of where the time goes, each behind a sentence; empty when nothing of it was measured."""
    found = {name: [outcomes[name] for outcomes in rounds if name in outcomes] for name in PROFILES}
    tables = [f"{PROFILES[name][0]}\n\n{_parts(name, outcomes)}" for name, outcomes in found.items() if outcomes]
    return "\n\n".join(tables)


def _parts(name: str, outcomes: Sequence[Outcome]) -> str:
    figures = [outcome for outcome in outcomes if not isinstance(outcome, str)]
    if not figures:
        return f"failed: {outcomes[0]}"
    whole = median(outcome[WHOLE] for outcome in figures)
    lines = []
    for part, text in {**PROFILES[name][1], WHOLE: "all of it"}.items():
        values = [outcome[part] for outcome in figures]
        lines.append([part, spread(values), f"{median(values) / whole:.0%}", text])
    return table(["part", "us", "share", "what it is"], lines)


def details(measurements: Iterable[Measurement], rounds: Rounds) -> str:
    """A table for each section, with all figures of its measurements."""
    sections: dict[str, list[Measurement]] = {}
    for each in measurements:
        if each.name not in PROFILES and any(each.name in outcomes for outcomes in rounds):
            sections.setdefault(each.section, []).append(each)
    return "\n\n".join(f"### {section}\n\n{_section(members, rounds)}" for section, members in sections.items())


def _values(row: Row, rounds: Rounds) -> tuple[list[float], list[str]]:
    """A row's value in each round, and the reasons of the rounds in which it has none."""
    values, reasons = [], []
    for outcomes in rounds:
        try:
            values.append(row.value(Round(outcomes)))
        except Failed as failed:
            reasons.append(str(failed))
        except NotRun:
            continue
    return values, reasons


def _aim(row: Row) -> str:
    if row.least is not None:
        return f"at least {shown(row.least)}"
    return f"at most {shown(row.most)}" if row.most is not None else ""


def _verdict(row: Row, values: Sequence[float], reasons: Sequence[str]) -> str:
    """Whether the median reaches the aim; a round that failed is never passed over in silence."""
    if not values:
        return "**failed**"
    middle = median(values)
    missed = (row.least is not None and middle < row.least) or (row.most is not None and middle > row.most)
    verdict = "" if row.least is None and row.most is None else "**missed**" if missed else "reached"
    return f"{verdict}; {len(reasons)} rounds failed: {reasons[0]}".lstrip("; ") if reasons else verdict


def _section(members: Sequence[Measurement], rounds: Rounds) -> str:
    found = {each.name: [outcomes[each.name] for outcomes in rounds if each.name in outcomes] for each in members}
    columns = _kinds(outcome for outcomes in found.values() for outcome in outcomes)
    if len(columns) > _WIDEST:
        return _one_a_line(members, found)
    lines = [[each.name, *_cells(columns or ["figures"], found[each.name]), each.guarantee] for each in members]
    return table(["subject", *(columns or ["figures"]), "a returned call guarantees"], lines)


def _one_a_line(members: Sequence[Measurement], found: Mapping[str, Sequence[Outcome]]) -> str:
    lines = [
        [each.name, kind, *_cells([kind], found[each.name]), each.guarantee]
        for each in members
        for kind in _kinds(found[each.name]) or [""]
    ]
    return table(["subject", "figure", "median (min to max)", "a returned call guarantees"], lines)


def _kinds(outcomes: Iterable[Outcome]) -> list[str]:
    """The names of all figures, in the order in which they come."""
    return list(dict.fromkeys(kind for outcome in outcomes if not isinstance(outcome, str) for kind in outcome))


def _cells(columns: Sequence[str], outcomes: Sequence[Outcome]) -> list[str]:
    """The figures of one measurement, or why there are none."""
    made = [outcome for outcome in outcomes if not isinstance(outcome, str)]
    reasons = [outcome for outcome in outcomes if isinstance(outcome, str)]
    if not made:
        return [f"failed: {reasons[0]}", *[""] * (len(columns) - 1)]
    values = [[outcome[column] for outcome in made if column in outcome] for column in columns]
    cells = [spread(each) if each else "" for each in values]
    if reasons:
        cells[0] = f"{cells[0]}; {len(reasons)} rounds failed: {reasons[0]}"
    return cells


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
