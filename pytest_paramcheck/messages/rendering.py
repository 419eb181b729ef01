"""Findings -> text: names first, folded, aligned, ten rows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from .findings import Finding
from .wording import fold, fold_names, printable, shorten

#: How many rows a failure shows, and how many lines of one finding; None shows all of them.
MAX_ROWS = 10
#: Names wider than this do not push the texts of all other rows to the right.
LABEL_WIDTH = 44
NAMES_IN_HEADLINE = 4
HINTS = 3


def render(findings: Sequence[Finding], subject: str = "", max_rows: int | None = MAX_ROWS) -> str:
    """Return the whole text of a failure.

    The first line alone says what is wrong with which parameters, because pytest's short
    summary shows no more. Then all findings, one row each, repeated layers folded, at most
    ``max_rows`` of them, and the hints.
    """
    subject = printable(subject)
    by_problem: dict[str, list[Finding]] = {}
    for finding in map(_escaped, findings):
        by_problem.setdefault(finding.problem, []).append(finding)

    lines = [headline(by_problem, subject), ""]
    room = max_rows
    hidden = 0
    for problem, group in by_problem.items():
        indent = "  "
        if len(by_problem) > 1:
            lines.append(f"  {problem}:")
            indent = "    "
        shown, left_out = _rows(group, room, max_rows)
        if room is not None:
            room -= sum(1 for row in shown if row.starts)
        hidden += left_out
        lines.extend((indent + row.text).rstrip() for row in shown)
        if len(by_problem) > 1 and not shown:
            lines.pop()
    if hidden:
        lines.append(f"  ... and {hidden} more (-vv shows all)")
    hints = list(dict.fromkeys(printable(f.hint) for f in findings if f.hint))
    if hints:
        if lines[-1]:
            lines.append("")
        lines.extend(f"  hint: {hint}" for hint in (hints if max_rows is None else hints[:HINTS]))
    return "\n".join(lines).rstrip()


def _escaped(finding: Finding) -> Finding:
    """Return a finding without what a terminal would act on: its names may be a file's."""
    texts = (finding.problem, finding.expected, finding.found, finding.why, finding.hint)
    pieces = itertools.chain(finding.names, texts, *finding.rows)
    if all(map(str.isprintable, pieces)):
        return finding
    problem, expected, found, why, hint = map(printable, texts)
    names = tuple(map(printable, finding.names))
    rows = tuple((printable(label), printable(text)) for label, text in finding.rows)
    return Finding(names, problem, expected, found, why, hint, rows)


def headline(by_problem: dict[str, list[Finding]], subject: str) -> str:
    """Return ``problem: names; problem: names (subject)``."""
    parts = []
    for problem, group in by_problem.items():
        names = fold_names(dict.fromkeys(name for f in group for name in f.names))
        parts.append(f"{problem}: {shorten(names, NAMES_IN_HEADLINE)}" if names else problem)
    return "; ".join(parts) + (f" ({subject})" if subject else "")


class _Row:
    __slots__ = ("starts", "text")

    def __init__(self, text: str, starts: bool = True) -> None:
        self.text = text
        self.starts = starts


def _rows(group: list[Finding], room: int | None, max_rows: int | None) -> tuple[list[_Row], int]:
    """Return the rows of the findings of one problem, and how many findings have none."""
    plain = fold((_label(f.names, max_rows), f.text()) for f in group if not f.rows)
    blocks = [f for f in group if f.rows]
    shown = plain if room is None else plain[: max(room, 0)]
    hidden = sum(count for _, _, count in plain[len(shown) :])
    # A finding about no parameter in particular may have said it all in the headline.
    told = [(name, text) for name, text, _ in shown if name or text]
    rows = [_Row(line) for line in align(told)]
    if room is not None:
        room -= len(shown)
    for number, finding in enumerate(blocks):
        if room is not None and number >= room:
            hidden += len(blocks) - number
            break
        if rows:
            rows.append(_Row("", starts=False))
        rows.extend(_block(finding, max_rows))
    return rows, hidden


def _label(names: Sequence[str], max_rows: int | None) -> str:
    """Return the names of one parameter; of thousands (a tie group can have them), the first."""
    if max_rows is None or len(names) <= NAMES_IN_HEADLINE:
        return ", ".join(names)
    return shorten(fold_names(names), NAMES_IN_HEADLINE)


def _block(finding: Finding, max_rows: int | None) -> list[_Row]:
    shown = finding.rows if max_rows is None else finding.rows[:max_rows]
    lines = align(shown)
    if len(shown) < len(finding.rows):
        lines.append(f"... and {len(finding.rows) - len(shown)} more (-vv shows all)")
    if said := finding.text():
        lines.append(said)
    return [_Row(line, starts=number == 0) for number, line in enumerate(lines)]


def align(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Return the rows with their texts in one column."""
    width = max((len(label) for label, _ in rows if len(label) <= LABEL_WIDTH), default=0)
    gap = "  " if width or any(label for label, _ in rows) else ""
    return [f"{label:<{width}}{gap}{text}".rstrip() for label, text in rows]
