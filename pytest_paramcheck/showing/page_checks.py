"""The results of whole-model checks, put into the data of a page, findings beside their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..messages.findings import Finding
from ..messages.wording import printable

#: Where in the data of a parameter the numbers of its findings stand.
FINDINGS = 16


def add_checks(
    data: dict[str, Any],
    findings: Sequence[tuple[str, Finding]],
    checks: Sequence[Mapping[str, str]] = (),
) -> None:
    """Put findings, each with the name of its check, and outcomes of checks into a page's data.

    A finding stands in the rows of the parameters that it names, by any of their names.
    """
    data["findings"] = [_finding(check, finding) for check, finding in findings]
    data["checks"] = [{key: printable(text) for key, text in one.items()} for one in checks]
    rows = data["parameters"]
    prefixes = [f"{name}." if name else "" for name, *_ in data["modules"]]
    at: dict[str, int] = {}
    for number, row in enumerate(rows):
        at[prefixes[row[1]] + row[0]] = number
        for name, _ in (row[14] if len(row) > 14 else None) or ():
            at[name] = number
    told: dict[int, list[int]] = {}
    for position, finding in enumerate(data["findings"]):
        for number in dict.fromkeys(at[name] for name in finding["names"] if name in at):
            told.setdefault(number, []).append(position)
    for number, positions in told.items():
        row = rows[number]
        row += [None] * (FINDINGS + 1 - len(row))
        row[FINDINGS] = positions


def _finding(check: str, finding: Finding) -> dict[str, Any]:
    return {
        "check": printable(check),
        "names": [*map(printable, finding.names)],
        "problem": printable(finding.problem),
        "text": printable(finding.text()),
        "hint": printable(finding.hint),
        "rows": [[printable(label), printable(text)] for label, text in finding.rows],
    }
