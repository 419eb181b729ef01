"""Which parameters of a case start with the same values, though they train and are drawn.

Tests: ``tests/unit/test_equal_starts.py`` and ``test_declaration.py``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..checks.untied import not_distinct
from ..messages.findings import Finding
from ..parameters.subject.inventory import Inventory
from ..parameters.subject.reading import take_inventory
from ..parameters.subject.select import parameters_only, select_names
from .run import CaseRun
from .seeds import following_the_seed


@dataclass(frozen=True, slots=True)
class Starts:
    """What shares memory, what is equal beyond what is declared, and all names that are equal."""

    inventory: Inventory
    shared: list[Finding]
    undeclared: list[Finding]
    same: set[str]


def equal_starts(case: CaseRun, declared: Collection[str] = ()) -> Starts:
    """Compare the parameters of a case as it is built; a constant is equal to nothing.

    Only values that follow the seed: a table that every build has again is meant to be as it is.
    """
    __tracebackhide__ = True
    inventory = take_inventory(case.model)
    tied = [f"!{name}" for names in inventory.tie_groups for name in names[1:]]
    names = select_names(inventory, tied, default=parameters_only)
    shared, every = not_distinct(inventory, names, named=declared)
    same = {name for finding in every for name in finding.names}
    train = [name for name in names if inventory.by_name[name].trainable]
    _, equal = not_distinct(inventory, train, named=declared) if every else ([], every)
    equal = [finding for finding in equal if not set(finding.names) <= set(declared)]
    drawn = following_the_seed(case, inventory, [finding.names[0] for finding in equal])
    return Starts(inventory, shared, [f for f in equal if f.names[0] in drawn], same)
