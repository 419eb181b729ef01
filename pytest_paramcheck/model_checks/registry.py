"""The whole-model checks, gathered from the files that define them."""

from __future__ import annotations

from types import ModuleType

from . import as_built, conventions, copies, moves, resume, running, wrapped
from .check import Check


def _defined_in(module: ModuleType) -> list[Check]:
    """Return the checks of a module in their order of definition, not those it imports."""
    return [
        found
        for found in vars(module).values()
        if isinstance(found, Check) and found.run.__module__ == module.__name__
    ]


#: Every registered check, in the order in which they are collected.
CHECKS: dict[str, Check] = {
    check.name: check
    for module in (as_built, conventions, running, resume, copies, moves, wrapped)
    for check in _defined_in(module)
}
