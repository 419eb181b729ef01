"""Findings -> text: names first, folded, aligned, ten rows, one screen."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from .findings import Finding, SubjectNames
from .folding import templates_of
from .headline import headline
from .rollup import Row, Whole, rows_of
from .wording import escapes_of, printable

#: How many rows a failure shows, and how many lines of one finding; None shows all of them.
MAX_ROWS = 10
#: One screen: how many lines a failure has with headline and hints.
MAX_LINES = 30
#: How many lines the details of several findings have together before each shows few.
DETAIL_LINES = 20
#: How many lines a finding shows of its details where several do not fit.
FEW_DETAILS = 3
#: Texts are broken at this width; names are not.
WIDTH = 120
#: Names wider than this do not push the texts of all other rows to the right.
LABEL_WIDTH = 44
LEAST_TEXT = 40
#: At most so many hints, and after the first one at most so many lines of them.
HINTS = 3
HINT_LINES = 12


def render(
    findings: Sequence[Finding],
    subject: str = "",
    max_rows: int | None = MAX_ROWS,
    names: SubjectNames = SubjectNames(),  # noqa: B008 - frozen
    width: int | None = WIDTH,
) -> str:
    """Return the whole text of a failure.

    The first line alone says what is wrong with which parameters, because pytest's short
    summary shows no more. Then the findings, one row each, repeated layers folded, at most
    ``max_rows`` of them and some of each problem, and the hints. ``names`` are those of the
    whole subject: where they are known, a module stands for all that is below it.
    """
    whole = Whole(names)
    findings = _escaped(findings)
    by_problem: dict[str, list[Finding]] = {}
    for finding in findings:
        by_problem.setdefault(finding.problem, []).append(finding)

    several = len(by_problem) > 1
    lines = [headline(list(by_problem.items()), printable(subject), whole), ""]
    alone = len(findings) == 1
    units = [partial(_units, group, whole, max_rows, alone=alone) for group in by_problem.values()]
    hints: list[str] = []
    for hint in _hints(findings, max_rows):
        wrapped = _wrapped("  hint: ", hint, width, 8)
        if not hints or max_rows is None or len(hints) + len(wrapped) <= HINT_LINES:
            hints += wrapped
    # Besides the rows: headline, a blank line, "... and more", a blank line, the hints.
    shown = _chosen(units, max_rows, MAX_LINES - 4 - len(hints))
    for problem, chosen in zip(by_problem, shown, strict=True):
        if several and chosen:
            lines.append(f"  {problem}:")
        # What is about no parameter in particular may have said it all in the headline.
        told = [unit for unit in chosen if unit.rows or unit.said]
        lines.extend(_lines(told, "    " if several else "  ", width))
    hidden = len(findings) - sum(unit.findings for group in shown for unit in group)
    if hidden and max_rows is not None:
        lines.append(f"  ... and {hidden} more (-vv shows all)")
    if hints:
        if lines[-1]:
            lines.append("")
        lines.extend(hints)
    return "\n".join(lines).rstrip()


def _escaped(findings: Sequence[Finding]) -> Sequence[Finding]:
    """Return findings without what a terminal would act on: their names may be a file's."""
    escapes = escapes_of("".join(itertools.chain.from_iterable(map(_texts, findings))))
    if not escapes:
        return findings
    return [
        finding if "".join(_texts(finding)).isprintable() else _escape(finding, escapes)
        for finding in findings
    ]


def _texts(finding: Finding) -> Iterator[str]:
    """Yield every text of a finding, its names and details too."""
    yield from (finding.problem, finding.expected, finding.found, finding.why, finding.hint)
    yield from finding.names
    yield from itertools.chain.from_iterable(finding.rows)


def _escape(finding: Finding, escapes: dict[int, str]) -> Finding:
    return Finding(
        tuple(name.translate(escapes) for name in finding.names),
        finding.problem.translate(escapes),
        finding.expected.translate(escapes),
        finding.found.translate(escapes),
        finding.why.translate(escapes),
        finding.hint.translate(escapes),
        tuple((label.translate(escapes), text.translate(escapes)) for label, text in finding.rows),
    )


