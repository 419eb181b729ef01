"""What holds of a model, measured over several seeds, in the terms of a :class:`ModelCase`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ..checks.reach import Hints, not_reached
from ..checks.reach_of_a_case import patterns_for
from ..messages.errors import ParamCheckError
from ..messages.wording import first_line, join_words, plural
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.subject.reading import take_inventory
from ..parameters.subject.select import matching, parameters_only
from ..parameters.subject.ties import Ties
from .alike import equal_starts
from .case import ModelCase, NothingToCheck
from .check import run_check
from .inputs import NoInputs
from .inputs import failing as failing_with
from .left_out import left_out
from .missed import who_is_missed
from .needs import need_values
from .registry import CHECKS
from .run import CaseRun, inputs_of

T = TypeVar("T")
SEEDS = (0, 1, 2)
_NO_HINTS = Hints(unused="", zero="", first_step="")


@dataclass(frozen=True, slots=True)
class Line:
    """One pattern of a declaration, and why it is there."""

    pattern: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured. ``doubts``: what differed from seed to seed, or was not measured."""

    case: ModelCase
    ties: list[list[str]]
    frozen: list[Line]
    unreached: list[Line]
    alike: list[Line]
    failing: dict[str, str]
    inputs_from: str
    inputs_code: str
    doubts: list[str]


def measure(case: ModelCase) -> Measured:
    """Build and run a case from several seeds, and every check from the first.

    What a seed decides is declared for all where that passes for all, and said as a doubt.
    """
    runs = [CaseRun(case, seed) for seed in SEEDS]
    doubts: list[str] = []
    first = take_inventory(runs[0].model, allow_empty=True)
    ties = _agreed(runs, _ties, "the ties", doubts)
    frozen = _agreed(runs, _frozen, "which parameters are frozen", doubts)
    alike = _agreed(runs, _alike, "which parameters start equal", doubts)
    unreached = _unreached(runs, doubts)
    parameters = [entry for entry in first.entries if parameters_only(entry)]
    train = [entry for entry in parameters if entry.trainable]
    found = inputs_of(runs[0])
    measured = Measured(
        case,
        [list(group) for group in ties],
        _lines(first, frozen, parameters),
        _lines(first, list(unreached), train, unreached),
        _lines(first, alike, train),
        {},
        found.source,
        found.code,
        doubts,
    )
    if found.dropped:
        doubts.append(f"inputs: {found.dropped}")
    failing = _failing(declared(measured), doubts)
    return replace(measured, failing=failing)


def declared(measured: Measured) -> ModelCase:
    """Return the case with what was measured of it."""
    return replace(
        measured.case,
        ties=measured.ties,
        frozen=[line.pattern for line in measured.frozen],
        unreached=[line.pattern for line in measured.unreached],
        alike=[line.pattern for line in measured.alike],
    )


def _agreed(
    runs: Sequence[CaseRun], of: Callable[[CaseRun], list[T]], what: str, doubts: list[str]
) -> list[T]:
    """Return what is the same in all runs; what is not is left out, and said."""
    found = [of(run) for run in runs]
    agreed = [one for one in found[0] if all(one in other for other in found[1:])]
    if any(len(one) != len(agreed) for one in found):
        doubts.append(f"{what}: not the same from seed to seed")
    return agreed


def _ties(run: CaseRun) -> list[tuple[str, ...]]:
    return Ties(take_inventory(run.model, allow_empty=True)).groups


def _frozen(run: CaseRun) -> list[str]:
    entries = take_inventory(run.model, allow_empty=True).parameters
    return [entry.name for entry in entries if not entry.trainable]


def _alike(run: CaseRun) -> list[str]:
    try:
        undeclared = equal_starts(run).undeclared
    except ValueError:  # nothing to compare
        return []
    return [name for finding in undeclared for name in finding.names]


def _unreached(runs: Sequence[CaseRun], doubts: list[str]) -> dict[str, str]:
    """Return the names that the loss misses from one of the seeds at least, with the reasons."""
    reasons: dict[str, str] = {}
    seeds: dict[str, int] = {}
    for run in runs:
        try:
            need_values(run.model)
            missed = who_is_missed(run)
        except NoInputs:
            return {}
        except NothingToCheck as nothing:
            doubts.append(f"unreached: {nothing}")
            return {}
        found = missed.worth_saying
        behind = left_out(run, found, [entry.name for entry in missed.asked])
        for one, finding in zip(found, not_reached(found, _NO_HINTS), strict=True):
            why = behind.get(one.entry.name) or finding.text()
            said = ": ".join(part for part in (finding.problem, why) if part)
            reasons.setdefault(one.entry.name, said)
            seeds[one.entry.name] = seeds.get(one.entry.name, 0) + 1
    return {
        name: said if seeds[name] == len(runs) else f"{said} ({plural(seeds[name], 'seed')} of 3)"
        for name, said in reasons.items()
    }


def _lines(
    inventory: Inventory,
    names: Iterable[str],
    asked: Sequence[Entry],
    reasons: dict[str, str] | None = None,
) -> list[Line]:
    entries = [inventory.by_name[name] for name in dict.fromkeys(names)]
    patterns = patterns_for(entries, inventory, asked) if entries else []
    said = reasons or {}
    lines = []
    for pattern in patterns:
        of = [said.get(entry.name, "") for entry in matching(inventory, pattern)]
        why = list(dict.fromkeys(filter(None, of)))
        more = f"; {join_words(why[1:2])}" if len(why) == 2 else f" and {len(why) - 1} more"
        lines.append(Line(pattern, why[0] + (more if len(why) > 1 else "") if why else ""))
    return lines


def _failing(case: ModelCase, doubts: list[str]) -> dict[str, str]:
    """Run every check on what was measured; return what still fails, with its first line."""
    run = CaseRun(case, SEEDS[0])
    failing = {}
    for name, check in CHECKS.items():
        if check.applies(case):
            try:
                run_check(check, run)
            except NothingToCheck:
                continue
            except ParamCheckError as error:
                failing[name] = first_line(error)
            except Exception as error:  # whatever a model raises
                doubts.append(f"{name} raises {failing_with(error)}")
    return failing
