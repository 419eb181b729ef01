"""What a declared model's loss does not reach, with the declaration that says it is meant.

Tests: ``tests/unit/test_running_checks.py``, ``test_grad_places.py`` and ``test_model_checks.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..messages.findings import Finding
from ..messages.rendering import HINTS
from ..messages.wording import shorten
from ..parameters.running.gradstate import GradState
from ..parameters.running.unreached import Missing
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.subject.select import matching
from .reach import Hints, not_reached

_SAID_BY_A_DECLARATION = Hints(unused="", zero="", first_step="")
#: How many patterns a hint spells out.
_PATTERNS = 8


def missing_of_a_case(
    found: Sequence[Missing], inventory: Inventory, asked: Sequence[Entry], guessed: str = ""
) -> list[Finding]:
    """One finding for each parameter that was not reached, with the line that declares it.

    What repairs comes first, where it is known. ``guessed`` says whose inputs it was run on where
    nobody declared them: others may reach more.
    """
    findings = not_reached(found, _SAID_BY_A_DECLARATION)
    meant = [_can_be_meant(one) for one in found]
    patterns = patterns_for(
        [one.entry for one, can in zip(found, meant, strict=True) if can], inventory, asked
    )
    shown = shorten([f'"{pattern}"' for pattern in patterns], _PATTERNS)
    declare = f"if this loss is not supposed to reach it: ModelCase(unreached=[{shown}])"
    if guessed:
        declare = f"where others than the {guessed} reach it: ModelCase(inputs=...); {declare}"
    kinds = [one.reason.kind if one.reason else None for one in found]
    repaired = [k for k, f, can in zip(kinds, findings, meant, strict=True) if can and f.hint]
    # What only silences comes last: behind the last repair that is shown, where there is one.
    last = [*dict.fromkeys(repaired)][:HINTS][-1] if repaired else None
    said = []
    for finding, kind, can in zip(findings, kinds, meant, strict=True):
        if can and (not repaired or kind == last):
            hint = f"{finding.hint}; or, {declare}" if finding.hint else declare
            finding = replace(finding, hint=hint)
        said.append(finding)
    return said


def _can_be_meant(one: Missing) -> bool:
    """Whether it may be right that this loss does not reach a parameter."""
    broken = one.reason is not None and one.reason.kind in ("untrainable", "nonfinite")
    return not (broken or one.elsewhere or one.state is GradState.NONFINITE)


def patterns_for(
    entries: Sequence[Entry], inventory: Inventory, asked: Sequence[Entry]
) -> list[str]:
    """Return patterns that select these of the entries asked about and no other."""
    wanted = set(entries)
    others = set(asked) - wanted

    def fits(pattern: str) -> bool:
        return others.isdisjoint(matching(inventory, pattern))

    found: dict[str, None] = {}
    covered: set[Entry] = set()
    for entry in entries:
        if entry not in covered:
            pattern = next(p for p in _from_the_top(entry.name) if p == entry.name or fits(p))
            found[pattern] = None
            covered.update(matching(inventory, pattern))
    folded = list(dict.fromkeys(_numbers_folded(found, fits)))
    return ["*"] if len(folded) > 1 and not others else folded


def _from_the_top(name: str) -> Iterable[str]:
    parts = name.split(".")
    return (".".join(parts[: number + 1]) for number in range(len(parts)))


def _numbers_folded(patterns: Iterable[str], fits: object) -> Iterable[str]:
    """Yield a glob for patterns that differ in numbers only, where it selects nothing else."""
    listed = list(patterns)
    alike: dict[str, int] = {}
    for pattern in listed:
        alike[_glob(pattern)] = alike.get(_glob(pattern), 0) + 1
    for pattern in listed:
        glob = _glob(pattern)
        yield glob if alike[glob] > 1 and callable(fits) and fits(glob) else pattern


def _glob(pattern: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in pattern.split("."))
