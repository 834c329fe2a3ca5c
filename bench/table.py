"""Makes the tables: medians with minimum and maximum over the rounds, and whether each aim was reached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from bench.rows import Failed, NotRun, Outcome, Round, Row, needs
from bench.subject import Measurement

__all__ = ["aims", "details", "shown"]

Rounds = Sequence[Mapping[str, Outcome]]


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


def aims(rows: Iterable[Row], rounds: Rounds, guarantees: Mapping[str, str]) -> str:
    """The table of aims; rows of which nothing was measured are left out.

    Args:
        rows: The aims.
        rounds: For each round the outcome of each measurement made in it.
        guarantees: What a returned call guarantees, by measurement.
    """
    lines = []
    for row in rows:
        values, reasons = _values(row, rounds)
        if not values and not reasons:
            continue
        name = needs(row, ())[0]
        found = f"{spread(values)} {row.unit}".rstrip() if values else f"failed: {reasons[0]}"
        lines.append([row.text, found, _aim(row), _verdict(row, values, reasons), guarantees.get(name, "")])
    return _table(["measured", "median (min to max)", "aim", "", "a returned call guarantees"], lines)


def details(measurements: Iterable[Measurement], rounds: Rounds) -> str:
    """A table for each section, with all figures of its measurements."""
    sections: dict[str, list[Measurement]] = {}
    for each in measurements:
        if any(each.name in outcomes for outcomes in rounds):
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
    figures: dict[str, None] = {}
    for outcomes in found.values():
        for outcome in outcomes:
            figures.update(dict.fromkeys(outcome if not isinstance(outcome, str) else ()))
    columns = list(figures) or ["figures"]
    lines = [[each.name, *_cells(columns, found[each.name]), each.guarantee] for each in members]
    return _table(["subject", *columns, "a returned call guarantees"], lines)


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


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