class _Unit(NamedTuple):
    """What is shown together or not at all: a row, or a finding with its details.

    ``rows`` are labels and texts; a text below them without a label is ``said``.
    """

    rows: tuple[tuple[str, str], ...]
    findings: int
    block: bool = False
    said: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """About how many lines it takes."""
        room = WIDTH - LABEL_WIDTH - 10
        wide = sum(
            len(text) // room for label, text in self.rows if len(label) + len(text) > WIDTH - 20
        )
        said = sum(1 + len(text) // (WIDTH - 10) for text in self.said)
        return len(self.rows) + wide + said + self.block


def _units(group: list[Finding], whole: Whole, max_rows: int | None, *, alone: bool) -> list[_Unit]:
    plain = [finding for finding in group if not finding.rows]
    blocks = [finding for finding in group if finding.rows]
    rows: Iterator[Row] = rows_of(plain, whole, max_rows)
    details = max_rows
    lines = sum(min(len(f.rows), MAX_ROWS) + 2 for f in blocks)
    if max_rows is not None and not alone and lines > DETAIL_LINES:
        details = FEW_DETAILS
    units = itertools.chain(
        (_Unit(((label, text),) if label or text else (), count) for label, text, count in rows),
        (_block(finding, details) for finding in blocks),
    )
    # More than that are not shown, whatever there is room for.
    return list(itertools.islice(units, max_rows))


def _block(finding: Finding, details: int | None) -> _Unit:
    rows = finding.rows
    said = [finding.text()] if finding.text() else []
    # A line that says that one line is not shown could be that line.
    if details is not None and len(rows) > details + (details == FEW_DETAILS):
        said.insert(0, f"... and {len(rows) - details} more (-vv shows all)")
        rows = rows[:details]
    return _Unit(rows, 1, True, tuple(said))


def _chosen(
    groups: Sequence[Callable[[], list[_Unit]]], max_rows: int | None, max_lines: int
) -> list[list[_Unit]]:
    """Return the units that are shown: the first of each problem, then the second of each.

    Those of a problem are made when its turn comes: of thousands, most have none.
    """
    if max_rows is None:
        return [make() for make in groups]
    chosen: list[list[_Unit]] = [[] for _ in groups]
    units: dict[int, list[_Unit]] = {}
    room, lines = max_rows, max_lines
    for rank in range(max_rows):
        for number, own in enumerate(chosen):
            if not room or lines <= 0:
                return chosen
            if number not in units:
                units[number] = groups[number]()
            group = units[number]
            if rank >= len(group) or len(own) < rank:
                continue
            size = group[rank].size + (len(groups) > 1 and rank == 0)
            if size <= lines or lines == max_lines:
                own.append(group[rank])
                room -= 1
                lines -= size
    return chosen


def _lines(units: list[_Unit], indent: str, width: int | None) -> list[str]:
    """Return the lines of what is shown of one problem; details are set apart."""
    plain = [row for unit in units if not unit.block for row in unit.rows]
    lines = _aligned(plain, indent, width)
    for unit in units:
        if not unit.block:
            continue
        if lines:
            lines.append("")
        lines += _aligned(unit.rows, indent, width)
        for said in unit.said:
            lines += _wrapped(indent, said, width, len(indent) + 2)
    return lines


def align(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Return the rows with their texts in one column."""
    return _aligned(rows, "", None)


def _aligned(rows: Sequence[tuple[str, str]], indent: str, width: int | None) -> list[str]:
    column = max((len(label) for label, _ in rows if len(label) <= LABEL_WIDTH), default=0)
    gap = "  " if column or any(label for label, _ in rows) else ""
    return [
        line
        for label, text in rows
        for line in _wrapped(
            f"{indent}{label:<{column}}{gap}", text, width, len(indent) + column + len(gap)
        )
    ]


def _wrapped(start: str, text: str, width: int | None, below: int) -> list[str]:
    """Return a text behind what it starts with, broken into lines at the width."""
    if width is None or len(start) + len(text) <= width or not text:
        return [(start + text).rstrip()]
    # Behind a name that is nearly as wide as the line there is no room for a text.
    alone = len(start) > width - LEAST_TEXT
    lines = [start.rstrip()] if alone else []
    return lines + [
        line.rstrip()
        for line in textwrap.wrap(
            text,
            width,
            initial_indent=" " * below if alone else start,
            subsequent_indent=" " * below,
            break_long_words=False,
            break_on_hyphens=False,
            drop_whitespace=True,
        )
    ]


def _hints(findings: Sequence[Finding], max_rows: int | None) -> list[str]:
    """Return what to do, once for all that differ by numbers only; ``-vv`` shows each."""
    hints = list(dict.fromkeys(finding.hint for finding in findings if finding.hint))
    if max_rows is None:
        return hints
    alike: dict[str, list[str]] = {}
    for hint, template in zip(hints, templates_of(hints), strict=True):
        alike.setdefault(template, []).append(hint)
    return [
        group[0] + (f" (and {len(group) - 1} more like it)" if len(group) > 1 else "")
        for group in list(alike.values())[:HINTS]
    ]
